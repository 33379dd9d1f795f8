"""Rows on their way from one server to the other: tables of [copies.NAME] merge, a file of lines for each.

    {"table": "asteriskcdrdb.cdr", "columns": ["calldate", "uniqueid", ...]}
    ["2026-11-23 04:15:00", "1763871300.7", null, {"b64": "AAE="}]

A bundle is some of these behind each other.  Times are UTC.
"""

import base64
import binascii
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.adapters.copies.stop import Stop
from understudy.errors import Denied
from understudy.ports import Merged

from .settings import MergeTable, Settings
from .sql import Sql, SqlDenied

LINE_MOST = 64 * 1024 * 1024  # Characters of a row.
BATCH = 500  # Rows.
_INTO = "understudy_merge"  # A temporary table, in its own database.
_SURROGATES = re.compile("[\ud800-\udfff]")  # No text: JSON may hold what UTF-8 may not.
_MODE = "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"


def writable(db: Sql, table: MergeTable) -> list[str]:
    """Its columns that are given by whoever adds a row, and not made by the server; none where there is no such table.

    A number that counts up is not of the row but of the server, unless it is part of the key.
    """
    found = db.rows(
        "SELECT column_name AS name, extra, is_generated AS made FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (table.database, table.table),
    )
    keys = {key.lower() for key in table.keys}
    return [
        each["name"]
        for each in found
        if each["made"] == "NEVER"
        and ("auto_increment" not in each["extra"] or each["name"].lower() in keys)
    ]


def export(db: Sql, table: MergeTable, conditions: Sequence[str], target: Path, stop: Stop) -> int:
    """Rows for which all `conditions` hold, the row's table being named t.  Returns how many; no file for none.

    `db` gives texts.
    """
    columns = writable(db, table)
    names = ", ".join(f"t.`{name}`" for name in columns)
    where = " AND ".join(conditions) or "TRUE"
    count = 0
    db.do("SET time_zone = '+00:00'")
    with target.open("x", encoding="utf-8") as file:
        file.write(_line({"table": table.name, "columns": columns}))
        for row in db.stream(f"SELECT {names} FROM {table.quoted} AS t WHERE {where}"):
            stop.check()
            file.write(_line([_coded(value) for value in row]))
            count += 1
    if not count:
        target.unlink()
    return count


def same_key(table: MergeTable, one: str, other: str) -> str:
    """An SQL condition."""
    return " AND ".join(f"{one}.`{key}` <=> {other}.`{key}`" for key in table.keys)


def bundle(tables: Iterable[MergeTable], folder: Path, target: Path) -> bool:
    """All files of `folder` that are for `tables`, as one new file.  False, and no file, if there is none."""
    paths = [folder / f"{table.name}.jsonl" for table in tables]
    there = [path for path in paths if path.is_file()]
    if not there:
        return False
    new = target.with_name(f".{target.name}.new")
    with new.open("wb") as file:
        for path in there:
            with path.open("rb") as part:
                shutil.copyfileobj(part, file)
    new.replace(target)
    return True


