"""What people are told: the simulator's pair plays, each machine writes a real journal, and somebody reads it aloud."""

import asyncio
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from string import Formatter

import pytest

from runtime.journal_world import POLICY, WALL, Node, asked
from runtime.telling_stage import ABOUT, READER, play, subjects
from understudy.core.claim import first
from understudy.core.model import Phase
from understudy.core.observations import Seen
from understudy.errors import Denied, Unreachable
from understudy.ports import Message, Severity
from understudy.runtime import (
    journal_file,
    telling_conditions,
    telling_deeds,
    telling_words,
)
from understudy.runtime.companions import Beside, Company
from understudy.runtime.outbox import Outbox
from understudy.runtime.telling import Teller, Telling, trial
from understudy.runtime.telling_catalogue import CATALOGUE
from understudy.sim.commands import obey

TAKES_OVER = [
    "pbx02: pbx01 does not answer: pbx02 takes over in 2m30s",
    "pbx02: pbx02 is about to take over from pbx01",
    "pbx02: pbx02 has taken over: calls are answered there",
]


# Stories


def test_the_pbx_dies_for_good(tmp_path: Path) -> None:
    stage = play(tmp_path, "pbx pbx01 cannot start\npbx pbx01 dies\nwait 5m")
    assert subjects(stage) == [
        "pbx01: the PBX on pbx01 has failed and is restarted",
        "pbx01: the PBX on pbx01 is dead: pbx01 hands over to pbx02",
        "pbx02: pbx02 serves now: pbx01 has handed over",
    ]


def test_the_pbx_dies_and_the_other_node_is_not_ready(tmp_path: Path) -> None:
    stage = play(
        tmp_path,
        "agent pbx02 dies\npbx pbx01 cannot start\npbx pbx01 dies\nwait 5m\n"
        "pbx pbx01 can start\npbx pbx01 answers again\nwait 2m",
    )
    assert subjects(stage) == [
        "pbx01: the PBX on pbx01 has failed and is restarted",
        "pbx01: the PBX on pbx01 is dead",
        "pbx01: the PBX on pbx01 answers again",
    ]
    assert "pbx02 does not answer" in stage.heard_messages[1].message.body


def test_the_host_dies_and_comes_back(tmp_path: Path) -> None:
    stage = play(tmp_path, "power off pbx01\nwait 8m\npower on pbx01\nwait 5m")
    assert subjects(stage) == [
        *TAKES_OVER,
        "pbx01: pbx01 is back and stays silent: pbx02 serves",
    ]
    taken = stage.heard_messages[2]
    assert taken.at <= 320 + 5
    assert taken.message.severity is Severity.CRITICAL
    body = taken.message.body
    assert "pbx02 took the claim, started its PBX, saw it answer, and led sip.example.com" in body
    assert "    When you want the calls back on pbx01: understudy rejoin on pbx01" in body
    assert re.search(r"^pbx02 of acme, 2027-01-15 \d\d:15:20 \S+, epoch 2$", body, re.MULTILINE)
    assert "taking-over -> active: this node serves" in body
    assert "understudy why" in body


def test_a_host_that_was_away_for_a_moment(tmp_path: Path) -> None:
    stage = play(tmp_path, "power off pbx01\nwait 3m\npower on pbx01\nwait 3m")
    assert subjects(stage) == [
        TAKES_OVER[0],
        "pbx01: pbx01 serves: calls are answered there",
        "pbx02: pbx01 answers again",
    ]


def test_the_active_node_is_isolated_and_stops(tmp_path: Path) -> None:
    stage = play(tmp_path, "isolate pbx01\nwait 8m\nheal\nwait 3m")
    first_told = stage.heard_messages[0]
    assert re.fullmatch(r"pbx01: pbx01 is in doubt: its PBX stops in 1\ds", str(first_told))
    assert subjects(stage)[1:] == [
        "pbx01: pbx01 has stepped down: its PBX is stopped",
        "pbx01: pbx01 cannot read the claim",
        *TAKES_OVER,
        "pbx01: pbx01 is back and stays silent: pbx02 serves",
        "pbx01: pbx01 can read the claim again",
    ]


def test_the_active_node_is_isolated_and_keeps(tmp_path: Path) -> None:
    stage = play(tmp_path, "isolate pbx01\nwait 3m\nheal\nwait 5m", isolation="keep")
    assert subjects(stage) == [
        "pbx01: pbx01 serves without any proof: two may be active",
        TAKES_OVER[0],
        "pbx01: pbx01 has a proof again",
        "pbx02: pbx01 answers again",
    ]


