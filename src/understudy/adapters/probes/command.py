"""Probe kind `command`: runs a monitoring plugin on this machine.

For what no other kind asks.  The exit code counts as NRPE counts it; so does silence: a plugin that
prints nothing has told nothing, and many programs exit with 2, CRITICAL to us, when they were
merely called wrongly.
"""

import asyncio
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from understudy.adapters.probes import plugin
from understudy.config.settings import Command, Seconds, setting
from understudy.core.observations import Health, Report

_KEPT = 4096  # Bytes of each of stdout and stderr.
_LAST_WORDS = 0.2  # Seconds for output that is still under way when the plugin has ended.
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")  # The rest may hold secrets.


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Raises ValueError for values that contradict each other."""

    command: Command = setting(
        "The plugin and its arguments, without a shell; {node} is replaced in the arguments.",
        example=["/usr/lib/nagios/plugins/check_sip", "-H", "{node}.example.com"],
    )
    timeout: Seconds = setting(
        "How long it may take; then it is killed, with what it started.", default=Seconds(10.0)
    )

    def __post_init__(self) -> None:
        if not any("{node}" in each for each in self.command[1:]):
            raise ValueError(
                "no argument of command has {node}: both nodes would get one and the same answer.  "
                "Put it in"
            )
        if self.timeout <= 0:
            raise ValueError(f"timeout is {self.timeout:g} s.  Use more than 0 s")


class CommandProbe:
    """Implements ports.Probe."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._settings = settings

    async def ask(self, node: str) -> Report:
        """Exit codes 0 and 1 are UP, 2 is DOWN; any other, silence, and every failure to run it are
        UNKNOWN."""
        started = time.monotonic()
        program, *rest = self._settings.command
        arguments = [each.replace("{node}", node) for each in rest]
        try:
            async with asyncio.timeout(self._settings.timeout):
                health, text = _judge(await _run(program, arguments))
        except TimeoutError:
            health = Health.UNKNOWN
            text = f"{program} was killed: no answer within {self._settings.timeout:g} s"
        except (OSError, ValueError) as error:  # ValueError: a NUL in an argument.
            health = Health.UNKNOWN
            text = f"{program} cannot be run: {getattr(error, 'strerror', None) or error}"
        return Report(self.name, health, text, time.monotonic() - started)


async def _run(program: str, arguments: list[str]) -> "_Run":
    transport, run = await asyncio.get_running_loop().subprocess_exec(
        _Run,
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # A process group of its own, to be killed as one.
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
    try:
        await run.exited.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(run.drained.wait(), _LAST_WORDS)
        run.code = transport.get_returncode()
        return run
    finally:
        if (
            not run.drained.is_set()
        ):  # Someone of the group lives; else its number may be another's by now.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()


class _Run(asyncio.SubprocessProtocol):
    """A plugin at work."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()  # It ended, and all of its output is here.
        self.code: int | None = None
        self._kept = {1: bytearray(), 2: bytearray()}

    @property
    def stdout(self) -> bytes:
        return bytes(self._kept[1])

    @property
    def stderr(self) -> bytes:
        return bytes(self._kept[2])

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self._kept[fd]
        kept += data[: _KEPT - len(kept)]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drained.set()


def _judge(run: _Run) -> tuple[Health, str]:
    assert run.code is not None
    if run.code < 0:
        ended = f"it was ended by signal {-run.code}"
        return Health.UNKNOWN, f"{ended}: {plugin.sentence(run.stdout + run.stderr)}".rstrip(": ")
    said = plugin.sentence(run.stdout)
    if said:
        return plugin.health(run.code), said
    complaint = plugin.sentence(run.stderr) or "nothing on stderr either"
    return Health.UNKNOWN, f"it printed no answer and exited with {run.code} ({complaint})"
