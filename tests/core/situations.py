"""What a node may know, in a few words: the tests of the core are written with these."""

from dataclasses import replace
from typing import Any

from understudy.core.claim import Claim, How
from understudy.core.decide import Decision, decide
from understudy.core.model import Evidence, Lineage, Phase, Runbook, State
from understudy.core.observations import (
    NOTHING,
    ClaimReading,
    Health,
    Outcome,
    Pbx,
    Report,
    Result,
    Round,
    Seen,
)
from understudy.core.policy import Policy
from understudy.core.rules import Rule
from understudy.core.runbooks import RUNBOOKS, Step
from understudy.core.votes import Verdict

ME, PEER = "n1", "n2"
POLICY = Policy(me=ME, peer=PEER, digest="ours")  # The article's numbers.
NOW = 100_000.0  # Boot time.
WALL = 1_800_000_000.0
LONG_AGO = NOW - 50_000.0
DONE, FAILED, LOST = Outcome(Result.DONE), Outcome(Result.FAILED, "why"), Outcome(Result.LOST)
UP, DOWN, UNKNOWN = Health.UP, Health.DOWN, Health.UNKNOWN


def claim(node: str = ME, **fields: Any) -> Claim:
    """A claim of epoch 5 that has served for long."""
    return replace(
        Claim(node=node, epoch=5, serial=20, how=How.TAKEN, served=True, digest="ours"), **fields
    )


def knowing(known: Claim | None, **fields: Any) -> Evidence:
    """Fresh sights, and nothing that is wrong: who is in the claim is up, and the other PBX is stopped."""
    ours = known is not None and known.node == ME
    free = ours and known is not None and not known.is_announced
    evidence = Evidence(
        void_since=LONG_AGO,
        claim=known,
        epoch_at=LONG_AGO,
        claim_at=NOW - 1 if known is not None else float("-inf"),
        proved_at=NOW - 1 if free else LONG_AGO,
        announced_at=NOW - 1 if known is not None and known.is_announced else float("-inf"),
        round_at=NOW - 1,
        mine=Verdict.UP if ours else Verdict.DOWN,
        theirs=Verdict.DOWN if ours else Verdict.UP,
        up_since=LONG_AGO if ours else float("-inf"),
        up_at=NOW - 1 if ours else float("-inf"),
        down_since=LONG_AGO if ours else float("-inf"),
        pbx=Pbx.ANSWERING if ours else Pbx.STOPPED,
        pbx_good_since=LONG_AGO if ours else float("-inf"),
    )
    return replace(evidence, **fields)


def at(
    phase: Phase,
    known: Claim | None,
    *,
    runbook: Runbook | None = None,
    step: Step | None = None,
    **fields: Any,
) -> State:
    """A node in `phase` for ten minutes that knows this claim; `fields` are those of its evidence."""
    place = 0
    if runbook is not None and step is not None:
        place = [each.step for each in RUNBOOKS[runbook]].index(step)
    return State(
        phase=phase,
        since=NOW - 600,
        runbook=runbook,
        step=place,
        epoch=known.epoch if known is not None else 5,
        phase_epoch=known.epoch if known is not None else 5,
        pointed=5,
        lineage=Lineage(known.node, known.epoch) if known is not None else None,
        evidence=knowing(known, **fields),
    )


def suspecting(
    known: Claim, *, down_for: float, announced_for: float = float("inf"), **fields: Any
) -> State:
    """The check points have said for `down_for` seconds that the other node is down."""
    fields = {"down_since": NOW - down_for, "round_at": NOW, "theirs": Verdict.DOWN, **fields}
    if known.is_announced:
        fields = {"announced_at": NOW - announced_for, **fields}
    return at(Phase.SUSPECTING, known, **fields)


def decided(state: State, seen: Seen = NOTHING, policy: Policy = POLICY) -> Decision:
    return decide(state, seen, NOW, WALL, policy)


def row(decision: Decision) -> str:
    rule: Rule | None = decision.rule
    return rule.name if rule is not None else ""


def reading(known: Claim | None, *, ago: float = 0.0, trouble: str = "") -> ClaimReading:
    return ClaimReading(asked_at=NOW - ago, claim=known, trouble=trouble)


def votes(*, mine: tuple[Health, ...] = (), theirs: tuple[Health, ...] = (), at: float = NOW) -> Round:  # fmt: skip
    """One round: what cp1, cp2 ... say about each node."""
    return Round(asked_at=at, reports={ME: reports(*mine), PEER: reports(*theirs)})


def reports(*healths: Health) -> tuple[Report, ...]:
    return tuple(Report(f"cp{number}", health) for number, health in enumerate(healths, 1))
