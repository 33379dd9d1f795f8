"""What the copier says about each class of data, in a file beside the journal: the agent and the commands read it.

One writer, whole files by rename(2).  Times are wall clock seconds of this machine.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from understudy.errors import JournalError
from understudy.ports import Compared

from . import statecodec

SILENT_AFTER = 30.0  # Seconds without a word after which no copier is at work.


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassState:
    """One class of data here."""

    name: str
    kind: str
    every: float  # Seconds: as configured, for whoever reads the ages.
    max_age: float
    refuses: bool = False  # on_stale = "refuse"
    source: str = ""  # Where the copy in place was read, and in which epoch.
    epoch: int = 0
    as_of: float = (
        0.0  # When reading what is in place began there; 0: nothing was ever put in place.
    )
    tried: float = 0.0  # The last pull began.
    took: float = 0.0  # Seconds of the last good one.
    bytes: int = 0  # That travelled then.
    trouble: str = ""  # Why the last one was none.
    trouble_since: float = 0.0
    aside: str = ""  # Where that is kept which only this node had when it was last put in place in a new epoch.
    busy: str = ""  # What is being done now: "pulling", "putting in place", "merging".
    arrived: int = 0  # Bytes of the pull that is going on.
    compared: Compared | None = None  # What a rejoin would do here, as it was last looked at.
    compared_at: float = 0.0
    note: str = ""  # What the source said that a person should know: semi-sync is off.
    merged: str = ""  # What became of what only this node had, at the node that serves now.
    unmerged: str = ""  # Why some of it is not there yet.

    def age(self, wall: float) -> float | None:
        """Seconds; None if there is no copy."""
        return None if not self.as_of else max(wall - self.as_of, 0.0)

    def is_stale(self, wall: float) -> bool:
        age = self.age(wall)
        return age is None or age > self.max_age


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyState:
    written: float = 0.0
    pid: int = 0  # Of the copier.
    classes: tuple[ClassState, ...] = ()

    def with_class(self, changed: ClassState) -> "CopyState":
        return replace(
            self, classes=tuple(changed if c.name == changed.name else c for c in self.classes)
        )

    def of(self, name: str) -> ClassState | None:
        return next((each for each in self.classes if each.name == name), None)

    def is_silent(self, wall: float) -> bool:
        return abs(wall - self.written) > SILENT_AFTER

    def stale_from(self) -> float | None:
        """Wall clock: from when on a class that refuses is too old for a take-over; None: never."""
        instants = [c.as_of + c.max_age if c.as_of else 0.0 for c in self.classes if c.refuses]
        return min(instants, default=None)


def store_place(journal: Path) -> Path:
    """Where snapshots are kept, a folder for each class: the copier's alone."""
    return journal.parent / "copies"


class Files:
    """Where the agent, the copier and the commands find each other's words: beside the journal."""

    def __init__(self, journal: Path) -> None:
        self.state = place(journal)
        self.role = journal.parent / "copies.role"
        self.now = journal.parent / "copies.now"  # Touched by who wants every class pulled at once.
        self.lock = journal.parent / "copies.lock"  # Locked while something is put in place.


def place(journal: Path) -> Path:
    """Of the copier's words alone: whoever only reads them."""
    return journal.parent / "copies.json"


def read(path: Path) -> CopyState | None:
    """None where no copier has written yet.  Raises JournalError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    return statecodec.loads(CopyState, text)


def write(path: Path, state: CopyState) -> None:
    """Raises JournalError.  Everybody may read it: there are no secrets in it."""
    replace_text(path, statecodec.dumps(state))


def replace_text(path: Path, text: str) -> None:
    """The whole file by rename, durably.  Raises JournalError."""
    new = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise JournalError(f"{path} cannot be written: {error.strerror}") from error


def merged(known: CopyState | None, configured: Iterable[ClassState]) -> CopyState:
    """What is known of the classes that are configured now."""
    classes = []
    for each in configured:
        old = known.of(each.name) if known is not None else None
        if old is None or old.kind != each.kind:
            classes.append(each)
        else:
            old = replace(old, every=each.every, max_age=each.max_age, refuses=each.refuses)
            classes.append(replace(old, busy=""))
    return CopyState(classes=tuple(classes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What the agent lets the copier do, in a file of its own beside it."""

    boot_id: str  # An agent of an earlier life of this machine says nothing any more.
    pulls: bool = False  # The other node serves, and the PBX here is stopped.
    source: str = ""
    epoch: int = 0
    renew: float = 0.0  # Every class must have been read there after this instant.
    puts: bool = (
        True  # And may put it in place.  Else it only looks what that would do, when it is asked.
    )
    serves: bool = False  # This node does: what only the other one had is merged here.


def read_role(path: Path, boot_id: str) -> Role | None:
    """None where no agent of this life of the machine has said anything that makes sense."""
    try:
        role = statecodec.loads(Role, path.read_text(encoding="utf-8"))
    except (OSError, ValueError, JournalError):
        return None
    return role if role.boot_id == boot_id else None


def write_role(path: Path, role: Role) -> None:
    """Raises JournalError."""
    replace_text(path, statecodec.dumps(role))
