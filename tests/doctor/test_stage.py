"""The claim, the agent, its journal and the PBX of one node."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.pair import CliPair
from doctor.world import claim, here, levels, only, run
from understudy.core.decide import Decision
from understudy.core.model import Phase, newborn
from understudy.core.observations import Seen
from understudy.demo.sip_pbx import SipPbx
from understudy.doctor import stage
from understudy.doctor.finding import Finding, Level
from understudy.doctor.here import Here
from understudy.errors import ClaimMissing, Unreachable
from understudy.ports import Moment
from understudy.runtime.journal_lock import agent_lock

OK, NOTE, WARNING, CRITICAL, UNKNOWN = (
    Level.OK,
    Level.NOTE,
    Level.WARNING,
    Level.CRITICAL,
    Level.UNKNOWN,
)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[CliPair]:
    made = CliPair(tmp_path)
    yield made
    made.end()


def test_a_good_claim_is_well(pair: CliPair) -> None:
    place = here(pair)
    place = replace(place, claim=claim(digest=place.node.policy.digest))
    found = run(stage.claim, place)
    assert {each.level for each in found} == {OK}
    assert {each.check for each in found} == {
        "claim",
        "claim-announced",
        "claim-epoch",
        "claim-digest",
        "pause",
    }


def test_a_missing_claim_and_an_unreadable_one_are_critical(pair: CliPair) -> None:
    missing = here(pair, claim_trouble=ClaimMissing("there is no claim", hint="..."))
    (found,) = run(stage.claim, missing)
    assert (found.level, found.mend) == (CRITICAL, "understudy set-active NODE")
    silent = here(pair, claim_trouble=Unreachable("ns1 does not answer", hint="look at ns1"))
    (found,) = run(stage.claim, silent)
    assert (found.level, found.what, found.mend) == (CRITICAL, "ns1 does not answer", "look at ns1")


@pytest.mark.parametrize(
    ("changes", "check", "level"),
    [
        ({"announced": "pbx02"}, "claim-announced", WARNING),
        ({"digest": "another"}, "claim-digest", WARNING),
        ({"pause": int(time.time()) + 3600}, "pause", NOTE),
    ],
)
def test_what_stands_in_the_claim_is_told(
    pair: CliPair, changes: dict[str, Any], check: str, level: Level
) -> None:
    place = here(pair)
    read = replace(claim(digest=place.node.policy.digest), **changes)
    found = run(stage.claim, replace(place, claim=read))
    assert only(found, check).level is level
    assert {each.level for each in found if each.check != check} == {OK}


def test_a_claim_from_the_past_is_critical(pair: CliPair) -> None:
    place = here(pair, "pbx02", claim=claim(epoch=4))
    remember(place, Phase.STANDBY, epoch=5)
    found = only(run(stage.claim, place), "claim-epoch")
    assert found.level is CRITICAL
    assert "epoch 4, and this node has seen epoch 5" in found.what
    assert only(run(stage.claim, replace(place, claim=claim(epoch=5))), "claim-epoch").level is OK


def test_broken_glass_is_critical(pair: CliPair) -> None:
    place = here(pair)
    assert only(run(stage.glass, place), "break-glass").level is OK
    place.node.glass.touch()
    found = only(run(stage.glass, place), "break-glass")
    assert (found.level, found.mend) == (CRITICAL, f"rm {place.node.glass}")


def test_a_node_without_an_agent_is_critical(pair: CliPair) -> None:
    found = run(stage.agent, here(pair))
    assert only(found, "agent").level is CRITICAL
    assert "no agent has ever run here" in only(found, "agent").what


def test_a_living_agent_is_well(pair: CliPair) -> None:
    place = here(pair)
    with place.node.as_agent() as journal:
        journal.begin(place.node.boot_id, node="pbx01")
        found = run(stage.agent, place)
    assert levels(found, "agent") == levels(found, "journal") == [OK]


def test_an_agent_that_hangs_is_critical(pair: CliPair) -> None:
    place = here(pair, "pbx02")
    remember(place, Phase.STANDBY)
    later = replace(place, node=replace(place.node, clock=Later(3600.0)))
    with agent_lock(place.node.journal_path.with_suffix(".lock")):
        found = only(run(stage.agent, later), "agent")
    assert found.level is CRITICAL
    assert "no sign of life for 1h" in found.what
    assert found.mend == "systemctl restart understudy"


def test_cron_will_do_for_a_standby_and_not_for_the_active_node(pair: CliPair) -> None:
    place = here(pair, "pbx02", claim=claim("pbx01"))
    remember(place, Phase.STANDBY)
    assert only(run(stage.agent, place), "agent").level is OK
    found = only(run(stage.agent, replace(place, claim=claim("pbx02"))), "agent")
    assert found.level is WARNING
    assert "nothing watches the claim between two rounds" in found.what


def test_an_agent_that_has_not_been_seen_for_long_is_gone(pair: CliPair) -> None:
    place = here(pair, "pbx02", claim=claim("pbx01"))
    remember(place, Phase.STANDBY)
    later = replace(place, node=replace(place.node, clock=Later(3600.0)))
    found = only(run(stage.agent, later), "agent")
    assert found.level is CRITICAL
    assert "the last one was seen 1h" in found.what


@pytest.mark.parametrize(
    ("phase", "level"),
    [
        (Phase.STANDBY, OK),
        (Phase.ACTIVE, OK),
        (Phase.HALTED, CRITICAL),
        (Phase.OUTDATED, WARNING),
        (Phase.DOUBTED, WARNING),
    ],
)
def test_a_phase_that_takes_nothing_over_is_told(pair: CliPair, phase: Phase, level: Level) -> None:
    place = here(pair)
    remember(place, phase)
    assert only(run(stage.agent, place), "phase").level is level


def test_a_journal_that_cannot_be_read_is_critical(pair: CliPair) -> None:
    place = here(pair)
    place.node.journal_path.write_text("no database " * 1000)
    found = only(run(stage.agent, place), "journal")
    assert found.level is CRITICAL
    assert str(place.node.journal_path) in found.what


def test_what_the_agent_says_of_its_journal_is_told(pair: CliPair) -> None:
    place = here(pair)
    with place.node.as_agent() as journal:
        journal.begin(place.node.boot_id, node="pbx01")
        place.node.note_trouble("the disk is full")
        found = only(run(stage.agent, place), "journal")
    assert (found.level, found.what) == (CRITICAL, "the disk is full")


def test_the_pbx_belongs_to_the_active_node(pair: CliPair) -> None:
    place = here(pair, claim=claim("pbx01"))
    dead = only(run(stage.pbx, place), "pbx")
    assert (dead.level, dead.what) == (
        CRITICAL,
        "the PBX is stopped, and the claim names this node",
    )
    standby = replace(place, claim=claim("pbx02"))
    assert only(run(stage.pbx, standby), "pbx").level is OK
    assert only(run(stage.pbx, replace(place, claim=None)), "pbx").level is UNKNOWN

    async def serving() -> list[Finding]:
        async with SipPbx("pbx01", pair.addresses["pbx01"], pair.port):
            return [*await stage.pbx(place), *await stage.pbx(standby)]

    (pair.folder / "pbx01" / "status").write_text("#!/bin/sh\n")
    assert levels(asyncio.run(serving()), "pbx") == [OK, CRITICAL]


def test_a_pbx_of_which_nothing_can_be_told_is_unknown(pair: CliPair) -> None:
    (pair.folder / "pbx01" / "status").write_text("#!/bin/sh\nexit 9\n")
    found = only(run(stage.pbx, here(pair, claim=claim())), "pbx")
    assert (found.level, found.mend) == (UNKNOWN, "run as root: sudo understudy doctor")


class Later:
    """ports.Clock, some seconds from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> Moment:
        boot = time.clock_gettime(time.CLOCK_BOOTTIME) + self._seconds
        return Moment(boot=boot, wall=time.time() + self._seconds, monotonic=boot)


def remember(place: Here, phase: Phase, *, epoch: int = 1) -> None:
    """As an agent that ran a moment ago has left it."""
    now = place.node.clock.now()
    with place.node.as_agent() as journal:
        journal.begin(place.node.boot_id, node=place.me)
        state = replace(newborn(now.boot), phase=phase, epoch=epoch)
        journal.record(Decision(state), Seen(), now)
        journal.beat(now)
