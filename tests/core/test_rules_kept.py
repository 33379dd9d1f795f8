"""One small test per rule of PROTOCOL.md.  Each fails when its rule is broken."""

# ruff: noqa: N802 - the rules have capital letters

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from core.situations import (
    DONE,
    DOWN,
    FAILED,
    LONG_AGO,
    ME,
    NOW,
    PEER,
    POLICY,
    UNKNOWN,
    UP,
    WALL,
    at,
    claim,
    decided,
    knowing,
    reading,
    reports,
    row,
    suspecting,
    votes,
)
from understudy.core import claim as records
from understudy.core import pace, when
from understudy.core.actions import (
    AskPeer,
    Demote,
    Fence,
    Point,
    Promote,
    Restart,
    ShutOff,
    Start,
    Stop,
    WriteClaim,
)
from understudy.core.claim import Claim, How
from understudy.core.evidence import absorb
from understudy.core.model import NEVER, Lineage, Phase, Runbook, State, newborn
from understudy.core.observations import (
    NOTHING,
    ClaimReading,
    Order,
    Pbx,
    PeerAnswer,
    Ready,
    Result,
    Seen,
    Verb,
)
from understudy.core.policy import Agreement, Isolation, Policy
from understudy.core.rules import RULES
from understudy.core.runbooks import RUNBOOKS, OnFailure, Step
from understudy.core.votes import Verdict, verdict
from understudy.errors import ClaimMissing
from understudy.runtime.door import fence_refusal, readiness
from understudy.runtime.keeper import Keeper
from understudy.runtime.perform import perform
from understudy.sim.story import StoryError, tell
from understudy.sim.world import FakeStore, Machine, Pair

LATE = POLICY.patience - POLICY.announce  # Of suspicion: from then on a node may announce.


class Bench:
    """A keeper on the claim in memory, and a loop to run it."""

    def __init__(self) -> None:
        self.pair = Pair(Policy(me="pbx01", peer="pbx02", digest="ours"))
        self.machine: Machine = self.pair.machines["pbx01"]
        self.keeper = Keeper(FakeStore(self.machine), self.machine.journal, self.machine)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        results: list[Any] = []
        self.machine.loop.start(work, results.append)
        self.pair.run(20.0)
        return results[0]


# The claim


def test_C1_each_write_raises_the_serial_and_each_change_of_node_the_epoch() -> None:
    old = claim(returns=1)
    moves = [records.take(old, PEER, settle=0), records.hand(old, PEER), records.give_back(old, PEER)]  # fmt: skip
    stays = [
        records.touch(old),
        records.announce(old, PEER),
        records.strike(old),
        records.serve(old),
        records.adopt(old, "d"),
        records.pause(old, 1),
        records.resume(old),
        records.settle(old),
    ]
    assert {(new.epoch - old.epoch, new.serial - old.serial) for new in moves} == {(1, 1)}
    assert {(new.epoch - old.epoch, new.serial - old.serial) for new in stays} == {(0, 1)}
    assert not any(new.served or new.announced for new in moves)


def test_C2_a_write_that_got_no_answer_cannot_land_after_the_next_reading() -> None:
    bench = Bench()
    old = bench.pair.claim
    assert old is not None
    bench.pair.late_writes = 1.0  # It lands within 300 s, long after its author has given up.
    outcome, _ = bench.run(bench.keeper.write(old, records.announce(old, "pbx01")))
    assert outcome.result is Result.FAILED
    bench.pair.late_writes = 0.0
    read = bench.run(bench.keeper.read(old)).claim
    assert read.serial > old.serial
    bench.pair.run(400.0)
    assert bench.pair.claim == read


def test_C2_a_write_has_the_whole_record_as_its_prerequisite() -> None:
    bench = Bench()
    old = bench.pair.claim
    assert old is not None
    bench.pair.claim = newer = records.touch(old)
    outcome, _ = bench.run(bench.keeper.write(old, records.announce(old, "pbx01")))
    assert (outcome.result, bench.pair.claim) == (Result.FAILED, newer)


def test_C3_what_was_known_is_no_proof_until_the_server_confirms_it() -> None:
    bench = Bench()
    known = bench.pair.claim
    assert known is not None
    bench.pair.claim = records.announce(known, "pbx02")
    assert bench.run(bench.keeper.read(known)).claim == bench.pair.claim
    bench.pair.dead.add("ns1")
    assert bench.run(bench.keeper.read(known)).claim is None


def test_C4_nobody_creates_a_claim_that_is_missing_and_it_proves_nothing() -> None:
    bench = Bench()
    bench.pair.claim = None
    missing = bench.run(bench.keeper.read())
    assert missing.claim is None
    assert bench.pair.claim is None
    with pytest.raises(ClaimMissing):
        bench.run(FakeStore(bench.machine).read())
    state = at(Phase.ACTIVE, claim(), proved_at=NOW - 10)
    after = absorb(state, Seen(claim=reading(None, trouble="missing")), NOW, POLICY)
    assert after.evidence.proved_at == NOW - 10
    assert decided(newborn(NOW - 60), Seen(claim=reading(None, trouble="missing"))).action is None


def test_C5_a_lower_epoch_proves_nothing() -> None:
    state = at(Phase.ACTIVE, claim(), proved_at=NOW - 10)
    after = absorb(state, Seen(claim=reading(claim(epoch=4, serial=99))), NOW, POLICY)
    assert after.evidence.proved_at == NOW - 10
    assert after.epoch == 5
    assert "restored from an old backup" in after.evidence.claim_trouble