def test_one_proof_is_lost(tmp_path: Path) -> None:
    """Both nodes miss the name server: each tells what that keeps it from."""
    stage = play(tmp_path, "name server ns1 dies\nwait 10m\nname server ns1 lives\nwait 2m")
    assert subjects(stage) == [
        "pbx02: pbx02 cannot read the claim",
        "pbx01: pbx01 is in doubt: it serves as long as one proof is left",
        "pbx01: pbx01 is certain again",
        "pbx02: pbx02 can read the claim again",
    ]


def test_paused(tmp_path: Path) -> None:
    stage = play(tmp_path, "pause 20m\nwait 1m\npower off pbx01\nwait 28m")
    told = [re.sub(r"\d{4}-\S+ \S+", "THEN", each) for each in subjects(stage)]
    paused = "pbx02 does not take over: automatic failover is paused until THEN"
    assert told == [
        "pbx01: automatic failover is paused until THEN",
        f"pbx02: pbx01 does not answer: {paused}",
        f"pbx02: pbx01 is down and {paused}",
        *TAKES_OVER[1:],
    ]
    assert "To let it take over: understudy resume" in stage.heard_messages[2].message.body


def test_the_end_of_a_pause(tmp_path: Path) -> None:
    stage = play(tmp_path, "pause 5m\nwait 7m")
    assert subjects(stage)[1] == "pbx01: the pause is over: automatic failover is on"


def test_the_name_server_is_away_when_patience_ends(tmp_path: Path) -> None:
    """The message names the server and the way out by hand, within 60 s of patience's end."""
    stage = play(
        tmp_path,
        "name server ns1 dies\npower off pbx01\nwait 30m\nname server ns1 lives\nwait 3m",
    )
    unread = "pbx02 does not take over: the claim cannot be read: ns1 does not answer"
    assert subjects(stage) == [
        "pbx02: pbx02 cannot read the claim",
        f"pbx02: pbx01 does not answer: {unread}",
        f"pbx02: pbx01 is down and {unread}",
        TAKES_OVER[1],
        "pbx02: pbx02 can read the claim again",
        TAKES_OVER[2],
    ]
    blocked = stage.heard_messages[2]
    suspected, patience = 20.0, 300.0
    assert suspected + patience < blocked.at <= suspected + patience + 60
    assert "touch /etc/understudy/break-glass on pbx02" in blocked.message.body
    assert "lead sip.example.com to pbx02 at your name server" in blocked.message.body


def test_what_blocks_for_long_is_told_again(tmp_path: Path) -> None:
    stage = play(tmp_path, "name server ns1 dies\npower off pbx01\nwait 70m", every=20.0)
    told = [each.at for each in stage.heard_messages if each.message.kind == "failover-blocked"]
    assert [round(at / 3600, 1) for at in told] == [0.1, 1.1]


def test_a_failed_start_gives_the_claim_back(tmp_path: Path) -> None:
    stage = play(
        tmp_path, "pbx pbx02 cannot start\npower off pbx01\nwait 7m\npower on pbx01\nwait 5m"
    )
    assert subjects(stage) == [
        *TAKES_OVER[:2],
        "pbx02: the PBX on pbx02 cannot be started",
        "pbx01: pbx01 serves: calls are answered there",
    ]
    body = stage.heard_messages[2].message.body
    assert "The PBX ended before it answered." in body
    assert "the claim was given back to the other node.\n    The name was not moved." in body


def test_neither_node_can_start(tmp_path: Path) -> None:
    stage = play(
        tmp_path,
        "pbx pbx01 cannot start\npbx pbx02 cannot start\npbx pbx01 dies\nwait 10m",
    )
    assert [each for each in subjects(stage) if "halted" in each] == [
        "pbx02: pbx02 is halted: a person must decide",
        "pbx01: pbx01 is halted: a person must decide",
    ]


def test_a_slow_start_is_told_while_it_lasts(tmp_path: Path) -> None:
    stage = play(tmp_path, "wait 1s")
    stage.machines["pbx02"].pbx.start_takes = 40.0
    for each in ("power off pbx01", "wait 8m"):
        obey(stage, each)
    assert subjects(stage) == [
        *TAKES_OVER[:2],
        "pbx02: pbx02 is taking over from pbx01",
        TAKES_OVER[2],
    ]


