"""What a node has written down survives whatever ends it; and no journal, however broken, ends a node."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.journal_world import BOOT_ID, POLICY, WALL, HandClock, Node, asked, decided, rule
from understudy.core.actions import Start, Stop
from understudy.core.claim import announce, first, hand
from understudy.core.model import Lineage, Phase, newborn
from understudy.core.observations import ClaimReading, Outcome, Pbx, Result, Seen, Verb
from understudy.core.votes import Verdict
from understudy.errors import JournalError, Refused
from understudy.runtime import journal as journals
from understudy.runtime import statecodec
from understudy.runtime.journal import SqliteJournal
from understudy.runtime.journal_pen import ORDER_LIFE
from understudy.runtime.journal_rows import EventKind, OrderState

CHILD = Path(__file__).with_name("journal_child.py")
SOURCES = Path(__file__).parents[2] / "src"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "journal.sqlite3")
    yield made
    made.journal.close()


@contextmanager
def child(path: Path, log: Path, what: str, seed: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": f"{SOURCES}:{TESTS}"}
    command = [sys.executable, str(CHILD), str(path), str(log), str(seed), what]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(log: Path, process: subprocess.Popen[bytes], size: int = 1) -> None:
    until = time.monotonic() + 20
    while not log.exists() or log.stat().st_size < size:
        if process.poll() is not None:
            pytest.fail(f"the child ended: {process.communicate()[1].decode()}")
        assert time.monotonic() < until, "the child says nothing"
        time.sleep(0.005)


# What a node remembers


def test_a_new_journal_knows_nothing_and_stays_silent(node: Node) -> None:
    assert node.journal.state == newborn(node.clock.boot)
    assert node.journal.adopted is None
    assert node.journal.unsettled is False
    assert node.journal.trouble == ""
    assert node.journal.next_order() is None


def test_a_decision_survives_a_crash_with_its_state(node: Node) -> None:
    node.suspect()
    before = node.journal.state
    node.crash()
    assert node.journal.state == before


def test_patience_survives_a_crash_because_rounds_are_written(node: Node) -> None:
    node.suspect()
    for _ in range(3):
        node.clock.pass_(60)
        node.ask(theirs="ddd")
    node.crash()
    evidence = node.journal.state.evidence
    assert node.clock.boot - evidence.down_since == 180


def test_a_mere_reading_of_the_claim_is_kept_in_memory_alone(node: Node) -> None:
    node.suspect()
    claim = first("pbx01", digest="d1", epoch=7)
    size = wal_size(node)
    node.clock.pass_(5)
    node.read(claim)
    assert wal_size(node) == size
    assert node.journal.state.evidence.claim_at == node.clock.boot
    node.crash()
    assert node.journal.state.evidence.claim_at == node.clock.boot - 65


def test_an_announcement_is_remembered_by_the_next_process(node: Node) -> None:
    node.suspect()
    node.clock.pass_(5)
    node.read(announce(first("pbx01", digest="d1", epoch=7), "pbx02"))
    since = node.clock.boot
    node.crash()
    assert node.journal.state.evidence.announced_at == since


def test_a_higher_epoch_is_on_the_disk_at_once(node: Node) -> None:
    node.suspect()
    node.read(hand(first("pbx01", digest="d1", epoch=7), "pbx01"))
    node.crash()
    assert node.journal.state.epoch == 8


def test_a_boot_is_noticed_once_and_not_before_it_was_written_down(node: Node) -> None:
    assert node.start() is False  # Nothing was decided before: nothing can be older than the boot.
    assert node.journal.begin(BOOT_ID) is False
    node.crash()
    assert node.journal.begin("another") is True
    node.crash()  # Before anything was recorded.
    assert node.start("another") is True
    node.crash()
    assert node.start("another") is False


def test_the_adopted_values_survive(node: Node) -> None:
    node.journal.adopted = POLICY
    node.crash()
    assert node.journal.adopted == POLICY


def test_an_unsettled_write_is_on_the_disk_before_it_is_made(node: Node) -> None:
    for value in (True, False, True):
        node.journal.unsettled = value
        with closing(sqlite3.connect(node.path)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'unsettled'").fetchone()
        assert row == ("yes" if value else "",)
    node.crash()
    assert node.journal.unsettled is True


def test_a_sign_of_life_carries_the_state_of_the_moment(node: Node) -> None:
    node.suspect()
    node.clock.pass_(6)
    node.read(first("pbx01", digest="d1", epoch=7))
    node.journal.beat(node.clock.now())
    with closing_journal(node) as beside:
        assert beside.state.evidence.claim_at == node.clock.boot
        assert beside.heartbeat == node.clock.wall


# History


def test_a_decision_is_kept_with_the_votes_behind_it(node: Node) -> None:
    node.suspect()
    [silent, made] = node.journal.decisions()
    assert (silent.rule, made.rule) == ("other-serves", "peer-down")
    assert (made.before, made.after, made.node) == (Phase.STANDBY, Phase.SUSPECTING, "pbx02")
    assert made.because == rule(Phase.STANDBY, "peer-down").because
    assert (made.votes.mine, made.votes.theirs) == (Verdict.DOWN, Verdict.DOWN)
    assert {vote.node: vote.text for vote in made.votes.votes}["pbx01"] == "no answer"
    assert made.votes.claim == first("pbx01", digest="d1", epoch=7)
    assert made.state == node.journal.state


def test_every_round_comes_back_as_it_was_asked(node: Node) -> None:
    node.start()
    node.ask("ud?", "uuu", why="connection refused")
    node.clock.pass_(60)
    node.ask("ddd", "d?u", why="connection refused")
    [one, two] = node.journal.rounds()
    assert (one.wall, two.wall) == (WALL, WALL + 60)
    assert (one.mine, one.theirs) == (Verdict.UNCLEAR, Verdict.UP)
    again = two.asked_at(7.0)
    expected = asked(7.0, "ddd", "d?u", why="connection refused")
    for name, reports in expected.reports.items():
        for report, kept in zip(reports, again.reports[name], strict=True):
            assert (kept.checkpoint, kept.health, kept.took) == (
                report.checkpoint,
                report.health,
                0.012,
            )
            assert kept.text == (report.text if report.health != "up" else "")


def test_two_rounds_of_the_same_millisecond_are_both_kept(node: Node) -> None:
    node.start()
    node.ask("uuu", "uuu")
    node.clock.wall -= 10
    node.clock.boot += 1
    node.clock.wall += 10
    node.ask("uuu", "ddd")
    assert len(node.journal.rounds()) == 2


def test_a_step_is_written_before_it_is_done_and_settled_after(node: Node) -> None:
    node.start()
    state = node.journal.state
    node.journal.record(decided(state, action=Start()), Seen(), node.clock.now())
    assert events(node, EventKind.STEP) == ["start the PBX: not finished"]
    node.clock.pass_(0.8)
    done = Seen(outcome=Outcome(Result.DONE))
    node.journal.record(decided(state), done, node.clock.now())
    assert events(node, EventKind.STEP) == ["start the PBX: done in 0.8 s"]


def test_a_step_that_a_crash_ended_is_told_as_interrupted(node: Node) -> None:
    node.start()
    node.journal.record(decided(node.journal.state, action=Start()), Seen(), node.clock.now())
    node.crash()
    node.start()
    assert events(node, EventKind.STEP) == ["start the PBX: interrupted: the agent ended"]


def test_a_step_that_was_given_up_is_told_as_interrupted(node: Node) -> None:
    node.start()
    state = node.journal.state
    node.journal.record(decided(state, action=Start()), Seen(), node.clock.now())
    gone = replace(state, phase=Phase.STEPPING_DOWN)
    stop = decided(gone, by=rule(Phase.TAKING_OVER, "claim-lost"), action=Stop())
    node.journal.record(stop, Seen(), node.clock.now())
    assert events(node, EventKind.STEP) == [
        "start the PBX: interrupted: the node went on: stepping-down",
        "stop the PBX and prove it stopped: not finished",
    ]


def test_the_same_failure_again_and_again_is_one_line_with_a_count(node: Node) -> None:
    node.start()
    state = node.journal.state
    again = rule(Phase.TAKING_OVER, "step-asked")
    for _ in range(50):
        node.journal.record(decided(state, by=again, action=Start()), Seen(), node.clock.now())
        node.clock.pass_(2)
        failed = Seen(outcome=Outcome(Result.FAILED, "no answer from ns1"))
        node.journal.record(decided(state), failed, node.clock.now())
    [made] = [row for row in node.journal.decisions() if row.rule == "step-asked"]
    assert made.times == 50
    assert made.last == WALL + 98
    [step] = [each for each in node.journal.events() if each.kind is EventKind.STEP]
    assert (step.times, step.text) == (50, "start the PBX: failed: no answer from ns1")


def test_two_different_failures_are_two_lines(node: Node) -> None:
    node.start()
    state = node.journal.state
    for why in ("refused", "refused", "late", "refused"):
        node.journal.record(decided(state, action=Start()), Seen(), node.clock.now())
        seen = Seen(outcome=Outcome(Result.FAILED, why))
        node.journal.record(decided(state), seen, node.clock.now())
    steps = [each for each in node.journal.events() if each.kind is EventKind.STEP]
    assert [each.times for each in steps] == [2, 1, 1]


def test_history_tells_what_was_seen_beside_what_was_decided(node: Node) -> None:
    node.suspect()
    sights = (
        Seen(pbx=Pbx.STOPPED),
        unread("203.0.113.53 does not answer (port 4711)"),
        unread("203.0.113.53 does not answer (port 4712)"),  # No news.
        Seen(claim=ClaimReading(asked_at=2000.0, claim=first("pbx01", digest="d1", epoch=7))),
        Seen(voided="this machine slept for 40 s"),
    )
    for seen in sights:
        node.clock.pass_(1)
        node.see(seen)
    assert [each.text for each in node.journal.events()] == [
        "the agent started",
        "the claim names pbx01, epoch 7 (moved)",
        f"silent -> standby: {rule(Phase.SILENT, 'other-serves').because}",
        f"standby -> suspecting: {rule(Phase.STANDBY, 'peer-down').because}",
        "the PBX here is stopped",
        "203.0.113.53 does not answer (port 4711)",
        "the claim can be read",
        "nothing that was seen before counts any longer: this machine slept for 40 s",
        f"suspecting -> standby: {rule(Phase.SUSPECTING, 'peer-not-down').because}",
    ]


def unread(trouble: str) -> Seen:
    return Seen(claim=ClaimReading(asked_at=2000.0, claim=None, trouble=trouble))


def test_breaking_the_glass_is_written_down_once(node: Node) -> None:
    node.start()
    for glass in (True, True, False):
        node.see(Seen(break_glass=glass))
    assert [each.name for each in node.journal.events() if each.name == "glass"] == ["glass"] * 2


def test_text_from_outside_cannot_break_the_journal(node: Node) -> None:
    node.start()
    node.ask("ddd", "ddd", why="\udcff\x00" + "x" * 5000)
    node.journal.note("person", "caf\udce9")
    assert node.journal.trouble == ""
    assert len(node.journal.rounds()[0].votes[0].text) == 500


def test_old_rounds_are_pruned_and_the_rest_stays_longer(tmp_path: Path) -> None:
    node = Node(tmp_path / "journal.sqlite3", keep_days=2)
    node.suspect()
    for _ in range(4):
        node.clock.pass_(86_400)
        node.ask()
    kept = [row.wall for row in node.journal.rounds()]
    assert kept == [WALL + 60 + days * 86_400 for days in (2, 3, 4)]
    assert len(node.journal.decisions()) > 1
    node.clock.pass_(30 * 86_400)
    node.ask()
    assert len(node.journal.decisions()) == 1  # The last one is what holds.
    node.journal.close()


# Orders


def test_an_order_is_used_in_the_transaction_of_the_decision_that_it_caused(node: Node) -> None:
    node.suspect()
    with closing_journal(node) as beside:
        placed = beside.place(Verb.FAILOVER, by="ada", accept_two_active=True)
        assert beside.order_outcome(placed).state is OrderState.WAITING
    order = node.journal.next_order()
    assert order is not None
    assert (order.id, order.verb, order.accept_two_active) == (placed, Verb.FAILOVER, True)
    decision = node.see(Seen(order=order))
    assert decision.order == order
    assert node.journal.next_order() is None
    node.crash()
    assert node.journal.next_order() is None
    outcome = node.journal.order_outcome(placed)
    [made] = [row for row in node.journal.decisions() if row.order == placed]
    assert (outcome.state, outcome.decision, outcome.by) == (OrderState.USED, made.id, "ada")
    assert made.rule == "failover-forced"


def test_an_order_that_fits_nothing_is_refused_with_the_reason(node: Node) -> None:
    node.suspect()
    placed = node.journal.place(Verb.SWITCHOVER)
    node.see(Seen(order=node.journal.next_order()))
    outcome = node.journal.order_outcome(placed)
    assert outcome.state is OrderState.REFUSED
    assert outcome.why == rule(Phase.SUSPECTING, "order-refused").because


def test_an_order_that_nobody_took_in_time_surprises_nobody_later(node: Node) -> None:
    node.suspect()
    placed = node.journal.place(Verb.FAILOVER)
    node.clock.pass_(ORDER_LIFE + 1)
    assert node.journal.next_order() is None
    outcome = node.journal.order_outcome(placed)
    assert outcome.state is OrderState.REFUSED
    assert "Order again" in outcome.why


def test_orders_are_taken_in_the_order_of_their_placing(node: Node) -> None:
    node.suspect()
    ids = [node.journal.place(Verb.SWITCHOVER) for _ in range(3)]
    taken = []
    while (order := node.journal.next_order()) is not None:
        taken.append(order.id)
        node.see(Seen(order=order))
    assert taken == ids


def test_an_unknown_order_is_an_error(node: Node) -> None:
    with pytest.raises(JournalError, match="no order 7"):
        node.journal.order_outcome(7)


# Two processes


def test_two_processes_write_at_once_and_nothing_is_lost_or_used_twice(
    node: Node, tmp_path: Path
) -> None:
    node.start()
    used: Counter[int] = Counter()
    rounds = 0
    with child(node.path, tmp_path / "log", "orders") as process:
        while process.poll() is None or node.journal.next_order() is not None:
            rounds += 1
            node.clock.boot += 1
            node.clock.wall += 0.002
            state = replace(node.journal.state, epoch=rounds)
            order = node.journal.next_order()
            by = rule(Phase.STANDBY, "order-refused") if order else None
            node.journal.record(
                decided(state, by=by, order=order),
                Seen(round=asked(node.clock.boot, "ddd", "uuu")),
                node.clock.now(),
            )
            assert node.journal.trouble == ""
            used.update([order.id] if order else [])
            time.sleep(0.002)  # Far busier than an agent with rounds of a second.
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read().decode()
    assert used == Counter(range(1, 101))
    assert len(node.journal.rounds(limit=10**6)) == rounds


def test_only_one_agent_may_run_with_a_journal(node: Node, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert holder_of(node) == -1
    with child(node.path, log, "lock") as process:
        wait_for(log, process)
        assert holder_of(node) == process.pid
        with (
            pytest.raises(Refused, match=f"process {process.pid} ") as refused,
            node.journal.lock(),
        ):
            pytest.fail("two agents")
        assert str(process.pid) in refused.value.hint
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with node.journal.lock():  # The kernel let go of it.
            assert holder_of(node) == os.getpid()
    assert holder_of(node) == -1


def test_a_locked_file_makes_trouble_and_not_a_stop(node: Node) -> None:
    node.start()
    node.journal._db.execute("PRAGMA busy_timeout = 50")  # type: ignore[union-attr]
    with closing(sqlite3.connect(node.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        node.ask()
        assert "cannot be written: database is locked" in node.journal.trouble
        assert "lslocks" in node.journal.trouble
        other.execute("ROLLBACK")
    node.clock.pass_(journals.RETRY + 1)
    node.ask()
    assert node.journal.trouble == ""


# Crashes


def test_kill_9_at_any_moment_leaves_a_state_that_was_written_and_no_order_used_twice(
    tmp_path: Path,
) -> None:
    path, log = tmp_path / "journal.sqlite3", tmp_path / "log"
    dice = random.Random(30)
    for seed in range(30):
        begun = log.stat().st_size if log.exists() else 0
        with child(path, log, "records", seed) as process:
            wait_for(log, process, begun + 1)
            time.sleep(dice.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        check_after_crash(path, log.read_bytes()[begun:])
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute(_TWICE).fetchall() == []
    told = [json.loads(line) for line in log.read_text().splitlines()]
    used = Counter(each["order"] for each in told if each["kind"] == "did" and each["order"])
    assert used
    assert set(used.values()) == {1}


_TWICE = "SELECT order_id FROM decisions WHERE order_id IS NOT NULL GROUP BY order_id HAVING count(*) > 1"


def check_after_crash(path: Path, said: bytes) -> None:
    told = [json.loads(line) for line in said.splitlines() if line.endswith(b"}")]
    journal = SqliteJournal(path, HandClock(), owner=False)
    tried = [each["state"] for each in told if "state" in each]
    done = max((at for at, each in enumerate(told) if each["kind"] in ("begin", "did")), default=0)
    found = statecodec.to_json(journal.state)
    assert found in tried
    assert found["epoch"] >= told[done]["state"]["epoch"]
    flags = [each for each in told if "unsettled" in each]
    settled = flags[-1]["unsettled"]
    assert journal.unsettled == settled or flags[-1]["kind"] == "try-unsettled"
    for each in told:
        if each["kind"] == "did" and each["order"]:
            assert journal.order_outcome(each["order"]).state is OrderState.USED
    journal.close()


# Broken files


def broken(path: Path, how: str) -> None:
    whole = path.read_bytes()
    Path(f"{path}-wal").unlink(missing_ok=True)
    Path(f"{path}-shm").unlink(missing_ok=True)
    match how:
        case "garbage":
            path.write_bytes(random.Random(1).randbytes(len(whole)))
        case "no bytes":
            path.write_bytes(b"")
        case "the first page alone":
            path.write_bytes(whole[:4096])
        case "half":
            path.write_bytes(whole[: len(whole) // 2])
        case "a head of garbage":
            path.write_bytes(random.Random(1).randbytes(100) + whole[100:])
        case "another database":
            path.unlink()
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE recipes (cake TEXT)")
        case "a state of nonsense":
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE meta SET value = '{\"phase\": 7}' WHERE key = 'state'")
                db.commit()


@pytest.mark.parametrize(
    "how",
    [
        "garbage",
        "no bytes",
        "the first page alone",
        "half",
        "a head of garbage",
        "another database",
        "a state of nonsense",
    ],
)
def test_a_broken_journal_is_kept_aside_and_a_new_one_begun(node: Node, how: str) -> None:
    node.suspect()
    node.journal.close()
    broken(node.path, how)
    node.journal = SqliteJournal(node.path, node.clock)
    assert node.is_in(Phase.SILENT)
    assert node.journal.unsettled is True  # Nobody knows what was on its way.
    assert "it was moved to" in node.journal.trouble
    [aside] = node.path.parent.glob("journal.sqlite3.corrupt-2027*Z")
    assert str(aside) in node.journal.trouble
    node.suspect()
    node.crash()
    assert node.is_in(Phase.SUSPECTING)
    assert "it was moved to" in node.journal.trouble  # A day long.
    assert node.journal.next_order() is None
    assert node.journal.place(Verb.FAILOVER) > 0
    node.clock.pass_(2 * 86_400)
    assert node.journal.trouble == ""


@pytest.mark.parametrize("how", ["a head of garbage", "a state of nonsense"])
def test_epoch_and_lineage_are_saved_from_a_broken_journal(node: Node, how: str) -> None:
    node.suspect()
    node.journal.close()
    broken(node.path, how)
    node.journal = SqliteJournal(node.path, node.clock)
    assert node.journal.state.epoch == 7
    assert node.journal.state.lineage == Lineage("pbx01", 7)


def test_the_wal_of_an_emptied_file_still_tells_the_epoch(node: Node) -> None:
    node.suspect()
    assert wal_size(node) > 0
    wal = Path(f"{node.path}-wal").read_bytes()
    node.journal.close()
    node.path.write_bytes(b"")
    Path(f"{node.path}-wal").write_bytes(wal)
    node.journal = SqliteJournal(node.path, node.clock)
    assert node.journal.state.epoch == 7


def test_a_file_that_breaks_while_the_agent_runs_costs_history_and_no_state(node: Node) -> None:
    node.suspect()
    node.journal._close()
    node.journal = SqliteJournal(node.path, node.clock)
    before = node.journal.state
    with closing(sqlite3.connect(node.path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    node.path.write_bytes(node.path.read_bytes()[:4096] + b"\xff" * 200_000)
    node.clock.pass_(60)
    node.ask(theirs="ddd")
    assert "cannot be written" in node.journal.trouble
    assert node.is_in(Phase.SUSPECTING)
    node.clock.pass_(60)
    node.ask(theirs="ddd")
    assert "it was moved to" in node.journal.trouble
    assert node.journal.state.evidence.down_since == before.evidence.down_since
    state = node.journal.state
    node.crash()
    assert node.journal.state == state


def test_a_file_that_is_taken_away_is_begun_anew_with_what_the_agent_knows(node: Node) -> None:
    node.suspect()
    node.path.unlink()
    node.read(hand(first("pbx01", digest="d1", epoch=7), "pbx01"))
    assert "it was" in node.journal.trouble or "No such file" in node.journal.trouble
    node.clock.pass_(20)
    node.ask(theirs="ddd")
    assert node.journal.trouble == ""
    state = node.journal.state
    node.crash()
    assert node.journal.state == state
    assert node.journal.state.epoch == 8


def test_a_journal_of_a_newer_version_is_refused(node: Node) -> None:
    node.journal.close()
    with closing(sqlite3.connect(node.path)) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        db.commit()
    for owner in (True, False):
        with pytest.raises(JournalError, match="written by a newer Understudy"):
            SqliteJournal(node.path, node.clock, owner=owner)


def test_a_command_makes_and_mends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with pytest.raises(JournalError, match="there is no journal"):
        SqliteJournal(path, HandClock(), owner=False)
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(JournalError, match="corrupt"):
        SqliteJournal(path, HandClock(), owner=False)
    assert [each.name for each in tmp_path.iterdir()] == ["journal.sqlite3"]


def test_a_command_reads_what_the_agent_wrote_last(node: Node) -> None:
    node.start()
    with closing_journal(node) as beside:
        assert beside.state.phase is Phase.SILENT
        node.read(first("pbx01", digest="d1", epoch=7))
        assert beside.state == node.journal.state
        with pytest.raises(JournalError, match="only the agent"):
            beside.adopted = POLICY


def test_a_command_notes_what_a_person_did_beside_the_agent(node: Node) -> None:
    node.start()
    with closing_journal(node) as beside:
        beside.note("person", "ada said: set-active pbx02")
    assert node.journal.events()[-1].text == "ada said: set-active pbx02"


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte: only root may mount it."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full and a read-only disk; only root may mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full and a read-only disk; no tmpfs: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


def fill(place: Path) -> Path:
    """Leave no byte free."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True, capture_output=True)


