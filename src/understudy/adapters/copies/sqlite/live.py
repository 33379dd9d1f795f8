"""Reading a database that its program is writing to, without a lock."""

import errno
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, NamedTuple

from understudy.adapters.copies.regular import open_regular
from understudy.adapters.copies.stop import Stop
from understudy.errors import Unreachable

from .database import DamagedError, check, connect, pour, why


class _NotAtRestError(Exception):
    """Why the file cannot be copied at this moment."""


class State(NamedTuple):
    """What changes with every transaction.

    `head` is the header of the file, with its change counter (offset 24): the times of files are no better than the
    kernel's tick of some milliseconds.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    mode: int
    head: bytes

    @property
    def is_database(self) -> bool:
        return self.size == 0 or self.head.startswith(b"SQLite format 3\0")

    @property
    def has_log(self) -> bool:
        """In WAL mode: file format read version, offset 19."""
        return self.head[19:20] == b"\x02"


def copy_live(path: Path, copy: Path, patience: float, stop: Stop) -> State:
    """A whole state of the database.  Raises Unreachable; OSError for `copy` alone."""
    give_up = time.monotonic() + patience
    damaged: State | None = None
    pause = 0.01
    while True:
        try:
            state = _copy_once(path, copy, stop)
            with closing(connect(copy)) as db:
                check(db, stop)
        except _NotAtRestError as error:
            why = str(error)
        except DamagedError as error:
            if state == damaged:  # Nobody has touched it since: it does not get better.
                raise _damaged(path, error) from error
            damaged, why = state, f"it is damaged ({error})"
        else:
            return state
        if time.monotonic() >= give_up:
            raise Unreachable(f"{path} was never whole and at rest within {patience:g} s: {why}")
        stop.check()
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def _copy_once(path: Path, copy: Path, stop: Stop) -> State:
    """As it is at this moment.  Raises _NotAtRestError; there is no way to tell every torn copy: check it."""
    copy.unlink(missing_ok=True)
    before = _look(path)
    if not before.is_database:
        raise Unreachable(f"{path} is not an SQLite database", hint="Is `path` right?")
    if before.has_log and _size(path, "-wal"):
        _back_up(path, copy, stop)
        return before
    # SQLite writes a journal, then the file with its change counter, then removes the journal.  Counter first and
    # journal second before the copy, and the other way round after it: then no transaction fits in unseen.
    _expect_rest(path, before)
    with _open_live(path) as live, copy.open("xb") as file:
        pour(live, file, stop)
    _expect_rest(path, before)
    if _look(path) != before:
        raise _NotAtRestError("it is written to all the time")
    return before


def _look(path: Path) -> State:
    with _open_live(path) as live:
        head = os.pread(live.fileno(), 100, 0)
        s = os.fstat(live.fileno())
    return State(
        s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_uid, s.st_gid, s.st_mode & 0o777, head
    )


def _expect_rest(path: Path, state: State) -> None:
    # As SQLite itself tells a hot journal: its first byte is zero, or it has none, but while the file is written.
    with suppress(FileNotFoundError), open_regular(Path(f"{path}-journal")) as journal:
        if journal.read(1) not in (b"", b"\0"):
            raise _NotAtRestError("its -journal says that a transaction is not finished")
    if state.has_log and _size(path, "-wal"):
        raise _NotAtRestError("a -wal has appeared")


def _size(path: Path, end: str) -> int:
    try:
        return Path(f"{path}{end}").stat().st_size
    except FileNotFoundError:
        return 0


def _back_up(path: Path, copy: Path, stop: Stop) -> None:
    """In WAL mode readers are in nobody's way, and only SQLite can read the log."""

    def step(*_: int) -> None:
        stop.check()

    try:
        with (
            closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1.0)) as live,
            closing(sqlite3.connect(copy, isolation_level=None)) as target,
        ):
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            # One snapshot from the first step to the last: else each commit there starts it anew.
            live.execute("BEGIN")
            live.execute("SELECT count(*) FROM sqlite_master").fetchone()
            live.backup(target, pages=1000, progress=step)
    except sqlite3.Error as error:
        raise _NotAtRestError(str(error)) from error


def _open_live(path: Path) -> IO[bytes]:
    """Raises Unreachable."""
    try:
        return open_regular(path)
    except OSError as error:
        hints = {
            errno.ENOENT: "Is `path` right, and has the PBX ever run here?",
            errno.EACCES: "Make the user who answers a member of the PBX's group.",
        }
        raise Unreachable(
            f"{path} cannot be read: {why(error)}", hint=hints.get(error.errno or 0, "")
        ) from error


def _damaged(path: Path, error: Exception) -> Unreachable:
    return Unreachable(
        f"{path} is damaged: {error}",
        hint="Earlier copies are on the other node: understudy copies.",
    )
