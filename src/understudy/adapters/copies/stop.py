"""Work in a thread that ends when it must."""

import time
from collections.abc import Callable
from typing import TypeVar

from understudy.adapters.copies.threads import in_thread
from understudy.errors import Unreachable

T = TypeVar("T")


class Stop:
    """When work in a thread has to end: at its deadline, or when nobody waits for it any more."""

    def __init__(self, within: float, what: str) -> None:
        self.cancelled = False
        self._at, self._within, self._what = time.monotonic() + within, within, what

    def cancel(self) -> None:
        self.cancelled = True

    def __call__(self) -> bool:
        return self.cancelled or self.left <= 0

    @property
    def left(self) -> float:
        return self._at - time.monotonic()

    def check(self) -> None:
        if self():
            raise Unreachable(
                f"{self._what} did not end within {self._within:g} s", hint="Raise `within`?"
            )


async def beside(work: Callable[[], T], stop: Stop) -> T:
    """In a thread, which ends sooner when we are cancelled."""
    return await in_thread(work, stop.cancel)
