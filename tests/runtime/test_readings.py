"""Whoever looks at 03:12 is told who serves, what happens next, and what is wrong."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.journal_world import BOOT_ID, POLICY, WALL, Node, rule, some
from understudy.core.claim import Claim, announce, first, hand, serve, take
from understudy.core.claim import pause as paused
from understudy.core.model import NEVER, Evidence, Lineage, Phase, Runbook, State
from understudy.core.observations import Order, Pbx, PeerAnswer, Ready, Seen, Verb
from understudy.core.policy import Isolation
from understudy.core.votes import Verdict
from understudy.runtime.journal_rows import POINTING, Failing
from understudy.runtime.readings import (
    Status,
    as_json,
    exit_code_check,
    sentences,
    status,
    status_of,
    waiting_for,
    why_at,
)
from understudy.runtime.status import Code, Level

NOW = 10_000.0
THEIRS = serve(first("pbx01", digest="d1", epoch=7))
OURS = serve(first("pbx02", digest="d1", epoch=8))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "journal.sqlite3")
    yield made
    made.journal.close()


def standby(claim: Claim | None = THEIRS, **evidence: object) -> State:
    """pbx02, a standby that has read the claim a moment ago."""
    found = Evidence(
        void_since=NOW - 5000,
        claim=claim,
        claim_at=NOW - 3,
        round_at=NOW - 20,
        mine=Verdict.DOWN,
        theirs=Verdict.UP,
        pbx=Pbx.STOPPED,
    )
    found = replace(found, **evidence)  # type: ignore[arg-type]
    return State(
        phase=Phase.STANDBY,
        since=NOW - 3600,
        epoch=claim.epoch if claim else 7,
        lineage=Lineage("pbx01", 7),
        evidence=found,
    )


def suspecting(spent: float, claim: Claim = THEIRS, **evidence: object) -> State:
    since = NOW - spent
    state = standby(claim, theirs=Verdict.DOWN, down_since=since, **evidence)
    return replace(state, phase=Phase.SUSPECTING, since=since)


def active(claim: Claim = OURS, **evidence: object) -> State:
    fresh = {
        "mine": Verdict.UP,
        "up_at": NOW - 12,
        "proved_at": NOW - 3,
        "pbx": Pbx.ANSWERING,
        "theirs": Verdict.DOWN,
    }
    state = standby(claim, **(fresh | evidence))
    return replace(state, phase=Phase.ACTIVE, lineage=Lineage("pbx02", 8), pointed=8)


def look(state: State, policy: object = POLICY, **more: object) -> Status:
    more = {"heartbeat": WALL - 2} | more
    return status(state, policy, NOW, WALL, **more)  # type: ignore[arg-type]


def codes(view: Status) -> list[Code]:
    return [trouble.code for trouble in view.troubles]


# Who serves, and what happens next


def test_a_standby_says_who_is_active() -> None:
    view = look(standby())
    assert sentences(view) == ["pbx02 is standby: pbx01 is active (epoch 7)"]
    assert (view.active, view.serving, view.nobody_serves) == ("pbx01", "pbx01", False)
    assert view.waiting_for == "nothing: pbx01 answers"


def test_an_active_node_says_how_old_its_proofs_are() -> None:
    assert sentences(look(active())) == [
        "pbx02 is active (epoch 8): the claim said so 3s ago, the check points saw it 12s ago"
    ]


def test_a_suspecting_node_says_how_much_patience_is_spent_and_when_it_announces() -> None:
    told = sentences(look(suspecting(190)))
    assert told[0] == "pbx02 is standby and suspects: pbx01 has not answered for 3m10s (epoch 7)"
    assert told[1] == "patience: 3m10s of 5m spent; it will announce in 55s"
    assert told[2] == "nobody serves: pbx01 is active and does not answer"


def test_after_the_announcement_it_says_when_it_takes_over() -> None:
    state = suspecting(275, announce(THEIRS, "pbx02"), announced_at=NOW - 20)
    told = sentences(look(state))
    assert (
        told[1]
        == "patience: 4m35s of 5m spent; it has announced and takes over in 25s at the earliest"
    )
    patience = look(state).patience
    assert patience is not None
    assert (patience.announced, patience.announces_in, patience.takes_in) == (True, None, 25.0)


def test_what_happens_is_what_the_core_decides(node: Node) -> None:
    """The seconds that are told are those after which the real machine moves."""
    node.suspect()
    node.clock.pass_(60)
    node.read(serve(first("pbx01", digest="d1", epoch=7)))
    node.ask(theirs="ddd")
    view = status(node.journal.state, POLICY, node.clock.boot, node.clock.wall)
    assert view.patience is not None
    assert view.patience.announces_in is not None
    wait = view.patience.announces_in
    node.clock.pass_(wait - 0.5)
    assert node.see(Seen()).action is None
    node.clock.pass_(0.5)
    assert node.see(Seen()).action is not None


# What is not promised: which of these it is


def test_a_claim_that_cannot_be_read_is_named_with_its_server() -> None:
    view = look(suspecting(400, claim_trouble="203.0.113.53 does not answer"))
    assert (
        "pbx02 stays stopped: the claim cannot be read: 203.0.113.53 does not answer"
        in sentences(view)
    )
    assert "it waits: the claim cannot be read: 203.0.113.53" in sentences(view)[1]
    assert exit_code_check(view)[0] == 2


def test_a_claim_from_an_old_backup_is_told_as_such(node: Node) -> None:
    node.suspect()
    node.read(first("pbx01", digest="d1", epoch=3))
    view = status_of(node.journal, POLICY, node.clock.now(), boot_id=BOOT_ID)
    [trouble] = [each for each in view.troubles if each.code is Code.CLAIM]
    assert (
        "pbx02 stays stopped: the claim says epoch 3, but this node has seen 7" in trouble.sentence
    )


def test_check_points_that_disagree_are_named_one_by_one(node: Node) -> None:
    node.start()
    node.read(THEIRS)
    node.ask(theirs="ud?", why="timed out")
    view = status_of(node.journal, POLICY, node.clock.now(), boot_id=BOOT_ID)
    assert codes(view) == [Code.DISAGREE]
    assert (
        view.troubles[0].sentence
        == "the check points disagree about pbx01: cp1 up, cp2 down, cp3 unknown (timed out)"
    )


def test_too_few_check_points_are_no_disagreement(node: Node) -> None:
    node.start()
    node.read(THEIRS)
    node.ask(theirs="d??", why="timed out")
    view = status_of(node.journal, POLICY, node.clock.now(), boot_id=BOOT_ID)
    assert codes(view) == [Code.TOO_FEW]
    assert view.troubles[0].sentence.startswith("only 1 of 3 check points can tell")


def test_one_check_point_that_cannot_tell_is_only_a_warning(node: Node) -> None:
    node.start()
    node.read(THEIRS)
    node.ask(theirs="uu?", why="connection refused")
    view = status_of(node.journal, POLICY, node.clock.now(), boot_id=BOOT_ID)
    assert [(each.code, each.level, each.sentence) for each in view.troubles] == [
        (
            Code.CHECKPOINT,
            Level.WARNING,
            "cp3 cannot tell whether pbx01 answers: connection refused",
        )
    ]


def test_a_taker_that_served_and_died_needs_a_person() -> None:
    claim = serve(take(first("pbx02", digest="d1", epoch=7), "pbx01", settle=0))
    state = standby(claim, theirs=Verdict.DOWN, down_since=NOW - 900)
    state = replace(state, phase=Phase.OUTDATED, lineage=Lineage("pbx02", 7))
    view = look(state)
    assert codes(view) == [Code.TAKER_DEAD]
    assert view.troubles[0].sentence.startswith("nobody serves: pbx01 took over")
    assert "failover --accept-loss all" in view.troubles[0].sentence
    assert "set-active" in view.waiting_for


def test_a_pause_is_told_with_its_end() -> None:
    view = look(suspecting(280, paused(THEIRS, int(WALL) + 1800)))
    assert Code.PAUSED in codes(view)
    assert any("(30m more): understudy resume" in each for each in sentences(view))
    assert "automatic failover is paused until" in sentences(view)[1]
    assert view.paused_until == WALL + 1800


def test_settling_is_told_with_its_end() -> None:
    view = look(suspecting(280, replace(THEIRS, settle=int(WALL) + 480)))
    assert Code.SETTLING in codes(view)
    assert "no second one for 8m more" in sentences(view)[1]


def test_another_configuration_is_told_before_it_matters() -> None:
    view = look(standby(replace(THEIRS, digest="d2")))
    assert codes(view) == [Code.OTHER_CONFIGURATION]
    assert "[C6]" in view.troubles[0].sentence
    assert "[C6]" in look(suspecting(280, replace(THEIRS, digest="d2"))).waiting_for


def test_a_halted_node_calls_for_a_person() -> None:
    view = look(replace(standby(), phase=Phase.HALTED))
    assert codes(view) == [Code.HALTED]
    assert "set-active" in view.waiting_for


# What else is wrong


def test_a_doubting_node_says_which_proof_is_missing() -> None:
    view = look(replace(active(up_at=NOW - 200), phase=Phase.DOUBTED))
    assert codes(view) == [Code.DOUBTED]
    assert view.troubles[0].sentence == (
        "pbx02 serves, but it is too long ago that the check points see it (3m20s ago) [S1]"
    )


def test_a_node_that_keeps_serving_unproved_says_that_two_may_be_active() -> None:
    policy = replace(POLICY, isolation=Isolation.KEEP)
    state = replace(active(up_at=NOW - 200, proved_at=NOW - 60), phase=Phase.DOUBTED)
    assert codes(look(state, policy))[0] is Code.TWO_MAY_BE_ACTIVE
    assert exit_code_check(look(state, policy))[0] == 2


def test_a_dead_pbx_on_the_active_node_means_that_nobody_serves() -> None:
    peer = PeerAnswer(asked_at=NOW - 1, ready=Ready.NO, epoch=8, why="pbx01 is outdated")
    dead = Pbx.DEAD
    state = active(pbx=dead, pbx_bad_since=NOW - 60, restarted_at=NOW - 50, peer=peer)
    view = look(state)
    assert view.nobody_serves
    assert codes(view)[:2] == [Code.NOBODY_SERVES, Code.PBX]
    assert view.waiting_for == "the PBX here is dead, but pbx01 is not ready: pbx01 is outdated"


def test_a_silent_node_that_is_named_in_the_claim_says_what_it_waits_for() -> None:
    state = replace(standby(OURS, theirs=Verdict.UP), phase=Phase.SILENT, since=NOW - 60)
    assert "still see pbx01 up: stop the PBX on pbx01" in look(state).waiting_for
    view = look(replace(state, evidence=replace(state.evidence, theirs=Verdict.UNCLEAR)))
    assert view.nobody_serves
    assert sentences(view)[0].startswith("pbx02 is silent, its PBX stopped: ")


def test_an_agent_that_says_nothing_makes_everything_else_old() -> None:
    view = look(standby(), heartbeat=WALL - 600)
    code, line = exit_code_check(view)
    assert code == 3
    assert line.startswith("UNDERSTUDY UNKNOWN: the agent on pbx02 has said nothing for 10m")
    assert "has never run" in exit_code_check(look(standby(), heartbeat=None))[1]


def test_journal_trouble_is_passed_on() -> None:
    view = look(standby(), journal_trouble="the journal cannot be written: free some space")
    assert codes(view) == [Code.JOURNAL]
    assert sentences(view)[-1] == "the journal cannot be written: free some space"


def test_after_a_boot_the_old_boot_times_mean_nothing() -> None:
    view = look(active(), booted=True)
    assert (view.phase, view.epoch, view.claim_age, view.round_age) == (Phase.SILENT, 8, None, None)


def test_three_announcements_struck_out_in_an_hour_are_told() -> None:
    view = look(active(strikes=(NOW - 3000, NOW - 2000, NOW - 10)))
    assert codes(view) == [Code.STRIKES]
    assert codes(look(active(strikes=(NOW - 4000, NOW - 2000, NOW - 10)))) == []


def test_an_announcement_by_the_other_node_is_told() -> None:
    view = look(active(announce(OURS, "pbx01"), announced_at=NOW - 5))
    assert codes(view) == [Code.ANNOUNCED]


# Scripts


def test_a_well_pair_is_ok_for_the_monitoring() -> None:
    code, line = exit_code_check(look(standby()))
    assert code == 0
    text, _, performance = line.partition(" | ")
    assert text == "UNDERSTUDY OK: pbx02 is standby: pbx01 is active (epoch 7)"
    assert performance.split() == [
        "epoch=7;;;0",
        "claim_age=3.0s;;;0",
        "round_age=20.0s;;;0",
        "up_pbx02=0;;;0;0",
        "up_pbx01=0;;;0;0",
    ]


def test_an_active_node_gives_its_proofs_as_performance_data() -> None:
    line = exit_code_check(look(active()))[1]
    assert "claim_proof=3.0s;15;;0 checkpoints_proof=12.0s;90;;0" in line


def test_a_warning_is_1_and_a_failure_is_2() -> None:
    assert exit_code_check(look(standby(paused(THEIRS, int(WALL) + 60))))[0] == 1
    assert exit_code_check(look(suspecting(30)))[0] == 2


ANNOUNCING = "write the claim: pbx02 is about to take over"
REFUSED = "the key weak may not change this (REFUSED).  update-policy { grant weak ...; }"


def failing(action: str, times: int = 12, ago: float = 2.0) -> tuple[Failing, ...]:
    last = WALL - ago
    return (Failing(action=action, why=REFUSED, times=times, since=last - 60, last=last),)


def test_a_refused_announcement_is_what_the_node_waits_for() -> None:
    view = look(suspecting(280), failing=failing(ANNOUNCING))
    assert "announcing failed 12 times since" in view.waiting_for
    assert REFUSED in view.waiting_for
    assert Code.FAILING in codes(view)
    assert exit_code_check(view)[0] == 2


def test_a_write_that_failed_once_or_long_ago_is_no_trouble() -> None:
    for each in (failing(ANNOUNCING, times=1), failing(ANNOUNCING, ago=600)):
        assert Code.FAILING not in codes(look(suspecting(280), failing=each))


def test_a_name_that_does_not_lead_to_the_active_node_is_told() -> None:
    behind = replace(active(), pointed=7)
    trouble = look(behind).troubles[0]
    assert (trouble.code, trouble.level) == (Code.NAME, Level.WARNING)
    assert "callers are not led to pbx02 yet (epoch 8)" in trouble.sentence
    trouble = look(behind, failing=failing(POINTING)).troubles[0]
    assert (trouble.code, trouble.level) == (Code.NAME, Level.CRITICAL)
    assert trouble.sentence.endswith(REFUSED)
    assert look(active(), failing=failing(POINTING)).troubles == ()


def test_two_pbxs_that_answer_are_critical() -> None:
    both = replace(active(theirs=Verdict.UP), since=NOW - 100)
    view = look(both)
    assert view.troubles[0].code is Code.TWO_ANSWER
    assert exit_code_check(view)[0] == 2
    # What was asked before it became active says nothing about now.
    assert Code.TWO_ANSWER not in codes(look(replace(both, since=NOW - 10)))


def test_an_agent_that_runs_and_cannot_write_is_told_soon() -> None:
    view = look(active(), heartbeat=WALL - 16, agent_pid=17)
    assert view.troubles[0].code is Code.AGENT
    assert "has not been able to write its journal for 16s" in view.troubles[0].sentence
    assert look(active(), heartbeat=WALL - 16).troubles == ()  # Cron: between two rounds.


def test_nothing_can_break_the_line_of_the_monitoring() -> None:
    line = exit_code_check(look(standby(claim_trouble="a | b\nc")))[1]
    assert line.count("|") == 1
    assert "\n" not in line


def test_the_keys_of_the_json_are_stable(node: Node) -> None:
    node.suspect()
    found = as_json(status_of(node.journal, POLICY, node.clock.now(), boot_id=BOOT_ID))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) >= KEYS
    assert set(found["patience"]) >= {
        "announced",
        "announces_in",
        "remaining",
        "spent",
        "takes_in",
        "total",
    }
    assert set(found["claim"]) >= {"announced", "digest", "epoch", "node", "pause", "served"}
    assert [each["node"] for each in found["nodes"]] == ["pbx02", "pbx01"]
    assert found["nodes"][1]["votes"][0] == {
        "node": "pbx01",
        "checkpoint": "cp1",
        "health": "down",
        "text": "no answer",
        "took": 0.012,
    }
    assert set(found["troubles"][0]) == {"code", "level", "sentence"}
    assert set(found["events"][0]) >= {"wall", "kind", "text", "name"}


KEYS = {
    "active",
    "agent",
    "automatic",
    "claim",
    "claim_age",
    "claim_trouble",
    "data_of",
    "epoch",
    "events",
    "journal_trouble",
    "nobody_serves",
    "node",
    "nodes",
    "patience",
    "paused_until",
    "pbx",
    "peer",
    "phase",
    "proofs",
    "round_age",
    "seconds",
    "serving",
    "settles_until",
    "since",
    "step",
    "troubles",
    "waiting_for",
}


def test_every_state_can_be_told() -> None:
    """Also those that no machine reaches: whoever looks must not meet a traceback."""
    dice = random.Random(312)
    for _ in range(3000):
        state: State = some(State, dice)
        moving = state.runbook if state.phase not in (Phase.STANDBY, Phase.ACTIVE) else None
        state = replace(state, runbook=moving, step=dice.randrange(3) if moving else 0)
        view = look(sane(state))
        assert sentences(view)[0].startswith("pbx02 is ")
        assert exit_code_check(view)[0] in (0, 1, 2, 3)
        json.dumps(as_json(view), allow_nan=False)


def sane(state: State) -> State:
    """Times that a clock of this era can show; the rest is as wild as it came."""
    claim = state.evidence.claim
    if claim is not None:
        claim = replace(claim, pause=claim.pause % 10**10, settle=claim.settle % 10**10)
    since = 0.0 if state.since == NEVER else state.since
    return replace(state, since=since, evidence=replace(state.evidence, claim=claim))


# Why


def test_why_tells_the_rule_the_votes_and_what_kept_the_node_from_more(node: Node) -> None:
    node.suspect()
    for _ in range(2):
        node.clock.pass_(60)
        node.ask(theirs="ddd", why="timed out")
    found = why_at(node.journal, POLICY, node.clock.wall + 5)
    assert found is not None
    assert (found.rule, found.after) == ("peer-down", Phase.SUSPECTING)
    assert found.because == rule(Phase.STANDBY, "peer-down").because
    assert found.since == WALL + 60
    assert found.votes.asked == WALL + 180  # Not those of the decision: those of the time.
    assert {vote.text for vote in found.votes.votes} == {"timed out"}
    assert found.votes.patience == 125
    assert found.kept == "patience: it will announce in 2m"


def test_why_can_be_asked_about_the_past(node: Node) -> None:
    node.suspect()
    found = why_at(node.journal, POLICY, WALL + 30)
    assert found is not None
    assert (found.rule, found.after) == ("other-serves", Phase.STANDBY)
    assert found.kept == "nothing: pbx01 answers"
    assert why_at(node.journal, POLICY, WALL - 1) is None


def test_why_knows_that_the_claim_could_not_be_read_then(node: Node) -> None:
    node.suspect()
    node.clock.pass_(60)
    node.read(None, "203.0.113.53 does not answer")
    node.clock.pass_(600)
    found = why_at(node.journal, POLICY, node.clock.wall)
    assert found is not None
    assert found.kept == "the claim cannot be read: 203.0.113.53 does not answer"
    node.read(THEIRS)
    node.clock.pass_(1)
    later = why_at(node.journal, POLICY, node.clock.wall)
    assert later is not None
    assert later.votes.claim_trouble == ""


def test_why_names_the_order_that_a_person_gave(node: Node) -> None:
    node.suspect()
    placed = node.journal.place(Verb.FAILOVER, by="ada")
    node.see(Seen(order=node.journal.next_order()))
    found = why_at(node.journal, POLICY, node.clock.wall)
    assert found is not None
    assert found.order == placed
    assert found.action == "write the claim: pbx02 is about to take over"


def test_a_boot_ends_what_was_decided_before_it(node: Node) -> None:
    node.suspect()
    node.clock.pass_(100)
    node.crash()
    node.clock.boot = 12.0
    node.start("another boot")
    node.clock.pass_(20)
    found = why_at(node.journal, POLICY, node.clock.wall)
    assert found is not None
    assert (found.rule, found.after) == ("booted", Phase.SILENT)
    assert found.kept == "the claim has not been read yet"


def test_a_step_under_way_is_what_a_moving_node_waits_for() -> None:
    state = replace(standby(OURS), phase=Phase.TAKING_OVER, runbook=Runbook.START, step=1)
    assert waiting_for(state, POLICY, NOW, WALL) == "the step under way: start"


def test_a_handed_over_claim_is_told_at_once() -> None:
    state = replace(standby(hand(THEIRS, "pbx02")), phase=Phase.SILENT, since=NOW - 60)
    assert waiting_for(state, POLICY, NOW, WALL) == "a moment: it is about to start the PBX"


def test_orders_have_no_secrets_to_tell(node: Node) -> None:
    node.suspect()
    node.clock.pass_(1)
    node.journal.place(Verb.FAILOVER, by="ada", accept_loss=True)
    text = [each.text for each in node.journal.events()][-1]
    assert text == "order 1 by ada: failover: waiting"
    assert Order(id=1, verb=Verb.FAILOVER, accept_loss=True) == node.journal.next_order()
