"""One SQLite database that its program keeps open, such as Asterisk's astdb.

Read without a lock: Asterisk rolls back what it has acknowledged when somebody else's lock is in the way of its
COMMIT.  So the file is read as it is, looked at before and after, and checked.  Over the door:

    read [SHA256]     of the newest copy, if there is one
    what comes back   {"ok": true, "same": true}, or
                      {"ok": true, "same": false, "bytes": N, "sha256": "...", "owner": "USER:GROUP", "mode": 416},
                      a line feed, and the N bytes of the database

    STORE/2026-11-23T04-15-00.123Z/data.sqlite3   the database
    STORE/2026-11-23T04-15-00.123Z/about.json     what it is: class About
    STORE/accept                                  a person allows the next pull to lose rows

https://www.sqlite.org/fileformat.html, https://www.sqlite.org/howtocorrupt.html
"""

import errno
import grp
import hashlib
import json
import math
import os
import pwd
import re
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from understudy.adapters.copies.settings import CopySettings
from understudy.adapters.copies.store import INCOMING, Snapshot, Store
from understudy.adapters.copies.threads import in_thread
from understudy.adapters.disk import sync_folder
from understudy.adapters.peers.door import LINE_LIMIT, answer_of
from understudy.adapters.processes import run
from understudy.config.settings import Seconds, setting
from understudy.errors import AdapterError, Denied, Refused, Unanswered, Unreachable
from understudy.ports import Pulled, Source

DATA, ABOUT = "data.sqlite3", "about.json"
MANY = 20  # Rows from which on losing more than half of them is believed to be an accident.
PATIENCE = 20.0  # Seconds for the source to be at rest for a moment; at most half of `within`.

