"""Protected or not: every fault of a standby is found, told once, and its end too."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.journal_world import WALL
from understudy.core.claim import Claim, first, serve
from understudy.core.claim import pause as paused
from understudy.core.model import Evidence, Lineage, Phase, State
from understudy.core.observations import Health, Pbx
from understudy.core.policy import Policy
from understudy.core.votes import Verdict
from understudy.errors import Unreachable
from understudy.ports import Moment
from understudy.runtime import readings, statecodec, watch
from understudy.runtime.companions import Beside
from understudy.runtime.journal import SqliteJournal
from understudy.runtime.journal_rows import RoundRow, Vote
from understudy.runtime.protection import (
    Account,
    Extras,
    Protection,
    Reason,
    Wanted,
    account_of,
    judged,
    news,
    objections,
    rules,
    wanted,
)
from understudy.runtime.watch import Watch, kept

NOW = 10_000.0
POLICY = Policy(me="pbx02", peer="pbx01", digest="d1")
CLAIM = serve(first("pbx01", digest="d1", epoch=7))
BY = replace(wanted(POLICY, CLAIM, "0.4.2", (WALL - 1, WALL + 1)), me="pbx01")


def votes(*healths: Health) -> tuple[Vote, ...]:
    return tuple(
        Vote(
            node="pbx01",
            checkpoint=f"cp{number}",
            health=health,
            text="" if health is Health.UP else "refused",
        )
        for number, health in enumerate(healths, 1)
    )


def account(
    phase: Phase = Phase.STANDBY,
    *,
    claim: Claim = CLAIM,
    heartbeat: float = 3.0,
    pid: int | None = 77,
    is_daemon: bool = True,
    asked: tuple[Vote, ...] = votes(Health.UP, Health.UP, Health.UNKNOWN),
    evidence: dict[str, Any] | None = None,
    **extras: Any,
) -> Account:
    found = Evidence(
        claim=claim,
        claim_at=NOW - 3,
        round_at=NOW - 20,
        theirs=Verdict.UP,
        pbx=Pbx.STOPPED,
        void_since=NOW - 5000,
    )
    state = State(
        phase=phase,
        since=NOW - 600,
        epoch=7,
        lineage=Lineage("pbx01", 7),
        evidence=replace(found, **(evidence or {})),
    )
    view = readings.status(
        state,
        POLICY,
        NOW,
        WALL,
        last_round=RoundRow(wall=WALL - 20, mine=Verdict.DOWN, theirs=Verdict.UP, votes=asked),
        heartbeat=WALL - heartbeat,
        agent_pid=pid,
        is_daemon=is_daemon,
    )
    said = {"version": "0.4.9", "digest": "d1", "adopted": "d1", "wall": WALL, "disk_free": 10**9}
    return Account(view=view, extras=Extras(**{**said, **extras}))


def texts(found: Account, by: Wanted = BY) -> list[str]:
    return [reason.text for reason in objections(found, by)]


def test_a_standby_that_is_well_has_no_objection() -> None:
    assert texts(account()) == []
    assert texts(account(Phase.SUSPECTING)) == []
    assert (
        texts(account(is_daemon=False, pid=None, heartbeat=50)) == []
    )  # Cron: between two rounds.


def test_what_it_says_survives_the_way_to_the_other_node() -> None:
    said = account()
    sent = {"ok": True, **readings.as_json(said.view), **statecodec.to_json(said.extras), "more": 1}
    assert account_of(json.loads(json.dumps(sent))) == said


FAULTS: dict[str, tuple[Account, str]] = {
    "agent-ended": (
        account(pid=None, heartbeat=40),
        "pbx02's agent has ended, 40s ago: systemctl status understudy there",
    ),
    "agent-late": (
        account(pid=None, heartbeat=131, is_daemon=False),
        "pbx02's agent has said nothing for 2m11s: systemctl status understudy there",
    ),
    "agent-mute": (
        account(heartbeat=31),
        "pbx02's agent runs, but has written nothing for 31s: df, journalctl -u understudy there",
    ),
    "outdated": (
        account(Phase.OUTDATED),
        "pbx02 is outdated, its copy may lack data: understudy rejoin there",
    ),
    "halted": (
        account(Phase.HALTED),
        "pbx02 is halted (understudy why there); a person decides: understudy set-active NODE, or"
        " understudy rejoin",
    ),
    "silent": (account(Phase.SILENT), "pbx02 is silent: a moment: the claim names pbx01"),
    "active": (
        account(Phase.ACTIVE),
        "pbx02 is active, and no standby: understudy status there",
    ),
    "configuration": (
        account(digest="d2"),
        "pbx02 has another configuration than the claim names: put the same file on both nodes, then"
        " systemctl restart understudy there",
    ),
    "not-restarted": (
        account(adopted="d0"),
        "pbx02's agent works with an older configuration: systemctl restart understudy there",
    ),
    "version": (
        account(version="0.5.0"),
        "pbx02 runs Understudy 0.5.0 and pbx01 0.4.2: install the same on both",
    ),
    "check-points": (
        account(asked=votes(Health.UP, Health.UNKNOWN, Health.UNKNOWN)),
        "only 1 of 3 check points tell pbx02 whether pbx01 answers (cp2: refused): understudy status there",
    ),
    "old-round": (
        account(evidence={"round_at": NOW - 200}),
        "pbx02 asked the check points 3m20s ago for the last time",
    ),
    "claim": (
        account(evidence={"claim_trouble": "dns1 gives no answer"}),
        "pbx02 cannot read the claim: dns1 gives no answer",
    ),
    "other-claim": (
        account(claim=replace(CLAIM, epoch=6)),
        "pbx02 reads that pbx01 is active in epoch 6, pbx01 that pbx01 is in epoch 7: do both ask the"
        " same server ([claim])?",
    ),
    "disk": (
        account(disk_free=3_000_000),
        "the disk of pbx02 is full where its journal is (3.0 MB left): df -h there",
    ),
    "journal": (
        account(journal_failing="read-only"),
        "pbx02 cannot write: read-only",
    ),
    "clock-ahead": (
        account(wall=WALL + 91),
        "pbx02's clock is 1m30s ahead of pbx01's: timedatectl on both",
    ),
    "clock-behind": (
        account(wall=WALL - 91),
        "pbx02's clock is 1m30s behind pbx01's: timedatectl on both",
    ),
    "pbx": (
        account(evidence={"pbx": Pbx.UNKNOWN}),
        "pbx02 cannot tell how its PBX is: is [service] right there?  understudy doctor",
    ),
    "start-failed": (
        account(evidence={"start_failed_at": NOW - 60}),
        "pbx02 could not start its PBX within the last hour: understudy events there",
    ),
    "glass": (
        account(glass=True),
        "the glass is broken on pbx02: when its PBX is stopped, remove break-glass there",
    ),
}


@pytest.mark.parametrize(("found", "text"), FAULTS.values(), ids=list(FAULTS))
def test_each_fault_is_one_reason_with_its_cure(found: Account, text: str) -> None:
    assert texts(found) == [text]


def test_the_standby_says_the_same_of_itself() -> None:
    own = wanted(POLICY, CLAIM, "0.4.2")
    assert texts(account(), own) == []
    assert texts(account(Phase.OUTDATED), own) == [
        "pbx02 is outdated, its copy may lack data: understudy rejoin here"
    ]


def test_a_clock_is_only_judged_by_what_the_way_does_not_explain() -> None:
    slow = replace(BY, asked=(WALL - 8, WALL + 2))
    assert texts(account(wall=WALL - 8.9), slow) == []
    assert texts(account(wall=WALL + 3.1), slow) == [
        "pbx02's clock is 1s ahead of pbx01's: timedatectl on both"
    ]


def test_what_a_dead_agent_has_left_is_not_told_as_well() -> None:
    dead = account(Phase.OUTDATED, pid=None, heartbeat=40, digest="d2")
    assert len(texts(dead)) == 2
    assert "outdated" not in "".join(texts(dead))


def test_rules_of_the_claim_keep_any_standby_from_it() -> None:
    state = State(phase=Phase.ACTIVE, since=NOW, evidence=Evidence(claim=CLAIM))

    def told(claim: Claim) -> list[str]:
        found = replace(state, evidence=replace(state.evidence, claim=claim))
        return [reason.text for reason in rules(found, POLICY, NOW, WALL)]

    assert told(CLAIM) == []
    (text,) = told(paused(CLAIM, int(WALL) + 600))
    assert text.startswith("automatic failover is paused until ")
    assert text.endswith(": understudy resume")
    (text,) = told(replace(CLAIM, settle=int(WALL) + 500))
    assert (
        text
        == "nothing moves automatically for 8m20s more, after the last change: understudy resume"
    )
    (text,) = told(replace(CLAIM, returns=2, served=False))
    assert "understudy set-active NODE" in text


# The verdict

SURE, MAYBE = Reason(text="disk"), Reason(text="gone 40s", certain=False)


def look(before: Protection | None, *found: Reason, at: float = 0.0, epoch: int = 7) -> Protection:
    return judged(before, found, standby="pbx02", epoch=epoch, wall=WALL + at)


def test_what_may_be_an_accident_is_believed_the_second_time() -> None:
    well = look(None)
    assert (well.protected, well.since) == (True, WALL)
    doubted = look(well, MAYBE, at=30)
    assert (doubted.protected, doubted.doubted, doubted.since) == (True, True, WALL)
    assert look(doubted, at=35) == look(well, at=35)
    believed = look(doubted, MAYBE, at=35)
    assert (believed.protected, believed.since, believed.reasons) == (
        False,
        WALL + 35,
        ("gone 40s",),
    )
    assert look(well, SURE, MAYBE, at=30).reasons == ("disk", "gone 40s")


def test_the_first_look_decides_nothing_that_may_be_an_accident() -> None:
    unknown = look(None, MAYBE)
    assert (unknown.protected, unknown.known) == (False, False)
    assert news(None, unknown) == ""
    assert news(unknown, look(unknown, MAYBE, at=5)) == "NOT PROTECTED: gone 40s"
    assert news(unknown, look(unknown, at=5)) == "PROTECTED: pbx02 could take over"


def test_each_change_is_told_once() -> None:
    well = look(None)
    bad = look(well, SURE, at=60)
    assert news(well, bad) == "NOT PROTECTED: disk"
    still = look(bad, SURE, at=70)
    assert (news(bad, still), still.since) == ("", WALL + 60)
    other = look(still, MAYBE, at=80)
    assert news(still, other) == "still NOT PROTECTED: gone 40s"
    assert news(other, look(other, Reason(text="gone 1m10s"), at=110)) == ""
    again = look(other, at=780)
    assert news(other, again) == "PROTECTED again after 12m: pbx02 could take over"
    assert (again.since, news(again, look(again, at=800))) == (WALL + 780, "")


def test_another_epoch_begins_anew() -> None:
    old = look(look(None), SURE)
    new = look(old, epoch=8, at=9)
    assert (new.since, news(old, new)) == (WALL + 9, "PROTECTED: pbx02 could take over")


# The watch


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> Moment:
        return Moment(self.at, WALL + self.at - NOW, self.at)


class Scene:
    """pbx01 is active; what pbx02 answers is up to the test.  Time passes only by sleeping."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.journal = SqliteJournal(folder / "journal.sqlite3", self.clock)
        self.said: list[tuple[int, str]] = []
        self.asked: list[float] = []
        self.answer: Callable[[], dict[str, Any]] = lambda: self.well()
        evidence = Evidence(claim=CLAIM, pbx=Pbx.ANSWERING)
        self.state = State(phase=Phase.ACTIVE, since=NOW - 99, epoch=7, evidence=evidence)
        self.policy = Policy(me="pbx01", peer="pbx02", digest="d1")
        self.beside = Beside(
            self.journal,
            self.clock,
            lambda: self.state,
            lambda: self.policy,
            lambda priority, text: self.said.append((priority, text)),
        )
        self.until = NOW
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    def well(self, **changes: Any) -> dict[str, Any]:
        found = account(wall=self.clock.now().wall, **changes)
        return {"ok": True, **readings.as_json(found.view), **statecodec.to_json(found.extras)}

    async def status(self) -> dict[str, Any]:
        self.asked.append(self.clock.at - NOW)
        return self.answer()

    def run(self, seconds: float) -> None:
        """A new companion, as after a restart of the agent."""
        self.until = self.clock.at + seconds
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(self.companion().live(self.beside))

    def companion(self) -> Watch:
        return Watch(peer=self, version=lambda: "0.4.2", glass=lambda: False)

    @property
    def sentences(self) -> list[str]:
        return [text for _, text in self.said]

    async def _sleep(self, seconds: float) -> None:
        self.clock.at += seconds
        if self.clock.at > self.until:
            raise asyncio.CancelledError


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def fails() -> dict[str, Any]:
    raise Unreachable("pbx02 cannot be reached: no route to host")