def test_a_name_server_lags_behind(tmp_path: Path) -> None:
    stage = play(tmp_path, "name server ns2 dies\npower off pbx01\nwait 7m")
    assert subjects(stage)[2:] == [
        TAKES_OVER[2],
        "pbx02: a name server is behind: some callers still go to pbx01",
    ]
    assert "    ns2 still serves the old node." in stage.heard_messages[3].message.body


def test_break_glass(tmp_path: Path) -> None:
    stage = play(tmp_path, "glass pbx01 is broken\nwait 2m\nglass pbx01 is mended\nwait 2m")
    assert subjects(stage) == [
        "pbx01: the glass is broken on pbx01: its PBX runs whatever the claim says",
        "pbx01: the glass is whole again on pbx01",
    ]
    assert "rm /etc/understudy/break-glass" in stage.heard_messages[0].message.body


def test_what_a_person_orders(tmp_path: Path) -> None:
    stage = play(tmp_path, "order pbx01 switchover\nwait 5m\norder pbx01 failover\nwait 2m")
    assert subjects(stage)[0] == "pbx02: pbx02 serves now: pbx01 has handed over"
    assert sorted(subjects(stage)[1:]) == [
        "pbx01: pbx01 has taken over, as ordered: calls are answered there",
        "pbx02: pbx02 has stepped down: its PBX is stopped",
        "pbx02: pbx02 is back and stays silent: pbx01 serves",
    ]


def test_a_person_stops_the_pbx(tmp_path: Path) -> None:
    stage = play(
        tmp_path,
        "pbx pbx01 is stopped by a person\nwait 100s\npbx pbx01 is started by a person\nwait 3m",
    )
    assert subjects(stage) == [
        "pbx01: the PBX on pbx01 stays stopped until you start it",
        "pbx01: the PBX on pbx01 answers again",
    ]


def test_a_restart_by_a_person_is_no_news(tmp_path: Path) -> None:
    assert subjects(play(tmp_path, "pbx pbx01 is restarted by a person\nwait 10m")) == []


def test_check_points_that_disagree(tmp_path: Path) -> None:
    stage = play(
        tmp_path,
        "check point cp1 lies up\npower off pbx01\nwait 20m\ncheck point cp1 tells the truth\nwait 1m",
    )
    assert subjects(stage) == [
        "pbx02: the check points disagree about pbx01",
        "pbx02: the check points agree again",
    ]
    assert stage.heard_messages[0].at >= 900
    assert "cp1 up, cp2 down, cp3 down" in stage.heard_messages[0].message.body


def test_an_hour_of_flapping_is_few_mails(tmp_path: Path) -> None:
    story = "repeat 12: cut pbx01 check-points; wait 2m; heal; wait 3m"
    stage = play(tmp_path, story, every=5.0)
    assert 2 <= len(stage.heard_messages) <= 8, subjects(stage)
    assert "more times)" in subjects(stage)[-1]


def test_an_hour_of_dying_and_coming_back_is_few_mails(tmp_path: Path) -> None:
    story = "repeat 12: pbx pbx01 dies; wait 4m; pbx pbx02 dies; wait 1m"
    stage = play(tmp_path, story, every=5.0)
    assert 2 <= len(stage.heard_messages) <= 8, subjects(stage)


# The memory


def test_a_restart_of_the_agent_tells_nothing_twice(tmp_path: Path) -> None:
    stage = play(tmp_path, "power off pbx01\nwait 6m")
    before = subjects(stage)
    for each in ("agent pbx02 dies", "agent pbx02 starts", "wait 5m"):
        obey(stage, each)
    assert subjects(stage) == before == TAKES_OVER


def test_what_was_done_just_before_a_crash_is_told_by_the_next_process(tmp_path: Path) -> None:
    node, told = _standby(tmp_path)
    assert told() == []
    node.journal.note("protection", "NOT PROTECTED: no agent runs on pbx01")
    node.crash()  # Before anybody has looked.
    told = _reader(node)
    assert told() == ["NOT PROTECTED: no agent runs on pbx01"]
    node.crash()
    assert _reader(node)() == []


def test_the_past_of_a_journal_is_not_told_by_the_first_teller(tmp_path: Path) -> None:
    node = Node(tmp_path / "journal.sqlite3")
    node.start()
    node.journal.note("glass", "the glass is broken")
    assert _reader(node)() == []