def test_C6_a_standby_with_another_digest_does_not_announce() -> None:
    def announces(digest: str) -> bool:
        state = suspecting(claim(PEER, digest=digest), down_for=LATE)
        return isinstance(decided(state).action, WriteClaim)

    assert announces("ours")
    assert not announces("theirs")


def test_C7_while_paused_nothing_moves_by_itself() -> None:
    paused: dict[str, Any] = {"pause": int(WALL) + 1}
    waiting = suspecting(claim(PEER, **paused), down_for=LATE)
    spent = suspecting(claim(PEER, announced=ME, **paused), down_for=900, announced_for=900)
    assert decided(waiting).action is None
    assert row(decided(spent)) != "patience-spent"
    assert decided(_lost(claim(**paused))).action is None
    assert records.pause(claim(announced=PEER), 1).announced == ""


# Votes


def test_V1_ages_count_from_the_sending_of_the_question() -> None:
    state = at(Phase.ACTIVE, claim(), proved_at=LONG_AGO, round_at=NOW - 60, up_since=NOW - 200)
    seen = Seen(claim=reading(claim(), ago=7), round=votes(mine=(UP, UP, UP), at=NOW - 6))
    evidence = absorb(state, seen, NOW, POLICY).evidence
    assert (evidence.proved_at, evidence.up_at, evidence.round_at) == (NOW - 7, NOW - 6, NOW - 6)


@pytest.mark.parametrize(
    ("agreement", "healths", "expected"),
    [
        (Agreement.UNANIMOUS, (DOWN, DOWN, DOWN), Verdict.DOWN),
        (Agreement.UNANIMOUS, (DOWN, DOWN, UNKNOWN), Verdict.DOWN),
        (Agreement.UNANIMOUS, (DOWN, UNKNOWN, UNKNOWN), Verdict.UNCLEAR),
        (Agreement.UNANIMOUS, (DOWN, DOWN, UP), Verdict.UNCLEAR),
        (Agreement.MAJORITY, (DOWN, DOWN, UP), Verdict.DOWN),
        (Agreement.MAJORITY, (DOWN, UNKNOWN, UNKNOWN), Verdict.UNCLEAR),
        (Agreement.ALL, (DOWN, DOWN, UNKNOWN), Verdict.UNCLEAR),
        (Agreement.ALL, (DOWN, DOWN, DOWN), Verdict.DOWN),
    ],
)
def test_V2_majorities_are_of_the_configured_check_points(
    agreement: Agreement, healths: tuple[Any, ...], expected: Verdict
) -> None:
    assert verdict(reports(*healths), replace(POLICY, agreement=agreement)) is expected


def test_V2_anything_but_down_starts_patience_anew() -> None:
    state = suspecting(claim(PEER), down_for=200, round_at=NOW - 5)
    seen = Seen(round=votes(theirs=(DOWN, UNKNOWN, UNKNOWN)))
    assert absorb(state, seen, NOW, POLICY).evidence.down_since == NEVER
    assert row(decided(state, seen)) == "peer-not-down"


def test_V3_one_lucky_round_is_no_proof_and_two_within_an_interval_are_none() -> None:
    def proves(*rounds: tuple[float, tuple[Any, ...]]) -> bool:
        state = at(Phase.DOUBTED, claim(), round_at=NOW - 300, up_since=NEVER, up_at=NEVER)
        for ago, healths in rounds:
            seen = Seen(round=votes(mine=healths, at=NOW - ago))
            state = absorb(state, seen, NOW, POLICY)
        return state.evidence.up_at != NEVER

    most, other, lucky = (UP, UP, UNKNOWN), (UNKNOWN, UNKNOWN, UP), (UP, UP, UP)
    assert proves((120, most), (60, most), (0, most))
    assert not proves((0, lucky))
    assert not proves((POLICY.interval, lucky), (0, lucky))
    assert not proves((120, most), (60, other), (0, most))
    assert not proves((POLICY.late + 1, most), (0, most))


def test_V4_who_doubts_or_is_about_to_take_or_reads_an_announcement_asks_quickly() -> None:
    quickly = [
        at(Phase.DOUBTED, claim(), round_at=NOW),
        at(Phase.ACTIVE, claim(announced=PEER), round_at=NOW),
        suspecting(claim(PEER), down_for=LATE),
    ]
    slowly = [at(Phase.ACTIVE, claim(), round_at=NOW), suspecting(claim(PEER), down_for=61)]
    assert {pace.next_round(state, NOW, POLICY) for state in quickly} == {5.0}
    assert {pace.next_round(state, NOW, POLICY) for state in slowly} == {60.0}
    assert pace.next_round(slowly[0], NOW, POLICY, 0.9) == pytest.approx(54.0)


def test_V5_a_machine_that_stood_still_has_no_proofs_and_patience_starts_anew() -> None:
    suspicion = suspecting(claim(PEER, announced=ME), down_for=400, announced_for=400)
    evidence = absorb(suspicion, Seen(voided="it slept"), NOW, POLICY).evidence
    assert (evidence.down_since, evidence.announced_at, evidence.claim) == (NEVER, NEVER, None)
    serving = absorb(at(Phase.ACTIVE, claim()), Seen(voided="it slept"), NOW, POLICY)
    assert (serving.evidence.proved_at, serving.evidence.up_at) == (NEVER, NEVER)
    stale = absorb(serving, Seen(claim=reading(claim(), ago=1)), NOW, POLICY)
    assert stale.evidence.proved_at == NEVER


