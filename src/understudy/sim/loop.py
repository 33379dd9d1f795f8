"""Virtual time: coroutines run at once, and sleep as long as the story needs, in no time at all.

Small on purpose: thousands of simulated hours are played in each test run.
"""

import heapq
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class Sleep:
    """Awaiting it hands its seconds to whoever drives the coroutine."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


class VirtualTask:
    """One coroutine on its way; `done` hears of its result unless it is cancelled."""

    __slots__ = ("_done", "_frozen_until", "_loop", "_work", "is_over")

    def __init__(
        self,
        loop: "VirtualLoop",
        work: Coroutine[Any, Any, Any],
        done: Callable[[Any], None],
        frozen_until: Callable[[], float],
    ) -> None:
        self._loop, self._work, self._done, self._frozen_until = loop, work, done, frozen_until
        self.is_over = False

    def step(self) -> None:
        if self.is_over:
            return
        thaw = self._frozen_until()
        if thaw > self._loop.now:  # The machine stands still, and everything on it.
            self._loop.call_at(thaw, self.step)
            return
        try:
            seconds = self._work.send(None)
        except StopIteration as end:
            self.is_over = True
            self._done(end.value)
        else:
            self._loop.call_at(self._loop.now + seconds, self.step)

    def cancel(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._work.close()


class VirtualLoop:
    """ports.Loop without a clock on the wall.  `now` is seconds since the story began."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def call_at(self, instant: float, what: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (instant, self._count, what))

    def run_until(self, end: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, what = heapq.heappop(queue)
            what()
        self.now = end


class MachineLoop:
    """ports.Loop for one machine: what runs on it stands still with it, and ends when it loses power."""

    def __init__(self, loop: VirtualLoop, frozen_until: Callable[[], float]) -> None:
        self._loop, self._frozen_until = loop, frozen_until
        self._tasks: list[VirtualTask] = []

    def start(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> VirtualTask:
        task = VirtualTask(self._loop, work, done, self._frozen_until)
        self._tasks = [each for each in self._tasks if not each.is_over]
        self._tasks.append(task)
        self._loop.call_at(self._loop.now, task.step)
        return task

    async def sleep(self, seconds: float) -> None:
        await Sleep(seconds)

    async def gather(self, *work: Awaitable[Any]) -> list[Any]:
        """Beside each other: the whole takes as long as the longest."""
        results: list[Any] = [None] * len(work)
        waiting: list[tuple[float, int, Generator[float, None, Any]]] = []
        start = self._loop.now
        for index, each in enumerate(work):
            _advance(each.__await__(), index, start, results, waiting)
        while waiting:
            instant, index, running = heapq.heappop(waiting)
            await Sleep(max(instant - self._loop.now, 0.0))
            _advance(running, index, self._loop.now, results, waiting)
        return results

    def end_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()


def _advance(
    running: Generator[Any, None, Any],
    index: int,
    now: float,
    results: list[Any],
    waiting: list[tuple[float, int, Generator[float, None, Any]]],
) -> None:
    try:
        seconds = running.send(None)
    except StopIteration as end:
        results[index] = end.value
    else:
        heapq.heappush(waiting, (now + seconds, index, running))