def test_a_full_disk_stops_no_node_and_is_told_with_its_cure(small_disk: Path) -> None:
    node = Node(small_disk / "journal.sqlite3")
    node.suspect()
    ballast = fill(small_disk)
    for _ in range(40):  # What the -wal had room for is used up.
        node.clock.pass_(6)
        node.ask(theirs="ddd")
    assert "cannot be written" in node.journal.trouble
    assert "df -h" in node.journal.trouble
    assert str(node.path) in node.journal.trouble
    assert node.journal.state.evidence.round_at == node.clock.boot
    with pytest.raises(JournalError, match="not accepted"):
        node.journal.place(Verb.FAILOVER)
    with closing_journal(node) as beside, pytest.raises(JournalError, match="not accepted"):
        beside.place(Verb.FAILOVER)
    assert node.journal.next_order() is None
    node.read(hand(first("pbx01", digest="d1", epoch=7), "pbx02"))  # Decided without a disk.
    assert node.journal.state.epoch == 8
    ballast.unlink()
    assert node.journal.trouble
    node.clock.pass_(journals.RETRY + 1)
    node.see(Seen())  # Nothing new: it tries again all the same.
    assert node.journal.trouble == ""
    state = node.journal.state
    rules = [row.rule for row in node.journal.decisions()]
    node.crash()
    assert node.journal.state == state
    assert "claim-ours" in rules or "claim-given" in rules  # What was decided meanwhile is told.
    assert node.journal.place(Verb.FAILOVER) > 0
    node.journal.close()


