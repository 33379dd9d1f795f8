"""The agent's loop on asyncio."""

import asyncio

import pytest

from understudy.runtime.daemon import AsyncLoop


def test_what_ends_is_told() -> None:
    assert asyncio.run(_told(cancel_after=None)) == ["done"]


def test_what_was_cancelled_is_not_told() -> None:
    assert asyncio.run(_told(cancel_after=0)) == []


def test_what_was_cancelled_in_the_moment_that_it_ended_is_not_told() -> None:
    assert asyncio.run(_told(cancel_after=1)) == []


def test_a_bug_in_a_task_is_raised_in_the_loop() -> None:
    async def bug() -> None:
        raise ZeroDivisionError

    async def run() -> None:
        loop = AsyncLoop()
        loop.start(bug(), lambda _: None)
        await loop.news.wait()
        loop.check()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_a_bug_in_what_a_task_leads_to_is_raised_in_the_loop() -> None:
    async def run() -> None:
        loop = AsyncLoop()
        loop.start(asyncio.sleep(0, 0), lambda zero: 1 / zero)
        await loop.news.wait()
        loop.check()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


async def _told(cancel_after: int | None) -> list[str]:
    """`cancel_after` turns of the loop.  The work ends in the first, its callback runs in the second."""
    loop, told = AsyncLoop(), list[str]()

    async def work() -> str:
        return "done"

    job = loop.start(work(), told.append)
    for _ in range(cancel_after or 0):
        await asyncio.sleep(0)
    if cancel_after is not None:
        job.cancel()
    await asyncio.sleep(0.01)
    assert loop.is_idle
    return told
