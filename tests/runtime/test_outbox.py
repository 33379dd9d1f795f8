"""The outbox: kept until it is delivered, in a file that an older version may have made."""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.journal_world import BOOT_ID, WALL, HandClock, Node
from understudy.errors import JournalError
from understudy.ports import Message, Severity
from understudy.runtime import journal_file, readings
from understudy.runtime.journal import SqliteJournal
from understudy.runtime.journal_rows import Undelivered
from understudy.runtime.outbox import GIVE_UP, LEAST_TRIES, Delivery, Outbox
from understudy.runtime.status import Code

OPS, CHAT = "mail (ops@example.com)", "chat (chat.example.com)"


def message(number: int = 1, *, at: float = WALL) -> Message:
    return Message(
        id=f"pbx02.{number}",
        kind="failover-done",
        subject=f"[acme] message {number}",
        body="What happened\n    …\n",
        at=at,
        node="pbx02",
        pair="acme",
        severity=Severity.CRITICAL,
    )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "journal.sqlite3")
    node.start()
    return node


def opened(node: Node, *notifiers: str) -> Outbox:
    box = Outbox(node.journal, notifiers or (OPS, CHAT))
    box.load(node.clock.wall)
    return box


def ids(found: Sequence[Delivery]) -> list[str]:
    return [each.message.id for each in found]


def test_each_notifier_gets_each_message_once(node: Node) -> None:
    box = opened(node)
    box.put([message()], WALL)
    (mine,) = box.due(OPS, WALL)
    box.delivered(mine, WALL)
    assert box.due(OPS, WALL) == []
    assert ids(box.due(CHAT, WALL)) == ["pbx02.1"]


def test_a_message_outlives_the_process_with_all_that_it_is(node: Node) -> None:
    opened(node).put([message()], WALL)
    node.crash()
    (left,) = opened(node).due(OPS, WALL)
    assert left.message == message()


def test_what_was_delivered_is_not_delivered_by_the_next_process(node: Node) -> None:
    box = opened(node)
    box.put([message(1), message(2)], WALL)
    box.delivered(box.due(OPS, WALL)[0], WALL)
    node.crash()
    assert ids(opened(node).due(OPS, WALL)) == ["pbx02.2"]


def test_pauses_grow_to_a_quarter_of_an_hour(node: Node) -> None:
    box, now = opened(node, OPS), WALL
    box.put([message()], now)
    pauses = []
    for _ in range(7):
        (each,) = box.due(OPS, now)
        assert not box.failed(each, "connection refused", now, refused=False)
        pauses.append(each.next_at - now)
        assert box.due(OPS, each.next_at - 0.1) == []
        now = each.next_at
    assert pauses == [5, 15, 60, 300, 900, 900, 900]


def test_it_is_given_up_after_three_days_and_many_tries(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message()], WALL)
    now, given_up = WALL, False
    while not given_up:
        (each,) = box.due(OPS, now)
        given_up = box.failed(each, "connection refused", now, refused=False)
        now = max(each.next_at, now)
    assert GIVE_UP < now - WALL < GIVE_UP + 1000
    assert box.waiting == 0


def test_a_clock_that_jumps_ahead_gives_nothing_up(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message()], WALL)
    (each,) = box.due(OPS, WALL)
    later = WALL + 10 * GIVE_UP
    assert LEAST_TRIES > 1
    assert not box.failed(each, "connection refused", later, refused=False)


def test_a_clock_that_is_set_back_holds_nothing_back(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message()], WALL)
    assert ids(box.due(OPS, WALL - 7 * 86_400)) == ["pbx02.1"]


def test_what_is_refused_is_tried_five_times_more_over_days(node: Node) -> None:
    box, now = opened(node, OPS), WALL
    box.put([message()], now)
    pauses = []
    for _ in range(6):
        (each,) = box.due(OPS, now)
        given_up = box.failed(each, "550 no such user", now, refused=True)
        pauses.append(each.next_at - now)
        now = each.next_at
    assert given_up
    assert pauses[:5] == [900, 3600, 14_400, 43_200, 86_400]


def test_a_new_message_is_tried_at_once_and_opens_the_way_for_the_old_ones(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message(1), message(2)], WALL)
    for each in box.due(OPS, WALL):
        box.failed(each, "connection refused", WALL, refused=False)
    assert box.due(OPS, WALL + 1) == []
    box.put([message(3, at=WALL + 1)], WALL + 1)
    (new,) = box.due(OPS, WALL + 1)
    assert new.message.id == "pbx02.3"
    box.delivered(new, WALL + 1)
    assert ids(box.due(OPS, WALL + 1)) == ["pbx02.1", "pbx02.2"]


def test_while_the_way_is_blocked_one_failure_is_enough_for_all(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message(1), message(2)], WALL)
    for each in box.due(OPS, WALL):
        box.failed(each, "connection refused", WALL, refused=False)
    one, two = box.due(OPS, WALL + 5)
    box.failed(one, "connection refused", WALL + 5, refused=False)
    assert two.next_at == WALL + 20