def test_V5_a_round_that_comes_late_starts_patience_anew() -> None:
    state = suspecting(claim(PEER), down_for=400, round_at=NOW - 131)  # 2 intervals + a question.
    seen = Seen(round=votes(theirs=(DOWN, DOWN, DOWN)))
    assert absorb(state, seen, NOW, POLICY).evidence.down_since == NOW


def test_V5_the_agent_notices_that_its_machine_stood_still() -> None:
    pair = Pair(Policy(me="pbx01", peer="pbx02", digest="d"))
    pair.boot()
    pair.run(600.0)
    machine = pair.machines["pbx02"]
    machine.wall_offset += 60.0
    pair.run(10.0)
    assert "jumped" in machine.journal.state.evidence.void_why


# Staying active


def test_S1_one_old_proof_is_doubt_and_two_are_the_end() -> None:
    claim_old: dict[str, Any] = {"proved_at": NOW - POLICY.claim_stale - 0.1}
    word_old: dict[str, Any] = {"up_at": NOW - POLICY.checkpoints_stale - 0.1}
    edge: dict[str, Any] = {
        "proved_at": NOW - POLICY.claim_stale,
        "up_at": NOW - POLICY.checkpoints_stale,
    }
    keep = replace(POLICY, isolation=Isolation.KEEP)
    assert row(decided(at(Phase.ACTIVE, claim(), **edge))) == ""
    for old in (claim_old, word_old):
        assert decided(at(Phase.ACTIVE, claim(), **old)).state.phase is Phase.DOUBTED
        assert decided(at(Phase.DOUBTED, claim(), **old)).state.phase is Phase.DOUBTED
    isolated = at(Phase.DOUBTED, claim(), **claim_old, **word_old)
    assert decided(isolated).state.phase is Phase.STEPPING_DOWN
    assert decided(isolated).action == Stop()
    assert decided(isolated, policy=keep).state.phase is Phase.DOUBTED


def test_S1_an_announced_claim_is_no_proof() -> None:
    state = at(Phase.ACTIVE, claim(), proved_at=NOW - 10)
    seen = Seen(claim=reading(claim(announced=PEER)))
    assert absorb(state, seen, NOW, POLICY).evidence.proved_at == NOW - 10


def test_S2_a_process_that_has_just_started_has_no_younger_proofs_than_its_journal() -> None:
    old = at(Phase.ACTIVE, claim(), proved_at=NOW - 1000, up_at=NOW - 1000, round_at=NOW - 1000)
    started = absorb(old, Seen(started=True), NOW, POLICY)
    assert started.evidence.proved_at == NOW - 1000
    assert started.evidence.up_at == NOW - 1000
    assert started.evidence.claim_at == NEVER
    past_grace = replace(started.evidence, void_since=NOW - POLICY.first_proof - 0.1)
    assert row(decided(replace(started, evidence=past_grace))) == "isolated"
    assert pace.serving_ends(old, POLICY) == NOW - 1000 + POLICY.checkpoints_stale


def test_S2_a_node_that_boots_starts_nothing_before_it_has_read_the_claim() -> None:
    booted = decided(at(Phase.ACTIVE, claim()), Seen(booted=True, started=True))
    assert (booted.state.phase, booted.action) == (Phase.SILENT, None)


def test_S2_a_pbx_that_was_starting_is_started_again_by_the_next_process() -> None:
    known = claim(served=False)
    for runbook in (Runbook.TAKE, Runbook.ORDERED, Runbook.FORCED, Runbook.START):
        state = at(Phase.TAKING_OVER, known, runbook=runbook, step=Step.PROVE, pbx=Pbx.STOPPED)
        begun = decided(state, Seen(started=True))
        assert (begun.action, begun.guarded) == (Start(), True), runbook
    assert row(decided(state, Seen(started=True))) == "step-asked"


def test_S2_a_stop_that_was_seen_is_a_persons_also_when_a_look_fell_into_it() -> None:
    watched = at(Phase.ACTIVE, claim(), void_since=LONG_AGO)
    for looks, expected in (
        ((Pbx.STOPPED,), True),
        ((Pbx.STARTING, Pbx.STOPPED), True),  # systemd(1): deactivating.
        ((Pbx.DEAD, Pbx.STARTING, Pbx.STOPPED), False),  # It died, and never came up again.
    ):
        state = watched
        for pbx in looks:
            state = absorb(state, Seen(pbx=pbx), NOW, POLICY)
        assert state.evidence.stop_seen is expected, looks


def test_S1_who_broke_the_glass_is_not_stopped_for_want_of_a_proof() -> None:
    stale: dict[str, Any] = {"proved_at": LONG_AGO, "up_at": LONG_AGO}
    for phase in (Phase.ACTIVE, Phase.DOUBTED):
        state = at(phase, claim(), **stale)
        assert row(decided(state)) == "isolated"
        assert decided(state, Seen(break_glass=True)).state.phase is Phase.DOUBTED


def test_S2_a_pbx_that_runs_where_none_may_is_stopped_also_while_an_action_runs() -> None:
    for phase in (Phase.STANDBY, Phase.SUSPECTING, Phase.OUTDATED, Phase.SILENT):
        state = at(phase, claim(PEER), pbx=Pbx.ANSWERING)
        assert decided(state, Seen(busy=True)).action == Stop(), phase
        assert decided(state, Seen(busy=True, break_glass=True)).action != Stop(), phase
    renewing = at(
        Phase.REJOINING, claim(PEER), runbook=Runbook.RENEW, step=Step.RENEW, pbx=Pbx.DEAF
    )
    assert decided(renewing, Seen(busy=True)).action == Stop()


