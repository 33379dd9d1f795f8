"""What is only in a database that was kept aside, for a person to read: /DND/6001 YES."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from understudy.adapters.copies.stop import Stop
from understudy.adapters.copies.store import Snapshot

from .about import DATA
from .database import companions, tables

NAME = "only-here.txt"
MOST = 10_000  # Rows of a table.
WITHIN = 30.0  # Seconds; at most half of what is left for keeping it aside.

_LONGEST = 1000  # Characters of a value.


def write(kept: Path, snapshot: Snapshot, stop: Stop) -> None:
    """Into the folder of `kept`, which stays as it is.  Raises Unreachable, OSError."""
    within = min(WITHIN, stop.left / 2)
    enough = Stop(within, "comparing")
    try:
        lines = list(_lines(kept, snapshot, lambda: stop() or enough()))
    except (OSError, sqlite3.Error) as error:
        # What was kept counts more than that anybody reads of it.
        stop.check()
        why = f"that took longer than {within:g} s" if enough() else str(error)
        lines = [f"The rows could not be compared: {why}.  Compare both by hand: sqlite3(1)."]
    about = (
        f"What was in {kept.name} here, and is not in the copy {snapshot.name}, which replaced it:"
    )
    text = "\n".join((about, "", *(lines or ["no row"]), ""))
    (kept.parent / NAME).write_text(text, encoding="utf-8", errors="replace")


def _lines(kept: Path, snapshot: Snapshot, stop: Callable[[], bool]) -> Iterator[str]:
    # What a PBX that was killed has left half done is brought to rest in another copy: `kept` stays as it was.
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        ours = Path(scratch, DATA)
        shutil.copyfile(kept, ours)
        for each in companions(kept):
            shutil.copyfile(each, Path(f"{ours}{each.name.removeprefix(kept.name)}"))
        with closing(sqlite3.connect(ours.as_uri(), uri=True, isolation_level=None)) as db:
            db.set_progress_handler(stop, 10_000)
            db.text_factory = lambda raw: raw.decode(errors="replace")
            address = f"{(snapshot.path / DATA).absolute().as_uri()}?mode=ro&immutable=1"
            db.execute("ATTACH ? AS theirs", (address,))
            for table in tables(db):
                yield from _of_table(db, table)


def _of_table(db: sqlite3.Connection, table: str) -> Iterator[str]:
    quoted = table.replace('"', '""')
    mine, others = _columns(db, "main", table), _columns(db, "theirs", table)
    rows, note = f'SELECT * FROM main."{quoted}"', "; the copy has no such table"
    if others and mine != others:
        yield f"{table}: its columns are {', '.join(mine)} here, and {', '.join(others)} in the copy."
        yield "Compare it by hand: sqlite3(1)."
        yield ""
        return
    if others:
        rows, note = f'{rows} EXCEPT SELECT * FROM theirs."{quoted}"', ""
    (count,) = db.execute(f"SELECT count(*) FROM ({rows})").fetchone()
    if not count and others:
        return
    yield f"{table} ({', '.join(mine)}), {count} row{'' if count == 1 else 's'}{note}:"
    for row in db.execute(f"{rows} LIMIT {MOST}"):
        yield " ".join(map(_shown, row))
    if count > MOST:
        yield f"... and {count - MOST} more"
    yield ""


def _columns(db: sqlite3.Connection, place: str, table: str) -> list[str]:
    """None where there is no such table."""
    found = db.execute("SELECT name FROM pragma_table_info(?, ?)", (table, place))
    return [name for (name,) in found]


def _shown(value: object) -> str:
    match value:
        case None:
            return "NULL"
        case bytes():
            text = f"x'{value[:_LONGEST].hex()}'"
        case _:
            text = str(value)
    cut = "..." if len(text) > _LONGEST else ""
    return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST]) + cut