def test_protection_is_told_with_its_reason_and_its_end_at_once(tmp_path: Path) -> None:
    node, told = _standby(tmp_path)
    node.journal.note("protection", "NOT PROTECTED: pbx01: its disk is full")
    assert told() == ["NOT PROTECTED: pbx01: its disk is full"]
    node.clock.pass_(60)
    node.journal.note("protection", "PROTECTED again after 1m: pbx01 could take over")
    assert told() == ["PROTECTED again after 1m: pbx01 could take over"]
    for _ in range(5):
        node.clock.pass_(30)
        node.journal.note("protection", "NOT PROTECTED: pbx01: its disk is full")
        node.clock.pass_(30)
        node.journal.note("protection", "PROTECTED again after 30s: pbx01 could take over")
        assert told() == []
    node.clock.pass_(600)
    (late,) = told()
    assert late.startswith("PROTECTED again after 30s: pbx01 could take over (at ")
    assert late.endswith(", and 9 more times)")


def test_a_disk_that_is_full_keeps_nobody_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "BUSY", 0.05)
    node, told = _standby(tmp_path)
    lock = _hold(node.path)
    try:
        node.journal.note("glass", "the glass is broken")
        assert node.journal.failure
        assert told() == ["the glass is broken on pbx02: its PBX runs whatever the claim says"]
        node.clock.pass_(5)
        assert told() == []
    finally:
        lock.rollback()
        lock.close()
    node.clock.pass_(30)
    node.ask()
    assert not node.journal.failure
    node.clock.pass_(1)
    assert told() == []  # It is in the file now, and was told.
    assert [each.text for each in node.journal.events() if each.name == "glass"] == [
        "the glass is broken"
    ]
    rows = node.journal.ask(lambda db: db.execute("SELECT kind FROM outbox").fetchall())
    assert rows == [("break-glass",)]


def test_a_journal_that_is_not_well_is_told_after_half_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_file, "BUSY", 0.05)
    node, told = _standby(tmp_path)
    lock = _hold(node.path)
    try:
        node.journal.note("test", "fails")
        for _ in range(4):
            node.clock.pass_(10)
            node.journal.beat(node.clock.now())
            said = told()
    finally:
        lock.rollback()
        lock.close()
    assert said == ["the journal on pbx02 is not well"]


def test_a_clock_that_is_set_back_holds_nothing_back_for_long(tmp_path: Path) -> None:
    node, told = _standby(tmp_path)
    for _ in range(2):
        node.journal.note("companion", "something failed: ValueError")
        told()
    node.clock.wall -= 86_400
    assert told() == []
    node.clock.pass_(601)
    (late,) = told()
    assert late.startswith("something beside the agent on pbx02 has failed")


# The catalogue


def test_every_kind_that_is_told_is_in_the_catalogue() -> None:
    deeds = {*telling_deeds._RULES.values(), *telling_deeds._TAKEN.values()}
    deeds |= set(telling_deeds._NOTES.values())
    lasting = {*telling_conditions._ENDS, *(each[0] for each in telling_conditions._SENTENCES)}
    assert deeds | lasting <= set(CATALOGUE)
    assert set(telling_deeds._RULES) | set(telling_deeds._TAKEN) <= set(telling_deeds.BECAUSE)
    assert {each.ends for each in CATALOGUE.values()} - {""} <= set(CATALOGUE)
    for kind in telling_conditions._ENDS:
        assert CATALOGUE[kind].over, kind


def test_what_is_told_of_deeds_needs_no_words_that_deeds_have_not() -> None:
    base = {"me", "peer", "pair", "service", "glass", "total"}
    sentences = {each[0] for each in telling_conditions._SENTENCES}
    for kind, entry in CATALOGUE.items():
        needed = {
            name
            for part in (entry.subject, entry.happened, entry.did, entry.do, entry.over)
            for _, name, _, _ in Formatter().parse(part)
            if name
        }
        if kind in telling_deeds._RULES.values() or kind in telling_deeds._TAKEN.values():
            assert needed <= base | {"text", "why", "began", "gave"}, kind
        if kind in sentences:
            assert needed <= base | {"sentence"}, kind


def test_the_manual_lists_every_kind_and_leaves_no_gap() -> None:
    page = "\n".join(telling_words.page())
    for kind in CATALOGUE:
        assert f"| `{kind}` |" in page
    assert "{" not in page


# On its way


class Friend:
    """A notifier that takes everything, or what it is told to say instead."""

    name = READER

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.taken = list(errors), list[Message]()
        self.has_taken = asyncio.Event()

    async def send(self, message: Message) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.taken.append(message)
        self.has_taken.set()


def test_the_companion_sends_what_an_earlier_process_has_left(tmp_path: Path) -> None:
    node, told = _standby(tmp_path)
    node.journal.note("glass", "the glass is broken")
    assert len(told()) == 1
    node.crash()
    friend = Friend()
    _visit(node, friend)
    _visit(node, friend)
    (message,) = friend.taken
    assert message.kind == "break-glass"
    assert message.subject.startswith("[acme] the glass is broken")