def test_S3_another_node_in_the_claim_stops_us_at_once_also_while_a_step_runs() -> None:
    seen = Seen(claim=reading(claim(PEER, epoch=6)), busy=True)
    busy = [
        at(Phase.ACTIVE, claim()),
        at(Phase.DOUBTED, claim()),
        at(Phase.TAKING_OVER, claim(), runbook=Runbook.TAKE, step=Step.PROVE),
        at(Phase.HANDING_OVER, claim(), runbook=Runbook.HAND, step=Step.STOP),
    ]
    for state in busy:
        decision = decided(state, seen)
        assert (row(decision), decision.action) == ("other-holds-claim", Stop()), state.phase


def test_S4_an_announcement_is_struck_out_once_the_check_points_have_seen_us_since() -> None:
    def strikes(**fields: Any) -> bool:
        state = at(Phase.ACTIVE, claim(announced=PEER), proved_at=NOW - 5, **fields)
        return row(decided(state)) == "announcement-refuted"

    assert strikes(announced_at=NOW - 3, up_at=NOW - 3)
    assert not strikes(announced_at=NOW - 3, up_at=NOW - 4)


def test_H3_an_ordered_announcement_is_left_alone_for_as_long_as_a_fence_may_take() -> None:
    ordered = claim(announced=PEER, ordered=True)
    stopped: dict[str, Any] = {"pbx": Pbx.STOPPED, "stop_seen": True, "pbx_good_since": NEVER}
    for stood, refuted, by_person in (
        (POLICY.announce - 1, "", ""),
        (POLICY.announce, "announcement-refuted", "person-stopped-pbx"),
    ):
        since: dict[str, Any] = {"announced_at": NOW - stood, "proved_at": NOW - stood - 1}
        seen_up = at(Phase.DOUBTED, ordered, up_at=NOW - 1, **since)
        assert row(decided(seen_up)) == refuted
        unseen = at(Phase.DOUBTED, ordered, up_at=NOW - stood - 1, **since, **stopped)
        assert row(decided(unseen)) == by_person


def test_H3_an_ordered_announcement_never_becomes_an_automatic_take() -> None:
    stood = POLICY.announce + 1
    for ordered, expected in ((True, "announcement-early"), (False, "patience-spent")):
        known = claim(PEER, announced=ME, ordered=ordered)
        state = suspecting(known, down_for=POLICY.patience + 1, announced_for=stood)
        assert row(decided(state)) == expected


def test_S4_an_announcement_that_has_stood_for_too_long_is_struck_out() -> None:
    limit = POLICY.patience + 2 * POLICY.interval
    patient = replace(POLICY, checkpoints_stale=1000.0)  # Serving for so long without a proof.
    for phase in (Phase.DOUBTED, Phase.SILENT):
        for stood, expected in ((limit, "announcement-left"), (limit - 1, "")):
            state = at(phase, claim(announced=PEER), proved_at=NOW - 20, announced_at=NOW - stood)
            unseen = replace(state.evidence, up_at=NOW - stood - 1, pbx=Pbx.UNKNOWN)
            assert row(decided(replace(state, evidence=unseen), policy=patient)) == expected


def test_S4_a_left_announcement_is_struck_by_who_cannot_tell_that_it_is_well() -> None:
    rows = {phase for phase, rules in RULES.items() for r in rules if r.name == "announcement-left"}
    assert rows == {Phase.DOUBTED, Phase.SILENT}


def test_S4_its_author_withdraws_it_when_it_starts_or_sees_the_other_node() -> None:
    for phase in (Phase.STANDBY, Phase.OUTDATED):
        decision = decided(at(phase, claim(PEER, announced=ME)))
        assert row(decision) == "announcement-withdrawn"
        assert isinstance(decision.action, WriteClaim)
        assert decision.action.new.announced == ""


def test_S5_a_stop_that_is_not_proved_shuts_sip_off_and_halts() -> None:
    for phase, runbook in ((Phase.STEPPING_DOWN, Runbook.STOP), (Phase.HANDING_OVER, Runbook.HAND)):
        state = at(phase, claim(), runbook=runbook, step=Step.STOP)
        decision = decided(state, Seen(outcome=FAILED))
        assert (decision.state.phase, decision.action) == (Phase.HALTED, ShutOff())
    again = at(Phase.HALTED, claim(PEER), runbook=Runbook.SHUT_OFF, step=Step.SHUT_OFF)
    assert decided(again).action == ShutOff()


def test_S5_a_halted_node_s_pbx_is_shut_off_at_once_when_it_starts_and_again_now_and_then() -> None:
    def shuts_off(*, halted_for: float, good_for: float, **seen: Any) -> bool:
        state = at(Phase.HALTED, claim(PEER), pbx=Pbx.ANSWERING, pbx_good_since=NOW - good_for)
        state = replace(state, since=NOW - halted_for)
        return decided(state, Seen(**seen)).action == ShutOff()

    settle = POLICY.settle_down
    assert shuts_off(halted_for=10, good_for=5)
    assert not shuts_off(halted_for=10, good_for=100)  # It could not be stopped a moment ago.
    assert not shuts_off(halted_for=settle - 0.1, good_for=9000)
    assert shuts_off(halted_for=settle, good_for=9000)
    assert not shuts_off(halted_for=settle, good_for=9000, break_glass=True)


