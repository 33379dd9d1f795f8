"""What one server is at, and the few statements by which it becomes a copy, or stops being one.

https://mariadb.com/kb/en/change-master-to/, https://mariadb.com/kb/en/show-replica-status/,
https://mariadb.com/kb/en/gtid/, https://mariadb.com/kb/en/read-only-replicas/
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.errors import Denied, Unreachable

from . import gtid
from .gtid import Gtid
from .settings import LOADING
from .sql import Sql, SqlDenied

LOCK_WAIT = (
    3  # Seconds that a statement of ours waits for others: below each connection's deadline.
)
SLICE = 1.0  # Seconds that we wait for transactions before we look around.
STOP_WITHIN = (
    20.0  # Seconds: STOP SLAVE waits for a silent source, rpl_semi_sync_slave_kill_conn_timeout.
)

LOGIN = frozenset((1045, 1130, 1698, 2026))  # The source does not let us in, or speaks no TLS.
PURGED = 1236  # What we would need next is not in the source's binary logs.


@dataclass(frozen=True, slots=True, kw_only=True)
class Slave:
    """Of SHOW SLAVE STATUS."""

    host: str
    port: int
    receives: str  # "Yes", "No", "Connecting", "Preparing".
    applies: bool
    io_errno: int
    io_error: str
    sql_errno: int
    sql_error: str
    received: str  # GTIDs: what is in its relay log, whole.
    uses_gtid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One look at a server."""

    server_id: int
    version: str
    history: frozenset[Gtid]  # By domain and server the last transactions that it has.
    position: frozenset[Gtid]  # The last in each domain.
    read_only: bool
    strict: bool
    logs: bool  # Has it a binary log, with what it copies in it as well?
    semi_sync: bool  # Does it wait for a standby?
    standbys: int  # How many have it so.
    loading: bool  # What it has is not whole.
    slave: Slave | None = None

    def as_json(self) -> dict[str, Any]:
        """What another node is told."""
        told = asdict(self)
        del told["slave"]
        return {**told, "history": gtid.show(self.history), "position": gtid.show(self.position)}

    @staticmethod
    def at(position: frozenset[Gtid], history: frozenset[Gtid]) -> "Standing":
        """Of another server, of which nothing more is known."""
        return Standing(
            server_id=0,
            version="",
            history=history,
            position=position,
            read_only=False,
            strict=True,
            logs=True,
            semi_sync=False,
            standbys=0,
            loading=False,
        )

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> "Standing":
        """Raises ValueError, KeyError: it comes from another node."""
        types = {"server_id": int, "version": str, "standbys": int}
        flags = ("read_only", "strict", "logs", "semi_sync", "loading")
        values = {name: told[name] for name in (*types, *flags)}
        for name, value in values.items():
            if type(value) is not types.get(name, bool):
                raise ValueError(f"{name} is {value!r}")
        return Standing(
            history=gtid.parse(str(told["history"])),
            position=gtid.parse(str(told["position"])),
            **values,
        )


def look(db: Sql) -> Standing:
    (row,) = db.rows(
        "SELECT @@server_id AS id, @@version AS version, @@read_only AS closed, @@gtid_strict_mode AS strict,"
        " @@log_bin AS logs, @@log_slave_updates AS relogs, @@gtid_binlog_state AS state, @@gtid_binlog_pos AS written,"
        " @@gtid_slave_pos AS copied"
    )
    status = {
        each["Variable_name"].lower(): each["Value"]
        for each in db.rows(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ('Rpl_semi_sync_master_status', 'Rpl_semi_sync_master_clients')"
        )
    }
    written, copied = gtid.parse(row["written"] or ""), gtid.parse(row["copied"] or "")
    state = gtid.parse(row["state"] or "")
    return Standing(
        server_id=row["id"],
        version=row["version"],
        history=gtid.ends_by_server(state | written | copied),
        position=gtid.ends(written | copied),
        read_only=bool(row["closed"]),
        strict=bool(row["strict"]),
        logs=bool(row["logs"] and row["relogs"]),
        semi_sync=status.get("rpl_semi_sync_master_status") == "ON",
        standbys=int(status.get("rpl_semi_sync_master_clients", 0)),
        loading=is_loading(db),
        slave=slave_of(db),
    )


