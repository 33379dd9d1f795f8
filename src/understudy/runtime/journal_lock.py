"""One agent at a time for one journal: flock(2) on a file beside it.

The kernel lets go of the lock when its holder dies, however it dies.  The file holds the holder's pid, for people.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from understudy.errors import JournalError, Refused

_PATIENCE = 0.3  # Seconds: somebody who only looks at the lock holds it for a moment.
_PAUSE = 0.02


@contextmanager
def agent_lock(path: Path) -> Iterator[None]:
    """Hold the lock.  Raises Refused with the pid that has it, JournalError when there is nothing to lock."""
    file = _open(path)
    try:
        _take(file, path)
        _write_pid(file)
        yield
    finally:
        os.close(file)


def holder(path: Path) -> int | None:
    """The pid of the agent that holds the lock; 0 if that cannot be told; None if nobody does."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(file)
    else:
        return None
    finally:
        os.close(file)


def _open(path: Path) -> int:
    """A full or read-only disk keeps nobody from locking: a file that is there will do, or the folder."""
    ways = (
        (path, os.O_RDWR | os.O_CREAT),
        (path, os.O_RDONLY),
        (path.parent, os.O_RDONLY | os.O_DIRECTORY),
    )
    errors = []
    for place, flags in ways:
        try:
            return os.open(place, flags | os.O_CLOEXEC, 0o644)
        except OSError as error:
            errors.append(error)
    raise JournalError(
        f"{path} cannot be locked: {errors[0].strerror}",
        hint=f"Create {path.parent}, writable for the user that the agent runs as.",
    ) from errors[0]


def _take(file: int, path: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                who = _pid(file)
                raise Refused(
                    f"another agent runs already with this journal: process {who or 'unknown'} holds {path}",
                    hint=f"End it first (kill {who})." if who else "See who has it: lslocks",
                ) from None
            time.sleep(_PAUSE)
        else:
            return


def _write_pid(file: int) -> None:
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        return  # The lock holds without it.


def _pid(file: int) -> int:
    try:
        return int(os.pread(file, 20, 0))
    except (OSError, ValueError):
        return 0