def test_one_that_is_not_configured_any_more_is_given_up(node: Node) -> None:
    opened(node).put([message()], WALL)
    node.crash()
    box = opened(node, OPS)
    assert box.waiting == 1
    rows = node.journal.ask(
        lambda db: db.execute("SELECT notifier, state, last_error FROM deliveries").fetchall()
    )
    assert (CHAT, "given-up", "it is not configured any more") in rows


def test_a_journal_begun_anew_gets_what_still_waits(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message()], WALL)
    node.path.write_bytes(b"no database at all" * 100)
    Path(f"{node.path}-wal").unlink(missing_ok=True)
    node.clock.pass_(60)
    node.journal.note("test", "it has to notice")
    node.clock.pass_(60)
    (each,) = box.due(OPS, node.clock.wall)
    box.failed(each, "connection refused", node.clock.wall, refused=False)
    node.crash()
    assert ids(opened(node, OPS).due(OPS, node.clock.wall + 60)) == ["pbx02.1"]


def test_settled_messages_are_kept_for_a_month(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message(1), message(2)], WALL)
    box.delivered(box.due(OPS, WALL)[0], WALL)
    box.put([message(3, at=WALL + 31 * 86_400)], WALL + 31 * 86_400)
    rows = node.journal.ask(lambda db: db.execute("SELECT id FROM outbox ORDER BY id").fetchall())
    assert rows == [("pbx02.2",), ("pbx02.3",)]


# What status says


def told(node: Node, wall: float) -> tuple[Undelivered, ...]:
    return node.journal.undelivered(wall)


def test_status_says_who_could_not_be_told_after_two_minutes(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message(1), message(2, at=WALL + 10)], WALL)
    for each in box.due(OPS, WALL):
        box.failed(each, "connection refused", WALL, refused=False)
    assert told(node, WALL + 119) == ()
    assert told(node, WALL + 131) == (
        Undelivered(notifier=OPS, count=2, since=WALL, why="connection refused"),
    )
    node.clock.pass_(131)
    view = readings.status_of(
        node.journal, node.policy, node.clock.now(), boot_id=BOOT_ID, events=0
    )
    (trouble,) = [each for each in view.troubles if each.code is Code.MAIL]
    assert trouble.level == "warning"
    assert trouble.sentence.startswith(f"{OPS}: 2 messages wait since 20")
    assert trouble.sentence.endswith(": connection refused")


def test_a_refusal_is_said_at_once_and_a_lost_message_for_a_day(node: Node) -> None:
    box, now = opened(node, OPS), WALL
    box.put([message()], now)
    for _ in range(6):
        (each,) = box.due(OPS, now)
        box.failed(each, "550 no such user", now, refused=True)
        if each.next_at > now:
            assert [found.why for found in told(node, now)] == ["550 no such user"]
        now = each.next_at
    (lost,) = told(node, WALL + 3600)
    assert lost.given_up
    assert told(node, WALL + 90_000) == ()


def test_what_is_delivered_is_no_trouble(node: Node) -> None:
    box = opened(node, OPS)
    box.put([message()], WALL)
    box.delivered(box.due(OPS, WALL)[0], WALL)
    assert told(node, WALL + 3600) == ()


# The file


def made_by_version_1(path: Path) -> None:
    """As the version without an outbox has left it."""
    node = Node(path)
    node.suspect()
    node.journal.close()
    with sqlite3.connect(path) as db:
        db.executescript(
            "DROP TABLE outbox; DROP TABLE deliveries;"
            "UPDATE meta SET value = '1' WHERE key = 'version';"
        )
    db.close()


def test_a_journal_of_the_older_version_is_upgraded_in_place(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    made_by_version_1(path)
    before = SqliteJournal(path, HandClock(), owner=False)
    assert before.undelivered(WALL) == ()  # A command beside an agent that still runs.
    history = [each.text for each in before.events()]
    before.close()
    node = Node(path)
    assert [each.text for each in node.journal.events()] == history
    assert node.journal.state.epoch == 7
    opened(node).put([message()], WALL)
    node.crash()
    assert ids(opened(node).due(OPS, WALL)) == ["pbx02.1"]
    version = node.journal.ask(
        lambda db: db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    )
    assert version == (str(journal_file.VERSION),)


def test_an_upgrade_that_broke_off_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    made_by_version_1(path)
    with sqlite3.connect(path) as db:
        db.executescript(journal_file._OUTBOX)
    db.close()
    opened(Node(path)).put([message()], WALL)


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    Node(path).journal.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    db.close()
    with pytest.raises(JournalError, match="newer Understudy"):
        SqliteJournal(path, HandClock())


def test_an_outbox_that_makes_no_sense_keeps_nobody_from_sending_more(node: Node) -> None:
    opened(node).put([message()], WALL)

    def spoil(db: sqlite3.Connection) -> None:
        db.execute("UPDATE outbox SET severity = 'loud'")

    node.journal.keep(spoil)
    node.crash()
    box = Outbox(node.journal, (OPS,))
    with pytest.raises(JournalError, match="makes no sense"):
        box.load(WALL)
    box.put([replace(message(), id="pbx02.2")], WALL)
    assert ids(box.due(OPS, WALL)) == ["pbx02.2"]
