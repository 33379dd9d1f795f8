"""What only an old active node had, on its way to the one that serves: one file.

A tar archive of regular files, in the part of GNU's format (tar(5), "GNU tar Archives") that `write` needs: names that
begin with the number of one of `paths`, long ones by a member of type L, owners by name.  `read` takes that and nothing
else: no links, no sparse files, no extended headers that would have to be believed.
"""

import grp
import os
import pwd
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from understudy.adapters.copies.regular import open_regular
from understudy.adapters.disk import sync_folder
from understudy.errors import Denied

from .difference import everything
from .files import ROOT, Files, below
from .settings import Merge

MANY = 1_000_000  # Files.
LONGEST = 4096  # Bytes of a name: PATH_MAX.

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
_MODE = 0o777  # Nothing is made setuid by a merge.


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of a bundle."""

    path: Path  # Where it was on the node that had it: /NUMBER of one of `paths`, and what follows; without `..`.
    size: int  # Bytes.
    offset: int  # In the bundle.
    mode: int  # Permission bits.
    mtime: int  # Seconds.
    user: str
    group: str


def write(files: Files, aside: Path, target: Path) -> bool:
    """ports.Copy.bundle.  Raises OSError."""
    if files.settings.merge is Merge.NONE:
        return False
    found = sorted(_mergeable(files, aside / ROOT))
    if not found:
        return False
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        with new.open("xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for name, kept in found:
                    _add(tar, name, kept)
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(target.parent)
    return True


def _mergeable(files: Files, root: Path) -> Iterator[tuple[str, Path]]:
    """Their names in the bundle, and where they are."""
    for number, path in enumerate(files.settings.paths):
        kept = below(root, path)
        for rest, status in everything(kept):
            name = Path(f"{path}{rest}").name
            passing = any(fnmatchcase(name, each) for each in files.settings.passing)
            if stat.S_ISREG(status.st_mode) and not passing:
                yield f"{number}{rest}", Path(f"{kept}{rest}")


def _add(tar: tarfile.TarFile, name: str, kept: Path) -> None:
    with open_regular(kept) as file:
        status = os.fstat(file.fileno())
        # Not gettarinfo(), which makes a link of the second name of a file.
        member = tarfile.TarInfo(name)
        member.size, member.mtime = status.st_size, int(status.st_mtime)
        member.mode = status.st_mode & _MODE
        with suppress(KeyError):
            member.uname = pwd.getpwuid(status.st_uid).pw_name
        with suppress(KeyError):
            member.gname = grp.getgrgid(status.st_gid).gr_name
        tar.addfile(member, file)


def read(file: IO[bytes]) -> tuple[Member, ...]:
    """What is in the bundle.  Raises Denied, OSError."""
    size = os.fstat(file.fileno()).st_size
    try:
        found = tuple(_members(file, size))
    except tarfile.HeaderError as error:
        raise _not_ours(str(error)) from error
    names = {member.path for member in found}
    if len(names) < len(found):
        raise _not_ours("it has a file twice")
    if any(parent in names for name in names for parent in name.parents):
        raise _not_ours("it has a file that is a folder as well")
    return found


def _members(file: IO[bytes], end: int) -> Iterator[Member]:
    """What follows from the beginning of `file` on; `end` is its size."""
    offset, count, long_name = 0, 0, ""
    while (header := os.pread(file.fileno(), _BLOCK, offset)) != _END:
        info = tarfile.TarInfo.frombuf(header, sys.getfilesystemencoding(), "surrogateescape")
        offset += _BLOCK
        if not 0 <= info.size <= end - offset:
            raise _not_ours("it was cut off")
        if info.type == tarfile.GNUTYPE_LONGNAME and not long_name and info.size <= LONGEST:
            name = os.pread(file.fileno(), info.size, offset)
            long_name = os.fsdecode(name.rstrip(b"\0"))
        elif info.type == tarfile.REGTYPE and count < MANY:
            yield _member(info, long_name or info.name, offset)
            long_name, count = "", count + 1
        else:
            raise _not_ours("it has something other than files")
        offset += -(-info.size // _BLOCK) * _BLOCK


def _member(info: tarfile.TarInfo, name: str, offset: int) -> Member:
    for part in name.split("/"):
        if part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > 255:
            raise _not_ours(f"it has a file named {name[:200]!r}")
    if not 0 <= info.mtime < 2**34:
        raise _not_ours(f"{name[:200]!r} has no possible time")
    return Member(
        path=Path("/", name),
        size=info.size,
        offset=offset,
        mode=info.mode & _MODE,
        mtime=int(info.mtime),
        user=info.uname,
        group=info.gname,
    )


def _not_ours(why: str) -> Denied:
    return Denied(
        f"the bundle is not one that can be merged: {why}",
        hint="Do both nodes run the same version?",
    )
