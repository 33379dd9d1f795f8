"""The table over a large set of situations: what it never does, and that each row is good for something."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from core.situations import ME, NOW, PEER, POLICY, WALL, at, claim
from understudy.core.actions import Point, Promote, Prove, Restart, ShutOff, Start, Stop, WriteClaim
from understudy.core.claim import Claim, How
from understudy.core.decide import Decision, decide
from understudy.core.model import NEVER, SERVING, Lineage, Phase, Runbook, State
from understudy.core.observations import (
    NOTHING,
    ClaimReading,
    Order,
    Outcome,
    Pbx,
    PeerAnswer,
    Ready,
    Result,
    Seen,
    Verb,
)
from understudy.core.policy import Isolation
from understudy.core.rules import RULES
from understudy.core.runbooks import RUNBOOKS, Step
from understudy.core.votes import Verdict
from understudy.core.when import MOST_RETURNS

CLAIMS: tuple[Claim | None, ...] = (
    None,
    *(
        claim(node, **each)
        for node in (ME, PEER)
        for each in (
            {},
            {"announced": ME},
            {"announced": PEER},
            {"announced": PEER, "ordered": True},
            {"announced": ME, "ordered": True},
            {"served": False},
            {"served": False, "announced": ME},
            {"served": False, "how": How.HANDED},
            {"served": False, "how": How.RETURNED, "returns": MOST_RETURNS},
            {"served": False, "how": How.SET, "epoch": 6},
            {"served": False, "how": How.MOVED, "epoch": 6},
            {"how": How.HANDED, "returns": 1},
            {"pause": int(WALL) + 60},
            {"pause": int(WALL) + 60, "announced": ME},
            {"settle": int(WALL) + 60},
            {"settle": int(WALL) + 60, "announced": ME},
            {"digest": "another"},
        )
    ),
)
KEEP = replace(POLICY, isolation=Isolation.KEEP)
ORDERS = (
    None,
    *(Order(id=1, verb=verb) for verb in (Verb.SWITCHOVER, Verb.REJOIN, Verb.FAILOVER)),
    Order(id=1, verb=Verb.FENCE, epoch=6),
    Order(id=1, verb=Verb.FAILOVER, accept_two_active=True),
    Order(id=1, verb=Verb.FAILOVER, accept_loss=True),
    Order(id=1, verb=Verb.FAILOVER, accept_loss=True, accept_two_active=True),
)
# Where a moving phase may stand: each of its runbooks, each step.
BOOKS = {
    Phase.TAKING_OVER: (Runbook.TAKE, Runbook.ORDERED, Runbook.FORCED, Runbook.START),
    Phase.HANDING_OVER: (Runbook.HAND,),
    Phase.STEPPING_DOWN: (Runbook.STOP, Runbook.GIVE_BACK),
    Phase.REJOINING: (Runbook.RENEW,),
    Phase.HALTED: (Runbook.SHUT_OFF,),
}
PLACES: tuple[tuple[Phase, Runbook | None, Step | None], ...] = (
    *((phase, None, None) for phase in Phase if phase not in BOOKS or phase is Phase.HALTED),
    *(
        (phase, book, entry.step)
        for phase, books in BOOKS.items()
        for book in books
        for entry in RUNBOOKS[book]
    ),
)
# Just before and just after each threshold.
PROOFS = tuple(
    {"proved_at": NOW - claim_age, "up_at": NOW - word_age}
    for claim_age, word_age in product(
        (POLICY.claim_stale, POLICY.claim_stale + 0.1),
        (POLICY.checkpoints_stale, POLICY.checkpoints_stale + 0.1),
    )
)
VIEWS: tuple[dict[str, Any], ...] = (
    {"theirs": Verdict.UP, "down_since": NEVER},
    {"theirs": Verdict.UNCLEAR, "down_since": NEVER},
    *(
        {"theirs": Verdict.DOWN, "down_since": NOW - down, "announced_at": NOW - stood}
        for down, stood in (
            (10, 10),
            (POLICY.patience - POLICY.announce, 0),
            (POLICY.patience, POLICY.announce - 0.1),
            (POLICY.patience - 0.1, POLICY.announce),
            (POLICY.patience, POLICY.announce),
            (POLICY.patience + 2 * POLICY.interval, POLICY.patience + 2 * POLICY.interval),
        )
    ),
)
PBXS: tuple[dict[str, Any], ...] = (
    {"pbx": Pbx.ANSWERING},
    {"pbx": Pbx.STARTING},
    {"pbx": Pbx.UNKNOWN},
    {"pbx": Pbx.STOPPED, "stop_seen": True},
    {"pbx": Pbx.STOPPED, "stop_seen": False},
    {"pbx": Pbx.DEAD, "pbx_bad_since": NOW - POLICY.restart_grace / 2},
    {"pbx": Pbx.DEAF, "pbx_bad_since": NOW - 30, "restarted_at": NOW - 20},
    {
        "pbx": Pbx.DEAD,
        "pbx_bad_since": NOW - 30,
        "restarted_at": NOW - 20,
        "peer": PeerAnswer(asked_at=NOW - 1, ready=Ready.YES, epoch=5),
    },
)
OUTCOMES = (None, Result.DONE, Result.FAILED, Result.LOST, Result.UNSURE)


def situations() -> Iterator[tuple[State, Seen]]:
    """Places with claims and outcomes; quiet phases with everything else that they look at."""
    for (phase, book, step), known, own in product(PLACES, CLAIMS, (ME, PEER)):
        lineage = Lineage(own, 4)
        for result, proof, busy in product(OUTCOMES, PROOFS[::3], (False, True)):
            if book is None and result is not None:
                continue
            state = at(phase, known, runbook=book, step=step, **proof)
            outcome = Outcome(result, "why") if result is not None else None
            state = replace(state, lineage=lineage)
            yield state, Seen(outcome=outcome, busy=busy)
            yield replace(state, automatic=False), Seen(outcome=outcome, busy=busy)
            if known is not None:
                found = ClaimReading(asked_at=NOW, claim=known)
                yield state, Seen(outcome=outcome, claim=found, busy=busy)
        if book is not None:
            for order, pbx in product(ORDERS, PBXS):
                yield at(phase, known, runbook=book, step=step, **pbx), Seen(order=order)
            continue
        for view, pbx, proof in product(VIEWS, PBXS, PROOFS):
            state = at(phase, known, round_at=NOW, **{**view, **pbx, **proof})
            yield replace(state, lineage=lineage, pointed=4, phase_epoch=5), NOTHING
            yield replace(state, lineage=lineage), NOTHING
        for order, view in product(ORDERS, VIEWS):
            state = replace(at(phase, known, **view), lineage=lineage)
            yield state, Seen(order=order)
            trouble = replace(state.evidence, claim_trouble="unreadable")
            failed = replace(state.evidence, start_failed_at=NOW - 1)
            yield replace(state, evidence=trouble), Seen(order=order)
            yield replace(state, evidence=failed), Seen(order=order, busy=True)
            yield replace(state, evidence=failed), Seen(order=order, break_glass=True)


Case = tuple[State, Seen, Decision]


@cache
def cases() -> tuple[Case, ...]:
    return tuple(
        (state, seen, decide(state, seen, NOW, WALL, POLICY)) for state, seen in situations()
    )


def test_the_set_is_large() -> None:
    assert len(cases()) >= 100_000


def test_every_row_fires_somewhere() -> None:
    fired = {(state.phase, d.rule.name) for state, _, d in cases() if d.rule is not None}
    for known, view in product(CLAIMS, VIEWS):  # Doubted for that long is only who keeps on.
        state = at(Phase.DOUBTED, known, **{**view, **PROOFS[-1], "up_at": NEVER})
        rule = decide(state, NOTHING, NOW, WALL, KEEP).rule
        fired |= {(Phase.DOUBTED, rule.name)} if rule is not None else set()
    rows = {(phase, rule.name) for phase, rules in RULES.items() for rule in rules}
    assert rows == fired


def test_no_phase_is_without_a_way_out() -> None:
    ways = {(state.phase, d.state.phase) for state, _, d in cases()}
    for phase in Phase:
        assert any(here is phase and there is not phase for here, there in ways), phase


def test_no_take_over_without_an_announcement_of_ours_that_stood_for_all_of_announce() -> None:
    takes = [case for case in cases() if _rule(case) == "patience-spent"]
    assert takes
    for state, _, _ in takes:
        evidence, known = state.evidence, state.evidence.claim
        assert known is not None
        assert (known.node, known.announced) == (PEER, ME)
        assert evidence.round_at - evidence.announced_at >= POLICY.announce
        assert evidence.round_at - evidence.down_since >= POLICY.patience
        assert evidence.theirs is Verdict.DOWN
        assert not evidence.claim_trouble
        assert known.pause <= WALL
        assert known.settle <= WALL or not known.served


def test_a_claim_is_taken_from_our_standing_announcement_only_or_with_two_active_accepted() -> None:
    takes = [
        (state, decision.action.old)
        for state, _, decision in cases()
        if isinstance(decision.action, WriteClaim)
        and (decision.action.old.node, decision.action.new.node) == (PEER, ME)
    ]
    assert takes
    for state, old in takes:
        # The claim step of FORCED and TAKE: the write itself fails when the record has changed (C2).
        assert old.announced == ME or state.runbook in (Runbook.FORCED, Runbook.TAKE)
    ordered = [old for state, old in takes if state.runbook is Runbook.ORDERED]
    assert ordered
    assert all(old.announced == ME for old in ordered)


def test_no_automatic_hand_over_after_two_in_a_row() -> None:
    lost = {"pbx-lost", "pbx-lost-ask"}
    handed = [state.evidence.claim for state, _, d in cases() if d.rule and d.rule.name in lost]
    assert {known.returns for known in handed if known is not None} == set(range(MOST_RETURNS))


def test_no_announcement_by_ourselves_while_paused_or_settling_or_with_another_digest() -> None:
    seen = [case for case in cases() if _rule(case) == "announced"]
    assert seen
    for state, _, _ in seen:
        evidence, known = state.evidence, state.evidence.claim
        assert known is not None
        assert evidence.theirs is Verdict.DOWN
        assert (known.pause <= WALL, known.digest) == (True, POLICY.digest)
        assert known.settle <= WALL or not known.served


def test_nothing_moves_by_itself_while_paused() -> None:
    by_itself = {"patience-spent", "announced", "pbx-lost", "pbx-lost-ask"}
    for case in cases():
        known = case[0].evidence.claim
        if known is not None and known.pause > WALL:
            assert _rule(case) not in by_itself


def test_nothing_that_lets_us_serve_is_asked_for_without_a_fresh_reading_before_it() -> None:
    asked = [d for _, _, d in cases() if isinstance(d.action, Start | Promote | Point | Restart)]
    assert asked
    assert all(decision.guarded for decision in asked)


def test_nothing_asks_for_a_start_while_the_known_claim_is_another_node_s() -> None:
    for state, _, decision in cases():
        known = state.evidence.claim
        if isinstance(decision.action, Start | Prove) and known is not None:
            # `claim` has just been done, and the reading of it comes with its outcome.
            taken = state.phase is Phase.TAKING_OVER
            assert known.node == ME or taken, (state.phase, known)


def test_a_claim_is_written_from_what_was_read_and_only_with_a_higher_serial() -> None:
    for state, _, decision in cases():
        if isinstance(decision.action, WriteClaim):
            old, new = decision.action.old, decision.action.new
            assert old == state.evidence.claim
            assert new.serial == old.serial + 1
            assert old.epoch + (new.node != old.node) <= new.epoch <= old.epoch + 1


def test_only_a_hand_over_or_a_return_names_the_other_node() -> None:
    for state, _, decision in cases():
        action = decision.action
        if isinstance(action, WriteClaim) and (action.old.node, action.new.node) == (ME, PEER):
            assert state.phase in (Phase.HANDING_OVER, Phase.STEPPING_DOWN)
            assert action.new.how in (How.HANDED, How.RETURNED)


def test_a_node_that_serves_stops_when_the_other_one_holds_the_claim() -> None:
    for state, _, decision in cases():
        known = state.evidence.claim
        if state.phase in SERVING and known is not None and known.node == PEER:
            assert decision.state.phase is Phase.STEPPING_DOWN
            assert isinstance(decision.action, Stop)


def test_a_node_without_proofs_stops_unless_a_person_said_keep() -> None:
    old: dict[str, Any] = {
        "proved_at": NOW - POLICY.claim_stale - 0.1,
        "up_at": NOW - POLICY.checkpoints_stale - 1,
    }
    for phase, known, pbx, order in product(SERVING, CLAIMS, PBXS, ORDERS):
        state, seen = at(phase, known, **old, **pbx), Seen(order=order)
        assert decide(state, seen, NOW, WALL, POLICY).state.phase is Phase.STEPPING_DOWN
        rule = decide(state, seen, NOW, WALL, KEEP).rule
        assert rule is None or rule.name != "isolated"


def test_a_halted_node_asks_for_nothing_but_silence_until_a_person_decides() -> None:
    for state, _, decision in cases():
        if state.phase is Phase.HALTED and decision.state.phase is Phase.HALTED:
            assert decision.action is None or isinstance(decision.action, ShutOff | Stop)


def test_every_order_is_used_up_or_waits_for_the_action_under_way() -> None:
    for state, seen, decision in cases():
        quiet = state.runbook is None and not seen.busy and seen.order is not None
        if quiet and decision.rule is None:
            raise AssertionError(f"{seen.order} is forgotten in {state.phase}")


def _rule(case: Case) -> str:
    rule = case[2].rule
    return rule.name if rule is not None else ""