# Taking over


def test_T1_a_round_that_was_asked_of_another_active_node_is_no_suspicion_of_this_one() -> None:
    known = claim(PEER, epoch=6)
    for asked, since in ((NOW - 3, NEVER), (NOW - 1, NOW - 1)):
        state = at(
            Phase.STANDBY, known, epoch_at=NOW - 2, round_at=NOW - 60, theirs=Verdict.UNCLEAR,
            down_since=NEVER,
        )  # fmt: skip
        seen = Seen(round=votes(theirs=(DOWN, DOWN, DOWN), at=asked))
        assert absorb(state, seen, NOW, POLICY).evidence.down_since == since


def test_T1_what_was_seen_before_the_first_claim_was_read_is_no_suspicion() -> None:
    """But it still says whether the other node serves (T7)."""
    state = at(
        Phase.SILENT, None, round_at=NOW - 2, theirs=Verdict.DOWN, down_since=NOW - 400,
    )  # fmt: skip
    known = absorb(state, Seen(claim=reading(claim(PEER))), NOW, POLICY).evidence
    assert known.theirs is Verdict.DOWN
    assert known.down_since == NEVER
    again = absorb(
        replace(state, evidence=known),
        Seen(round=votes(theirs=(DOWN, DOWN, DOWN), at=NOW)),
        NOW,
        POLICY,
    )
    assert again.evidence.down_since == NOW


def test_T1_the_take_comes_after_patience_with_a_round_asked_after_announce() -> None:
    def takes(**fields: Any) -> bool:
        fields = {"down_for": POLICY.patience, "announced_for": POLICY.announce, **fields}
        state = suspecting(claim(PEER, announced=ME), **fields)
        return when.patience_is_spent(when.Facts(state, NOTHING, NOW, WALL, POLICY))

    assert takes()
    assert not takes(down_for=POLICY.patience - 0.1)
    assert not takes(announced_for=POLICY.announce - 0.1)
    assert not takes(down_for=POLICY.patience + 5, announced_for=POLICY.announce, round_at=NOW - 1)
    # Its answer may take the question's whole deadline: what counts of patience is that it is over now.
    assert takes(down_for=POLICY.patience, announced_for=POLICY.announce + 10, round_at=NOW - 10)
    assert not takes(down_for=POLICY.patience + 5, round_at=NOW - POLICY.late - 1)


def test_T1_the_take_is_a_compare_and_set_from_our_announcement_and_has_not_served() -> None:
    announced = claim(PEER, announced=ME)
    decision = decided(suspecting(announced, down_for=400, announced_for=100))
    assert isinstance(decision.action, WriteClaim)
    assert decision.action.old == announced
    new = decision.action.new
    assert (new.node, new.epoch, new.served, new.announced) == (ME, 6, False, "")
    unannounced = decided(suspecting(claim(PEER), down_for=400))
    assert isinstance(unannounced.action, WriteClaim)
    assert (unannounced.action.new.node, unannounced.action.new.announced) == (PEER, ME)


def test_T2_the_article_s_numbers_keep_the_sums_and_others_are_refused() -> None:
    p = POLICY
    assert p.announce >= p.claim_stale + p.stop_within + p.claim_reading
    assert p.patience >= p.checkpoints_stale + p.stop_within + 2 * p.interval + p.question
    assert p.patience >= p.announce
    for broken in ("announce=42s", "patience=4m", "claim_stale=20s", "stop_within=90s"):
        with pytest.raises(StoryError, match="must be at least"):
            tell(f"policy {broken}\nwait 1s")


def test_T3_each_step_after_the_take_begins_with_a_reading_ours_and_not_announced() -> None:
    guarded = {Step.PROMOTE, Step.START, Step.POINT}
    for runbook in (Runbook.TAKE, Runbook.ORDERED, Runbook.FORCED, Runbook.START):
        assert all(e.guarded for e in RUNBOOKS[runbook] if e.step in guarded), runbook
    assert all(e.guarded for e in RUNBOOKS[Runbook.TAKE] if e.step is Step.FENCE)
    for step, action in ((Step.PROMOTE, Promote), (Step.START, Start), (Step.POINT, Point)):
        state = at(Phase.TAKING_OVER, claim(served=False), runbook=Runbook.TAKE, step=step)
        decision = decided(state)
        assert isinstance(decision.action, action)
        assert decision.guarded
    behind = decided(replace(at(Phase.ACTIVE, claim()), pointed=4))
    assert isinstance(behind.action, Point)
    assert behind.guarded


@pytest.mark.parametrize("change", ["taken back", "announced", "unreadable"])
def test_T3_a_guarded_action_is_not_done_when_the_claim_is_not_ours_alone(change: str) -> None:
    bench = Bench()
    bench.machine.begin()
    assert bench.machine.agent is not None
    world, known = bench.machine.agent.world, bench.pair.claim
    assert known is not None
    match change:
        case "taken back":
            bench.pair.claim = records.take(known, "pbx02", settle=0)
        case "announced":
            bench.pair.claim = records.announce(known, "pbx02")
        case "unreadable":
            bench.pair.dead.add("ns1")
    bench.machine.kill_agent()
    performed = bench.run(perform(world, Start(), guarded=True, known=known))
    assert performed.outcome.result in (Result.LOST, Result.UNSURE)
    assert bench.machine.pbx.is_ is Pbx.STOPPED


