"""The unit files that the package ships."""

import re
import subprocess
from pathlib import Path

import pytest

from adapters.systemd_host import require_program

FILES = Path(__file__).parents[2] / "src/understudy/hosts/files"
UNITS = sorted(path.name for path in FILES.iterdir() if path.suffix in (".service", ".timer"))


def settings(unit: str) -> list[str]:
    lines = (FILES / unit).read_text().splitlines()
    return [line for line in lines if line and line[0] not in "#["]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_about_it(unit: str, tmp_path: Path) -> None:
    require_program("systemd-analyze")
    for name in UNITS:
        text = re.sub(r"=/usr/bin/\S+", "=/bin/true", (FILES / name).read_text())
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_round_is_held_as_tightly_as_the_daemon() -> None:
    begins = "AmbientCapabilities=CAP_NET_ADMIN"
    ends = "SystemCallErrorNumber=EPERM"
    agent, tick = settings("understudy.service"), settings("understudy-tick.service")
    held = agent[agent.index(begins) : agent.index(ends) + 1]
    assert len(held) > 20
    assert tick[tick.index(begins) : tick.index(ends) + 1] == held


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_nothing_runs_before_there_is_a_configuration(unit: str) -> None:
    assert "ConditionPathExists=/etc/understudy/understudy.toml" in settings(unit)


@pytest.mark.parametrize("unit", ["understudy.service", "understudy-guard.service"])
def test_what_keeps_the_pbx_is_always_started_again(unit: str) -> None:
    assert {"Restart=always", "RestartSec=1", "StartLimitIntervalSec=0", "KillMode=process"} <= set(
        settings(unit)
    )


def test_the_daemon_does_not_pull_the_guard_along() -> None:
    text = "\n".join(settings("understudy-guard.service"))
    assert not any(word in text for word in ("Requires=", "PartOf=", "BindsTo="))
