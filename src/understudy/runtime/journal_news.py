"""What is worth a line in the journal, and what must be on the disk before anything is done about it."""

from collections.abc import Iterator

from understudy.core.claim import Claim
from understudy.core.model import NEVER, State
from understudy.core.observations import Round, Seen

from .journal_rows import Votes, votes_of

NOT_READ = "not read"  # core.evidence: what begins so is no trouble yet, only a process that has just started.


def news(before: State, after: State, seen: Seen) -> Iterator[tuple[str, str]]:
    """Kinds and sentences, of what was seen and is no decision."""
    old, new = before.evidence, after.evidence
    if seen.booted:
        yield "boot", "the machine has booted"
    if seen.started:
        yield "agent", "the agent started"
    if seen.voided:
        yield "voided", f"nothing that was seen before counts any longer: {seen.voided}"
    if new.pbx is not old.pbx:
        yield "pbx", f"the PBX here is {new.pbx}"
    trouble = new.claim_trouble
    if trouble is not old.claim_trouble and _gist(trouble) != _gist(old.claim_trouble):
        yield "claim-trouble", trouble or "the claim can be read"
    if new.claim is not None and new.claim is not old.claim:
        text = _claim_news(old.claim, new.claim)
        if text:
            yield "claim", text


def votes(state: State, asked: Round | None, asked_wall: float | None, now: float) -> Votes:
    """What a decision at boot time `now` rests on."""
    evidence = state.evidence
    down = evidence.down_since
    return Votes(
        asked=asked_wall,
        mine=evidence.mine,
        theirs=evidence.theirs,
        votes=votes_of(asked),
        claim=evidence.claim,
        claim_trouble=evidence.claim_trouble,
        pbx=evidence.pbx,
        patience=now - down if down != NEVER else 0.0,
    )


def shifted(before: State, after: State) -> bool:
    """A fact that a next process (cron: one per round) must know, though nothing is decided about it."""
    old, new = before.evidence, after.evidence
    return (new.claim is not old.claim and new.claim != old.claim) or bool(
        new.claim_trouble
    ) != bool(old.claim_trouble)


def is_durable(before: State, after: State, seen: Seen) -> bool:
    return (
        seen.started
        or seen.booted
        or seen.voided != ""
        or after.epoch != before.epoch
        or (after.lineage is not before.lineage and after.lineage != before.lineage)
    )


def _gist(trouble: str) -> str:
    """Two troubles that differ in a number are one."""
    return (
        ""
        if trouble.startswith(NOT_READ)
        else "".join(each for each in trouble if not each.isdigit())
    )


def _claim_news(old: Claim | None, new: Claim) -> str:
    if old is None or (old.node, old.epoch) != (new.node, new.epoch):
        return f"the claim names {new.node}, epoch {new.epoch} ({new.how})"
    if new.announced != old.announced:
        announced = f"{new.announced} has announced that it is about to take over"
        return announced if new.announced else f"{old.announced}'s announcement is gone"
    if new.pause != old.pause:
        return "automatic failover is paused" if new.pause else "automatic failover is on again"
    if new.digest != old.digest:
        return "another configuration holds"
    return ""
