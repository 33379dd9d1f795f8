"""Notifier kind `command`: a program of yours (an SMS gateway, a pager), for what no other kind reaches.

The body is on its standard input, everything else in its environment: nothing of a message stands in a process list.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from understudy.adapters import processes
from understudy.config.settings import Command, Seconds, setting
from understudy.errors import Unreachable
from understudy.ports import Message

KEPT = 4096  # Bytes of its output.
FIELDS = ("id", "kind", "subject", "node", "pair", "severity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    command: Command = setting(
        "The program and its arguments, without a shell.  On its standard input is the body; in its environment are "
        "UNDERSTUDY_ID, _KIND, _SUBJECT, _AT, _NODE, _PAIR and _SEVERITY.  Exit status 0 says that it is delivered.",
        example=["/usr/local/bin/send-sms", "+15550100"],
    )
    timeout: Seconds = setting(
        "How long it may take; then it is killed, with what it started.", default=Seconds(30.0)
    )


def build(name: str, settings: Settings, *, host: str) -> tuple["CommandNotifier", ...]:
    return (CommandNotifier(f"{name} ({Path(settings.command[0]).name})", settings),)


class CommandNotifier:
    """Implements ports.Notifier."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._settings = settings

    async def send(self, message: Message) -> None:
        """Whatever its exit status, but for 0, another try may help: nobody says what the others mean."""
        s = self._settings
        environment = {f"UNDERSTUDY_{each.upper()}": str(getattr(message, each)) for each in FIELDS}
        environment["UNDERSTUDY_AT"] = datetime.fromtimestamp(message.at, UTC).isoformat()
        finished = await processes.run(
            s.command, within=s.timeout, stdin=message.body.encode(), limit=KEPT, env=environment
        )
        if finished.code != 0:
            raise Unreachable(
                f"{Path(s.command[0]).name} ended with {finished.code}: {finished.said}"
            )
