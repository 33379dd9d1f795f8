"""One at a time: either the copier puts data in place, or the PBX starts on it.

The copier's classes do not wait for each other: a large database would keep the others from ever being fresh.
flock(2): the kernel lets go of it for whoever dies.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from understudy.errors import AdapterError, Unreachable

_PAUSE = 0.05


@asynccontextmanager
async def put_lock(path: Path, within: float, *, shared: bool = False) -> AsyncIterator[None]:
    """Hold it, `shared` beside others who do.  Raises Unreachable where it cannot be had within so many seconds."""
    # Whoever comes first makes it; both the copier (root) and the agent's user must be able to lock it.
    file = _open(path)
    try:
        await _take(file, path, within, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise Unreachable(f"{path} cannot be opened: {error.strerror}") from error


async def _take(file: int, path: Path, within: float, how: int) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if loop.time() >= until:
                raise _busy(path, within) from None
            await asyncio.sleep(_PAUSE)
        else:
            return


def _busy(path: Path, within: float) -> AdapterError:
    return Unreachable(
        f"the copy is still being put in place after {within:g} s",
        hint=f"Who has {path}: lslocks.  Is the disk slow?",
    )