def slave_of(db: Sql) -> Slave | None:
    found = db.rows("SHOW SLAVE STATUS")
    if not found:
        return None
    row = found[0]
    return Slave(
        host=row["Master_Host"] or "",
        port=int(row["Master_Port"] or 0),
        receives=row["Slave_IO_Running"],
        applies=row["Slave_SQL_Running"] == "Yes",
        io_errno=int(row["Last_IO_Errno"] or 0),
        io_error=row["Last_IO_Error"] or "",
        sql_errno=int(row["Last_SQL_Errno"] or 0),
        sql_error=row["Last_SQL_Error"] or "",
        received=row["Gtid_IO_Pos"] or "",
        uses_gtid=row["Using_Gtid"] != "No",
    )


# The mark of a server whose data is not whole is a database: it is where the data is, whoever looks, and wherever the
# files are moved.


def is_loading(db: Sql) -> bool:
    sql = "SELECT schema_name FROM information_schema.schemata WHERE schema_name = %s"
    return bool(db.rows(sql, (LOADING,)))


def close(db: Sql) -> None:
    """Take no writes but an administrator's.  Raises Denied when somebody writes on and on."""
    if not db.value("SELECT @@read_only"):
        # With a limit of its own: what we gave up waiting for must not happen later, when it would be wrong.
        db.do(f"SET STATEMENT lock_wait_timeout={LOCK_WAIT} FOR SET GLOBAL read_only=1")


def attach(
    db: Sql, here: Standing, host: str, port: int, user: str, password: str, authority: Path | None
) -> None:
    """Copy from there, on from what we have.  Safe to repeat."""
    close(db)
    detach(db)
    # Without it a stray row would not stop what comes after it, and nobody would know that there are two histories.
    db.do("SET GLOBAL gtid_strict_mode=1")
    # By hand: MASTER_DEMOTE_TO_SLAVE came with 10.10 only.
    db.do("SET GLOBAL gtid_slave_pos=%s", (gtid.show(here.position),))
    sql = (
        "CHANGE MASTER TO MASTER_HOST=%s, MASTER_PORT=%s, MASTER_USER=%s, MASTER_PASSWORD=%s, MASTER_SSL=1,"
        " MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos"
    )
    args: list[object] = [host, port, user, password]
    if authority is not None:
        sql += ", MASTER_SSL_CA=%s, MASTER_SSL_VERIFY_SERVER_CERT=1"
        args.append(str(authority))
    db.do(sql, args, secrets=(password,))
    db.do("START SLAVE")


def detach(db: Sql) -> None:
    """Copy from nobody.  Safe to repeat."""
    if slave_of(db) is not None:
        db.do("STOP SLAVE")
        db.do("RESET SLAVE ALL")


def begin_loading(db: Sql) -> None:
    """From here on the data is not whole, until `end_loading`."""
    close(db)
    # Before anything is dropped: a server that restarts in the middle must not go on copying into half of it.
    detach(db)
    db.do("SET sql_log_bin=0")
    db.do(f"CREATE DATABASE IF NOT EXISTS {LOADING}")


def end_loading(db: Sql, position: frozenset[Gtid]) -> None:
    """The data is whole, as it was at `position`; our own history ends here."""
    db.do("SET sql_log_bin=0")
    db.do("RESET MASTER")
    db.do("SET GLOBAL gtid_slave_pos=%s", (gtid.show(position),))
    db.do(f"DROP DATABASE IF EXISTS {LOADING}")


def wait(db: Sql, position: frozenset[Gtid], within: float) -> bool:
    """Until all up to `position` is in place here; False at the deadline, in seconds."""
    if not position:
        return True
    return bool(db.value("SELECT MASTER_GTID_WAIT(%s, %s)", (gtid.show(position), within)) == 0)


