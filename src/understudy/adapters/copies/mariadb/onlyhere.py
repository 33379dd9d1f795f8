"""What only this server has: the transactions in its binary logs that another has not, in words that people read.

https://mariadb.com/kb/en/mariadb-binlog/, https://mariadb.com/kb/en/binlog_gtid_pos/
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from understudy.adapters.copies.stop import Stop
from understudy.errors import Denied

from . import gtid
from .gtid import Gtid
from .programs import lines, words
from .settings import MergeTable, Settings
from .sql import Sql

KEYS_MOST = 1_000_000  # Rows of which the keys are remembered.

# As mariadb-binlog writes them.  "#261123  7:46:48 server id 1  end_log_pos 421 CRC32 0xb4b15401 \tGTID 0-1-7 trans"
_GTID = re.compile(rb"^#(\d{6} +[\d:]+) server id \d+ .*?\tGTID (\d+-\d+-\d+)")
_ROW = re.compile(rb"^### (INSERT INTO|UPDATE|DELETE FROM) `(.+)`\.`(.+)`$")
_VALUE = re.compile(rb"^###   @(\d+)=(.*)$")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|['\\])")
_WORD = {b"INSERT INTO": "inserted", b"UPDATE": "updated", b"DELETE FROM": "deleted"}


@dataclass(frozen=True, slots=True)
class Transaction:
    """For sentences."""

    gtid: Gtid
    at: str  # The server's local time: "2026-11-23 07:46:48".
    sql: str  # What was said, where the log has it; else what was changed.

    def __str__(self) -> str:
        said = f": {self.sql}" if self.sql else ""
        return f"{self.gtid} of {self.at}{said}"


@dataclass(slots=True)
class Found:
    """What a reading of the logs has brought."""

    transactions: int = 0
    first: list[Transaction] = field(default_factory=list)
    rows: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # By table and what became of it.
    keys: dict[str, list[tuple[str | None, ...]]] = field(
        default_factory=dict
    )  # Of inserted rows, by table.


def files(db: Sql, shared: dict[int, int]) -> list[Path] | None:
    """The binary logs in which whatever is above `shared` (gtid.common) is; None where some of it is gone."""
    base = Path(db.value("SELECT @@log_bin_basename"))
    found: list[Path] = []
    for row in reversed(db.rows("SHOW BINARY LOGS")):
        name = row["Log_name"]
        found.insert(0, base.parent / name)
        before = gtid.parse(db.value("SELECT BINLOG_GTID_POS(%s, 4)", (name,)) or "")
        if all(each.number <= shared.get(each.domain, -1) for each in before):
            return found
    return None


class Reader:
    """Passes lines of mariadb-binlog on that belong to transactions above `shared`, and counts."""

    def __init__(
        self,
        shared: dict[int, int],
        *,
        columns: dict[str, dict[int, int]] | None = None,
        examples: int = 3,
        server: int | None = None,
    ) -> None:
        """`columns`: of which tables, by "DATABASE.TABLE", the keys of inserted rows are wanted: which of the row's
        columns, from 1 on, is which part of the key.  `server`: those that it wrote, no others."""
        self.found = Found()
        self._server = server
        self._shared, self._columns, self._examples = shared, columns or {}, examples
        self._takes = False
        self._example: tuple[Gtid, str, list[str]] | None = None
        self._row: tuple[str, list[str | None]] | None = None

    def read(self, source: Iterable[bytes]) -> Iterator[bytes]:
        for line in source:
            if line.startswith(b"#"):
                self._look(line)
            else:
                self._end_row()
            if self._takes:
                yield line
        self._end_row()
        self._end_example()

    def _look(self, line: bytes) -> None:
        head = _GTID.match(line)
        if head is not None:
            self._end_example()
            (which,) = gtid.parse(head[2].decode())
            self._takes = which.number > self._shared.get(which.domain, -1) and (
                self._server in (None, which.server)
            )
            if self._takes:
                self.found.transactions += 1
                if len(self.found.first) < self._examples:
                    self._example = (which, _time(head[1].decode()), [])
            return
        if not self._takes:
            return
        if line.startswith(b"#Q> ") and self._example is not None:
            self._example[2].append(_text(line[4:]))
        row = _ROW.match(line)
        if row is not None:
            self._end_row()
            table = f"{_text(row[2])}.{_text(row[3])}"
            self.found.rows[table, _WORD[row[1]]] += 1
            if table in self._columns and row[1] == b"INSERT INTO":
                self._row = (table, [None] * len(self._columns[table]))
        elif self._row is not None:
            value = _VALUE.match(line)
            if value is not None:
                place = self._columns[self._row[0]].get(int(value[1]))
                if place is not None:
                    self._row[1][place] = literal(value[2])
            elif not line.startswith(b"### SET"):
                self._end_row()

    def _end_row(self) -> None:
        if self._row is not None:
            known = self.found.keys.setdefault(self._row[0], [])
            if len(known) < KEYS_MOST:
                known.append(tuple(self._row[1]))
            self._row = None

    def _end_example(self) -> None:
        if self._example is not None:
            which, at, said = self._example
            self.found.first.append(Transaction(which, at, " ".join(said)[:200]))
            self._example = None


def read(settings: Settings, logs: Iterable[Path], reader: Reader, stop: Stop) -> Iterator[bytes]:
    """Lines of the transactions that `reader` takes.  Raises Denied, Unreachable."""
    # Through the server, for which the files are: nobody else need be able to read them.
    arguments = ("--read-from-remote-server", "--base64-output=decode-rows", "--verbose")
    argv = words("mariadb-binlog", settings, *arguments, "--", *(each.name for each in logs))
    return reader.read(lines(argv, stop))


def strangers(settings: Settings, shared: dict[int, int], server: int, stop: Stop) -> Found:
    """The transactions above `shared` that `server`, by its id, wrote: as far as the logs can be read."""
    reader = Reader(shared, server=server)
    try:
        with Sql(settings.socket, settings.user) as db:
            logs = files(db, shared)
        for _ in read(settings, logs, reader, stop) if logs else ():
            pass
    except Denied:
        return Found()
    return reader.found


def column_places(db: Sql, tables: Iterable[MergeTable]) -> dict[str, dict[int, int]]:
    """For Reader, of those that are here with all their keys."""
    found: dict[str, dict[int, int]] = {}
    for table in tables:
        rows = db.rows(
            "SELECT column_name AS name, ordinal_position AS place FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s",
            (table.database, table.table),
        )
        places = {row["name"].lower(): int(row["place"]) for row in rows}
        if all(key.lower() in places for key in table.keys):
            found[table.name] = {places[key.lower()]: i for i, key in enumerate(table.keys)}
    return found


def literal(value: bytes) -> str | None:
    """What mariadb-binlog writes for a value: 'text', 5, -5 (4294967291), NULL."""
    if value == b"NULL":
        return None
    if value.startswith(b"'") and value.endswith(b"'") and len(value) > 1:
        return _ESCAPE.sub(_unescaped, value[1:-1]).decode(errors="surrogateescape")
    return value.partition(b" ")[0].decode(errors="replace")


def _unescaped(match: re.Match[bytes]) -> bytes:
    sign = match[1]
    return bytes.fromhex(sign[1:].decode()) if sign.startswith(b"x") else sign


def _time(text: str) -> str:
    day, _, time = text.partition(" ")
    return f"20{day[:2]}-{day[2:4]}-{day[4:]} {time.strip().zfill(8)}"


def _text(data: bytes) -> str:
    return "".join(c for c in data.decode(errors="replace") if c.isprintable())
