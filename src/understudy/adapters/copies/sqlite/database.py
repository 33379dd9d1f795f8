"""Database files: opened, checked, counted.

https://www.sqlite.org/fileformat.html, https://www.sqlite.org/howtocorrupt.html
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import IO

from understudy.adapters.copies.stop import Stop

CHUNK = 1024 * 1024  # Bytes.

# Beside the database: the rollback journal, the write-ahead log and its index.
COMPANIONS = ("-journal", "-wal", "-shm")


class DamagedError(Exception):
    """What is wrong with it."""


def connect(path: Path) -> sqlite3.Connection:
    """To a file that nobody else has: no locks, and no files beside it."""
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, isolation_level=None)


def check(db: sqlite3.Connection, stop: Stop) -> None:
    """Raises DamagedError."""
    db.set_progress_handler(stop, 10_000)
    try:
        (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        stop.check()
        raise DamagedError(str(error)) from error
    if said != "ok":
        raise DamagedError(" ".join(said.split())[:200])


def count(path: Path, stop: Stop) -> tuple[int, int]:
    """Check it, and count its tables and the rows of all.  Raises DamagedError."""
    with closing(connect(path)) as db:
        check(db, stop)
        try:
            names, rows = tables(db), 0
            for name in names:
                quoted = name.replace('"', '""')
                rows += db.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]
        except sqlite3.Error as error:
            stop.check()
            raise DamagedError(str(error)) from error
    return len(names), rows


def tables(db: sqlite3.Connection) -> list[str]:
    """Their names; without virtual tables (rootpage 0), which may need a program that is not here."""
    found = db.execute(
        "SELECT name FROM sqlite_master"
        " WHERE type = 'table' AND rootpage > 0 AND name NOT GLOB 'sqlite_*'"
    )
    return [name for (name,) in found]


def companions(path: Path) -> list[Path]:
    places = (Path(f"{path}{end}") for end in COMPANIONS)
    return [place for place in places if os.path.lexists(place)]


def pour(source: IO[bytes], target: IO[bytes] | None, stop: Stop) -> tuple[int, str]:
    """From where `source` stands to its end.  Returns bytes and SHA-256."""
    size, digest = 0, hashlib.sha256()
    while chunk := source.read(CHUNK):
        stop.check()
        size += len(chunk)
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return size, digest.hexdigest()


def why(error: OSError) -> str:
    return error.strerror or str(error)
