"""The journal's file: opened, made, or, when it is beyond reading, moved aside with what can be saved from it.

SQLite in WAL mode (sqlite.org/wal.html): readers never wait for the writer, and a commit survives kill -9.  Whether it
survives a power cut too is decided per transaction, by `PRAGMA synchronous`.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from understudy.core.model import Lineage, State
from understudy.errors import JournalError

from . import statecodec

VERSION = 2
BUSY = 2.0  # Seconds to wait for another process that is writing.

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, wall REAL NOT NULL, boot REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rounds (
    wall INTEGER PRIMARY KEY,  -- Milliseconds; a round that shares one with another gets the next.
    mine TEXT NOT NULL, theirs TEXT NOT NULL, votes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS texts (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, wall REAL NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL NOT NULL, boot REAL NOT NULL, boot_id TEXT NOT NULL,
    node TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, rule TEXT NOT NULL, because TEXT NOT NULL,
    action TEXT NOT NULL, votes TEXT NOT NULL, state TEXT NOT NULL, order_id INTEGER,
    times INTEGER NOT NULL DEFAULT 1, last REAL NOT NULL);
CREATE INDEX IF NOT EXISTS decisions_by_wall ON decisions (wall);
CREATE TABLE IF NOT EXISTS steps (
    id INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL NOT NULL, decision INTEGER, action TEXT NOT NULL,
    guarded INTEGER NOT NULL, outcome TEXT, why TEXT NOT NULL DEFAULT '', took REAL,
    times INTEGER NOT NULL DEFAULT 1, last REAL NOT NULL);
CREATE INDEX IF NOT EXISTS steps_by_wall ON steps (wall);
CREATE INDEX IF NOT EXISTS steps_open ON steps (id) WHERE outcome IS NULL;
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL NOT NULL, by TEXT NOT NULL, verb TEXT NOT NULL,
    epoch INTEGER NOT NULL, accept_two_active INTEGER NOT NULL, accept_loss INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', why TEXT NOT NULL DEFAULT '', used_by INTEGER);
CREATE INDEX IF NOT EXISTS orders_by_wall ON orders (wall);
CREATE INDEX IF NOT EXISTS orders_waiting ON orders (id) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS notes_by_wall ON notes (wall);
"""
_OUTBOX = """
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY, wall REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL,
    node TEXT NOT NULL, pair TEXT NOT NULL, severity TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    message TEXT NOT NULL, notifier TEXT NOT NULL, wall REAL NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    tries INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, last_error TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, notifier)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (wall) WHERE state <> 'sent';
"""
# What makes a journal of the version before into one of this version.
_UPGRADES = {2: _OUTBOX}


class Corrupt(JournalError):
    """The file is there and cannot be understood."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What must not be forgotten even when everything else is lost (PROTOCOL C5, and whose data is here)."""

    epoch: int = 0
    lineage: Lineage | None = None


def open_for_agent(path: Path) -> sqlite3.Connection:
    """The file as the one agent opens it, made if it is not there.

    Raises Corrupt; JournalError for a version newer than ours; sqlite3.Error or OSError for everything else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_emptied(path)
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        with _told_apart(path):
            connection.execute("PRAGMA journal_mode = WAL")
            version = _version(connection, path)
            if not version:
                _make(connection)
            elif version < VERSION:
                _upgrade(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_others(path: Path) -> sqlite3.Connection:
    """The file as a command opens it, beside the agent: nothing is made and nothing is mended.

    Raises JournalError with what to do.
    """
    if not path.exists():
        raise JournalError(
            f"there is no journal at {path}",
            hint="The agent makes it when it runs for the first time: understudy run",
        )
    try:
        connection = open_read_only(path) if not os.access(path, os.W_OK) else _plain(path)
    except (sqlite3.Error, OSError) as error:
        raise JournalError(
            f"the journal {path} cannot be read: {error}", hint=cure(error)
        ) from error
    try:
        with _told_apart(path):
            version = _version(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise JournalError(
            f"the journal {path} cannot be read: {error}", hint=cure(error)
        ) from error
    except BaseException:
        connection.close()
        raise
    if not version:
        connection.close()
        raise JournalError(f"the journal {path} is empty", hint="The agent has never run here.")
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """What a read-only folder lets us see.  Raises sqlite3.Error, JournalError."""
    address = path.resolve().as_uri() + "?mode=ro"
    with suppress(sqlite3.OperationalError):  # It needs the -wal and -shm files of the last writer,
        return _read(address, path)
    return _read(address + "&immutable=1", path)  # or a file that is complete without them.


def move_aside(path: Path, wall: float) -> Path:
    """Keep a file that cannot be understood, for people, under another name.  Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
    names = (f"{path.name}.corrupt-{stamp}{'' if n == 0 else f'-{n}'}" for n in range(1000))
    aside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    for end in ("-wal", ""):  # SQLite finds the -wal again by its name.
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{aside}{end}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return aside


def marks_to_text(state: State) -> str:
    """Kept beside the state in a form that can be found in a heap of bytes."""
    lineage = state.lineage
    whose = f"{lineage.node}/{lineage.epoch}" if lineage is not None else "-"
    return f"understudy-marks epoch={state.epoch} lineage={whose} end"


