"""Whoever puts data in place shares the lock; the PBX that is to start on it does not."""

import asyncio
from pathlib import Path

import pytest

from understudy.errors import Unreachable
from understudy.runtime.put_lock import put_lock


def test_classes_do_not_wait_for_each_other_and_a_start_waits_for_all(tmp_path: Path) -> None:
    path = tmp_path / "copies.lock"

    async def story() -> None:
        async with put_lock(path, 1.0, shared=True):
            async with put_lock(path, 1.0, shared=True):
                pass
            with pytest.raises(Unreachable, match=r"still being put in place after 0\.2 s"):
                async with put_lock(path, 0.2):
                    raise AssertionError("it was not free")
        async with put_lock(path, 1.0):
            with pytest.raises(Unreachable):
                async with put_lock(path, 0.2, shared=True):
                    raise AssertionError("the PBX starts on it")

    asyncio.run(story())


def test_a_start_has_its_turn_as_soon_as_the_last_has_ended(tmp_path: Path) -> None:
    path, order = tmp_path / "copies.lock", list[str]()

    async def put() -> None:
        async with put_lock(path, 5.0, shared=True):
            await asyncio.sleep(0.3)
            order.append("put")

    async def start() -> None:
        await asyncio.sleep(0.1)
        async with put_lock(path, 5.0):
            order.append("start")

    async def both() -> None:
        await asyncio.gather(put(), put(), start())

    asyncio.run(both())
    assert order == ["put", "put", "start"]


def test_where_it_cannot_be_opened_that_is_said(tmp_path: Path) -> None:
    async def story() -> None:
        async with put_lock(tmp_path / "nowhere" / "copies.lock", 1.0):
            raise AssertionError("there is none")

    with pytest.raises(Unreachable, match="cannot be opened: No such file or directory"):
        asyncio.run(story())