def test_T4_a_fence_is_refused_by_another_node_and_by_an_equal_or_higher_epoch() -> None:
    ours = at(Phase.ACTIVE, claim())
    for epoch, obeyed in ((4, False), (5, False), (6, True)):
        order = Order(id=1, verb=Verb.FENCE, epoch=epoch)
        assert (decided(ours, Seen(order=order)).action == Stop()) is obeyed
        assert (fence_refusal(ours, POLICY, ME, epoch) == "") is obeyed
    assert fence_refusal(ours, POLICY, PEER, 6)
    take = at(Phase.TAKING_OVER, claim(epoch=6), runbook=Runbook.TAKE, step=Step.FENCE)
    assert decided(take).action == Fence(PEER, 6, hurry=True)


def test_T5_a_pbx_that_cannot_be_started_and_served_nobody_gives_the_claim_back() -> None:
    for step in (Step.PROMOTE, Step.START, Step.PROVE):
        for served in (False, True):
            state = at(Phase.TAKING_OVER, claim(served=served), runbook=Runbook.TAKE, step=step)
            gives = decided(state, Seen(outcome=FAILED)).state.runbook
            assert gives is (Runbook.STOP if served else Runbook.GIVE_BACK)
    steps = [entry.step for entry in RUNBOOKS[Runbook.GIVE_BACK]]
    assert steps.index(Step.STOP) < steps.index(Step.DEMOTE) < steps.index(Step.RETURN)
    given = records.give_back(claim(served=False), PEER)
    assert (given.node, given.epoch, given.returns, given.served) == (PEER, 6, 1, False)


def test_T5_prove_comes_before_served_and_a_returned_claim_leads_to_serving_again() -> None:
    state = at(Phase.TAKING_OVER, claim(served=False), runbook=Runbook.TAKE, step=Step.PROVE)
    decision = decided(state, Seen(outcome=DONE))
    assert isinstance(decision.action, WriteClaim)
    assert decision.action.new.served
    returned = claim(epoch=7, how=How.RETURNED, served=False, returns=1)
    outdated = replace(at(Phase.OUTDATED, returned, pbx=Pbx.STOPPED), lineage=Lineage(ME, 5))
    assert row(decided(outdated)) == "claim-given"


def test_T5_after_two_returns_a_node_halts() -> None:
    twice = claim(PEER, returns=2, served=False)
    state = at(Phase.STEPPING_DOWN, twice, runbook=Runbook.GIVE_BACK, step=Step.RETURN)
    assert decided(state, Seen(outcome=DONE)).state.phase is Phase.HALTED
    other = at(Phase.SILENT, claim(returns=2, served=False), start_failed_at=NOW - 100, pbx=Pbx.STOPPED)  # fmt: skip
    assert decided(other).state.phase is Phase.HALTED


def test_T5_hand_overs_by_itself_count_like_returns_and_those_of_a_person_start_anew() -> None:
    old = claim(returns=1)
    assert records.hand(old, PEER, settle=int(WALL)).returns == 2
    assert records.hand(old, PEER).returns == 0
    assert records.take(old, PEER, settle=0).returns == 1
    assert records.serve(old).returns == 1
    ready = PeerAnswer(asked_at=NOW - 1, ready=Ready.YES, epoch=5)
    for returns, phase in ((1, Phase.HANDING_OVER), (2, Phase.ACTIVE)):
        lost = _lost(claim(returns=returns))
        state = replace(lost, evidence=replace(lost.evidence, peer=ready))
        assert decided(state).state.phase is phase
    later = replace(state, evidence=replace(state.evidence, restarted_at=NOW - 60))
    assert isinstance(decided(later).action, Restart)


def test_T5_moves_in_a_row_are_forgotten_when_the_pbx_has_answered_for_settle_down() -> None:
    def forgets(*, good_for: float, returns: int = 2, **fields: Any) -> bool:
        fields = {"pbx_good_since": NOW - good_for, **fields}
        decision = decided(at(Phase.ACTIVE, claim(returns=returns), **fields))
        action = decision.action
        return isinstance(action, WriteClaim) and action.new == records.settle(action.old)

    assert forgets(good_for=POLICY.settle_down)
    assert not forgets(good_for=POLICY.settle_down - 0.1)
    assert not forgets(good_for=POLICY.settle_down, returns=0)
    assert not forgets(good_for=POLICY.settle_down, pbx=Pbx.DEAF)
    assert not forgets(good_for=POLICY.settle_down, claim_trouble="unreadable")


def test_T6_an_outdated_node_may_announce_only_while_the_taker_has_served_nobody() -> None:
    def after(served: bool, phase: Phase) -> State:
        taken = claim(PEER, served=served)
        state = replace(suspecting(taken, down_for=10), phase=phase, lineage=Lineage(ME, 4))
        return decided(state).state

    assert after(False, Phase.OUTDATED).phase is Phase.SUSPECTING
    assert after(False, Phase.SUSPECTING).phase is Phase.SUSPECTING
    assert after(True, Phase.OUTDATED).phase is Phase.OUTDATED
    assert after(True, Phase.SUSPECTING).phase is Phase.OUTDATED


def test_T7_a_silent_node_starts_on_a_fresh_claim_of_its_own_that_nobody_announced() -> None:
    def starts(known: Claim, **fields: Any) -> bool:
        state = at(Phase.SILENT, known, pbx=Pbx.STOPPED, **fields)
        return decided(state).state.phase is Phase.TAKING_OVER

    assert starts(claim())
    assert starts(claim(), theirs=Verdict.UNCLEAR)
    assert not starts(claim(), theirs=Verdict.UP)
    assert not starts(claim(), round_at=NOW - 601)
    assert not starts(claim(), claim_at=NOW - 601)
    assert not starts(claim(), claim_trouble="unreadable")
    assert not starts(claim(announced=PEER))
    assert not starts(claim(PEER))


