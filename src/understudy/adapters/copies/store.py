"""Where the standby keeps what it has pulled: whole snapshots of one class, the newest last.

    FOLDER/incoming/                   what is being pulled; nobody reads it
    FOLDER/2026-11-23T04-15-00.123Z/   a whole snapshot, named by the instant at which reading it from the source began

    FOLDER/aside/2026-11-23T05-20-00.000Z/   what was in place here and is not in the copy that replaced it

A snapshot appears by rename(2), so a transfer that was cut off is never seen.  Files that did not change are hard
links to those of the snapshot before, so nothing may write to a file in here: replace it.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from understudy.adapters.disk import sync_folder

ACCEPT = "accept"  # A file: a person lets the next pull that succeeds lose as much as it may.
INCOMING = "incoming"
ASIDE = "aside"
GOING = "going"  # What is being deleted.
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z")
_FORM = "%Y-%m-%dT%H-%M-%S.%f"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One whole state of a class of data."""

    path: Path
    taken: float  # Wall clock seconds here: when reading it from the source began.

    @property
    def name(self) -> str:
        return self.path.name


class Store:
    """The snapshots of one class.  OSError goes through to the caller: a full disk, a folder of somebody else."""

    def __init__(self, folder: Path, *, keep: int, keep_bytes: int) -> None:
        """`keep` at least 1; `keep_bytes` bounds all but the newest, hard links counted once."""
        self.folder = folder
        self._keep, self._keep_bytes = keep, keep_bytes

    def all(self) -> tuple[Snapshot, ...]:
        """The oldest first."""
        try:
            names = sorted(each.name for each in self.folder.iterdir())
        except FileNotFoundError:
            return ()
        taken = ((name, _instant(name)) for name in names)
        return tuple(Snapshot(self.folder / name, at) for name, at in taken if at is not None)

    def newest(self) -> Snapshot | None:
        found = self.all()
        return found[-1] if found else None

    def begin(self) -> Path:
        """An empty folder to pull into; what an interrupted pull left there is thrown away."""
        incoming = self.folder / INCOMING
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in (incoming, self.folder / GOING):
            shutil.rmtree(left, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        return incoming

    def discard(self) -> None:
        shutil.rmtree(self.folder / INCOMING, ignore_errors=True)

    def commit(self, taken: float) -> Snapshot:
        """What was pulled is whole: make it the newest, durably, and let go of those too many."""
        newest = self.newest()
        name = _name(taken)
        if newest is not None and name <= newest.name:
            # The clock went back, or stands still: the newest stays the last by name.
            name = _name(newest.taken + 0.0015)
        _sync(self.folder / INCOMING)
        (self.folder / INCOMING).rename(self.folder / name)
        sync_folder(self.folder)
        self._prune()
        return Snapshot(self.folder / name, _instant(name) or taken)

    def arrived(self) -> int:
        """Bytes of the pull that is going on; what it shares with the snapshot before has not travelled."""
        incoming = self.folder / INCOMING
        try:
            found = [
                each.stat(follow_symlinks=False)
                for each in tree(incoming)
                if each.is_file(follow_symlinks=False)
            ]
        except FileNotFoundError:  # It has just ended.
            return 0
        return sum(each.st_size for each in found if each.st_nlink == 1)

    def accept(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.accepted.touch()

    @property
    def accepted(self) -> Path:
        return self.folder / ACCEPT

    def use_up_acceptance(self) -> None:
        """It was for this pull, and not for what happens in a year."""
        self.accepted.unlink(missing_ok=True)

    def begin_aside(self) -> Path:
        """An empty folder for what is in place here, and would be lost by putting the newest snapshot there."""
        aside = self.folder / ASIDE / INCOMING
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700, parents=True)
        return aside

    def keep_aside(self, at: float) -> Path | None:
        """Keep it under the instant `at`, for good: nobody but a person removes it.  None if it is empty."""
        aside = self.folder / ASIDE
        if not any(not each.is_dir(follow_symlinks=False) for each in tree(aside / INCOMING)):
            shutil.rmtree(aside / INCOMING, ignore_errors=True)
            return None
        target = aside / _name(at)
        while target.exists():
            at += 0.0015
            target = aside / _name(at)
        _sync(aside / INCOMING)
        (aside / INCOMING).rename(target)
        sync_folder(aside)
        return target

    def asides(self) -> tuple[Path, ...]:
        """The oldest first."""
        try:
            found = sorted((self.folder / ASIDE).iterdir())
        except FileNotFoundError:
            return ()
        return tuple(each for each in found if _NAME.fullmatch(each.name))

    def _prune(self) -> None:
        """Oldest first; never the newest."""
        found = list(self.all())
        while len(found) > self._keep:
            self._let_go(found.pop(0))
        while len(found) > 1 and _bytes(found[:-1], beside=found[-1]) > self._keep_bytes:
            self._let_go(found.pop(0))

    def _let_go(self, snapshot: Snapshot) -> None:
        """Under another name first: half a snapshot must not look like one."""
        going = self.folder / GOING
        shutil.rmtree(going, ignore_errors=True)
        snapshot.path.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def tree(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All that is below `folder`, folders too; links are not followed."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))


def _bytes(snapshots: Sequence[Snapshot], beside: Snapshot) -> int:
    """What would be free again without them."""
    stays = {(found.st_dev, found.st_ino) for found in _files(beside)}
    seen: dict[tuple[int, int], int] = {}
    for snapshot in snapshots:
        for found in _files(snapshot):
            seen[(found.st_dev, found.st_ino)] = 512 * found.st_blocks
    return sum(size for inode, size in seen.items() if inode not in stays)


def _files(snapshot: Snapshot) -> Iterator[os.stat_result]:
    for entry in tree(snapshot.path):
        if entry.is_file(follow_symlinks=False):
            yield entry.stat(follow_symlinks=False)


def _name(instant: float) -> str:
    return f"{datetime.fromtimestamp(instant, UTC).strftime(_FORM)[:-3]}Z"


def _instant(name: str) -> float | None:
    """None if that is no snapshot's name."""
    try:
        taken = datetime.strptime(name.removesuffix("Z"), _FORM).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return taken if _NAME.fullmatch(name) else None


def _sync(folder: Path) -> None:
    """All of it on the disk: syncfs(2) is not in Python, and the number of new files is small."""
    for entry in tree(folder):
        if entry.is_dir(follow_symlinks=False):
            sync_folder(Path(entry.path))
        elif (
            entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_nlink == 1
        ):
            with Path(entry.path).open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
