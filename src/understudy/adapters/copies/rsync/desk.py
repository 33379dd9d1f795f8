"""What every unit that is merged needs: the bundle, the copy that this node began with, and what was merged before."""

import errno
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from understudy.adapters.copies.regular import open_regular
from understudy.adapters.copies.stop import Stop
from understudy.errors import Denied

from .bundle import Member
from .files import below
from .record import Record
from .walk import TEMPORARY, folder_of, own, remove, status_of

FREE = 0.05  # Of the disk: what a merge leaves free.

_CHUNK = 1 << 20  # Bytes.
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class LeftError(Exception):
    """Why it stays where it is, at the other node alone; `passes` by itself, perhaps."""

    def __init__(self, why: str, *, passes: bool = False) -> None:
        super().__init__(why)
        self.passes = passes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file or message belongs: in one of the configured paths."""

    top: Path
    names: tuple[str, ...]  # From there on.

    @property
    def path(self) -> Path:
        return self.top.joinpath(*self.names)


@dataclass(frozen=True, slots=True)
class Desk:
    bundle: IO[bytes]
    record: Record
    base: Path | None  # What / was when this node began to serve: in its newest snapshot.
    stop: Stop

    def digest(self, member: Member) -> str:
        found = hashlib.sha256()
        for chunk in self._content(member):
            found.update(chunk)
        return found.hexdigest()

    def was_here(self, top: Path, look: Callable[[int], bool]) -> bool:
        """`look`, at the folder that `top` was when this node began to serve."""
        if self.base is None:
            return False
        try:
            with folder_of(below(self.base, top)) as folder:
                return look(folder)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return False

    def stage(self, folder: int, name: str, member: Member, digest: str) -> None:
        """The file, whole and on the disk, under a name that nobody takes for data."""
        _expect_room(folder, member.size)
        remove(folder, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(name, flags, 0o600, dir_fd=folder)
        with os.fdopen(handle, "wb") as file:
            found = hashlib.sha256()
            for chunk in self._content(member):
                found.update(chunk)
                file.write(chunk)
            if found.hexdigest() != digest:
                raise Denied("the bundle is being changed while it is read", hint="By whom?")
            file.flush()
            own(handle, *_owner(member, folder))
            os.fchmod(handle, member.mode)
            os.utime(handle, (member.mtime, member.mtime))
            os.fsync(handle)

    def _content(self, member: Member) -> Iterator[bytes]:
        at, end = member.offset, member.offset + member.size
        while at < end:
            self.stop.check()
            chunk = os.pread(self.bundle.fileno(), min(_CHUNK, end - at), at)
            if not chunk:
                raise Denied("the bundle was cut off while it was read", hint="By whom?")
            yield chunk
            at += len(chunk)


def key_of(*what: str) -> str:
    """The same for the same: a SHA-256."""
    return hashlib.sha256("\0".join(what).encode(errors="surrogateescape")).hexdigest()


def temporary(key: str, end: str = "") -> str:
    return f"{TEMPORARY}{key[:32]}{end}"


def is_placed(folder: int, staged: str) -> bool:
    """Has what was staged under that name got its own one, before we were killed?"""
    status = status_of(folder, staged)
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_nlink > 1


def digest_at(folder: int, name: str, stop: Stop) -> str | None:
    """Of the file here; None where there is none.  Raises OSError where it is something else."""
    found = hashlib.sha256()
    try:
        with open_regular(name, folder=folder) as file:
            while chunk := file.read(_CHUNK):
                stop.check()
                found.update(chunk)
    except FileNotFoundError:
        return None
    return found.hexdigest()


def is_at(folder: int, name: str, digest: str, stop: Stop) -> bool:
    """Is there a file of just this content?"""
    with suppress(OSError):  # A link, a pipe: no file of ours.
        return digest_at(folder, name, stop) == digest
    return False


@contextmanager
def removing(folder: int, *names: str) -> Iterator[None]:
    """At the end, however it ends."""
    try:
        yield
    finally:
        for name in names:
            remove(folder, name)


def _expect_room(folder: int, size: int) -> None:
    disk = os.fstatvfs(folder)
    if disk.f_bavail * disk.f_frsize - size < FREE * disk.f_blocks * disk.f_frsize:
        raise LeftError(f"no room: less than {FREE:.0%} of the disk would be free", passes=True)


def _owner(member: Member, folder: int) -> tuple[int, int]:
    """By name, as ids differ between machines; else whoever owns the folder."""
    try:
        return pwd.getpwnam(member.user).pw_uid, grp.getgrnam(member.group).gr_gid
    except KeyError:
        like = os.fstat(folder)
        return like.st_uid, like.st_gid
