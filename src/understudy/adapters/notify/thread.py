"""Blocking library code, run beside the loop in a thread that nobody has to wait for.

Not asyncio.to_thread: the end of the agent would wait for those threads, and a server that hangs would hold it up.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(slots=True)
class Line:
    """The connection of the moment, so that it can be cut from outside."""

    is_cut: bool = False
    _connection: Callable[[], socket.socket | None] = lambda: None

    def hold(self, connection: Callable[[], socket.socket | None]) -> None:
        self._connection = connection
        if self.is_cut:
            self.cut()

    def cut(self) -> None:
        """Whoever reads from it, or writes to it, fails at once."""
        self.is_cut = True
        connection = self._connection()
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


LONGER = 5.0  # Seconds that a socket waits beyond the deadline of the whole: that comes first, and cuts it.


async def beside(work: Callable[[Line], None], within: float) -> None:
    """Run `work`; raise what it raises, and TimeoutError after `within` seconds."""
    line, loop = Line(), asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def job() -> None:
        try:
            work(line)
        except BaseException as error:
            end: Callable[[], Any] = partial(_fail, done, error)
        else:
            end = partial(_succeed, done)
        with suppress(RuntimeError):  # The loop is gone: nobody waits.
            loop.call_soon_threadsafe(end)

    threading.Thread(target=job, name="notify", daemon=True).start()
    try:
        async with asyncio.timeout(within):
            await done
    finally:
        line.cut()


def _succeed(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: "asyncio.Future[None]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