def test_a_fault_is_told_within_two_minutes_and_its_end_within_seconds(scene: Scene) -> None:
    scene.run(70)
    assert scene.said == [(5, "PROTECTED: pbx02 could take over")]
    assert scene.asked == [0, 30, 60]
    scene.answer = fails
    began = scene.clock.at
    scene.run(100)
    told = "NOT PROTECTED: pbx02 cannot be reached: no route to host: understudy doctor"
    assert scene.said[1:] == [(4, told)]
    verdict = kept(scene.journal)
    assert verdict is not None
    # The way there and back may take 10 s each time.
    assert verdict.since - WALL + NOW - began + 2 * watch.WITHIN < 120
    scene.answer = lambda: scene.well()
    scene.run(11)
    assert scene.said[-1][1].startswith("PROTECTED again after ")
    notes = [event.text for event in scene.journal.events() if event.name == "protection"]
    assert notes == scene.sentences


def test_one_question_without_an_answer_is_no_fault(scene: Scene) -> None:
    answers = [True, False, True]
    scene.answer = lambda: scene.well() if not answers or answers.pop(0) else fails()
    scene.run(100)
    assert scene.asked[:4] == [0, 30, 35, 65]
    assert scene.sentences == ["PROTECTED: pbx02 could take over"]


def test_the_verdict_survives_a_restart_of_the_agent(scene: Scene) -> None:
    scene.answer = lambda: scene.well(digest="d2")
    scene.run(1)
    scene.run(100)
    assert len(scene.said) == 1
    verdict = kept(scene.journal)
    assert verdict is not None
    assert (verdict.protected, verdict.since) == (False, WALL)


