"""Disk work beside the event loop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], cancelled: Callable[[], None] = lambda: None) -> T:
    """In a thread, to its end even when we are cancelled: nothing is written behind our back.

    `cancelled` is called then: it may ask the work to end sooner.
    """
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        cancelled()
        while not job.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([job])
        if not job.cancelled():
            job.exception()  # Nobody else looks at it.
        raise
