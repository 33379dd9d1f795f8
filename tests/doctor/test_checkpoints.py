"""What the check points' answers say about them, about the PBXs and about the way to them."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters import certificates, nrpe_daemon
from cli.pair import CliPair
from doctor.world import append, here, levels, only, run
from understudy.core.observations import Health
from understudy.doctor import checkpoints
from understudy.doctor.checkpoints import Sighting, judge
from understudy.doctor.finding import Finding, Level

SOURCE = Path(__file__).parents[2] / "src"
UP, DOWN, UNKNOWN = Health.UP, Health.DOWN, Health.UNKNOWN
ANSWERS = "SIP OK - 200 OK from 192.0.2.11:5060/udp in 0.401 s"
SILENT = "SIP CRITICAL - no answer from 198.51.100.12:5060/udp within 10.0 s"
CHECKPOINTS = ("cp1", "cp2", "cp3")
NODES = ("pbx01", "pbx02")

Seen = dict[tuple[str, str, str], Sighting]


def seen() -> Seen:
    """All is well: pbx01 is active; asked from both nodes."""
    return {
        (asker, checkpoint, node): Sighting(
            asker=asker,
            checkpoint=checkpoint,
            kind="nrpe",
            node=node,
            health=UP if node == "pbx01" else DOWN,
            text=ANSWERS if node == "pbx01" else SILENT,
        )
        for asker in NODES
        for checkpoint in CHECKPOINTS
        for node in NODES
    }


def judged(all_seen: Seen, active: str = "pbx01") -> list[Finding]:
    return list(judge(list(all_seen.values()), active, len(CHECKPOINTS)))


def say(
    all_seen: Seen, health: Health, text: str, *, asker: str = "", checkpoint: str = "", node: str
) -> None:
    """Another answer about `node`, by these or by all."""
    for key, each in all_seen.items():
        if key[0].startswith(asker) and key[1].startswith(checkpoint) and key[2] == node:
            all_seen[key] = replace(each, health=health, text=text)


def bad(found: list[Finding]) -> set[tuple[str, Level]]:
    return {(each.check, each.level) for each in found if each.level is not Level.OK}


def test_when_all_is_well_nothing_is_said() -> None:
    found = judged(seen())
    assert bad(found) == set()
    assert {each.check for each in found} == {
        "checkpoint-answers",
        "checkpoint-plugin",
        "checkpoint-sees-active",
        "checkpoint-known",
        "checkpoint-sees-standby",
    }


def test_a_check_point_that_answers_nobody_is_told() -> None:
    all_seen = seen()
    for node in NODES:
        say(all_seen, UNKNOWN, "cp1 is not there", checkpoint="cp1", node=node)
    found = judged(all_seen)
    assert bad(found) == {("checkpoint-answers", Level.WARNING)}
    assert "and does to" not in found[0].what


def test_a_check_point_that_does_not_talk_to_one_node_is_told_as_that() -> None:
    all_seen = seen()
    for node in NODES:
        say(all_seen, UNKNOWN, "it closed", asker="pbx02", checkpoint="cp1", node=node)
    found = judged(all_seen)
    assert bad(found) == {("checkpoint-answers", Level.WARNING)}
    (first, *_) = [each for each in found if each.level is Level.WARNING]
    assert first.node == "pbx02"
    assert "cp1 says nothing about pbx01 to pbx02, and does to pbx01: it closed" in first.what


def test_without_a_majority_it_is_critical() -> None:
    all_seen = seen()
    for checkpoint in ("cp1", "cp2"):
        say(all_seen, UNKNOWN, "it closed", asker="pbx02", checkpoint=checkpoint, node="pbx01")
    assert bad(judged(all_seen)) == {("checkpoint-answers", Level.CRITICAL)}


def test_a_plugin_that_is_not_ours_is_told() -> None:
    all_seen = seen()
    say(all_seen, UP, "PING OK - rta 3 ms", checkpoint="cp2", node="pbx01")
    found = judged(all_seen)
    assert bad(found) == {("checkpoint-plugin", Level.WARNING)}
    assert levels(found, "checkpoint-plugin") == [Level.OK, Level.WARNING, Level.OK]


def test_our_plugin_is_known_by_what_it_really_says() -> None:
    port = nrpe_daemon.free_port()
    done = subprocess.run(
        [
            sys.executable,
            SOURCE / "understudy/plugins/check_sip.py",
            "-H",
            "127.0.0.1",
            "-p",
            str(port),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checkpoints.OURS.match(done.stdout), done


def test_a_check_point_that_alone_sees_the_active_node_down_may_be_banned() -> None:
    all_seen = seen()
    say(all_seen, DOWN, SILENT, checkpoint="cp3", node="pbx01")
    found = judged(all_seen)
    assert bad(found) == {("checkpoint-sees-active", Level.WARNING)}
    one = only(found, "checkpoint-sees-active")
    assert "cp1, cp2 see it up: is cp3 banned, or cut off?" in one.what
    assert "with all of them so, calls move for nothing" in one.why


def test_no_check_point_that_sees_the_active_node_is_critical() -> None:
    all_seen = seen()
    say(all_seen, DOWN, SILENT, node="pbx01")
    assert bad(judged(all_seen)) == {("checkpoint-sees-active", Level.CRITICAL)}


def test_a_check_point_that_tells_the_nodes_different_things_is_told() -> None:
    all_seen = seen()
    say(all_seen, DOWN, SILENT, asker="pbx02", checkpoint="cp3", node="pbx01")
    found = only(judged(all_seen), "checkpoint-sees-active")
    assert "tells one node that pbx01 is up, and the other that it is down" in found.what


def test_a_check_point_that_the_pbx_does_not_know_is_told() -> None:
    all_seen = seen()
    text = "SIP OK - 401 Unauthorized from 192.0.2.11:5060/udp in 0.003 s (warning: the server ...)"
    say(all_seen, UP, text, checkpoint="cp1", node="pbx01")
    found = judged(all_seen)
    assert bad(found) == {("checkpoint-known", Level.WARNING)}
    assert (
        "understudy init --install (the PBX then knows cp1" in only(found, "checkpoint-known").mend
    )


def test_a_standby_that_is_seen_up_is_two_pbxs_or_a_wrong_address() -> None:
    all_seen = seen()
    say(all_seen, UP, ANSWERS, checkpoint="cp1", node="pbx02")
    assert bad(judged(all_seen)) == {("checkpoint-sees-standby", Level.WARNING)}
    say(all_seen, UP, ANSWERS, node="pbx02")
    assert bad(judged(all_seen)) == {("checkpoint-sees-standby", Level.CRITICAL)}


def test_without_a_claim_nobody_is_called_active() -> None:
    found = judged(seen(), active="")
    assert {each.check for each in found} == {"checkpoint-answers", "checkpoint-plugin"}


def test_a_sighting_comes_back_from_json() -> None:
    (first, *_) = seen().values()
    assert checkpoints.from_json(checkpoints.to_json(first)) == first
    with pytest.raises((ValueError, KeyError)):
        checkpoints.from_json({"asker": "pbx01"})


def test_probes_are_asked_about_both_nodes(pair: CliPair) -> None:
    async def look(place: object) -> list[Finding]:
        sightings.extend(await checkpoints.ask(here(pair)))
        return []

    sightings: list[Sighting] = []
    run(look, here(pair))
    assert {(each.asker, each.checkpoint, each.node, each.kind) for each in sightings} == {
        ("pbx01", checkpoint, node, "sip") for checkpoint in CHECKPOINTS for node in NODES
    }


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    return CliPair(tmp_path)


@pytest.fixture(scope="module")
def papers() -> Iterator[nrpe_daemon.Papers]:
    with nrpe_daemon.papers() as made:
        certificates.sign(made.home, "soon", "ca", "subjectAltName=IP:127.0.0.1", days=10)
        nrpe_daemon.own(made.home)
        yield made


@pytest.mark.real
@pytest.mark.parametrize(
    ("certificate", "level", "said"),
    [
        ("server", Level.OK, "ends in 30 days"),
        ("soon", Level.WARNING, "ends in 10 days"),
        ("expired", Level.WARNING, "certificate has expired"),
    ],
)
def test_a_certificate_that_ends_soon_is_told(
    pair: CliPair, papers: nrpe_daemon.Papers, certificate: str, level: Level, said: str
) -> None:
    with nrpe_daemon.daemon(config=papers.daemon(certificate)) as daemon:
        append(
            pair.config("pbx01"),
            f'[checkpoints.cp4]\nkind = "nrpe"\naddress = "127.0.0.1"\nport = {daemon.port}\n'
            f'tls = "verified"\nca_file = "{papers.ca}"\ntimeout = "900ms"\n',
        )
        found = only(run(checkpoints.certificates, here(pair)), "checkpoint-certificate")
    assert found.level is level
    assert said in found.what


def test_a_check_point_without_a_certificate_is_not_asked_for_one(pair: CliPair) -> None:
    assert run(checkpoints.certificates, here(pair)) == []