def promote(db: Sql, report: Callable[[str], None], within: float) -> None:
    """Put in place what has been received, at most for `within` seconds; copy from nobody; take writes.

    At once where that is so.  Raises Denied, and takes no writes, while the data is not whole.
    """
    if is_loading(db):
        raise Denied(
            "this server's data is half of a copy that was being loaded",
            hint="Let the other node serve; as a standby this node loads the copy again.",
        )
    slave = slave_of(db)
    if slave is not None:
        _finish(db, slave, report, within)
        detach(db)
    if db.value("SELECT @@read_only"):
        db.do("SET GLOBAL read_only=0")
    if db.value("SELECT @@read_only"):
        raise Denied("MariaDB still takes no writes: read_only is ON though we have set it OFF")


def _finish(db: Sql, slave: Slave, report: Callable[[str], None], within: float) -> None:
    """Whatever goes wrong here, the PBX must write: it is said, and goes on."""
    try:
        if slave.receives != "No":
            if not slave.applies and slave.sql_errno == 0:
                # While it still receives: where both have stopped, starting either throws away what was received.
                db.do("START SLAVE SQL_THREAD")
            db.do("STOP SLAVE IO_THREAD")
            slave = slave_of(db) or slave
        received = gtid.parse(slave.received)
        missing = frozenset(each for each in received if not gtid.has(look(db).history, each))
        give_up = time.monotonic() + within
        while missing and slave.applies and time.monotonic() < give_up:
            if wait(db, missing, min(SLICE, max(0.0, give_up - time.monotonic()))):
                return
            slave = slave_of(db) or slave
        if missing and not gtid.lacking(missing, look(db).history):
            return
        if missing:
            why = slave.sql_error or (
                "it is too slow" if slave.applies else "it does not apply them"
            )
            report(
                f"transactions up to {gtid.show(missing)} were received from {slave.host} and are lost here:"
                f" this server is at {gtid.show(look(db).position)}: {_short(why)}"
            )
    except SqlDenied as error:
        report(f"what was received from {slave.host} may not all be in place: {error}")


def demote(db: Sql) -> None:
    """Take no writes any more; who is writing may end.  Raises Denied when he does not within some seconds."""
    if db.value("SELECT @@read_only"):
        return
    try:
        db.do(f"SET STATEMENT lock_wait_timeout={LOCK_WAIT} FOR FLUSH TABLES WITH READ LOCK")
    except SqlDenied:  # A long question stands in the way; no commit may be under way either, so:
        close(db)
    else:
        db.do("SET GLOBAL read_only=1")
        db.do("UNLOCK TABLES")
    if not db.value("SELECT @@read_only"):
        raise Denied("MariaDB still takes writes: read_only is OFF though we have set it ON")


def trouble(slave: Slave) -> str:
    """What its threads complain of; empty if nothing."""
    if slave.sql_errno:
        return f"it does not apply what comes ({slave.sql_errno}: {_short(slave.sql_error)})"
    if slave.io_errno:
        return f"it cannot read from {slave.host}:{slave.port} ({slave.io_errno}: {_short(slave.io_error)})"
    return ""


def refusal(slave: Slave, node: str, user: str, password_file: Path) -> Denied | Unreachable:
    """Why nothing comes from `node`."""
    said = f"MariaDB here copies nothing from {node}: {trouble(slave) or 'it does not connect'}"
    match slave.io_errno:
        case 1045 | 1698:
            hint = f"Does {password_file} hold the password that {user} has on {node}?"
            return Denied(said, hint=hint)
        case 1130:
            return Denied(
                said, hint=f"On {node}: CREATE USER {user}@'%' ...; GRANT REPLICATION SLAVE."
            )
        case 2026:
            hint = f"Give the server on {node} a certificate: ssl_cert and ssl_key in its [mysqld]."
            return Denied(said, hint=hint)
    return Unreachable(
        said, hint=f"Does the server on {node} listen for this node, and the firewall let it?"
    )


def _short(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300].rstrip(".")