def test_T7_a_declared_node_waits_as_long_as_the_former_one_may_serve_unless_forced() -> None:
    def starts(how: How, since: float) -> bool:
        known = claim(how=how, served=False)
        state = at(Phase.SILENT, known, pbx=Pbx.STOPPED, epoch_at=NOW - since)
        return decided(state).state.phase is Phase.TAKING_OVER

    p = POLICY
    assert p.outlives >= p.checkpoints_stale + p.stop_within + 2 * p.interval + p.question
    assert not starts(How.MOVED, p.outlives - 0.1)
    assert starts(How.MOVED, p.outlives)
    assert starts(How.SET, 0.0)
    assert starts(How.FORCED, 0.0)


def test_T7_a_person_who_names_the_other_node_moves_it_and_who_names_this_one_does_not() -> None:
    def how(node: str, *, forced: bool = False) -> How:
        return records.declare(claim(PEER), node, epoch=6, digest="ours", forced=forced).how

    assert (how(ME), how(PEER), how(ME, forced=True)) == (How.MOVED, How.SET, How.FORCED)
    assert records.first(ME, digest="ours").how is How.SET


def test_T7_nobody_announces_while_a_declared_node_may_be_waiting() -> None:
    def announces(how: How, down_for: float) -> bool:
        declared = claim(PEER, how=how, served=False)
        return row(decided(suspecting(declared, down_for=down_for))) == "announced"

    assert announces(How.SET, LATE)
    assert not announces(How.MOVED, LATE)
    assert not announces(How.MOVED, LATE + POLICY.outlives)
    assert announces(How.MOVED, LATE + 2 * POLICY.outlives)


# Handing over


def test_H1_the_claim_is_handed_over_only_after_our_pbx_is_proved_stopped() -> None:
    steps = [entry.step for entry in RUNBOOKS[Runbook.HAND]]
    assert steps.index(Step.STOP) < steps.index(Step.COPY) < steps.index(Step.HAND)
    assert steps.index(Step.STOP) < steps.index(Step.DEMOTE) < steps.index(Step.HAND)
    stop = next(entry for entry in RUNBOOKS[Runbook.HAND] if entry.step is Step.STOP)
    assert stop.on_failure is OnFailure.FAIL
    state = at(Phase.HANDING_OVER, claim(), runbook=Runbook.HAND, step=Step.DEMOTE)
    decision = decided(state, Seen(outcome=DONE))
    assert isinstance(decision.action, WriteClaim)
    assert (decision.action.new.node, decision.action.new.how) == (PEER, How.HANDED)


def test_H2_nothing_is_stopped_before_the_other_node_has_said_that_it_is_ready() -> None:
    order = Order(id=1, verb=Verb.SWITCHOVER)
    assert decided(at(Phase.ACTIVE, claim()), Seen(order=order)).action == AskPeer(5)
    asking = at(Phase.HANDING_OVER, claim(), runbook=Runbook.HAND, step=Step.ASK)
    refused = decided(asking, Seen(outcome=FAILED))
    assert (refused.state.phase, refused.action) == (Phase.ACTIVE, None)


def test_H2_a_dead_pbx_is_handed_over_only_to_a_node_that_is_ready_for_this_epoch_now() -> None:
    def hands(ready: Ready = Ready.YES, epoch: int = 5, ago: float = 1.0) -> bool:
        answer = PeerAnswer(asked_at=NOW - ago, ready=ready, epoch=epoch)
        lost = _lost(claim())
        state = replace(lost, evidence=replace(lost.evidence, peer=answer))
        return decided(state).state.phase is Phase.HANDING_OVER

    assert hands()
    assert not hands(ready=Ready.NO)
    assert not hands(epoch=4)
    assert not hands(ago=POLICY.claim_stale + 0.1)
    standby = at(Phase.STANDBY, claim(PEER))
    assert readiness(standby, POLICY, 5, NOW).ready is Ready.YES
    assert readiness(standby, POLICY, 6, NOW).ready is Ready.NO
    assert readiness(replace(standby, phase=Phase.OUTDATED), POLICY, 5, NOW).ready is Ready.NO


def test_H1_an_announcement_of_the_node_that_gets_the_claim_is_in_nobodys_way() -> None:
    known, announced = claim(), claim(announced=PEER)
    handing = at(Phase.HANDING_OVER, known, runbook=Runbook.HAND, step=Step.HAND)
    met = Seen(outcome=FAILED, claim=ClaimReading(asked_at=NOW, claim=announced))
    decision = decided(handing, met)
    assert isinstance(decision.action, WriteClaim)
    assert decision.action.old == announced
    assert (decision.action.new.node, decision.action.new.announced) == (PEER, "")
    # Refused, or not answered: no reading came with it, and nothing is tried again and again.
    assert decided(handing, Seen(outcome=FAILED)).state.phase is Phase.SILENT


def test_a_switchover_whose_last_difference_was_not_read_is_none() -> None:
    copying = at(Phase.HANDING_OVER, claim(), runbook=Runbook.HAND, step=Step.COPY)
    ordered = decided(replace(copying, automatic=False), Seen(outcome=FAILED))
    assert (ordered.state.phase, ordered.action) == (Phase.SILENT, None)
    assert not isinstance(ordered.action, WriteClaim)
    # But who cannot serve hands over all the same: what was not read stays here, and is kept.
    dead = decided(replace(copying, automatic=True), Seen(outcome=FAILED))
    assert (dead.state.phase, dead.action) == (Phase.HANDING_OVER, Demote())