def test_an_answer_that_is_none_is_told(scene: Scene) -> None:
    scene.answer = lambda: {"ok": True, "phase": "dancing"}
    scene.run(1)
    assert "what this version (0.4.2) does not understand" in scene.sentences[0]


def test_a_way_that_leads_to_this_node_is_told(scene: Scene) -> None:
    scene.answer = lambda: {**scene.well(), "node": "pbx01"}
    scene.run(1)
    assert "the way to pbx02 leads to pbx01: see nodes.pbx02.ssh" in scene.sentences[0]


def test_a_question_that_hangs_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WITHIN", 0.05)
    companion = scene.companion()

    async def hangs() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    scene.status = hangs  # type: ignore[method-assign]

    async def twice() -> None:
        await companion.visit(scene.beside)
        scene.clock.at += 60
        await companion.visit(scene.beside)

    asyncio.run(twice())
    assert scene.sentences == [
        "NOT PROTECTED: pbx02 has not answered within 0.05 s: understudy doctor"
    ]


def test_from_cron_it_asks_once_a_minute(scene: Scene) -> None:
    for _ in range(4):
        asyncio.run(scene.companion().visit(scene.beside))
        scene.clock.at += 30
    assert scene.asked == [0, 60]


def test_a_round_by_cron_that_has_just_taken_over_asks_nobody(scene: Scene) -> None:
    scene.state = replace(scene.state, since=NOW - 5)
    asyncio.run(scene.companion().visit(scene.beside))
    assert (scene.asked, kept(scene.journal)) == ([], None)


def test_nobody_is_asked_while_calls_move(scene: Scene) -> None:
    scene.state = replace(scene.state, phase=Phase.HANDING_OVER)
    scene.run(30)
    assert (scene.asked, scene.said) == ([], [])


def test_a_node_that_does_not_serve_looks_at_itself_and_tells_nobody(scene: Scene) -> None:
    scene.state = replace(scene.state, phase=Phase.OUTDATED)
    scene.run(30)
    assert (scene.asked, scene.said) == ([], [])
    verdict = kept(scene.journal)
    assert verdict is not None
    assert (verdict.standby, verdict.protected) == ("pbx01", False)