def test_an_order_whose_use_could_not_be_written_is_not_used_again(small_disk: Path) -> None:
    node = Node(small_disk / "journal.sqlite3")
    node.suspect()
    placed = node.journal.place(Verb.SWITCHOVER)
    order = node.journal.next_order()
    assert order is not None
    ballast = fill(small_disk)
    node.see(Seen(order=order))
    assert node.journal.trouble
    assert node.journal.next_order() is None
    ballast.unlink()
    assert node.journal.next_order() is None
    node.clock.pass_(journals.RETRY + 1)
    node.see(Seen())
    assert node.journal.trouble == ""
    assert node.journal.next_order() is None
    assert node.journal.order_outcome(placed).state is OrderState.REFUSED
    node.journal.close()


def test_a_read_only_disk_stops_no_node_and_what_it_holds_is_still_known(small_disk: Path) -> None:
    node = Node(small_disk / "journal.sqlite3")
    node.suspect()
    state = node.journal.state
    node.journal._close()
    remount(small_disk, "ro")
    node.journal = SqliteJournal(node.path, node.clock)
    assert "cannot be written" in node.journal.trouble
    assert node.journal.state == state
    assert node.journal.unsettled is True
    assert node.journal.begin("another boot") is True
    node.journal.begin(BOOT_ID)
    node.clock.pass_(60)
    node.ask(theirs="ddd")
    assert node.journal.state.evidence.round_at == node.clock.boot
    with node.journal.lock():  # A folder can be locked where no file can be made.
        pass
    remount(small_disk, "rw")
    node.clock.pass_(60)
    node.ask(theirs="ddd")
    assert node.journal.trouble == ""
    now = node.journal.state
    node.crash()
    assert node.journal.state == now
    node.journal.close()


