"""What is so, for `status`, `check`, `answer status` and the plans of orders: read once, judged once."""

import asyncio
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from understudy.core.claim import Claim
from understudy.core.model import NEVER, SERVING, Evidence, Phase, State
from understudy.core.observations import ClaimReading, Pbx, PeerAnswer, Ready, Report
from understudy.core.policy import Policy
from understudy.core.votes import Verdict, verdict
from understudy.errors import AdapterError, JournalError
from understudy.ports import Moment
from understudy.runtime.daemon import Node
from understudy.runtime.journal import BEAT
from understudy.runtime.journal_rows import Event, RoundRow

from .session import about, clock

PEER_WITHIN = 4.0  # Seconds that `status` waits for the other node.


class Weight(StrEnum):
    """How bad something is."""

    WARNING = "warning"  # Calls are answered; a person should look.
    CRITICAL = "critical"  # Calls are not answered, or would not be after the next failure.


@dataclass(frozen=True, slots=True)
class Trouble:
    weight: Weight
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One node, as a command finds it.  What could not be read is None, with the reason."""

    policy: Policy
    at: Moment
    where: str  # The claim is.
    reading: ClaimReading | None = None  # None: not asked.
    state: State | None = None
    round: RoundRow | None = None
    events: tuple[Event, ...] = ()
    journal_trouble: str = ""
    agent_pid: int | None = None
    heartbeat: float | None = None  # Wall clock.
    same_boot: bool = True  # Does `state` count in this life of the machine?
    peer: PeerAnswer | None = None
    peer_trouble: str = ""
    glass: bool = False
    reports: dict[str, tuple[Report, ...]] = field(default_factory=dict)  # Asked just now.

    @property
    def claim(self) -> Claim | None:
        """What was just read; else what the agent last read."""
        if self.reading is not None and self.reading.claim is not None:
            return self.reading.claim
        return self.evidence.claim

    @property
    def claim_trouble(self) -> str:
        return self.reading.trouble if self.reading is not None else self.evidence.claim_trouble

    @property
    def evidence(self) -> Evidence:
        return self.state.evidence if self.state is not None and self.same_boot else Evidence()

    @property
    def agent_is_alive(self) -> bool:
        """It runs, or cron ran it a moment ago."""
        if self.agent_pid is not None:
            return True
        age = self.heartbeat_age
        return age is not None and age <= 2 * self.policy.interval + self.policy.question

    @property
    def heartbeat_age(self) -> float | None:
        return None if self.heartbeat is None else max(self.at.wall - self.heartbeat, 0.0)

    def age(self, boot: float) -> float | None:
        """Seconds since a boot-time instant; None if it never was."""
        return None if boot == NEVER else max(self.at.boot - boot, 0.0)

    def wall(self, boot: float) -> float | None:
        return None if boot == NEVER else self.at.wall - (self.at.boot - boot)

    def heard(self, node: str) -> Verdict:
        """What the reports that were asked just now amount to."""
        return verdict(self.reports.get(node, ()), self.policy)

    @property
    def standby(self) -> str:
        claim, policy = self.claim, self.policy
        return policy.peer if claim is None or claim.node == policy.me else policy.me


async def gather(node: Node, *, peer: bool = False, ask: bool = False, events: int = 5) -> Facts:
    """Read the journal and the claim; with `peer` ask the other node, with `ask` the check points.  Never raises."""
    policy = node.policy
    journal = _journal_facts(node, events)
    known = journal["state"].evidence.claim if journal.get("state") else None
    reading, reports = await asyncio.gather(
        node.keeper().read(known), ask_all(node) if ask else _nothing()
    )
    facts = Facts(
        policy=policy,
        at=node.clock.now(),
        where=node.store.where,
        reading=reading,
        agent_pid=node.agent_pid,
        glass=node.glass_is_broken(),
        reports=reports,
        **journal,
    )
    if not peer or facts.claim is None or facts.claim.node != policy.me:
        return facts
    try:
        async with asyncio.timeout(PEER_WITHIN):
            return replace(facts, peer=await node.peer.ask(facts.claim.epoch))
    except TimeoutError:
        return replace(facts, peer_trouble=f"{policy.peer} has not answered in {PEER_WITHIN:g} s")
    except AdapterError as error:
        return replace(facts, peer_trouble=str(error))


async def ask_all(node: Node) -> dict[str, tuple[Report, ...]]:
    """All check points about both nodes, once (V1)."""
    nodes = (node.policy.me, node.policy.peer)
    reports = await asyncio.gather(*(probe.ask(each) for each in nodes for probe in node.probes))
    count = len(node.probes)
    return {nodes[0]: tuple(reports[:count]), nodes[1]: tuple(reports[count:])}


async def _nothing() -> dict[str, tuple[Report, ...]]:
    return {}


def _journal_facts(node: Node, events: int) -> dict[str, Any]:
    try:
        journal = node.journal()
    except JournalError as error:
        return {"journal_trouble": str(error)}
    try:
        rounds = journal.rounds(limit=1)
        return {
            "state": journal.state,
            "round": rounds[-1] if rounds else None,
            "events": tuple(journal.events(limit=events)) if events else (),
            "journal_trouble": journal.trouble,
            "heartbeat": journal.heartbeat,
            "same_boot": journal.boot_id == node.boot_id,
        }
    except JournalError as error:
        return {"journal_trouble": str(error)}
    finally:
        journal.close()


def protection(facts: Facts) -> str:
    """Why the standby could not take over now; empty if it could."""
    claim, policy, state = facts.claim, facts.policy, facts.state
    if claim is None:
        return f"the claim cannot be read: {facts.claim_trouble}"
    if claim.node == policy.me:
        if facts.peer is not None:
            return facts.peer.why if facts.peer.ready is Ready.NO else ""
        return facts.peer_trouble or f"{policy.peer} was not asked"
    if facts.claim_trouble:
        return f"the claim cannot be read: {facts.claim_trouble}"
    if state is None or not facts.agent_is_alive:
        return f"no agent runs on {policy.me}"
    if state.phase not in (Phase.STANDBY, Phase.SUSPECTING):
        return f"{policy.me} is {state.phase}"
    if claim.digest != policy.digest:
        return f"{policy.me} has another configuration than the claim names"
    answering = _answering(facts)
    if answering < policy.checkpoints // 2 + 1:
        return f"only {answering} of {policy.checkpoints} check points can be asked"
    return ""


def _answering(facts: Facts) -> int:
    votes = facts.round.votes if facts.round is not None else ()
    peer = facts.policy.peer
    return sum(vote.node == peer and vote.health != "unknown" for vote in votes)


def troubles(facts: Facts) -> list[Trouble]:
    """What a person should know, the worst first."""
    found = [
        *_of_the_agent(facts),
        *_of_the_phase(facts),
        *_of_the_claim(facts),
        *_of_the_check_points(facts),
    ]
    return sorted(found, key=lambda each: each.weight is not Weight.CRITICAL)


def _of_the_agent(facts: Facts) -> list[Trouble]:
    found = []
    age = facts.heartbeat_age
    if not facts.agent_is_alive:
        last = f"; it last wrote {about(age)} ago" if age is not None else ""
        found.append(_bad(f"no agent runs here{last}.  Start it: systemctl start understudy"))
    elif facts.agent_pid is not None and age is not None and age > max(60.0, 6 * BEAT):
        pid = facts.agent_pid or "unknown"
        found.append(_bad(f"the agent (process {pid}) has written nothing for {about(age)}"))
    if facts.journal_trouble:
        found.append(_odd(facts.journal_trouble))
    if facts.glass:
        found.append(
            _odd("the glass is broken: a person runs the PBX here whatever the claim says")
        )
    return found


def _of_the_phase(facts: Facts) -> list[Trouble]:
    state, policy, claim = facts.state, facts.policy, facts.claim
    if state is None:
        return []
    evidence = facts.evidence
    serves = state.phase in SERVING
    match state.phase:
        case Phase.HALTED:
            return [_bad("halted: a step that must not fail has failed.  See: understudy why")]
        case Phase.OUTDATED if claim is not None and claim.served and _is_down(facts):
            return [
                _bad(
                    f"nobody serves: {policy.peer} took the claim, served, and is down.  Mend it, or accept the"
                    " loss of what it recorded: understudy failover --accept-loss"
                )
            ]
        case Phase.OUTDATED:
            return [_odd("the copy here may lack data: understudy rejoin")]
        case Phase.SILENT:
            return [_odd("silent: the PBX here waits for the claim to allow a start")]
        case Phase.SUSPECTING:
            spent = facts.age(evidence.down_since) or 0.0
            left = about(max(policy.patience - spent, 0.0))
            return [_bad(f"{policy.peer} is down for {about(spent)}; a failover is due in {left}")]
        case Phase.DOUBTED:
            return [_odd("doubted: one of the two proofs that this node may serve is too old")]
    if serves and evidence.pbx in (Pbx.DEAD, Pbx.DEAF, Pbx.STOPPED):
        return [_bad(f"the PBX here is {evidence.pbx}, and this node is the active one")]
    return []


def _of_the_claim(facts: Facts) -> list[Trouble]:
    found = []
    claim, wall = facts.claim, facts.at.wall
    if facts.claim_trouble:
        found.append(_bad(f"the claim cannot be read: {facts.claim_trouble}"))
    if claim is None:
        return found
    if claim.announced:
        found.append(_odd(f"{claim.announced} has announced that it is about to take over"))
    if wall < claim.pause:
        found.append(_odd(f"automatic failover is paused until {clock(claim.pause)}"))
    elif claim.served and wall < claim.settle:
        found.append(
            _odd(
                f"no second automatic change before {clock(claim.settle)} (understudy resume ends that)"
            )
        )
    if claim.digest != facts.policy.digest:
        found.append(_odd("the configuration here is not the one that the claim names"))
    if facts.peer is not None or facts.peer_trouble:
        why = protection(facts)
        if why:
            found.append(_odd(f"not protected: {why}"))
    return found


def _of_the_check_points(facts: Facts) -> list[Trouble]:
    votes = facts.round.votes if facts.round is not None else ()
    mute = {vote.checkpoint: vote.text for vote in votes if vote.health == "unknown"}
    return [
        _odd(f"{name} cannot be asked: {text or 'no reason given'}") for name, text in mute.items()
    ]


def _is_down(facts: Facts) -> bool:
    return facts.evidence.theirs is Verdict.DOWN


def _bad(text: str) -> Trouble:
    return Trouble(Weight.CRITICAL, text)


def _odd(text: str) -> Trouble:
    return Trouble(Weight.WARNING, text)


def to_json(facts: Facts) -> dict[str, Any]:
    """Stable keys.  Times are seconds of the wall clock (UTC), ages seconds."""
    state, evidence, claim, policy = facts.state, facts.evidence, facts.claim, facts.policy
    down = facts.age(evidence.down_since)
    why = protection(facts)
    return {
        "node": policy.me,
        "peer": policy.peer,
        "active": claim.node if claim is not None else None,
        "phase": state.phase if state is not None else None,
        "since": facts.wall(state.since) if state is not None and facts.same_boot else None,
        "runbook": state.runbook if state is not None else None,
        "step": state.step if state is not None and state.runbook is not None else None,
        "epoch": max(state.epoch if state else 0, claim.epoch if claim else 0),
        "pbx": evidence.pbx,
        "protected": not why,
        "not_protected_because": why,
        "claim": asdict(claim) if claim is not None else None,
        "claim_where": facts.where,
        "claim_trouble": facts.claim_trouble,
        "agent": {
            "alive": facts.agent_is_alive,
            "pid": facts.agent_pid,
            "heartbeat_age": facts.heartbeat_age,
        },
        "verdicts": {
            policy.me: facts.round.mine if facts.round else None,
            policy.peer: facts.round.theirs if facts.round else None,
        },
        "round_age": facts.at.wall - facts.round.wall if facts.round is not None else None,
        "reports": [asdict(vote) for vote in facts.round.votes] if facts.round else [],
        "patience": {"spent": down or 0.0, "of": policy.patience},
        "proofs": {
            "claim_age": facts.age(evidence.proved_at),
            "claim_stale": policy.claim_stale,
            "checkpoints_age": facts.age(evidence.up_at),
            "checkpoints_stale": policy.checkpoints_stale,
        },
        "paused_until": claim.pause if claim is not None and facts.at.wall < claim.pause else None,
        "troubles": [{"weight": each.weight, "text": each.text} for each in troubles(facts)],
        "events": [event_to_json(each) for each in facts.events],
    }


def event_to_json(event: Event) -> dict[str, Any]:
    return {
        "at": event.wall,
        "kind": event.kind,
        "name": event.name,
        "text": event.text,
        "times": event.times,
        "last": event.last or event.wall,
    }
