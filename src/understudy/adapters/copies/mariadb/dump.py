"""A whole state of the databases as one gzip file of SQL, made by mariadb-dump(1) under the running server.

users       CREATE USER and grants of whoever is no administrator, where it is to fill another server
dump        mariadb-dump's own: one transaction, so all tables are of one instant; its GTID is told at the end
WHOLE       a question whose answer tells the loader that nothing was cut off
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from understudy.adapters.copies.stop import Stop
from understudy.errors import Denied, Unreachable

from . import gtid
from .gtid import Gtid
from .programs import feed, output, words
from .settings import Settings
from .sql import Sql

MAGIC = b"\x1f\x8b"
WHOLE = "understudy: this dump is whole"
LOCK = "understudy_load"  # Held by whoever loads: one who lost his copier still may.

_TRAILER = f"\nSELECT '{WHOLE}';\n".encode()
_POSITION = re.compile(rb"^(?:-- )?SET GLOBAL gtid_slave_pos='([0-9,\-]*)';$", re.MULTILINE)
_COMPLETED = b"-- Dump completed"
_TAIL = 8192  # Bytes at the end in which both must be.
_CHUNK = 256 * 1024
_LEVEL = 3  # Of gzip: the source has a PBX to serve.
_OURS = (
    "debian-sys-maint",
    "mariadb.sys",
    "mysql",
    "root",
    "understudy",
)  # Each server has its own.


def write(
    settings: Settings,
    databases: Iterable[str],
    target: IO[bytes],
    stop: Stop,
    *,
    seeds: bool = False,
) -> None:
    """All of `databases` to `target`.  `seeds`: it is to fill another server, which goes on from there.

    Raises Denied, Unreachable, OSError.
    """
    arguments = ["--single-transaction", "--routines", "--events", "--triggers", "--hex-blob"]
    if seeds:
        arguments += ["--master-data=2", "--gtid"]
    databases = tuple(databases)
    with Sql(settings.socket, settings.user) as db:
        there = {next(iter(row.values())) for row in db.rows("SHOW DATABASES")}
    missing = [name for name in databases if name not in there]
    if missing:
        raise Denied(
            f"there is no database {missing[0]} here that could be dumped",
            hint="`databases` names what is on the active node.",
        )
    argv = words("mariadb-dump", settings, *arguments, "--databases", *databases)
    # Before the first byte: until then whoever asked can be told why not.
    before = _users(settings) if seeds else ""
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=_LEVEL, mtime=0) as packed:
        packed.write(before.encode())
        for chunk in output(argv, stop):
            packed.write(chunk)
        if seeds and _users(settings) != before:
            raise Unreachable(
                "users of the database were changed while it was dumped",
                hint="The next try will do.",
            )
        packed.write(_TRAILER)


def check(path: Path, stop: Stop) -> frozenset[Gtid]:
    """Is it whole?  Returns the position that it is of.  Raises Denied with what is wrong."""
    tail = b""
    try:
        for chunk in chunks(path):
            stop.check()
            tail = (tail + chunk)[-_TAIL:]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Denied(f"the dump is cut off or damaged: {error}") from error
    if not tail.endswith(_TRAILER) or _COMPLETED not in tail:
        raise Denied("the dump is cut off: its end is missing")
    found = _POSITION.findall(tail)
    return gtid.parse(found[-1].decode()) if found else frozenset()


def chunks(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as packed:
        while chunk := packed.read(_CHUNK):
            yield chunk


def load(settings: Settings, content: Iterable[bytes], stop: Stop, *, into: str = "") -> None:
    """Into this server, past its binary log; `into` is the database where `content` names none.

    Raises Denied, Unreachable.

    Whoever calls has the lock LOCK free: `await_loader`.
    """

    def all_of_it() -> Iterator[bytes]:
        yield f"SET sql_log_bin=0; DO GET_LOCK('{LOCK}', 0); SET lock_wait_timeout=60;\n".encode()
        yield from content
        yield _TRAILER

    # Binary mode also keeps it from obeying anything but SQL (mariadb(1)).
    arguments = ("--batch", "--skip-column-names", "--binary-mode", "--max-allowed-packet=1G")
    try:
        argv = words("mariadb", settings, *arguments, *((into,) if into else ()))
        said = feed(argv, all_of_it(), stop)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Denied(f"the dump is damaged: {error}") from error
    if WHOLE not in said:
        raise Denied("the dump was not loaded to its end")


def await_loader(db: Sql, stop: Stop) -> None:
    """Until nobody loads: a copier that was killed leaves a statement behind that goes on."""
    while not db.value("SELECT GET_LOCK(%s, 1)", (LOCK,)):
        stop.check()
    db.do(f"DO RELEASE_LOCK('{LOCK}')")


def only_tables(content: Iterable[bytes], places: Iterable[tuple[str, str]]) -> Iterator[bytes]:
    """Of a dump no more than these (database, table): to be loaded into whichever database is in use."""
    wanted = {(database.encode(), table.encode()) for database, table in places}
    database, takes, is_head = b"", False, True
    for line in _lines(content):
        if line.startswith(b"-- Current Database: `"):
            database, takes, is_head = _quoted(line), False, False
        elif line.startswith(b"-- Table structure for table `"):
            takes = (database, _quoted(line)) in wanted
        elif line.startswith((b"-- Dumping events", b"-- Dumping routines", b"-- Temporary table")):
            takes = False
        if (takes and not line.startswith(b"USE `")) or (is_head and line.startswith(b"/*!")):
            yield line + b"\n"


def _lines(content: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in content:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def _quoted(line: bytes) -> bytes:
    return line.partition(b"`")[2].rpartition(b"`")[0]


def _users(settings: Settings) -> str:
    """Statements that make the users of this server, with their passwords, on another; none is removed there."""
    made: list[str] = []
    with Sql(settings.socket, settings.user, within=30.0) as db:
        known = db.rows(
            "SELECT user AS name, host AS host, is_role AS role FROM mysql.user ORDER BY is_role DESC, user, host"
        )
        ours = (*_OURS, settings.user, settings.replication_user, "", "PUBLIC")
        others = [each for each in known if each["name"] not in ours]
        for each in others:
            if each["role"] == "Y":
                made.append(f"CREATE ROLE IF NOT EXISTS {_name(each['name'])}")
                continue
            account = f"{_name(each['name'])}@{_name(each['host'])}"
            created = str(db.value(f"SHOW CREATE USER {account}"))
            rest = created.removeprefix("CREATE USER ")
            # Two, because one that is there already must get the password that the programs of the PBX know.
            made += [f"CREATE USER IF NOT EXISTS {rest}", f"ALTER USER {rest}"]
        for each in others:
            name = _name(each["name"])
            account = name if each["role"] == "Y" else f"{name}@{_name(each['host'])}"
            made += [str(next(iter(row.values()))) for row in db.rows(f"SHOW GRANTS FOR {account}")]
    return "".join(f"{each};\n" for each in made)


def _name(text: str) -> str:
    return "`" + text.replace("`", "``") + "`"