def test_a_disk_that_comes_late_brings_back_the_epoch_and_whose_data_this_is(
    tmp_path: Path,
) -> None:
    place = tmp_path / "var"
    node = Node(tmp_path / "journal.sqlite3", policy=replace(POLICY, me="pbx01", peer="pbx02"))
    node.start()
    node.read(first("pbx01", digest="d1", epoch=9))
    node.journal.close()
    place.write_text("no folder: nothing can be made in it")
    node.path = place / "journal.sqlite3"
    node.journal = SqliteJournal(node.path, node.clock)
    assert "cannot be written" in node.journal.trouble
    assert node.journal.state == newborn(node.clock.boot)
    node.start()
    taken = replace(first("pbx02", digest="d1", epoch=10))
    node.read(taken)
    assert node.is_in(Phase.STANDBY)  # It cannot know better.
    place.unlink()
    place.mkdir()
    (tmp_path / "journal.sqlite3").rename(node.path)
    node.clock.pass_(60)
    node.see(Seen())
    assert node.journal.trouble == ""
    assert node.journal.state.lineage == Lineage("pbx01", 9)
    node.read(taken)
    assert node.is_in(Phase.OUTDATED)
    node.journal.close()


# Cost


def test_a_round_costs_little(node: Node) -> None:
    """The target is 150 µs of CPU per record; the limit here leaves room for a busy machine."""
    node.start()
    node.read(first("pbx01", digest="d1"))
    state = node.journal.state
    spent = 0.0
    for _ in range(1000):
        node.clock.pass_(1)
        seen = Seen(round=asked(node.clock.boot, "ddd", "uuu"))
        begun = time.process_time()
        node.journal.record(decided(state), seen, node.clock.now())
        spent += time.process_time() - begun
    print(f"{spent * 1000:.0f} µs of CPU per round")
    assert spent < 0.6


def test_a_mere_reading_costs_next_to_nothing(node: Node) -> None:
    node.start()
    claim = first("pbx01", digest="d1")
    node.read(claim)
    before = node.journal._db.total_changes  # type: ignore[union-attr]
    for _ in range(100):
        node.clock.pass_(5)
        node.see(Seen(claim=ClaimReading(asked_at=node.clock.boot, claim=claim)))
    assert node.journal._db.total_changes == before  # type: ignore[union-attr]


def wal_size(node: Node) -> int:
    return Path(f"{node.path}-wal").stat().st_size


def holder_of(node: Node) -> int:
    pid = node.journal.agent_pid
    return -1 if pid is None else pid


def events(node: Node, kind: EventKind) -> list[str]:
    return [each.text for each in node.journal.events() if each.kind is kind]


@contextmanager
def closing_journal(node: Node) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(node.path, node.clock, owner=False)
    try:
        yield journal
    finally:
        journal.close()