def merge(settings: Settings, source: Path, stop: Stop) -> Merged:
    """Add what is in the bundle `source` and has a key that is not here.  Raises Denied, Unreachable, OSError."""
    tables = {table.name: table for table in settings.tables}
    taken: list[str] = []
    left: list[str] = []
    known = 0
    with Sql(settings.socket, settings.user, within=max(30.0, stop.left)) as db:
        db.do("SET time_zone = '+00:00'")
        db.do("SET sql_mode = %s", (_MODE,))
        # Row by row in the log, so this is safe; and nobody who writes here waits for us.
        db.do("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        db.do("SET innodb_lock_wait_timeout = 5")
        with source.open(encoding="utf-8", errors="strict") as file:
            for name, columns, rows in _parts(file):
                table = tables.get(name)
                if table is None:
                    _drain(rows)
                    left.append(f"{_shown(name)}: `merge` does not name it here")
                    continue
                try:
                    new, count = _merge_table(db, table, columns, rows, stop)
                except (SqlDenied, _MisfitError) as error:
                    _drain(rows)
                    left.append(f"{name}: {error}")
                    continue
                known += count - new
                if new:
                    taken.append(f"{name}: {new} row{'' if new == 1 else 's'}")
    return Merged(taken=tuple(taken), known=known, left=tuple(left))


class _MisfitError(Exception):
    """Why the rows do not fit the table."""


def _merge_table(
    db: Sql, table: MergeTable, columns: list[str], rows: Iterator[list[Any]], stop: Stop
) -> tuple[int, int]:
    """How many are new, of how many."""
    here = writable(db, table)
    if not here:
        raise _MisfitError("there is no such table here")
    lower = {name.lower() for name in here}
    foreign = [name for name in columns if name.lower() not in lower]
    if foreign:
        raise _MisfitError(f"there is no column {_shown(foreign[0])} here")
    missing = [key for key in table.keys if key.lower() not in {name.lower() for name in columns}]
    if missing:
        raise _MisfitError(f"the rows came without {missing[0]}")
    into = f"`{table.database}`.`{_INTO}`"
    names = ", ".join(f"`{name}`" for name in columns)
    marks = ", ".join(["%s"] * len(columns))
    # Without its indexes: they would refuse what is for the real one to refuse.
    db.do(f"DROP TEMPORARY TABLE IF EXISTS {into}")
    db.do(f"CREATE TEMPORARY TABLE {into} AS SELECT {names} FROM {table.quoted} LIMIT 0")
    count = 0
    for batch in _batches(rows):
        stop.check()
        count += len(batch)
        db.many(f"INSERT INTO {into} ({names}) VALUES ({marks})", batch)
    same = same_key(table, "r", "m")
    new = db.do(
        f"INSERT INTO {table.quoted} ({names}) SELECT {names} FROM {into} AS m"
        f" WHERE NOT EXISTS (SELECT 1 FROM {table.quoted} AS r WHERE {same})"
    )
    db.do(f"DROP TEMPORARY TABLE {into}")
    return new, count


def _parts(file: Iterable[str]) -> Iterator[tuple[str, list[str], Iterator[list[Any]]]]:
    """Table, columns and rows, part by part: each is to be read to its end.  Raises Denied."""
    source = _values(file)
    head: Any = next(source, None)
    while head is not None:
        match head:
            case {"table": str(name), "columns": [*columns]} if _are_names(columns):
                pass
            case _:
                raise Denied("the bundle cannot be understood: no table is named where one must be")
        following: list[Any] = []

        def rows(
            width: int = len(columns), following: list[Any] = following
        ) -> Iterator[list[Any]]:
            for value in source:
                if not isinstance(value, list):
                    following.append(value)
                    return
                if len(value) != width:
                    raise Denied(
                        "the bundle cannot be understood: a row has not as many values as columns"
                    )
                yield [_decoded(each) for each in value]

        part = rows()
        yield name, columns, part
        _drain(part)
        head = following[0] if following else None


def _are_names(columns: Sequence[object]) -> bool:
    return bool(columns) and all(
        isinstance(each, str) and 0 < len(each) <= 64 and each.isprintable() and "`" not in each
        for each in columns
    )


def _values(file: Iterable[str]) -> Iterator[Any]:
    try:
        for line in file:
            if len(line) > LINE_MOST:
                raise Denied("the bundle cannot be understood: it has a line that is too long")
            yield json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Denied(f"the bundle cannot be understood: {type(error).__name__}") from error


def _batches(rows: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    batch: list[list[Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _drain(rows: Iterator[Any]) -> None:
    for _ in rows:
        pass


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n"


def _coded(value: object) -> object:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value if value is None else str(value)


def _decoded(value: object) -> object:
    match value:
        case {"b64": str(text)}:
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error as error:
                raise Denied("the bundle cannot be understood: a value is damaged") from error
        case None:
            return None
        case str(text) if text.isascii() or not _SURROGATES.search(text):
            return text
    raise Denied("the bundle cannot be understood: a value is neither text nor nothing")


def _shown(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:100]
