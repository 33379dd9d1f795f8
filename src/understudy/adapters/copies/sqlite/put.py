"""Putting the newest snapshot in place."""

import grp
import os
import pwd
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from understudy.adapters.copies.stop import Stop, beside
from understudy.adapters.disk import sync_folder
from understudy.errors import Denied

from .about import ABOUT, DATA, About, Database, about_of, is_there
from .database import companions, pour, why


async def put(database: Database) -> bool:
    """Raises Denied, Unreachable.  Cancelled, it has ended when the cancellation is seen."""
    stop = Stop(database.settings.within, f"putting {database.name} in place")
    try:
        return await beside(partial(_put, database, stop), stop)
    except OSError as error:
        path = database.settings.path
        hint = f"Is the PBX installed here?  There is no {path.parent}."
        raise Denied(
            f"{path} cannot be put in place: {why(error)}",
            hint="" if path.parent.is_dir() else hint,
        ) from error


def _put(database: Database, stop: Stop) -> bool:
    snapshot = database.store.newest()
    if snapshot is None:
        raise Denied(f"nothing has been copied yet for {database.name}", hint="understudy copies")
    about = about_of(snapshot)
    if about is None:
        raise Denied(
            f"{snapshot.path / ABOUT} cannot be understood",
            hint=f"Remove {snapshot.path}: the next pull brings a new one.",
        )
    path = database.settings.path
    new = path.with_name(f".{path.name}.understudy-new")
    try:
        if is_there(path, about, stop):
            return False
        _write(snapshot.path / DATA, new, about, database.settings.owner or about.owner, stop)
        _exchange(path, new)
    finally:
        new.unlink(missing_ok=True)  # Ours, or that of one who was killed.
    return True


def _write(source: Path, new: Path, about: About, owner: str, stop: Stop) -> None:
    """The snapshot as a new file, whole and on the disk."""
    uid, gid = _ids(owner)
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file, source.open("rb") as copied:
        _, sha256 = pour(copied, file, stop)
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
                    f"{new.parent} cannot get a file that is owned by {owner}: {why(error)}",
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
    for each in companions(path):
        each.unlink()
    sync_folder(path.parent)
    new.replace(path)
    sync_folder(path.parent)


def _bring_to_rest(path: Path) -> None:
    """Undo the half transaction, or do the whole ones, of a PBX that was killed: what we keep is complete."""
    if not companions(path):
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
