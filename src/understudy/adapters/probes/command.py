"""Probe kind `command`: runs a monitoring plugin on this machine.

For what no other kind asks.  The exit code counts as NRPE counts it; so does silence: a plugin that
prints nothing has told nothing, and many programs exit with 2, CRITICAL to us, when they were
merely called wrongly.
"""

import time
from dataclasses import dataclass

from understudy.adapters import processes
from understudy.adapters.probes import plugin
from understudy.config.settings import Command, Seconds, setting
from understudy.core.observations import Health, Report
from understudy.errors import Unanswered, Unreachable

_KEPT = 4096  # Bytes of each of stdout and stderr.


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
        """Exit codes 0 and 1 are UP, 2 is DOWN; any other, silence, every failure: UNKNOWN."""
        started = time.monotonic()
        program, *rest = self._settings.command
        argv = [program, *(each.replace("{node}", node) for each in rest)]
        try:
            health, text = _judge(
                await processes.run(argv, within=self._settings.timeout, limit=_KEPT)
            )
        except (Unreachable, Unanswered) as error:
            health, text = Health.UNKNOWN, str(error)
        return Report(self.name, health, text, time.monotonic() - started)


def _judge(finished: processes.Finished) -> tuple[Health, str]:
    said = plugin.sentence(finished.out)
    complaint = plugin.sentence(finished.err)
    if finished.code < 0:
        words = said or complaint or "without a word"
        return Health.UNKNOWN, f"it was ended by signal {-finished.code}: {words}"
    if said:
        return plugin.health(finished.code), said
    return (
        Health.UNKNOWN,
        f"it printed no answer and exited with {finished.code} "
        f"({complaint or 'nothing on stderr either'})",
    )
