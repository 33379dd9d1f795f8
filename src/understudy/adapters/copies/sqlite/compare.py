"""What putting the newest snapshot in place would change here: rows, both ways."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

from understudy.adapters.copies.stop import Stop, beside
from understudy.errors import Denied
from understudy.ports import Compared

from .about import DATA, Database
from .database import companions, connect, tables, why

SHOWN = 5  # Rows.
_LONGEST = 60  # Characters of one.

Row = tuple[object, ...]


async def compare(database: Database) -> Compared:
    """Raises Denied, Unreachable."""
    stop = Stop(database.settings.within, f"comparing {database.name}")
    try:
        return await beside(partial(_compare, database, stop), stop)
    except (OSError, sqlite3.Error) as error:
        said = why(error) if isinstance(error, OSError) else str(error)
        raise Denied(f"{database.name}: what is here could not be compared: {said}") from error


def _compare(database: Database, stop: Stop) -> Compared:
    snapshot, path = database.store.newest(), database.settings.path
    if snapshot is None:
        raise Denied(f"nothing has been copied yet for {database.name}")
    with closing(connect(snapshot.path / DATA)) as db:
        copied = _rows(db, stop)
    ours = Counter[tuple[str, Row]]()
    if path.exists():
        with tempfile.TemporaryDirectory() as folder:
            # With its journal: what a PBX that was killed has left is brought to rest in the copy, not in place.
            for each in (path, *companions(path)):
                shutil.copy2(each, Path(folder) / each.name)
            with closing(sqlite3.connect(Path(folder) / path.name)) as db:
                ours = _rows(db, stop)
    only_here = ours - copied
    return Compared(
        unit="rows",
        comes=(copied - ours).total(),
        bytes=(snapshot.path / DATA).stat().st_size,
        only_here=only_here.total(),
        examples=tuple(f"{table}: {_shown(row)}" for table, row in list(only_here)[:SHOWN]),
    )


def _rows(db: sqlite3.Connection, stop: Stop) -> Counter[tuple[str, Row]]:
    """Of all tables: such a database is small."""
    found: Counter[tuple[str, Row]] = Counter()
    db.set_progress_handler(stop, 10_000)
    for table in tables(db):
        quoted = table.replace('"', '""')
        for row in db.execute(f'SELECT * FROM "{quoted}"'):
            found[table, row] += 1
    return found


def _shown(row: Row) -> str:
    text = " ".join(str(value) for value in row)
    return "".join(c for c in text if c.isprintable())[:_LONGEST]
