"""Monitoring plugins, run for real."""

import asyncio
import os
import time
from dataclasses import fields
from pathlib import Path

import pytest

from understudy.adapters.probes.command import CommandProbe, Settings
from understudy.config.settings import Command, Seconds
from understudy.core.observations import Health, Report


def test_every_setting_is_explained() -> None:
    for each in fields(Settings):
        assert each.metadata["doc"].endswith("."), each.name


@pytest.mark.parametrize(
    ("code", "health"),
    [
        (0, Health.UP),
        (1, Health.UP),
        (2, Health.DOWN),
        (3, Health.UNKNOWN),
        (4, Health.UNKNOWN),
        (127, Health.UNKNOWN),
    ],
)
def test_exit_codes_mean_what_they_mean_to_nrpe(code: int, health: Health) -> None:
    report = _ask(f"echo 'SIP says {code}|time=1s'; exit {code}")
    assert (report.checkpoint, report.health, report.text) == ("cp1", health, f"SIP says {code}")


def test_the_node_is_put_into_every_argument() -> None:
    assert _ask('echo "$0 $1"', "check-{node}", "{node}").text == "check-pbx01 pbx01"


def test_a_plugin_that_prints_nothing_told_nothing() -> None:
    # Many programs exit with 2 when they are called wrongly.  That is no evidence of death.
    report = _ask("echo 'usage: check_sip [-h]' >&2; exit 2")
    assert report.health is Health.UNKNOWN
    assert "usage: check_sip [-h]" in report.text
    assert _ask("exit 0").health is Health.UNKNOWN


def test_stderr_does_not_hide_the_answer() -> None:
    report = _ask("echo warning >&2; echo 'SIP OK'")
    assert (report.health, report.text) == (Health.UP, "SIP OK")


def test_a_plugin_that_is_not_there_is_unknown() -> None:
    report = _run(Command(("/no/such/plugin", "{node}")))
    assert report.health is Health.UNKNOWN
    assert report.text == "cannot run /no/such/plugin: No such file or directory"


def test_a_plugin_that_may_not_be_run_is_unknown(tmp_path: Path) -> None:
    plugin = tmp_path / "check_sip"
    plugin.write_text("#!/bin/sh\n")
    assert "Permission denied" in _run(Command((str(plugin), "{node}"))).text


def test_a_plugin_ended_by_a_signal_is_unknown() -> None:
    report = _ask("echo half a line; kill -9 $$")
    assert report.health is Health.UNKNOWN
    assert report.text == "it was ended by signal 9: half a line"


def test_a_late_plugin_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! $$ > {pids}; wait"
    report = _ask(script, timeout=0.5)
    assert report.health is Health.UNKNOWN
    assert report.text == "sh did not end within 0.5 s"
    assert 0.4 < report.took < 2
    _gone(pids)


def test_a_cancelled_question_leaves_nothing_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def cancelled() -> None:
        probe = CommandProbe("cp1", _settings(f"sleep 60 & echo $! $$ > {pids}; wait"))
        task = asyncio.create_task(probe.ask("pbx01"))
        while not pids.exists() or len(pids.read_text().split()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    _gone(pids)


def test_a_child_that_holds_the_pipe_open_does_not_hold_us() -> None:
    report = _ask("sleep 60 & echo 'SIP OK'", timeout=5)
    assert (report.health, report.text) == (Health.UP, "SIP OK")
    assert report.took < 2


def test_endless_output_is_not_kept_and_does_not_block_the_plugin() -> None:
    report = _ask("head -c 5000000 /dev/zero | tr '\\0' x; exit 2", timeout=5)
    assert report.health is Health.DOWN
    assert len(report.text) == 300


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert _ask("printf 'SIP \\033[31mOK\\a'").text == "SIP ?[31mOK?"


def test_a_command_that_ignores_the_node_is_refused() -> None:
    with pytest.raises(ValueError, match="both nodes would get one and the same answer"):
        Settings(command=Command(("/bin/true",)))
    with pytest.raises(ValueError, match="more than 0 s"):
        Settings(command=Command(("/bin/echo", "{node}")), timeout=Seconds(0))


def _ask(script: str, *arguments: str, timeout: float = 5) -> Report:
    return asyncio.run(
        CommandProbe("cp1", _settings(script, *arguments, timeout=timeout)).ask("pbx01")
    )


def _run(command: Command) -> Report:
    return asyncio.run(CommandProbe("cp1", Settings(command=command)).ask("pbx01"))


def _settings(script: str, *arguments: str, timeout: float = 5) -> Settings:
    command = Command(("/bin/sh", "-c", script, *(arguments or ("{node}",))))
    return Settings(command=command, timeout=Seconds(timeout))


def _gone(pids: Path) -> None:
    deadline = time.monotonic() + 3
    left = [int(each) for each in pids.read_text().split()]
    assert left
    while time.monotonic() < deadline:
        left = [each for each in left if _lives(each)]
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"still there: {left}")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"  # An orphan may wait for its reaper.
