"""What users meet: wrong files, full disks, refused keys, missing programs."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters import bind
from end_to_end.outside import leads_to, until, watch
from end_to_end.pair import NODES, ZONE, Pair, name_section, quick_pair
from understudy.adapters.claims.record import from_text, to_text
from understudy.core.claim import How

pytestmark = pytest.mark.real
DETECTION = {
    "interval": "1s",
    "patience": "6500ms",
    "announce": "4s",
    "claim_stale": "2s",
    "checkpoints_stale": "2500ms",
    "restart_grace": "2s",
    "settle_down": "1s",
    "first_proof": "3s",
}


@contextmanager
def weather(folder: Path, key: str = "strong") -> Iterator[tuple[Pair, bind.Pair]]:
    (folder / "dns").mkdir()
    with bind.bind_pair(folder / "dns") as names:
        names.nsupdate(f"update add sip.{ZONE} 1 CNAME pbx01.{ZONE}")

        def rest(port: int) -> str:
            points = "".join(
                f'[checkpoints.cp{each}]\nkind = "sip"\nport = {port}\ntimeout = "500ms"\n'
                for each in (1, 2, 3)
            )
            ports = (names.primary.port, names.secondary.port)
            return points + name_section(names.key(key), names.primary.port, *ports)

        with quick_pair(folder / "pair", DETECTION, rest, f"sip.{ZONE}") as pair:
            (pair.folder / "claim").write_text(to_text(pair.old_claim()) + "\n")
            with watch(pair.addresses, pair.port):
                yield pair, names


def wait_for(pair: Pair, node: str, phase: str, within: float = 12.0) -> None:
    until(
        lambda: pair.phase(node) == phase,
        within=within,
        what=lambda: f"{node} is {phase}: {pair.phase(node)}\n{pair.said(node)}",
    )


def _codes(pair: Pair, node: str) -> set[str]:
    """Of the troubles that `status` there tells."""
    return {each["code"] for each in pair.json(node, "status")["troubles"]}


@pytest.mark.parametrize("verb", ["run", "tick"])
def test_a_wrong_configuration_is_told_whole_and_nothing_is_started(
    verb: str, tmp_path: Path
) -> None:
    with weather(tmp_path) as (pair, _):
        pair.edit("pbx01", 'preferred = "pbx01"', 'preferred = "pbx09"')
        pair.edit("pbx01", 'patience = "6500ms"', 'patience = "2s"\npatients = 3')
        pair.edit("pbx01", 'kind = "command"', 'kind = "comand"')
        done = pair.run("pbx01", verb)
        assert done.returncode == 2
        assert done.stdout == ""
        for line in ("pbx09", "patients", "comand"):
            assert line in done.stderr
        assert "Traceback" not in done.stderr
        told = [line for line in done.stderr.splitlines() if f"{pair.config('pbx01')}:" in line]
        assert len(told) >= 3, done.stderr
        assert not pair.pbx_pid("pbx01")


def test_an_active_node_serves_on_with_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    with weather(tmp_path) as (pair, _):
        agent = pair.start("pbx01")
        pair.start("pbx02")
        wait_for(pair, "pbx01", "active")
        wait_for(pair, "pbx02", "standby")
        pbx = pair.pbx_pid("pbx01")
        # As a full disk: whatever would make a file grow beyond this fails (setrlimit(2)).  One page of the journal
        # and its head do not fit; the agent's log, a file here, does.
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        until(
            lambda: "cannot be written" in pair.said("pbx01"),
            within=20,
            what=lambda: f"the agent says it: {pair.said('pbx01')}",
        )
        until(
            lambda: {"journal", "agent"} & _codes(pair, "pbx01"),
            within=25,
            what=lambda: f"status says it: {pair.run('pbx01', 'status').stdout}",
        )
        assert agent.poll() is None
        assert pair.pbx_pid("pbx01") == pbx
        assert pair.phase("pbx02") == "standby"
        # With room again it catches up by itself.
        resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (-1, -1))
        until(
            lambda: "the journal is well again" in pair.said("pbx01"),
            within=15,
            what=lambda: f"the journal is well again: {pair.said('pbx01')}",
        )
        assert not {"journal", "agent"} & _codes(pair, "pbx01")


@pytest.fixture(scope="module")
def refused_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By verb, what a node says that took over and may not move the name."""
    with weather(tmp_path_factory.mktemp("name"), key="weak") as (pair, names):
        pair.start("pbx02")
        wait_for(pair, "pbx02", "active", within=20)
        assert leads_to(names.primary.port, f"sip.{ZONE}") == f"pbx01.{ZONE}"
        time.sleep(3.0)  # It tries again and again.
        return {verb: pair.run("pbx02", verb).stdout for verb in ("why", "status", "events")}