_CHUNK = 1024 * 1024  # Bytes.
_OWNER = re.compile(r"[\w.@+\\$-]{1,100}:[\w.@+\\$-]{1,100}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CopySettings):
    path: Path = setting(
        "The database file, e.g. astdb: the same on both nodes, and no symbolic link.",
        example="/var/lib/asterisk/astdb.sqlite3",
    )
    every: Seconds = setting(
        "How often the standby pulls it from the active node.", default=Seconds(10.0)
    )
    owner: str | None = setting(
        'Whose the file in place is: "user:group", by name.  Left out, as on the active node.',
        default=None,
        example="asterisk:asterisk",
    )

    @property
    def places(self) -> tuple[Path, ...]:
        """What is copied."""
        return (self.path,)

    def __post_init__(self) -> None:
        # A dataclass with slots is another class than super() knows.
        CopySettings.__post_init__(self)
        if not self.path.is_absolute():
            raise ValueError(f"path is {str(self.path)!r}.  Write an absolute path.")
        if self.owner is not None and not _OWNER.fullmatch(self.owner):
            raise ValueError(f'owner is {self.owner!r}.  Write "user:group".')


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Of one snapshot."""

    sha256: str
    bytes: int
    owner: str  # "user:group" on the source: names, as ids differ between machines.
    mode: int  # Permission bits.
    tables: int
    rows: int  # In all of them.


def build(name: str, settings: Settings, *, node: str, folder: Path) -> "Sqlite":
    return Sqlite(name, settings, folder=folder)


class Sqlite:
    """A ports.Copy."""

    def __init__(self, name: str, settings: Settings, *, folder: Path) -> None:
        """`folder` is for this class of data alone."""
        self.name = name
        self._settings = settings
        self.store = Store(folder, keep=settings.keep, keep_bytes=settings.keep_bytes)

    def accept(self) -> None:
        """Let the next pull that succeeds lose as many rows as it may.  Raises Denied."""
        try:
            self.store.accept()
        except OSError as error:
            raise Denied(f"{self.store.accepted} cannot be written: {error.strerror}") from error

    # At the standby

    async def pull(self, source: Source) -> Pulled:
        """Raises Unreachable, Denied; then there is no new snapshot.

        Cancelled, it has ended when the cancellation is seen.
        """
        stop = _Stop(self._settings.within, f"the pull of {self.name}")
        try:
            return await self._pull(source, stop)
        except OSError as error:
            where = self.store.folder
            raise Denied(f"{self.name} cannot be kept in {where}: {_why(error)}") from error
        finally:
            await _beside(self.store.discard, stop)

    async def _pull(self, source: Source, stop: "_Stop") -> Pulled:
        newest = await _beside(self._newest, stop)
        incoming = await _beside(self.store.begin, stop)
        with tempfile.TemporaryFile(dir=incoming) as answer:
            taken = time.time()
            offer = await self._ask(source, newest, answer)
            keep = partial(self._keep, source.node, offer, newest, answer, taken, stop)
            await _beside(keep, stop)
        return Pulled(changed=True, files=1, bytes=offer.bytes) if offer else Pulled(changed=False)

    def _newest(self) -> "_Kept | None":
        snapshot = self.store.newest()
        about = snapshot and _about(snapshot)
        return _Kept(snapshot, about) if snapshot and about else None

    async def _ask(
        self, source: Source, newest: "_Kept | None", answer: IO[bytes]
    ) -> "_Offer | None":
        """None when there is nothing new; else the database follows in `answer`."""
        known = (newest.about.sha256,) if newest else ()
        words = ("copy", self.name, str(source.epoch), "read", *known)
        within = self._settings.within
        try:
            try:
                done = await run((*source.reach, *words), within=within, into=answer)
            except Unanswered:
                raise Unreachable(
                    f"{source.node} did not send {self.name} within {within:g} s"
                ) from None
            answer.seek(0)
            line = answer.readline(LINE_LIMIT).decode(errors="replace")
            said = answer_of(source.node, replace(done, out=line))
        except AdapterError as error:
            _blame_full_disk(answer)
            if isinstance(error, Unanswered):  # Nothing was to be changed there.
                raise Unreachable(str(error), hint=error.hint) from error
            raise
        if newest and said.get("same") is True:
            return None
        return _offer(source.node, said)

    def _keep(
        self,
        node: str,
        offer: "_Offer | None",
        newest: "_Kept | None",
        answer: IO[bytes],
        taken: float,
        stop: "_Stop",
    ) -> None:
        """The end of a pull."""
        if offer is not None:
            self._check_in(node, offer, newest, answer, stop)
            self.store.commit(taken)
        self.store.use_up_acceptance()

    def _check_in(
        self,
        node: str,
        offer: "_Offer",
        newest: "_Kept | None",
        answer: IO[bytes],
        stop: "_Stop",
    ) -> None:
        """Make what follows in `answer` a whole snapshot, if it is what was offered, and can be believed."""
        incoming = self.store.folder / INCOMING
        with (incoming / DATA).open("xb") as file:
            size, sha256 = _pour(answer, file, stop)
        if size != offer.bytes:
            raise Unreachable(
                f"{node} sent {size} of the {offer.bytes} bytes of {self.name}",
                hint="Was the connection cut?",
            )
        if sha256 != offer.sha256:
            raise Unreachable(
                f"{self.name} did not arrive as {node} has sent it: its SHA-256 differs"
            )
        try:
            tables, rows = _count(incoming / DATA, stop)
        except _DamagedError as error:
            raise Denied(f"{node} sent a damaged {self.name}: {error}") from error
        about = About(
            sha256=sha256,
            bytes=size,
            owner=offer.owner,
            mode=offer.mode,
            tables=tables,
            rows=rows,
        )
        self._guard(node, about, newest)
        (incoming / ABOUT).write_text(json.dumps(asdict(about)))

    def _guard(self, node: str, about: About, newest: "_Kept | None") -> None:
        """A source that was wiped does not empty the standby."""
        if newest is None or self.store.accepted.exists():
            return
        had = newest.about.rows
        if (had > 0 and about.tables == 0) or (had >= MANY and 2 * about.rows < had):
            raise Denied(
                f"{self.name} of {node} has {_rows(about)}, and the newest copy ({newest.snapshot.name}) "
                f"has {_rows(newest.about)}",
                hint=f"If that is right: understudy copies accept {self.name}.",
            )

    async def keep(self) -> str:
        """With its journal, where there is one.  Raises Denied, Unreachable."""
        stop = _Stop(self._settings.within, f"keeping {self.name} aside")
        try:
            return await _beside(partial(self._keep_aside, stop), stop)
        except OSError as error:
            where = self.store.folder
            raise Denied(f"{self.name} cannot be kept aside in {where}: {_why(error)}") from error

    def _keep_aside(self, stop: "_Stop") -> str:
        path, snapshot = self._settings.path, self.store.newest()
        about = _about(snapshot) if snapshot is not None else None
        if not path.exists() or (about is not None and _is_there(path, about, stop)):
            return ""
        aside = self.store.begin_aside()
        for each in (path, *_companions(path)):
            shutil.copy2(each, aside / each.name)
        return str(self.store.keep_aside(time.time()) or "")

    async def put(self) -> bool:
        """Raises Denied, Unreachable.  Cancelled, it has ended when the cancellation is seen."""
        stop = _Stop(self._settings.within, f"putting {self.name} in place")
        try:
            return await _beside(partial(self._put, stop), stop)
        except OSError as error:
            path = self._settings.path
            hint = f"Is the PBX installed here?  There is no {path.parent}."
            raise Denied(
                f"{path} cannot be put in place: {_why(error)}",
                hint="" if path.parent.is_dir() else hint,
            ) from error

    def _put(self, stop: "_Stop") -> bool:
        snapshot = self.store.newest()
        if snapshot is None:
            raise Denied(f"nothing has been copied yet for {self.name}", hint="understudy copies")
        about = _about(snapshot)
        if about is None:
            raise Denied(
                f"{snapshot.path / ABOUT} cannot be understood",
                hint=f"Remove {snapshot.path}: the next pull brings a new one.",
            )
        path = self._settings.path
        new = path.with_name(f".{path.name}.understudy-new")
        try:
            if _is_there(path, about, stop):
                return False
            _write(snapshot.path / DATA, new, about, self._settings.owner or about.owner, stop)
            _exchange(path, new)
        finally:
            new.unlink(missing_ok=True)  # Ours, or that of one who was killed.
        return True

    # At the source

    def serve(self, words: Sequence[str]) -> int:
        """Raises Refused, Unreachable: also when whoever asked goes away."""
        known = _known(words)
        path, within = self._settings.path, self._settings.within
        stop = _Stop(within, f"reading {path}")
        try:
            with tempfile.TemporaryDirectory(prefix="understudy-") as scratch:
                copy = Path(scratch, DATA)
                state = _copy(path, copy, min(PATIENCE, within / 2), stop)
                # From here on it has no name: nothing of it can be left behind.
                file = copy.open("rb")
        except OSError as error:
            where = tempfile.tempdir or "a temporary file"
            raise Unreachable(
                f"{path} cannot be copied to {where}: {_why(error)}",
                hint="Make room there, or set TMPDIR." if error.errno == errno.ENOSPC else "",
            ) from error
        with file:
            size, sha256 = _pour(file, None, stop)
            file.seek(0)
            if sha256 == known:
                _send({"ok": True, "same": True}, None, stop)
                return 0
            head = {"ok": True, "same": False, "bytes": size, "sha256": sha256}
            _send({**head, "owner": _owner(state), "mode": state.mode}, file, stop)
        return 0


class _Stop:
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


async def _beside(work: Callable[[], T], stop: _Stop) -> T:
    """In a thread, which ends sooner when we are cancelled."""
    return await in_thread(work, stop.cancel)


def _pour(source: IO[bytes], target: IO[bytes] | None, stop: _Stop) -> tuple[int, str]:
    """From where `source` stands to its end.  Returns bytes and SHA-256."""
    size, digest = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK):
        stop.check()
        size += len(chunk)
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return size, digest.hexdigest()


def _why(error: OSError) -> str:
    return error.strerror or str(error)


# Databases


class _DamagedError(Exception):
    """What is wrong with it."""


def _connect(path: Path) -> sqlite3.Connection:
    """To a file that nobody else has: no locks, and no files beside it."""
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, isolation_level=None)


def _check(db: sqlite3.Connection, stop: _Stop) -> None:
    """Raises _DamagedError."""
    db.set_progress_handler(stop, 10_000)
    try:
        (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        stop.check()
        raise _DamagedError(str(error)) from error
    if said != "ok":
        raise _DamagedError(" ".join(said.split())[:200])


def _count(path: Path, stop: _Stop) -> tuple[int, int]:
    """Check it, and count its tables and the rows of all.  Raises _DamagedError."""
    with closing(_connect(path)) as db:
        _check(db, stop)
        try:
            # Without virtual tables (rootpage 0), which may need a program that is not here.
            names = db.execute(
                "SELECT name FROM sqlite_master"
                " WHERE type = 'table' AND rootpage > 0 AND name NOT GLOB 'sqlite_*'"
            ).fetchall()
            rows = 0
            for (name,) in names:
                quoted = name.replace('"', '""')
                rows += db.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]
        except sqlite3.Error as error:
            stop.check()
            raise _DamagedError(str(error)) from error
    return len(names), rows


def _rows(about: About) -> str:
    rows, tables = "" if about.rows == 1 else "s", "" if about.tables == 1 else "s"
    return f"{about.rows} row{rows} in {about.tables} table{tables}"


# What the standby is told and keeps


class _Kept(NamedTuple):
    snapshot: Snapshot
    about: About


class _Offer(NamedTuple):
    bytes: int
    sha256: str
    owner: str
    mode: int


def _offer(node: str, said: dict[str, Any]) -> _Offer:
    """What the source says of the bytes that follow.  Raises Unreachable."""
    match said:
        case {
            "same": False,
            "bytes": int(size),
            "sha256": str(sha256),
            "owner": str(owner),
            "mode": int(mode),
        } if size >= 0 and _SHA256.fullmatch(sha256) and _OWNER.fullmatch(owner):
            return _Offer(size, sha256, owner, mode & 0o777)
    raise Unreachable(
        f"{node} did not say what it sends: {json.dumps(said)[:200]}",
        hint="Do both nodes run the same version?",
    )


def _about(snapshot: Snapshot) -> About | None:
    """None where it cannot be understood.  OSError goes through, but for a file that is not there."""
    try:
        return About(**json.loads((snapshot.path / ABOUT).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _blame_full_disk(file: IO[bytes]) -> None:
    """A program that writes into our file cannot say why it stopped.  Raises its OSError."""
    try:
        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, 64 * 1024)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise


# Putting it in place

# Beside the database: the rollback journal, the write-ahead log and its index.
_COMPANIONS = ("-journal", "-wal", "-shm")


def _is_there(path: Path, about: About, stop: _Stop) -> bool:
    """Exactly this, and nothing beside it that SQLite would add to it."""
    try:
        file = _open(path)
    except FileNotFoundError:
        return False
    with file:
        if os.fstat(file.fileno()).st_size != about.bytes or _companions(path):
            return False
        _, sha256 = _pour(file, None, stop)
    return sha256 == about.sha256


def _companions(path: Path) -> list[Path]:
    places = (Path(f"{path}{end}") for end in _COMPANIONS)
    return [place for place in places if os.path.lexists(place)]


def _write(source: Path, new: Path, about: About, owner: str, stop: _Stop) -> None:
    """The snapshot as a new file, whole and on the disk."""
    uid, gid = _ids(owner)
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file, source.open("rb") as copied:
        _, sha256 = _pour(copied, file, stop)
        if sha256 != about.sha256:
            raise Denied(
                f"{source} is damaged: its SHA-256 is not the one in {ABOUT}",
                hint=f"Is the disk well?  Remove {source.parent}: the next pull brings a new one.",
            )
        found = os.fstat(file.fileno())
        if (found.st_uid, found.st_gid) != (uid, gid):
            try:
                os.fchown(file.fileno(), uid, gid)
            except PermissionError as error:
                raise Denied(
                    f"{new.parent} cannot get a file that is owned by {owner}: {_why(error)}",
                    hint="Only root may give files away.",
                ) from error
        os.fchmod(file.fileno(), about.mode & 0o777)
        file.flush()
        os.fsync(file.fileno())


def _ids(owner: str) -> tuple[int, int]:
    user, group = owner.split(":")
    try:
        return pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Denied(
            f"{owner} cannot own the file: this machine does not know both names",
            hint="Install the PBX here, or write `owner`.",
        ) from error


def _exchange(path: Path, new: Path) -> None:
    """`new` becomes `path`; what was there is kept beside it.

    SQLite applies a journal or log to whatever file has the name that it belongs to.  So the order is: let SQLite
    bring what is there to rest with its own journal; remove what is left of that; only then rename.  Wherever we die,
    in place is the old file with its journal, the old one at rest without, or the new one without.  The first fsync
    keeps a power cut from undoing the removal and not the rename.
    """
    old = Path(f"{path}.understudy-old")
    if os.path.lexists(path):
        _bring_to_rest(path)
        old.unlink(missing_ok=True)
        os.link(path, old)
    for each in _companions(path):
        each.unlink()
    sync_folder(path.parent)
    new.replace(path)
    sync_folder(path.parent)


def _bring_to_rest(path: Path) -> None:
    """Undo the half transaction, or do the whole ones, of a PBX that was killed: what we keep is complete."""
    if not _companions(path):
        return
    address = f"{path.as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=0)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            why = "its log is in use" if busy else ""
    except sqlite3.Error as error:
        # Nobody misses one that is damaged, or no database at all.
        is_one = error.sqlite_errorcode & 0xFF not in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        )
        why = str(error) if is_one else ""
    if why:
        raise Denied(
            f"{path} cannot be replaced: {why}",
            hint=f"Is the PBX here stopped?  Who has it open: fuser -v {path}",
        )


# Reading the live file


class _NotAtRestError(Exception):
    """Why the file cannot be copied at this moment."""


class _State(NamedTuple):
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


def _known(words: Sequence[str]) -> str | None:
    match words:
        case ["read"]:
            return None
        case ["read", sha256] if _SHA256.fullmatch(sha256):
            return sha256
    raise Refused(
        f"not a request: {' '.join(words)[:80]!r}", hint="read, or read SHA256 of the newest copy."
    )


def _copy(path: Path, copy: Path, patience: float, stop: _Stop) -> _State:
    """A whole state of the database.  Raises Unreachable; OSError for `copy` alone."""
    give_up = time.monotonic() + patience
    damaged: _State | None = None
    pause = 0.01
    while True:
        try:
            state = _copy_once(path, copy, stop)
            with closing(_connect(copy)) as db:
                _check(db, stop)
        except _NotAtRestError as error:
            why = str(error)
        except _DamagedError as error:
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


def _copy_once(path: Path, copy: Path, stop: _Stop) -> _State:
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
        _pour(live, file, stop)
    _expect_rest(path, before)
    if _look(path) != before:
        raise _NotAtRestError("it is written to all the time")
    return before


def _look(path: Path) -> _State:
    with _open_live(path) as live:
        head = os.pread(live.fileno(), 100, 0)
        s = os.fstat(live.fileno())
    return _State(
        s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_uid, s.st_gid, s.st_mode & 0o777, head
    )


def _expect_rest(path: Path, state: _State) -> None:
    # As SQLite itself tells a hot journal: its first byte is zero, or it has none, but while the file is written.
    with suppress(FileNotFoundError), _open(Path(f"{path}-journal")) as journal:
        if journal.read(1) not in (b"", b"\0"):
            raise _NotAtRestError("its -journal says that a transaction is not finished")
    if state.has_log and _size(path, "-wal"):
        raise _NotAtRestError("a -wal has appeared")


def _size(path: Path, end: str) -> int:
    try:
        return Path(f"{path}{end}").stat().st_size
    except FileNotFoundError:
        return 0


def _back_up(path: Path, copy: Path, stop: _Stop) -> None:
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
        return _open(path)
    except OSError as error:
        hints = {
            errno.ENOENT: "Is `path` right, and has the PBX ever run here?",
            errno.EACCES: "Make the user who answers a member of the PBX's group.",
        }
        raise Unreachable(
            f"{path} cannot be read: {_why(error)}", hint=hints.get(error.errno or 0, "")
        ) from error


def _open(path: Path) -> IO[bytes]:
    """A regular file, and no link: the PBX's user may write in the folder, and we may be root.

    Closing it drops all locks of this process on it (fcntl(2)): not while SQLite has it open.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(handle, "rb", buffering=0)


def _damaged(path: Path, error: Exception) -> Unreachable:
    return Unreachable(
        f"{path} is damaged: {error}",
        hint="Earlier copies are on the other node: understudy copies.",
    )


def _owner(state: _State) -> str:
    """Names, where there are."""
    user, group = str(state.uid), str(state.gid)
    with suppress(KeyError):
        user = pwd.getpwuid(state.uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(state.gid).gr_name
    return f"{user}:{group}"


def _send(head: dict[str, Any], body: IO[bytes] | None, stop: _Stop) -> None:
    """Raises Unreachable.  Somebody who does not read must not hold us for ever: SIGALRM ends us."""
    signal.alarm(max(1, math.ceil(stop.left)))
    out = sys.stdout.buffer
    try:
        out.write(json.dumps(head).encode() + b"\n")
        if body is not None:
            shutil.copyfileobj(body, out, _CHUNK)
        out.flush()
    except OSError as error:
        # What is still in the buffer would fail again at our end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        raise Unreachable(f"the answer could not be sent: {_why(error)}") from error
    finally:
        signal.alarm(0)
