"""What only this server has, kept before it is replaced by a copy of another:

ASIDE/only-here.sql            its transactions, for people: rows as comments (mariadb-binlog --verbose)
ASIDE/before.sql.gz            or, where its binary logs do not go back to what both have, a dump of all of it
ASIDE/counts.txt               how many rows of which table
ASIDE/rows/DATABASE.TABLE.jsonl   the rows of tables in `merge` that may be added elsewhere: rows.py
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from understudy.adapters.copies.stop import Stop
from understudy.adapters.copies.store import Store
from understudy.ports import Compared

from . import dump, gtid, onlyhere, rows
from .gtid import Gtid
from .server import look
from .settings import SCRATCH, MergeTable, Settings
from .sql import Sql

ONLY_HERE, BEFORE, COUNTS, ROWS = "only-here.sql", "before.sql.gz", "counts.txt", "rows"
_CONNECTED = 30.0  # Seconds for one answer of the server.


def keep(settings: Settings, store: Store, known: frozenset[Gtid], copied: Path, stop: Stop) -> str:
    """Where it is now; empty if there is nothing.

    `known` is what the other server has, `copied` the dump of it.  Raises Denied, Unreachable, OSError.
    """
    logs, shared = _logs(settings, known)
    if logs is not None and not logs:
        return ""
    there = present(settings)
    if logs is None and not there:
        return ""
    folder = store.begin_aside()
    (folder / ROWS).mkdir()
    if logs is not None:
        _keep_transactions(settings, logs, shared, folder, stop)
    else:
        _keep_everything(settings, there, copied, folder, stop)
    if not any((folder / ROWS).iterdir()):
        (folder / ROWS).rmdir()
    return str(store.keep_aside(time.time()) or "")


def compare(settings: Settings, known: frozenset[Gtid], stop: Stop) -> Compared:
    """What `keep` would keep.  Raises Denied, Unreachable."""
    logs, shared = _logs(settings, known)
    if logs is None:
        tables = Counter(_rows_of(settings, present(settings)))
        examples = tuple(f"{name}: {count} rows" for name, count in tables.most_common(5) if count)
        return Compared(unit="rows", only_here=tables.total(), examples=examples)
    reader = onlyhere.Reader(shared, examples=5)
    for _ in onlyhere.read(settings, logs, reader, stop) if logs else ():
        pass
    found = reader.found
    return Compared(
        unit="transactions", only_here=found.transactions, examples=tuple(map(str, found.first))
    )


def _logs(
    settings: Settings, known: frozenset[Gtid]
) -> tuple[Sequence[Path] | None, dict[int, int]]:
    """The logs that hold all that only we have, and up to where not; empty if there is nothing, None if they do not."""
    with Sql(settings.socket, settings.user, within=_CONNECTED) as db:
        here = look(db)
        if here.position and not gtid.lacking(here.position, known):
            return (), {}
        shared = gtid.common(here.history, known)
        # Without anything in common the logs may have begun long after the data.
        return (onlyhere.files(db, shared) if shared and here.logs else None), shared


def present(settings: Settings) -> list[str]:
    """Which of the databases are here, with any table."""
    with Sql(settings.socket, settings.user, within=_CONNECTED) as db:
        found = db.rows("SELECT DISTINCT table_schema AS name FROM information_schema.tables")
    names = {row["name"] for row in found}
    return [name for name in settings.databases if name in names]


def _keep_transactions(
    settings: Settings, logs: Sequence[Path], shared: dict[int, int], folder: Path, stop: Stop
) -> None:
    with Sql(settings.socket, settings.user, within=_CONNECTED) as db:
        places = onlyhere.column_places(db, settings.tables)
    reader = onlyhere.Reader(shared, columns=places)
    with (folder / ONLY_HERE).open("xb") as file:
        for line in onlyhere.read(settings, logs, reader, stop):
            file.write(line + b"\n")
    found = reader.found
    counts = [f"{found.transactions} transactions"]
    counts += [
        f"{table}: {count} rows {what}" for (table, what), count in sorted(found.rows.items())
    ]
    _write_counts(folder, counts)
    with Sql(settings.socket, settings.user, within=max(_CONNECTED, stop.left), texts=True) as db:
        for table in settings.tables:
            if found.keys.get(table.name):
                # What was inserted, as it is now: a row that came and went is not there to be merged.
                _load_keys(db, table, found.keys[table.name])
                mine = f"EXISTS (SELECT 1 FROM understudy_keys AS k WHERE {rows.same_key(table, 't', 'k')})"
                rows.export(db, table, [mine], folder / ROWS / f"{table.name}.jsonl", stop)


def _load_keys(db: Sql, table: MergeTable, keys: Iterable[Sequence[str | None]]) -> None:
    names = ", ".join(f"`{key}`" for key in table.keys)
    kinds = {
        row["name"].lower(): row["kind"]
        for row in db.rows(
            "SELECT column_name AS name, data_type AS kind FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s",
            (table.database, table.table),
        )
    }
    # The logs have a TIMESTAMP as seconds.
    marks = ", ".join(
        "FROM_UNIXTIME(%s)" if kinds.get(key.lower()) == "timestamp" else "%s" for key in table.keys
    )
    db.do(f"USE `{table.database}`")
    db.do("SET sql_mode = ''")  # What cannot be read back matches nothing.
    db.do("SET time_zone = '+00:00'")
    db.do("DROP TEMPORARY TABLE IF EXISTS understudy_keys")
    db.do(f"CREATE TEMPORARY TABLE understudy_keys AS SELECT {names} FROM {table.quoted} LIMIT 0")
    readable = [key for key in keys if not any(part and not _is_text(part) for part in key)]
    db.many(f"INSERT INTO understudy_keys ({names}) VALUES ({marks})", readable)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _keep_everything(
    settings: Settings, databases: Sequence[str], copied: Path, folder: Path, stop: Stop
) -> None:
    with (folder / BEFORE).open("xb") as file:
        dump.write(settings, databases, file, stop)
    _write_counts(
        folder, [f"{name}: {count} rows" for name, count in _rows_of(settings, databases).items()]
    )
    tables = [table for table in settings.tables if table.database in databases]
    if not tables:
        return
    with Sql(settings.socket, settings.user, within=max(_CONNECTED, stop.left), texts=True) as db:
        db.do("SET sql_log_bin=0")
        dump.await_loader(db, stop)
        for table in tables:
            # One at a time: two databases may have tables of one name.
            db.do(f"DROP DATABASE IF EXISTS {SCRATCH}")
            db.do(f"CREATE DATABASE {SCRATCH}")
            only = dump.only_tables(dump.chunks(copied), [(table.database, table.table)])
            dump.load(settings, only, stop, into=SCRATCH)
            theirs = db.rows(
                "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
                (SCRATCH, table.table),
            )
            conditions = []
            if theirs:
                same = rows.same_key(table, "t", "s")
                conditions.append(
                    f"NOT EXISTS (SELECT 1 FROM {SCRATCH}.`{table.table}` AS s WHERE {same})"
                )
            if rows.writable(db, table):
                rows.export(db, table, conditions, folder / ROWS / f"{table.name}.jsonl", stop)
        db.do(f"DROP DATABASE IF EXISTS {SCRATCH}")


def _rows_of(settings: Settings, databases: Sequence[str]) -> dict[str, int]:
    """Counted: what the server estimates is no number to keep."""
    found: dict[str, int] = {}
    with Sql(settings.socket, settings.user, within=600.0) as db:
        for each in databases:
            tables = db.rows(
                "SELECT table_name AS name FROM information_schema.tables"
                " WHERE table_schema = %s AND table_type = 'BASE TABLE' ORDER BY table_name",
                (each,),
            )
            for row in tables:
                quoted = str(row["name"]).replace("`", "``")
                found[f"{each}.{row['name']}"] = db.value(
                    f"SELECT COUNT(*) FROM `{each}`.`{quoted}`"
                )
    return found


def _write_counts(folder: Path, counts: Iterable[str]) -> None:
    (folder / COUNTS).write_text("".join(f"{line}\n" for line in counts))