def test_a_copy_that_refuses_is_measured_to_the_last_sight_of_the_active_node() -> None:
    def announces(stale_from: float) -> bool:
        down = at(Phase.SUSPECTING, claim(PEER), theirs=Verdict.DOWN, down_since=NOW - LATE)
        return decided(down, Seen(stale_from=stale_from)).action is not None

    assert announces(
        NOW - LATE + 1
    )  # It became too old while patience ran: nobody could have copied more.
    assert not announces(NOW - LATE)
    assert not announces(NEVER)


def test_a_take_needs_a_copy_that_is_fresh_enough_to_its_end() -> None:
    spent = at(
        Phase.SUSPECTING,
        claim(PEER, announced=ME),
        theirs=Verdict.DOWN,
        down_since=NOW - POLICY.patience,
        announced_at=NOW - POLICY.announce,
        round_at=NOW,
    )
    assert decided(spent).state.phase is Phase.TAKING_OVER
    assert decided(spent, Seen(stale_from=NEVER)).state.phase is Phase.SUSPECTING


def test_a_person_may_accept_the_loss_that_a_stale_copy_means() -> None:
    standby = at(Phase.STANDBY, claim(PEER))
    plain = Order(id=1, verb=Verb.FAILOVER)
    refused = decided(standby, Seen(order=plain, stale_from=NOW))
    assert (row(refused), refused.action) == ("order-refused", None)
    for order, runbook in (
        (replace(plain, accept_loss=True), Runbook.ORDERED),
        (replace(plain, accept_loss=True, accept_two_active=True), Runbook.FORCED),
    ):
        taken = decided(standby, Seen(order=order, stale_from=NOW))
        assert (taken.state.phase, taken.state.runbook) == (Phase.TAKING_OVER, runbook)
    forced = Seen(order=replace(plain, accept_two_active=True), stale_from=NOW)
    assert decided(standby, forced).state.phase is Phase.STANDBY


def test_a_node_with_a_stale_copy_is_not_ready() -> None:
    standby = at(Phase.STANDBY, claim(PEER))
    assert readiness(standby, POLICY, 5, NOW, stale_from=NOW + 1).ready is Ready.YES
    answer = readiness(standby, POLICY, 5, NOW, stale_from=NOW)
    assert answer.ready is Ready.NO
    assert "too old" in answer.why


def test_H3_an_ordered_failover_announces_then_fences_and_only_then_takes() -> None:
    for runbook in (Runbook.ORDERED, Runbook.FORCED):
        steps = [entry.step for entry in RUNBOOKS[runbook]]
        assert steps[:3] == [Step.ANNOUNCE, Step.FENCE, Step.CLAIM]
    order = Order(id=1, verb=Verb.FAILOVER)
    ordered = decided(at(Phase.STANDBY, claim(PEER)), Seen(order=order))
    assert ordered.state.runbook is Runbook.ORDERED
    assert isinstance(ordered.action, WriteClaim)
    assert (ordered.action.new.announced, ordered.action.new.ordered) == (ME, True)


def test_H3_an_unconfirmed_fence_ends_it_unless_two_active_were_accepted() -> None:
    known = claim(PEER, announced=ME)
    for runbook, phase in (
        (Runbook.ORDERED, Phase.STANDBY),
        (Runbook.FORCED, Phase.TAKING_OVER),
    ):
        state = at(Phase.TAKING_OVER, known, runbook=runbook, step=Step.FENCE)
        assert decided(state, Seen(outcome=FAILED)).state.phase is phase


def test_H3_an_order_whose_announcement_was_struck_out_takes_nothing() -> None:
    for step, outcome in ((Step.FENCE, None), (Step.FENCE, DONE), (Step.CLAIM, None)):
        struck = at(Phase.TAKING_OVER, claim(PEER), runbook=Runbook.ORDERED, step=step)
        for busy in (False, True):
            decision = decided(struck, Seen(outcome=outcome, busy=busy))
            assert (row(decision), decision.action) == ("announcement-gone", None)
            assert decision.state.phase is Phase.STANDBY
    standing = claim(PEER, announced=ME)
    fenced = at(Phase.TAKING_OVER, standing, runbook=Runbook.ORDERED, step=Step.FENCE)
    assert isinstance(decided(fenced, Seen(outcome=DONE)).action, WriteClaim)
    forced = at(Phase.TAKING_OVER, claim(PEER), runbook=Runbook.FORCED, step=Step.FENCE)
    assert decided(forced, Seen(outcome=FAILED)).state.phase is Phase.TAKING_OVER


def _lost(known: Claim) -> State:
    """Our own PBX has been dead for a minute, and a restart did not help."""
    return at(
        Phase.ACTIVE,
        known,
        pbx=Pbx.DEAD,
        pbx_good_since=NEVER,
        pbx_bad_since=NOW - 50,
        restarted_at=NOW - 40,
    )


def test_a_lost_pbx_is_restarted_first() -> None:
    fresh = replace(_lost(claim()).evidence, restarted_at=NEVER, pbx_bad_since=NOW - 10)
    assert isinstance(decided(replace(_lost(claim()), evidence=fresh)).action, Restart)
    assert isinstance(decided(_lost(claim())).action, AskPeer)
    assert knowing(None).claim is None
