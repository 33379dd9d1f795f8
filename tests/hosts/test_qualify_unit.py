"""What follows a start of Asterisk never holds it up, and never makes it fail: in a real systemd."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.systemd_host import SystemdHost, booted
from hosts.pieces_for import config, piece
from understudy.hosts.piece import Choices
from understudy.hosts.units import QUALIFY

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]
# In place of the program: it lets the PBX start; its `qualify` needs a socket in /run, and notes what it does.
PROGRAM = """#!/bin/sh
case "$*" in *may-start*) exit 0 ;; esac
cd /dev/shm && systemctl show --property=Version >/dev/null || exit 7
echo begun >>log
sleep "$(cat takes)"
echo ended >>log
exit "$(cat code)"
"""


class Host:
    def __init__(self, systemd: SystemdHost) -> None:
        self.systemd = systemd
        self.root = systemd.root

    def qualify(self, *, takes: str, code: str = "0") -> None:
        """What the next ones do."""
        for name, text in (("takes", takes), ("code", code), ("log", "")):
            (self.root / "dev/shm" / name).write_text(text)

    @property
    def log(self) -> list[str]:
        return (self.root / "dev/shm/log").read_text().split()

    def ctl(self, *words: str) -> None:
        self.systemd.run("systemctl", *words)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < ends, what
            time.sleep(0.05)


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    with booted(tmp_path_factory.mktemp("systemd")) as host:
        yield host


@pytest.fixture
def host(systemd: SystemdHost, tmp_path: Path) -> Iterator[Host]:
    program = systemd.root / "usr/local/bin/understudy-stand-in"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    choices = Choices(program="/usr/local/bin/understudy-stand-in")
    made = config(tmp_path)
    systemd.unit(
        "asterisk.service",
        "[Unit]\nStartLimitIntervalSec=0\n"
        "[Service]\nExecStart=/bin/sleep 1000\nUser=nobody\nPrivateTmp=yes\nProtectSystem=strict\n",
    )
    folder = systemd.root / "etc/systemd/system/asterisk.service.d"
    folder.mkdir(exist_ok=True)
    (folder / "understudy.conf").write_text(
        piece(made, "pbx01", "asterisk.service.d/understudy.conf", choices).text
    )
    systemd.unit(QUALIFY, piece(made, "pbx01", QUALIFY, choices).text)
    yield Host(systemd)
    systemd.run("systemctl", "stop", "asterisk", QUALIFY, check=False)


def test_the_start_does_not_wait_for_it(host: Host) -> None:
    host.qualify(takes="1000")
    host.ctl("start", "asterisk")
    host.until(lambda: host.log == ["begun"], "it does not begin")
    assert host.systemd.state("asterisk") == "active"
    assert host.systemd.state(QUALIFY) == "activating"
    # It is not one of the PBX's own: a stop of that is not held up by it either.
    host.ctl("stop", "asterisk")
    assert host.systemd.state(QUALIFY) == "activating"


def test_each_start_has_one_of_its_own(host: Host) -> None:
    """The one before asked an Asterisk that has gone."""
    host.qualify(takes="1000")
    host.ctl("start", "asterisk")
    host.until(lambda: host.log == ["begun"], "it does not begin")
    first = host.systemd.main_pid(QUALIFY)
    for number in range(7):  # More than StartLimitBurst= allows by itself.
        host.ctl("restart", "asterisk")
        host.until(lambda n=number: len(host.log) == n + 2, "it does not begin anew")  # type: ignore[misc]
    assert host.systemd.main_pid(QUALIFY) != first
    assert "ended" not in host.log


def test_its_failure_is_nobodys(host: Host) -> None:
    host.qualify(takes="0", code="3")
    host.ctl("start", "asterisk")
    host.until(lambda: host.log == ["begun", "ended"], "it does not end")
    host.until(lambda: host.systemd.state(QUALIFY) == "inactive", "it does not end")
    assert host.systemd.state("asterisk") == "active"
    assert QUALIFY not in host.systemd.run("systemctl", "--failed", "--plain", "--no-legend")


def test_without_it_the_pbx_starts(host: Host) -> None:
    (host.root / "etc/systemd/system" / QUALIFY).unlink()
    host.ctl("daemon-reload")
    host.ctl("start", "asterisk")
    assert host.systemd.state("asterisk") == "active"


def test_systemd_finds_no_fault(host: Host) -> None:
    said = host.systemd.run("sh", "-c", f"systemd-analyze verify asterisk.service {QUALIFY} 2>&1")
    assert "understudy" not in said, said
