"""What only an old active node had: its way to the node that serves now, as bundles.

    JOURNAL's folder/merges/NAME/MARK.bundle      at the active node: it came whole, and waits for the copier there
    JOURNAL's folder/merges/NAME/MARK.json        what became of it
    STORE/aside/INSTANT.merged.json               the same, beside what was kept aside at the node that had it

The name of a bundle says where it comes from, so each is sent, taken and reported once, however often either side
dies in between.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from understudy.errors import JournalError, Refused
from understudy.ports import Copy, Merged

from . import statecodec
from .copy_state import replace_text

MARK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,126}")
SHOWN = 3  # Reasons.
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """What became of one bundle."""

    done: bool = False  # Everything in it has its place; else it is tried again.
    at: float = 0.0  # Wall clock seconds.
    trouble: str = ""  # Why it is not done yet.
    taken: tuple[str, ...] = ()
    known: int = 0
    left: tuple[str, ...] = ()

    @classmethod
    def of(cls, merged: Merged, at: float, before: "MergeReport | None" = None) -> "MergeReport":
        """`before`: of the try before this one, from which something was left that may be taken later."""
        taken = before.taken if before is not None else ()
        return cls(
            done=not merged.again,
            at=at,
            trouble="; ".join(merged.left[:SHOWN]) if merged.again else "",
            taken=(*taken, *merged.taken),
            known=max(merged.known - len(taken), 0),
            left=merged.left,
        )

    @property
    def said(self) -> str:
        """For a sentence."""
        counts = ((len(self.taken), "taken"), (self.known, "known"), (len(self.left), "left"))
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A bundle that has come."""

    mark: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What may be merged of one thing that was kept aside, as one file beside it: its user removes it."""

    path: Path
    size: int  # Bytes.
    sha256: str

    @classmethod
    def of(cls, copy: Copy, aside: Path) -> "Bundle | None":
        """None where nothing may.  Raises Denied, OSError."""
        path = aside.with_name(f"{aside.name}.bundle")
        path.unlink(missing_ok=True)
        if not copy.bundle(aside, path):
            return None
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(path=path, size=file.tell(), sha256=sha256)


class Inbox:
    """At the active node: bundles of one class."""

    def __init__(self, journal: Path, name: str) -> None:
        self._folder = journal.parent / "merges" / name

    def receive(self, mark: str, size: int, sha256: str, source: IO[bytes]) -> None:
        """Keep exactly these bytes.  Raises Refused, and then nothing was kept; OSError."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        new = self._folder / f".{mark}.{os.getpid()}.new"
        try:
            with new.open("xb") as file:
                _pour(source, file, size, sha256)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._bundle(mark))
        except OSError as error:
            raise Refused(
                f"the bundle cannot be kept in {self._folder}: {error.strerror}"
            ) from error
        finally:
            new.unlink(missing_ok=True)

    def take_own(self, copy: Copy, aside: Path, mark: str) -> bool:
        """What this node has kept aside itself; False where nothing of it may be merged.  Raises as `receive`."""
        bundle = Bundle.of(copy, aside)
        if bundle is None:
            return False
        try:
            with bundle.path.open("rb") as file:
                self.receive(mark, bundle.size, bundle.sha256, file)
        finally:
            bundle.path.unlink(missing_ok=True)
        return True

    def report(self, mark: str) -> MergeReport | None:
        """None where no such bundle has come.  Raises JournalError."""
        # In this order: the copier writes what it has done before it removes the bundle.
        waits = self._bundle(mark).exists()
        try:
            text = self._report(mark).read_text(encoding="utf-8")
        except FileNotFoundError:
            return MergeReport() if waits else None
        except OSError as error:
            raise JournalError(f"{self._report(mark)} cannot be read: {error.strerror}") from error
        return statecodec.loads(MergeReport, text)

    def waiting(self) -> Iterator[Waiting]:
        """The oldest first."""
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.glob("*.bundle")):
                if MARK.fullmatch(path.stem) and path.is_file() and not path.is_symlink():
                    yield Waiting(mark=path.stem, path=path)

    def close(self, mark: str, report: MergeReport) -> None:
        """Raises JournalError."""
        replace_text(self._report(mark), statecodec.dumps(report))
        if report.done:
            self._bundle(mark).unlink(missing_ok=True)

    def _bundle(self, mark: str) -> Path:
        return self._folder / f"{mark}.bundle"

    def _report(self, mark: str) -> Path:
        return self._folder / f"{mark}.json"


def mark_of(node: str, aside: Path) -> str:
    return f"{node}-{aside.name}"


def known_report(aside: Path) -> MergeReport | None:
    """What is known here of the bundle of `aside`; None where nothing is."""
    try:
        return statecodec.loads(MergeReport, _beside(aside).read_text(encoding="utf-8"))
    except (OSError, ValueError, JournalError):
        return None


def keep_report(aside: Path, report: MergeReport) -> None:
    """Raises JournalError."""
    replace_text(_beside(aside), statecodec.dumps(report))


def _beside(aside: Path) -> Path:
    return aside.with_name(f"{aside.name}.merged.json")


def _pour(source: IO[bytes], target: IO[bytes], size: int, sha256: str) -> None:
    left, found = size, hashlib.sha256()
    while left and (chunk := source.read(min(left, _CHUNK))):
        target.write(chunk)
        found.update(chunk)
        left -= len(chunk)
    if left or found.hexdigest() != sha256:
        raise Refused(f"the bundle did not come whole: {left} of {size} bytes are missing")