@pytest.fixture(scope="module")
def refused_claim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By verb, what a standby says that may not write the claim when it should announce."""
    with weather(tmp_path_factory.mktemp("claim"), key="weak") as (pair, names):
        file = f'kind = "file"\npath = "{pair.folder}/claim"'
        for node in NODES:
            pair.edit(node, file, 'kind = "dns"')
        text = to_text(pair.old_claim())
        names.nsupdate(f'update add _understudy.sip.{ZONE} 0 TXT "{text}"')
        pair.start("pbx02")
        time.sleep(6.5 + 4.0)
        assert pair.phase("pbx02") == "suspecting", pair.said("pbx02")
        return {verb: pair.run("pbx02", verb).stdout for verb in ("why", "status", "events")}


REFUSED = "the key weak may not change this (REFUSED)"


def test_a_refused_update_of_the_name_is_an_event(refused_name: dict[str, str]) -> None:
    assert REFUSED in refused_name["events"]


def test_a_refused_update_of_the_name_names_the_policy_line(refused_name: dict[str, str]) -> None:
    assert f"grant weak name sip.{ZONE} CNAME" in refused_name["why"]


def test_status_says_that_callers_are_not_led_here(refused_name: dict[str, str]) -> None:
    assert REFUSED in refused_name["status"].partition("events")[0]


def test_a_refused_announcement_is_an_event(refused_claim: dict[str, str]) -> None:
    assert REFUSED in refused_claim["events"]


def test_a_refused_announcement_names_the_policy_line(refused_claim: dict[str, str]) -> None:
    assert f"grant weak name _understudy.sip.{ZONE} TXT" in refused_claim["why"]


@pytest.mark.parametrize("verb", ["why", "status"])
def test_a_refused_announcement_is_what_the_standby_waits_for(
    verb: str, refused_claim: dict[str, str]
) -> None:
    assert REFUSED in refused_claim[verb].partition("events")[0]


def test_a_start_command_that_is_gone_gives_the_claim_back(tmp_path: Path) -> None:
    with weather(tmp_path) as (pair, _):
        pair.start("pbx02")
        wait_for(pair, "pbx02", "suspecting")
        start = pair.home("pbx02") / "start"
        start.rename(pair.home("pbx02") / "gone")

        def returned() -> bool:
            claim = from_text((pair.folder / "claim").read_text().strip())
            return (claim.node, claim.epoch, claim.how) == ("pbx01", 3, How.RETURNED)

        until(returned, within=20, what=lambda: f"the claim is given back: {pair.said('pbx02')}")
        # Its data is still the newest: the node that had the claim serves when it is back.
        pair.start("pbx01")
        wait_for(pair, "pbx01", "active")
        wait_for(pair, "pbx02", "standby")
        done = pair.run("pbx02", "tick")  # An agent that begins now says at once what is missing.
        assert done.returncode == 2
        assert "service.start" in done.stderr
        assert "no program" in done.stderr

        (pair.home("pbx02") / "gone").rename(start)
        assert "start-failed" in _codes(pair, "pbx02")
        events = pair.run("pbx02", "events").stdout
        assert str(start) in events
