"""Why a standby would not take over by itself, in the words that `status` and `why` use."""

from dataclasses import replace
from math import inf

from understudy.core.claim import first, serve
from understudy.core.model import Evidence, Phase, State
from understudy.core.observations import Seen
from understudy.core.policy import Policy
from understudy.core.votes import Verdict
from understudy.core.when import Facts, copy_is_stale
from understudy.runtime.copy_state import ClassState, CopyState
from understudy.runtime.stale import keeps
from understudy.runtime.waiting import waiting_for

NOW, WALL = 10_000.0, 1_763_900_000.0
POLICY = Policy(me="pbx02", peer="pbx01", digest="d1")
STANDBY = State(
    phase=Phase.STANDBY,
    since=NOW - 3600,
    epoch=1,
    evidence=Evidence(
        claim=serve(first("pbx01", digest="d1")), claim_at=NOW - 3, round_at=NOW, theirs=Verdict.UP
    ),
)


def suspecting(seconds: float) -> State:
    evidence = replace(STANDBY.evidence, theirs=Verdict.DOWN, down_since=NOW - seconds)
    return replace(STANDBY, phase=Phase.SUSPECTING, since=NOW - seconds, evidence=evidence)


def copies(age: float, *, refuses: bool = True) -> CopyState:
    made = ClassState(
        name="astdb", kind="sqlite", every=10, max_age=60, refuses=refuses, as_of=WALL - age
    )
    return CopyState(written=WALL, classes=(made,))


def said(found: CopyState | None, state: State = STANDBY) -> str:
    """Never of another mind than the core."""
    instant = found.stale_from() if found is not None else None
    stale_from = inf if instant is None else NOW + instant - WALL
    kept = keeps(found, state, NOW, WALL, stale_from)
    facts = Facts(state, Seen(stale_from=stale_from), NOW, WALL, POLICY)
    assert bool(kept) is copy_is_stale(facts)
    return waiting_for(state, POLICY, NOW, WALL, stale=kept)


def test_a_copy_that_is_young_or_may_be_old_keeps_nobody() -> None:
    for found in (None, copies(59), copies(7200, refuses=False)):
        assert said(found) == "nothing: pbx01 answers"


def test_a_copy_that_is_too_old_is_named_with_its_age() -> None:
    kept = 'it would not take over by itself: the copy of astdb is 2h old (on_stale = "refuse")'
    assert said(copies(7200)) == f"nothing: pbx01 answers; {kept}"
    waits = said(copies(7200), suspecting(100))
    assert waits == f"a person: {kept}; understudy failover says what that would cost"


def test_patience_makes_no_good_copy_too_old() -> None:
    assert said(copies(120), suspecting(100)).startswith("patience: ")
    assert said(copies(161), suspecting(100)).startswith("a person: ")


def test_what_was_never_copied_is_said_where_no_class_is_known() -> None:
    kept = keeps(CopyState(), STANDBY, NOW, WALL, stale_from=NOW - WALL)
    assert kept == 'nothing has been copied here yet (on_stale = "refuse")'
    assert keeps(CopyState(), STANDBY, NOW, WALL, stale_from=inf) == ""
