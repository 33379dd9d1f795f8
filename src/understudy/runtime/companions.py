"""What runs beside the agent and never in its way: it may be late, fail or hang, and no decision notices.

The agent decides and acts; a companion reads what was written about that, and tells somebody.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from understudy.core.model import State
from understudy.core.policy import Policy
from understudy.ports import Clock

from .journal import SqliteJournal

AGAIN = 60.0  # Seconds after which a companion that failed is begun anew.
VISIT = 20.0  # Seconds that all companions together may take after a round by cron.


@dataclass(frozen=True, slots=True)
class Beside:
    """The agent, as its companions see it."""

    journal: SqliteJournal
    clock: Clock
    state: Callable[[], State]
    policy: Callable[[], Policy]  # The values that hold now (C6).
    say: Callable[[int, str], None]  # With a priority of syslog(3), to standard error.


class Companion(Protocol):
    name: str  # For sentences.

    async def live(self, beside: Beside) -> None:
        """As long as the daemon lives: until cancelled, which may come at any await."""

    async def visit(self, beside: Beside) -> None:
        """Once, after a round by cron."""


class Company:
    """All companions of one agent."""

    def __init__(self, companions: Sequence[Companion], beside: Beside) -> None:
        self._companions, self._beside = companions, beside
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(each)) for each in self._companions]

    async def visit(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(VISIT):
                for each in self._companions:
                    await self._safely(each, each.visit)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, companion: Companion) -> None:
        while True:
            if await self._safely(companion, companion.live):
                return
            await asyncio.sleep(AGAIN)

    async def _safely(
        self, companion: Companion, work: Callable[[Beside], Awaitable[None]]
    ) -> bool:
        """A bug in a companion is told, and is no reason to end the agent."""
        try:
            await work(self._beside)
        except Exception as error:
            said = f"{companion.name} failed: {type(error).__name__}: {error}"
            self._beside.journal.note("companion", said)
            self._beside.say(3, said)
            return False
        return True
