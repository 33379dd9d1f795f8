"""One snapshot of a database: what it is, and where."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from understudy.adapters.copies.regular import open_regular
from understudy.adapters.copies.stop import Stop
from understudy.adapters.copies.store import Snapshot, Store

from .database import companions, pour
from .settings import Settings

DATA, ABOUT = "data.sqlite3", "about.json"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Database:
    """One class of data: what every part of a copy needs to know."""

    name: str  # [copies.NAME]
    settings: Settings
    store: Store


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Of one snapshot."""

    sha256: str
    bytes: int
    owner: str  # "user:group" on the source: names, as ids differ between machines.
    mode: int  # Permission bits.
    tables: int
    rows: int  # In all of them.


def about_of(snapshot: Snapshot) -> About | None:
    """None where it cannot be understood.  OSError goes through, but for a file that is not there."""
    try:
        return About(**json.loads((snapshot.path / ABOUT).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def in_words(about: About) -> str:
    rows, tables = "" if about.rows == 1 else "s", "" if about.tables == 1 else "s"
    return f"{about.rows} row{rows} in {about.tables} table{tables}"


def is_there(path: Path, about: About, stop: Stop) -> bool:
    """Exactly this, and nothing beside it that SQLite would add to it."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return False
    with file:
        if os.fstat(file.fileno()).st_size != about.bytes or companions(path):
            return False
        _, sha256 = pour(file, None, stop)
    return sha256 == about.sha256