def test_a_crash_between_sending_and_noting_it_sends_the_same_message_again(
    tmp_path: Path,
) -> None:
    node, told = _standby(tmp_path)
    node.journal.note("glass", "the glass is broken")
    told()

    class Killed(BaseException):
        pass

    class Dying(Friend):
        async def send(self, message: Message) -> None:
            await super().send(message)
            raise Killed

    dying = Dying()
    with pytest.raises(Killed):
        _visit(node, dying)
    node.crash()
    friend = Friend()
    _visit(node, friend)
    assert friend.taken == dying.taken


def test_a_failure_is_said_with_its_reason_and_tried_again(tmp_path: Path) -> None:
    node, told = _standby(tmp_path)
    node.journal.note("glass", "the glass is broken")
    told()
    friend = Friend(Unreachable("mail.example.com:25 cannot be reached"), ValueError("s3cret"))
    said = _visit(node, friend)
    assert said == [f"{READER} could not be told: mail.example.com:25 cannot be reached"]
    node.clock.pass_(6)
    assert _visit(node, friend) == [
        f"{READER} could not be told: a mistake in Understudy: ValueError"
    ]
    node.clock.pass_(16)
    assert _visit(node, friend) == []
    assert len(friend.taken) == 1


def test_what_is_refused_again_and_again_is_given_up_and_noted(tmp_path: Path) -> None:
    node, told = _standby(tmp_path)
    node.journal.note("glass", "the glass is broken")
    told()
    friend = Friend(*[Denied("550 no such user")] * 100)
    for _ in range(7):
        _visit(node, friend)
        node.clock.pass_(86_400)
    notes = [each.text for each in node.journal.events(limit=1000) if each.name == "telling"]
    assert [each for each in notes if "the glass is broken" in each] == [
        f"{READER}: given up: [acme] the glass is broken on pbx02: its PBX runs whatever the"
        " claim says: 550 no such user"
    ]


def test_one_that_hangs_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    node, _ = _standby(tmp_path)
    friend = Friend()
    friend.name = "sms (send-sms)"

    class Hanging(Friend):
        name = READER

        async def send(self, message: Message) -> None:
            await asyncio.Event().wait()

    async def scene() -> None:
        company = Company([Telling(ABOUT, [Hanging(), friend])], _beside(node, []))
        company.begin()
        await asyncio.sleep(0)  # It has looked once: from here on all is news.
        node.journal.note("glass", "the glass is broken")
        async with asyncio.timeout(20):
            await friend.has_taken.wait()
        await company.end()

    asyncio.run(scene())
    assert friend.taken[0].kind == "break-glass"


def test_a_trial_says_that_nothing_has_happened() -> None:
    message = trial(ABOUT, "pbx01", WALL)
    assert message.subject == "[acme] pbx01 can tell you what happens"
    assert "Nothing has happened." in message.body


# Helpers


def _standby(folder: Path) -> tuple[Node, Callable[[], list[str]]]:
    """A standby that sees that all is well, and who tells of it."""
    node = Node(folder / "journal.sqlite3")
    node.start()
    node.read(first("pbx01", digest="d1", epoch=7))
    node.ask()
    assert node.is_in(Phase.STANDBY)
    told = _reader(node)
    assert told() == []
    return node, told


def _reader(node: Node) -> Callable[[], list[str]]:
    teller = Teller(ABOUT, node.journal, Outbox(node.journal, [READER]))

    def look() -> list[str]:
        # As fresh as an agent keeps it: what is old would be news of its own.
        node.read(first("pbx01", digest="d1", epoch=7))
        node.see(Seen(round=asked(node.clock.boot, "ddd", "uuu")))
        found = teller.look(node.journal.state, POLICY, node.clock.now())
        return [each.subject.removeprefix("[acme] ") for each in found]

    return look


def _beside(node: Node, said: list[str]) -> Beside:
    return Beside(
        node.journal,
        node.clock,
        lambda: node.journal.state,
        lambda: POLICY,
        lambda _, text: said.append(text),
    )


def _visit(node: Node, friend: Friend) -> list[str]:
    said: list[str] = []
    asyncio.run(Telling(ABOUT, [friend]).visit(_beside(node, said)))
    return said


def _hold(path: Path) -> sqlite3.Connection:
    """Another program has the file locked: nothing can be written."""
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    return lock