def salvage(path: Path) -> Marks:
    """What is left of a journal says at least this.  Never raises.

    SQLite is asked too: it knows which of several marks is the last.  (Not about an empty file: it would delete the
    -wal that belongs to it.)
    """
    found = _marks_in_bytes(path)
    with suppress(sqlite3.Error, JournalError, OSError):
        if path.stat().st_size > 0:
            with closing(_plain(path)) as connection:
                state = stored_state(connection)
            if state is not None:
                return Marks(state.epoch, state.lineage)
    return found


def stored_state(connection: sqlite3.Connection) -> State | None:
    """Raises JournalError for nonsense, sqlite3.Error."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'state'").fetchone()
    return None if row is None else statecodec.loads(State, row[0])


def cure(error: Exception) -> str:
    """What an administrator can do about it."""
    if isinstance(error, sqlite3.Error):
        return _CURES.get(_code(error), "Look at the disk: dmesg, df, smartctl.")
    return "May the agent's user write there?  See ls -ld and mount."


_MARKS = re.compile(
    rb"understudy-marks epoch=(\d{1,18}) lineage=(?:-|([^\s/]{1,255})/(\d{1,18})) end"
)
_CHUNK = 1 << 20
_OVERLAP = 512  # More than the longest mark.
_MOST = (
    64 * _CHUNK
)  # The state is written again and again: it is near the beginning, or in the -wal.

_CURES = {
    sqlite3.SQLITE_FULL: "Free some space on its file system: df -h",
    sqlite3.SQLITE_READONLY: "Is its file system mounted read-only, and may the agent's user write there?",
    sqlite3.SQLITE_CANTOPEN: "Does its folder exist, and may the agent's user write there?",
    sqlite3.SQLITE_PERM: "May the agent's user write there?",
    sqlite3.SQLITE_BUSY: "Another program keeps it locked.  See which: fuser -v, or lslocks.",
    sqlite3.SQLITE_LOCKED: "Another program keeps it locked.  See which: fuser -v, or lslocks.",
    sqlite3.SQLITE_CORRUPT: "It will be moved aside and begun anew; look at the disk: dmesg, smartctl.",
    sqlite3.SQLITE_NOTADB: "It will be moved aside and begun anew; look at the disk: dmesg, smartctl.",
}


def is_corrupt(error: Exception) -> bool:
    """Is it the file itself that is broken?"""
    return isinstance(error, Corrupt) or (
        isinstance(error, sqlite3.DatabaseError)
        and _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def _refuse_emptied(path: Path) -> None:
    """SQLite would take a file of no bytes for a new one, and delete what its -wal still holds."""
    try:
        emptied = path.stat().st_size == 0
    except FileNotFoundError:
        return
    if emptied:
        raise Corrupt(f"the journal {path} has no content")


@contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """SQLite says "broken" in several ways."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_corrupt(error):
            raise Corrupt(f"the journal {path} is corrupt: {error}", hint=cure(error)) from error
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """0 when there is nothing in it yet.  Raises JournalError when a newer program wrote it."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if not tables:
        return 0
    if ("meta",) not in tables:
        raise Corrupt(f"{path} is a database, but no journal of ours")
    row = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    if row is None or not str(row[0]).isdecimal():
        raise Corrupt(f"the journal {path} does not say which version it is")
    version = int(row[0])
    if version > VERSION:
        raise JournalError(
            f"the journal {path} was written by a newer Understudy (its version is {version}, ours {VERSION})",
            hint=f"Install that version again, or move {path.name} away: this node then starts silent.",
        )
    return version


def _make(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} {_OUTBOX}"
        f"INSERT OR IGNORE INTO meta VALUES ('version', '{VERSION}', 0, 0); COMMIT;"
    )


def _upgrade(connection: sqlite3.Connection, version: int) -> None:
    """In place and at once: what an older program has written stays."""
    steps = " ".join(_UPGRADES[each] for each in range(version + 1, VERSION + 1))
    connection.executescript(
        f"BEGIN IMMEDIATE; {steps} UPDATE meta SET value = '{VERSION}' WHERE key = 'version'; COMMIT;"
    )


def _plain(path: Path) -> sqlite3.Connection:
    address = path.resolve().as_uri() + "?mode=rw"  # Not "rwc": a command makes no journal.
    return sqlite3.connect(address, uri=True, timeout=BUSY, isolation_level=None)


def _read(address: str, path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=BUSY, isolation_level=None)
    try:
        with _told_apart(path):
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _marks_in_bytes(path: Path) -> Marks:
    """The highest epoch, and the oldest lineage that goes with it.

    An old lineage asks for one rejoin too many; a young one would trust a copy that lacks data.
    """
    epoch, lineages = 0, set[Lineage]()
    for file in (path, Path(f"{path}-wal")):
        with suppress(OSError), file.open("rb") as source:
            for found in _marks_in(source):
                if found.epoch > epoch:
                    epoch, lineages = found.epoch, set()
                if found.epoch == epoch and found.lineage is not None:
                    lineages.add(found.lineage)
    return Marks(epoch, min(lineages, key=lambda each: each.epoch, default=None))


def _marks_in(source: IO[bytes]) -> Iterator[Marks]:
    tail = b""
    for _ in range(_MOST // _CHUNK):
        chunk = source.read(_CHUNK)
        if not chunk:
            return
        for found in _MARKS.finditer(tail + chunk):
            epoch, node, since = found.groups()
            lineage = Lineage(node.decode("utf-8", "replace"), int(since)) if node else None
            yield Marks(int(epoch), lineage)
        tail = chunk[-_OVERLAP:]


def _code(error: sqlite3.Error) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0
