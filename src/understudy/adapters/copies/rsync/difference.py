"""What differs between two states of a path."""

import filecmp
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from understudy.adapters.copies.store import tree


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two states of a path.  Files are all but folders."""

    known: bool  # Was it there before?
    before: int
    after: int
    new: int  # Files that are new or different.
    changed: bool


def difference(new: Path, old: Path | None) -> Difference:
    entries = after = fresh = had = before = 0
    for _, found in everything(old) if old is not None else ():
        had += 1
        before += is_file(found)
    changed = False
    for rest, found in everything(new):
        entries += 1
        after += is_file(found)
        if old is None or not same(f"{new}{rest}", found, f"{old}{rest}"):
            changed = True
            fresh += is_file(found)
    return Difference(
        known=had > 0,
        before=before,
        after=after,
        new=fresh,
        changed=changed or entries != had,
    )


def same(new: str, found: os.stat_result, old: str) -> bool:
    """A folder's time is no change: a lock file that comes and goes alters it."""
    try:
        was = os.lstat(old)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if (found.st_mode, found.st_uid, found.st_gid) != (was.st_mode, was.st_uid, was.st_gid):
        return False
    if stat.S_ISDIR(found.st_mode):
        return True
    if stat.S_ISLNK(found.st_mode):
        return Path(new).readlink() == Path(old).readlink()
    if not stat.S_ISREG(found.st_mode):
        return found.st_rdev == was.st_rdev
    if found.st_ino == was.st_ino:
        return True
    # Not linked, yet of one age and size: where the disk here keeps whole seconds, and otherwise hardly ever.
    filecmp.clear_cache()
    alike = (found.st_size, found.st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    return alike and filecmp.cmp(new, old, shallow=False)


def count(path: Path) -> int:
    return sum(is_file(found) for _, found in everything(path))


def is_file(found: os.stat_result) -> bool:
    return not stat.S_ISDIR(found.st_mode)


def everything(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """`top` and what is below it, by the rest of its path; nothing where it is not."""
    try:
        found = top.lstat()
    except FileNotFoundError:
        return
    yield "", found
    if stat.S_ISDIR(found.st_mode):
        for entry in tree(top):
            yield entry.path[len(str(top)) :], entry.stat(follow_symlinks=False)
