"""The way to the other node, over a real sshd: a forced command, a shell, a stranger."""

import asyncio
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.sshd import Sshd, daemon
from cli.pair import CliPair
from doctor.world import edit, here, levels, only, run
from understudy.doctor import way
from understudy.doctor.finding import Level

SOURCE = Path(__file__).parents[2] / "src"
OK, WARNING, CRITICAL = Level.OK, Level.WARNING, Level.CRITICAL


class Way(Sshd):
    """To the other node, by the door's command."""

    def forced(self, pair: CliPair) -> str:
        words = " ".join(pair.argv("pbx02", "answer"))
        return f'command="env PYTHONPATH={SOURCE} {words}"'

    def door(self) -> list[str]:
        options = (
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            f"IdentityFile={self.folder / 'user'}",
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
        )
        return [
            *("ssh", "-T", "-F", "none", "-p", str(self.port)),
            *(word for each in options for word in ("-o", each)),
            *("--", "root@127.0.0.1"),
        ]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Way]:
    with daemon(tmp_path / "ssh", root_login="yes") as made:
        yield Way(made.folder, made.port)


@pytest.fixture
def pair(tmp_path: Path, sshd: Way) -> CliPair:
    made = CliPair(tmp_path)
    edit(made, json.dumps(made.argv("pbx02", "answer")), json.dumps(sshd.door()))
    return made


@pytest.mark.real
def test_a_door_that_opens_nothing_else_is_well(pair: CliPair, sshd: Way) -> None:
    sshd.authorize(f"restrict,{sshd.forced(pair)}")
    found = run(way.way, here(pair))
    assert [(each.check, each.level) for each in found] == [
        ("way", OK),
        ("way-forced", OK),
        ("way-forwarding", OK),
    ]


@pytest.mark.real
def test_a_key_that_opens_a_shell_is_critical(pair: CliPair, sshd: Way) -> None:
    sshd.authorize("")
    found = run(way.way, here(pair))
    one = only(found, "way-forced")
    assert one.level is CRITICAL
    assert 'restrict,command="/usr/bin/understudy answer"' in one.mend


@pytest.mark.real
def test_a_key_that_forwards_connections_is_told(pair: CliPair, sshd: Way) -> None:
    sshd.authorize(sshd.forced(pair))
    found = run(way.way, here(pair))
    assert levels(found, "way-forced") == [OK]
    assert levels(found, "way-forwarding") == [WARNING]


@pytest.mark.real
def test_a_host_that_is_not_known_is_a_stranger(pair: CliPair, sshd: Way) -> None:
    sshd.authorize(f"restrict,{sshd.forced(pair)}")
    (sshd.folder / "known_hosts").write_text("")
    one = only(run(way.way, here(pair)), "way")
    assert one.level is CRITICAL
    assert "its host key is not known" in one.what
    assert one.mend.startswith("put its host key into known_hosts; then: ssh ")


@pytest.mark.real
def test_a_key_that_is_not_let_in_is_told(pair: CliPair, sshd: Way) -> None:
    (sshd.folder / "authorized_keys").write_text("")
    one = only(run(way.way, here(pair)), "way")
    assert one.level is CRITICAL
    assert "does not let our key in" in one.what


def test_a_way_that_leads_nowhere_is_critical(tmp_path: Path) -> None:
    pair = CliPair(tmp_path)
    edit(pair, json.dumps(pair.argv("pbx02", "answer")), '["/bin/false"]')
    assert levels(run(way.way, here(pair)), "way") == [CRITICAL]
    edit(pair, '["/bin/false"]', '["/nowhere/ssh"]')
    assert levels(run(way.way, here(pair)), "way") == [CRITICAL]


def test_no_way_at_all_is_critical(tmp_path: Path) -> None:
    pair = CliPair(tmp_path)
    edit(pair, f"door = {json.dumps(pair.argv('pbx02', 'answer'))}", "")
    one = only(run(way.way, here(pair)), "way")
    assert (one.level, one.what) == (CRITICAL, "no way to pbx02 is configured")


def test_a_door_without_ssh_is_well_too(tmp_path: Path) -> None:
    found = run(way.way, here(CliPair(tmp_path)))
    assert [(each.check, each.level) for each in found] == [("way", OK), ("way-forced", OK)]


def test_root_goes_the_way_as_the_agents_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("SKIPPED FOR WANT OF ROOT: only root becomes somebody else")
    place = here(CliPair(tmp_path))
    assert not place.as_agent, "the folder is root's"
    nobody = pwd.getpwnam("nobody")
    os.chown(place.node.journal_path.parent, nobody.pw_uid, nobody.pw_gid)
    prefix = list(place.as_agent)
    assert prefix == ["runuser", "-u", "nobody", "--"]
    done = asyncio.run(place.run(*prefix, "id", "-un"))
    assert done.out == "nobody\n"
