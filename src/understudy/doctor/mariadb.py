"""MariaDB, where a class of data is copied by it: would the standby's take over, and has it all rows?

Asked by the socket, as whoever looks: root, as the copier is, or the agent's user.
"""

import asyncio
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from understudy.adapters.copies.mariadb.settings import (
    LOADING,
    SCRATCH,
    SYSTEM,
    MergeTable,
    Settings,
)
from understudy.config.values import SYSTEM_FOLDERS
from understudy.errors import AdapterError, Unreachable
from understudy.hosts import mariadb as host

from . import catalogue as c
from .finding import Finding, Level
from .here import Here

if TYPE_CHECKING:  # It needs PyMySQL, which is missing where nobody copies by MariaDB.
    from understudy.adapters.copies.mariadb.sql import Sql

LEAST = (10, 5, 9)  # The first with the rights that hosts/mariadb.py gives.
LONGEST = 96  # Bytes of MASTER_PASSWORD; the line feed at the end of the file comes on top.
SHOWN = 3  # Tables that are named in one sentence.
PROGRAMS = ("mariadb", "mariadb-dump", "mariadb-binlog")
OFF = ("0", "OFF", "FALSE", "NO", "")  # As variables and option files write it.

# What must hold on both nodes, whoever is active: variable, value.  (What is needed for reading comes first.)
MUST = (
    ("LOG_BIN", "ON"),
    ("LOG_SLAVE_UPDATES", "ON"),
    ("BINLOG_FORMAT", "ROW"),
    ("GTID_STRICT_MODE", "ON"),
)
SHOULD = (
    ("SYNC_BINLOG", "1"),
    ("INNODB_FLUSH_LOG_AT_TRX_COMMIT", "1"),
    ("RPL_SEMI_SYNC_MASTER_ENABLED", "ON"),
    ("RPL_SEMI_SYNC_SLAVE_ENABLED", "ON"),
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What one server says of itself."""

    version: str
    variables: Mapping[str, Row]  # By name in capitals: information_schema.SYSTEM_VARIABLES.
    status: Mapping[str, str]  # By name in lower case.
    replica: Row  # SHOW SLAVE STATUS; empty where it copies from nobody.
    databases: frozenset[str]
    plain: Sequence[str]  # Tables that know no transactions: "database.table (engine)".
    columns: Mapping[str, frozenset[str]]  # Of the tables to be merged, by "database.table".

    def value(self, name: str) -> str:
        return str(self.variables.get(name, {}).get("GLOBAL_VALUE") or "")

    @property
    def is_read_only(self) -> bool:
        return self.value("READ_ONLY").upper() not in OFF


async def look(here: Here) -> list[Finding]:
    """Nothing, where no class is copied by MariaDB."""
    found = []
    for settings in host.chosen(here.config):
        found += await _look(here, settings)
    return found


async def _look(here: Here, settings: Settings) -> list[Finding]:
    found = [_tools(here), _password(here, settings)]
    if find_spec("pymysql") is None:
        return found
    try:
        server = await asyncio.to_thread(_ask, settings)
    except Unreachable as error:
        return [*found, c.MARIADB.bad(here.me, str(error), mend=error.hint)]
    except AdapterError as error:
        return [*found, _denied(here, error), await _rights(here, settings)]
    found.append(await _rights(here, settings))
    number = number_of(server.version)
    if number < LEAST:
        least = ".".join(map(str, LEAST))
        said = f"MariaDB {server.version} is too old: {least} is the least"
        return [*found, c.MARIADB.bad(here.me, said, mend="upgrade MariaDB on both nodes")]
    found.append(c.MARIADB.well(here.me, f"MariaDB {server.version} answers at {settings.socket}"))
    found += _settings(here, settings, server)
    found.append(await _at_boot(here, server))
    found += [*_databases(here, settings, server), _tables(here, settings, server)]
    found += _merged(here, settings, server)
    if LOADING in server.databases:
        said = "half of a copy that was being loaded is in place: this server cannot take over"
        found.append(
            c.MARIADB_REPLICATION.bad(here.me, said, mend="journalctl -u understudy-copier")
        )
    elif here.claim is not None:
        found += (_active if _is_active(here) else _standby)(here, server)
    return found


# What must be installed


def _tools(here: Here) -> Finding:
    missing = [
        each for each in PROGRAMS if shutil.which(each, path=":".join(SYSTEM_FOLDERS)) is None
    ]
    if find_spec("pymysql") is None:
        return c.MARIADB_TOOLS.bad(
            here.me,
            "PyMySQL is not installed",
            mend="pip install understudy[mariadb] (Debian's package has it)",
        )
    if missing:
        return c.MARIADB_TOOLS.bad(here.me, f"{', '.join(missing)} not installed")
    return c.MARIADB_TOOLS.well(here.me, f"PyMySQL and {', '.join(PROGRAMS)} are installed")


def _password(here: Here, settings: Settings) -> Finding:
    file = settings.replication_password_file
    try:
        found = file.stat()
    except PermissionError:
        return c.MARIADB_PASSWORD.unknown(here.me, f"{file} may not be looked at", mend=c.AS_ROOT)
    except OSError as error:
        return c.MARIADB_PASSWORD.bad(here.me, f"{file}: {error.strerror}", file=file)
    if not 0 < found.st_size <= LONGEST + 1:
        said = f"{file} has {found.st_size} bytes, and MariaDB takes a password of 1 to {LONGEST}"
        return c.MARIADB_PASSWORD.bad(here.me, said, file=file)
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        said = f"{file} is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
        return c.MARIADB_PASSWORD.bad(here.me, said, mend=f"chmod 600 {file}")
    return c.MARIADB_PASSWORD.well(here.me, f"{file} is there, and closed to others")


# Who may ask


def _denied(here: Here, error: AdapterError) -> Finding:
    """The copier is root; anybody but root and the agent's user need not be let in."""
    if here.hidden:
        return c.MARIADB.unknown(here.me, str(error), mend=c.AS_ROOT)
    if here.is_root:
        mend = (
            "as MariaDB's administrator: ALTER USER root@localhost IDENTIFIED VIA unix_socket "
            "OR mysql_native_password USING PASSWORD('...')"
        )
        return c.MARIADB.bad(here.me, f"the copier, who is root, may not ask: {error}", mend=mend)
    return c.MARIADB.bad(here.me, str(error), mend="understudy init --install")


async def _rights(here: Here, settings: Settings) -> Finding:
    """As the agent's user, by a program of its own: the server looks at the user of the process that asks."""
    if here.hidden:
        return c.MARIADB_RIGHTS.unknown(
            here.me, "only root and the agent's user can tell", mend=c.AS_ROOT
        )
    from understudy.adapters.copies.mariadb.sql import process_user

    agent = here.as_agent[2] if here.as_agent else process_user()
    # By name: mariadb(1) would take the name of whoever has logged in.
    user = f"--user={settings.user or agent}"
    client = ("mariadb", "--no-defaults", f"--socket={settings.socket}", user)
    shown = ("--batch", "--raw", "--skip-column-names", "--execute=SHOW GRANTS")
    try:
        done = await here.run(*here.as_agent, *client, *shown)
    except AdapterError as error:
        return c.MARIADB_RIGHTS.unknown(here.me, str(error))
    if done.code != 0:
        return c.MARIADB_RIGHTS.bad(
            here.me, f"the agent's user is not let into MariaDB: {done.said}"
        )
    missing = tuple(_missing(done.out, settings.databases))
    if missing:
        return c.MARIADB_RIGHTS.bad(
            here.me, f"the agent's user has not the right to {'; '.join(missing)}"
        )
    return c.MARIADB_RIGHTS.well(
        here.me, "the agent's user has the rights that it needs in MariaDB"
    )


def _missing(shown: str, databases: Sequence[str]) -> Iterator[str]:
    """`shown`: a line for each place, e.g. GRANT SELECT, SHOW VIEW ON `asterisk`.* TO ..."""
    given: dict[str, set[str]] = {}
    for line in shown.splitlines():
        granted, on, rest = line.removeprefix("GRANT ").partition(" ON ")
        if on:
            given.setdefault(rest.partition(" TO ")[0], set()).update(granted.split(", "))
    everywhere = given.get("*.*", set())
    wanted: list[tuple[str, Sequence[str]]] = [("*.*", host.EVERYWHERE)]
    wanted += [(host.on_database(name), host.EACH_DATABASE) for name in databases]
    wanted += [(host.on_database(LOADING), ("SELECT",)), (host.SYSTEM, ("SELECT",))]
    for place, rights in wanted:
        has = everywhere | given.get(place, set()) | given.get(place.replace("\\_", "_"), set())
        lacking = [right for right in rights if right not in has]
        if lacking and "ALL PRIVILEGES" not in has:
            yield f"{', '.join(lacking)} on {place}"


# What the server is like


def _ask(settings: Settings) -> Server:
    """Raises Unreachable, Denied."""
    from understudy.adapters.copies.mariadb.sql import Sql

    with Sql(settings.socket, settings.user) as db:
        shown = db.rows(
            "SELECT VARIABLE_NAME, GLOBAL_VALUE, GLOBAL_VALUE_ORIGIN FROM information_schema.SYSTEM_VARIABLES"
        )
        replicas = db.rows("SHOW SLAVE STATUS")
        return Server(
            version=str(db.value("SELECT VERSION()")),
            variables={str(row["VARIABLE_NAME"]).upper(): row for row in shown},
            status={
                str(row["Variable_name"]).lower(): str(row["Value"])
                for row in db.rows("SHOW GLOBAL STATUS LIKE 'Rpl\\_semi\\_sync\\_%'")
            },
            replica=replicas[0] if replicas else {},
            databases=frozenset(
                str(row["SCHEMA_NAME"])
                for row in db.rows("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA")
            ),
            plain=_plain(db, settings.databases),
            columns={table.name: _columns(db, table) for table in settings.tables},
        )


def _plain(db: "Sql", databases: Sequence[str]) -> list[str]:
    marks = ", ".join(["%s"] * len(databases))
    rows = db.rows(
        "SELECT TABLE_SCHEMA AS d, TABLE_NAME AS t, ENGINE AS e FROM information_schema.TABLES"
        f" WHERE TABLE_SCHEMA IN ({marks}) AND ENGINE NOT IN"
        " (SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES') ORDER BY d, t",
        databases,
    )
    return [f"{row['d']}.{row['t']} ({row['e']})" for row in rows]


def _columns(db: "Sql", table: MergeTable) -> frozenset[str]:
    rows = db.rows(
        "SELECT COLUMN_NAME AS n FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
        (table.database, table.table),
    )
    return frozenset(str(row["n"]) for row in rows)


def number_of(version: str) -> tuple[int, ...]:
    """Of "10.11.19-MariaDB-0+deb12u1-log".  MySQL's 8.4 has none that we could use."""
    if "MariaDB" not in version:
        return ()
    parts = version.split("-")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _settings(here: Here, settings: Settings, server: Server) -> Iterator[Finding]:
    number = str(host.server_id(here.config, here.me))
    must = (*MUST, ("SERVER_ID", number), ("PORT", str(settings.port)))
    wrong = [*_wrong(server, must), *_unencrypted(server)]
    weak = list(_wrong(server, SHOULD))
    if wrong:
        yield c.MARIADB_SETTINGS.bad(
            here.me, f"MariaDB cannot copy as it is set: {', '.join(wrong)}"
        )
    if weak:
        said = f"a power cut may take acknowledged rows with it: {', '.join(weak)}"
        yield c.MARIADB_SETTINGS.bad(here.me, said, level=Level.WARNING)
    if not wrong and not weak:
        yield c.MARIADB_SETTINGS.well(here.me, "MariaDB is set as copying needs it")


def _wrong(server: Server, wanted: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, value in wanted:
        if server.value(name) != value:
            yield f"{name.lower()} is {server.value(name) or 'not known'}, not {value}"


def _unencrypted(server: Server) -> Iterator[str]:
    if server.value("HAVE_SSL") != "YES":
        yield "it has no certificate for TLS"


async def _at_boot(here: Here, server: Server) -> Finding:
    """What an agent has set hides what the files say: then the program that reads them for the server is asked."""
    origin = str(server.variables.get("READ_ONLY", {}).get("GLOBAL_VALUE_ORIGIN"))
    is_on = server.is_read_only
    if origin == "SQL":
        try:
            done = await here.run("my_print_defaults", "--mysqld")
        except AdapterError as error:
            return c.MARIADB_BOOT.unknown(
                here.me, f"whether MariaDB is read-only when it starts: {error}"
            )
        is_on = _says_read_only(done.out)
    if not is_on:
        return c.MARIADB_BOOT.bad(
            here.me, "MariaDB takes writes from the moment in which it starts"
        )
    return c.MARIADB_BOOT.well(here.me, "MariaDB is read-only when it starts")


def _says_read_only(options: str) -> bool:
    """The last one counts; `_` and `-` are the same in names."""
    is_on = False
    for line in options.splitlines():
        name, equals, value = line.strip().partition("=")
        match name.replace("_", "-"):
            case "--read-only" | "--loose-read-only":
                is_on = not equals or value.upper() not in OFF
            case "--skip-read-only" | "--disable-read-only":
                is_on = False
    return is_on


def _databases(here: Here, settings: Settings, server: Server) -> Iterator[Finding]:
    """Only root sees them all; and a new standby has none yet."""
    missing = [name for name in settings.databases if name not in server.databases]
    others = sorted(server.databases - {*settings.databases, *SYSTEM, SCRATCH, LOADING})
    if missing and _is_active(here):
        said = f"there is no database {', '.join(missing)}"
        yield c.MARIADB_DATABASES.bad(here.me, said, level=Level.CRITICAL)
    elif others:
        said = f"{', '.join(others)} would be missing on a standby that is filled anew"
        yield c.MARIADB_DATABASES.bad(here.me, said)
    else:
        said = f"no other databases are here than {', '.join(settings.databases)}"
        yield c.MARIADB_DATABASES.well(here.me, said)


def _is_active(here: Here) -> bool:
    return here.claim is not None and here.claim.node == here.me


def _tables(here: Here, settings: Settings, server: Server) -> Finding:
    if not server.plain:
        return c.MARIADB_TABLES.well(
            here.me, f"every table of {', '.join(settings.databases)} is transactional"
        )
    more = f", and {len(server.plain) - SHOWN} more" if len(server.plain) > SHOWN else ""
    said = f"not transactional: {', '.join(server.plain[:SHOWN])}{more}"
    alter = "; ".join(f"ALTER TABLE {each.split(' ')[0]} ENGINE=InnoDB" for each in server.plain)
    return c.MARIADB_TABLES.bad(here.me, said, mend=f"on the active node: {alter}")


def _merged(here: Here, settings: Settings, server: Server) -> Iterator[Finding]:
    for table in settings.tables:
        held = server.columns[table.name]
        missing = [key for key in table.keys if key not in held]
        if not held:
            yield c.MARIADB_MERGE.bad(here.me, f"there is no table {table.name}")
        elif missing:
            yield c.MARIADB_MERGE.bad(here.me, f"{table.name} has no column {', '.join(missing)}")
        else:
            yield c.MARIADB_MERGE.well(
                here.me, f"{table.name} can be merged by {', '.join(table.keys)}"
            )


# Who copies from whom


def _active(here: Here, server: Server) -> Iterator[Finding]:
    if server.is_read_only:
        said = "MariaDB takes no writes here, and this node is active"
        yield c.MARIADB_WRITES.bad(
            here.me, said, mend="understudy status; journalctl -u understudy"
        )
    else:
        yield c.MARIADB_WRITES.well(here.me, "MariaDB takes writes on the active node")
    if server.replica:
        said = f"the active node's MariaDB copies from {server.replica.get('Master_Host')}"
        yield c.MARIADB_REPLICATION.bad(
            here.me, said, mend="understudy status; journalctl -u understudy"
        )
    clients = server.status.get("rpl_semi_sync_master_clients", "0")
    if server.status.get("rpl_semi_sync_master_status") != "ON" or clients == "0":
        said = f"rows are acknowledged before the standby has them ({clients} semi-synchronous standbys are connected)"
        yield c.MARIADB_SEMI_SYNC.bad(here.me, said)
    else:
        yield c.MARIADB_SEMI_SYNC.well(here.me, "no row is acknowledged before the standby has it")


def _standby(here: Here, server: Server) -> Iterator[Finding]:
    if server.is_read_only:
        yield c.MARIADB_WRITES.well(here.me, "MariaDB takes no writes on the standby")
    else:
        yield c.MARIADB_WRITES.bad(
            here.me, "MariaDB takes writes here, and this node is not active"
        )
    yield _replication(here, server.replica)


def _replication(here: Here, replica: Row) -> Finding:
    if not replica:
        return c.MARIADB_REPLICATION.bad(here.me, "MariaDB copies from nobody")
    source = replica.get("Master_Host")
    halves = ("IO", "SQL")  # One thread reads from the other node, the other writes what was read.
    stopped = [half for half in halves if replica.get(f"Slave_{half}_Running") != "Yes"]
    if not stopped:
        return c.MARIADB_REPLICATION.well(here.me, f"MariaDB copies from {source}")
    errors = [
        f"{replica[f'Last_{half}_Errno']}: {replica[f'Last_{half}_Error']}"
        for half in halves
        if replica.get(f"Last_{half}_Errno")
    ]
    why = f" ({'; '.join(errors)})" if errors else ""
    return c.MARIADB_REPLICATION.bad(here.me, f"MariaDB does not copy from {source} any more{why}")
