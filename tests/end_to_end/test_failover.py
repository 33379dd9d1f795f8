"""Real daemons on loopback: NRPE in each of its TLS modes, BIND and its secondary, Kamailio."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from end_to_end.daemons import ANNOUNCE, INTERVAL, PATIENCE, Site, site
from end_to_end.outside import until
from understudy import wiring
from understudy.core.claim import How
from understudy.core.votes import Verdict
from understudy.errors import AdapterError

pytestmark = pytest.mark.real
SLACK = 1.0  # Seconds that a loaded machine may take to carry out what is due.
LATE = 1.1 * INTERVAL + 1.5 + SLACK  # A round comes so late, its questions included.
TAKING = 6.0  # Seconds for a whole take-over.


@pytest.mark.parametrize("modes", [("anonymous", "off"), ("verified", "mutual")], ids=" and ".join)
def test_a_dead_host_is_followed_once_patience_is_spent(
    modes: tuple[str, ...], tmp_path: Path
) -> None:
    """Two pairs beside each other: they mostly wait."""
    with ThreadPoolExecutor(len(modes)) as threads:
        list(threads.map(lambda mode: follow(mode, tmp_path / mode), modes))


def follow(mode: str, folder: Path) -> None:
    folder.mkdir()
    with site(folder, mode) as made:
        made.begin()
        made.start_both()
        if mode == "off":  # One that is dead itself holds nothing up, and is told.
            made.checkpoints.stop("cp3")
        made.pair.kill_host("pbx01")
        assert_it_follows(made, since=time.time())
        if mode == "off":
            assert "cp3 cannot tell whether" in made.pair.run("pbx02", "status").stdout


def assert_it_follows(made: Site, *, since: float) -> None:
    """pbx02 takes over: never before patience is over, and then at once."""
    pair = made.pair
    made.wait_for("pbx02", "active", within=PATIENCE + 2 * LATE + TAKING)
    answered = made.watch.first("pbx02", since)
    assert answered - since >= PATIENCE
    assert_at_the_end_of_patience(made, since)
    claim = made.claim
    assert (claim.node, claim.epoch, claim.how) == ("pbx02", 2, How.TAKEN)
    until(lambda: made.claim.served, within=5, what="the claim says that pbx02 has served")
    until(
        lambda: set(made.names()) == {"pbx02.example.test"},
        within=5,
        what=lambda: f"both name servers send callers to pbx02: {made.names()}",
    )
    assert made.watch.answering == ("pbx02",)
    assert pair.json("pbx02", "status")["active"] == "pbx02"


def assert_at_the_end_of_patience(made: Site, since: float) -> None:
    journal = made.pair.journal("pbx02")
    taken = next(d for d in journal.decisions(since=since) if d.rule == "patience-spent")
    announced = next(d for d in journal.decisions(since=since) if d.rule == "announced")
    rounds = journal.rounds(since=since - INTERVAL, until=taken.wall)
    journal.close()
    unbroken: list[float] = []
    for each in rounds:
        unbroken = [*unbroken, each.wall] if each.theirs is Verdict.DOWN else []
    assert PATIENCE <= taken.wall - unbroken[0] < PATIENCE + SLACK
    assert unbroken[-1] - announced.wall >= ANNOUNCE  # T1: the last round was asked after it.


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        made.start_both()
        yield made


def stays_stopped(made: Site, seconds: float) -> None:
    """pbx02 does not start, for so long."""
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        time.sleep(0.2)
        assert "pbx02" not in made.watch.answering
        assert made.pair.phase("pbx02") not in ("taking-over", "active"), made.pair.said("pbx02")


def test_a_standby_that_is_cut_off_does_nothing(place: Site) -> None:
    place.network.cut = {"pbx02"}
    stays_stopped(place, PATIENCE + 2 * LATE)
    found = place.pair.json("pbx02", "status")
    codes = {each["code"] for each in found["troubles"]}
    assert {"claim", "checkpoints-too-few"} <= codes
    place.network.cut = set()
    # On a busy machine the newest answer may be a moment late.
    until(lambda: place.watch.answering == ("pbx01",), within=2, what="pbx01 answers")
    claim = place.claim
    assert (claim.node, claim.epoch, claim.announced) == ("pbx01", 1, "")
    place.wait_for("pbx02", "standby", within=1)


def test_one_that_says_up_or_two_that_are_silent_hold_a_failover_back(place: Site) -> None:
    there = place.checkpoints
    there.lie("cp1")
    place.pair.kill_host("pbx01")
    stays_stopped(place, PATIENCE + INTERVAL + SLACK)
    found = place.pair.json("pbx02", "status")
    assert "checkpoints-disagree" in {each["code"] for each in found["troubles"]}

    there.stop("cp2", "cp3")
    there.lie("cp1", lies=False)  # Only one answers now, and it says down.
    stays_stopped(place, PATIENCE + INTERVAL + SLACK)
    found = place.pair.json("pbx02", "status")
    assert "checkpoints-too-few" in {each["code"] for each in found["troubles"]}
    assert place.claim.announced == ""

    # Their silence was no patience.
    there.start("cp2")
    back = time.time()
    place.wait_for("pbx02", "suspecting", within=LATE)
    time.sleep(PATIENCE / 2)
    there.lie("cp2")  # One good round starts patience anew.
    place.wait_for("pbx02", "standby", within=LATE)
    good = time.time()
    there.lie("cp2", lies=False)
    assert_it_follows(place, since=good)
    assert good - back > PATIENCE / 2
    assert_the_old_node_stays_silent(place)


def assert_the_old_node_stays_silent(made: Site) -> None:
    """The host that died is back: it may start nothing and move nothing."""
    refused = made.pair.run("pbx01", "may-start")
    assert refused.returncode == 1
    assert "the claim names pbx02, epoch 2" in refused.stderr
    made.pair.start("pbx01")
    made.wait_for("pbx01", "outdated", within=8)
    time.sleep(2 * INTERVAL)
    assert made.watch.answering == ("pbx02",)
    assert made.pair.pbx_pid("pbx01") == 0

    # Even one that believes in its old claim cannot move the name: BIND refuses the update.
    stale = made.pair.old_claim()
    name = wiring.service_name(wiring.load_config(made.pair.config("pbx01")))
    with pytest.raises(AdapterError):
        asyncio.run(name.point("pbx01", stale))
    assert set(made.names()) == {"pbx02.example.test"}
    assert not asyncio.run(made.pair.store().swap(stale, stale))


def test_an_active_node_that_is_cut_off_stops_before_the_other_starts(place: Site) -> None:
    place.wait_for_proof()
    place.network.cut = {"pbx01"}
    place.checkpoints.lose_sight("pbx01")
    cut = time.time()
    assert_it_follows(place, since=cut)
    assert place.watch.last("pbx01") < place.watch.first("pbx02", cut)
    place.network.cut = set()
    place.checkpoints.lose_sight("pbx01", lost=False)
    place.wait_for("pbx01", "outdated", within=8)
    assert place.watch.answering == ("pbx02",)


def test_without_the_primary_name_server_the_standby_waits_and_names_it(place: Site) -> None:
    place.pair.kill_host("pbx01")
    died = time.time()
    place.wait_for("pbx02", "suspecting", within=LATE)
    primary = place.dns.primary
    time.sleep(PATIENCE - ANNOUNCE - 2.0)
    primary.stop()
    stays_stopped(place, died + PATIENCE + LATE - time.time())

    server = place.pair.node("pbx02").store.where
    port = server.partition("127.0.0.1:")[2].partition(" ")[0] or server
    status = place.pair.run("pbx02", "status")
    assert status.returncode == 1
    assert "pbx02 stays stopped" in status.stdout
    why = place.pair.run("pbx02", "why")
    for said in (status.stdout, why.stdout):
        assert "127.0.0.1" in said, said
        assert port in said, said

    primary.start()
    back = time.time()
    place.wait_for("pbx02", "active", within=2 * LATE + ANNOUNCE + TAKING)
    assert place.watch.first("pbx02", back) - back < 2 * LATE + ANNOUNCE
    assert set(place.names()) == {"pbx02.example.test"}
