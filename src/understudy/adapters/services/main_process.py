"""The main process of the PBX, watched: its end is known at once, without asking again and again."""

import asyncio
import os


class MainProcess:
    """Told by each look which process it is; `ended` returns when that has gone."""

    def __init__(self) -> None:
        self._pid = 0
        self._is_new = asyncio.Event()

    def saw(self, pid: int) -> None:
        """`pid` is its process id, 0 if there is none."""
        if pid != self._pid:
            self._pid = pid
            if pid:
                self._is_new.set()

    async def ended(self) -> None:
        """By pidfd_open(2), which asks for no rights over the process."""
        await self._is_new.wait()
        self._is_new.clear()
        try:
            watched = os.pidfd_open(self._pid)
        except ProcessLookupError:
            return  # It was quicker.
        loop = asyncio.get_running_loop()
        gone = loop.create_future()
        loop.add_reader(watched, _resolve, gone)
        try:
            await gone
        finally:
            loop.remove_reader(watched)
            os.close(watched)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
