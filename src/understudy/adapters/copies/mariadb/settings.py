"""How a class of data that MariaDB replicates is described.  Imports no driver: every command reads the settings."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from understudy.adapters.copies.settings import CopySettings
from understudy.config.settings import Port, Seconds, setting

SYSTEM = ("information_schema", "mysql", "performance_schema", "sys")
SCRATCH = "understudy_scratch"  # A database of ours, while `keep` compares.
LOADING = (
    "understudy_loading"  # A database of ours that stands while what is in place is not whole.
)

# What a program takes as a word and we put between backticks: no sign that means something to either.
_NAME = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_$-]{0,63}")
_USER = re.compile(r"[A-Za-z0-9_$][A-Za-z0-9_.$-]{0,79}")


class MergeTable(NamedTuple):
    """A table whose rows may come from both nodes, and by what a row is known."""

    database: str
    table: str
    keys: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.database}.{self.table}"

    @property
    def quoted(self) -> str:
        return f"`{self.database}`.`{self.table}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CopySettings):
    socket: Path = setting(
        "The socket of this machine's server.", default=Path("/run/mysqld/mysqld.sock")
    )
    databases: tuple[str, ...] = setting(
        "What a new standby is filled with.  From then on whatever is written at the active node is copied; "
        "so name all that is there, but mysql and the like.",
        example=["asterisk", "asteriskcdrdb"],
    )
    user: str = setting(
        "As whom to speak to the server through its socket.  Left out: named as the user of the process, root for "
        "the copier and understudy for the agent.",
        default="",
    )
    port: Port = setting("Where the other node's server answers.", default=3306)
    replication_user: str = setting(
        "As whom the standby's server reads from the active one's.", default="understudy_repl"
    )
    replication_password_file: Path = setting(
        "Holds that user's password, for root alone.",
        default=Path("/etc/understudy/mariadb.password"),
    )
    tls_ca: Path | None = setting(
        "Who signs the servers' certificates: then the standby's server accepts no other.  Left out, it speaks TLS "
        "and accepts any, before MariaDB 11.4.",
        default=None,
        example="/etc/understudy/mariadb-ca.pem",
    )
    merge: tuple[str, ...] = setting(
        'Tables to which rows are added that nobody alters, "DATABASE.TABLE KEYCOLUMN [KEYCOLUMN...]": rows that '
        "only a failed node had are taken over by the one that replaced it, unless a row with these keys is there.",
        default=(),
        example=["asteriskcdrdb.cdr uniqueid sequence"],
    )
    snapshot_every: Seconds = setting(
        "How often a dump of it is kept as a snapshot on the standby.", default=Seconds(86400.0)
    )

    @property
    def places(self) -> tuple[Path, ...]:
        """No files of ours to read: the server does it."""
        return ()

    @property
    def tables(self) -> tuple[MergeTable, ...]:
        """What `merge` says."""
        return tuple(map(_merge_table, self.merge))

    def __post_init__(self) -> None:
        # A dataclass with slots is another class than super() knows.
        CopySettings.__post_init__(self)
        if self.on_change:
            raise ValueError("on_change is true, and MariaDB copies at once anyway.  Leave it out.")
        for place in ("socket", "replication_password_file", "tls_ca"):
            path = getattr(self, place)
            if path is not None and not path.is_absolute():
                raise ValueError(f"{place} is {str(path)!r}.  Write an absolute path.")
        if not self.databases:
            raise ValueError("databases is empty.  Name at least one.")
        for name in self.databases:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"databases names {name!r}.  Write a name of letters, digits, _, $ and -."
                )
            if name.lower() in (*SYSTEM, SCRATCH, LOADING):
                raise ValueError(
                    f"databases names {name}, which each server has for itself.  Leave it out."
                )
        if self.user and not _USER.fullmatch(self.user):
            raise ValueError(f"user is {self.user!r}.  Write the name of a user of the database.")
        if not _USER.fullmatch(self.replication_user):
            raise ValueError(
                f"replication_user is {self.replication_user!r}.  Write a name of letters, digits, _, $, . and -."
            )
        if self.snapshot_every <= 0:
            raise ValueError('snapshot_every is not above zero.  Write a time, such as "1d".')
        named = [table.name for table in self.tables]
        for table in self.tables:
            if table.database not in self.databases:
                raise ValueError(
                    f"merge names {table.name}, and databases has no {table.database}.  Add it there."
                )
            if named.count(table.name) > 1:
                raise ValueError(f"merge names {table.name} twice.  Write it once.")


def _merge_table(text: str) -> MergeTable:
    place, *keys = text.split()
    database, _, table = place.partition(".")
    if not keys or not all(_NAME.fullmatch(name) for name in (database, table, *keys)):
        raise ValueError(
            f'merge has {text!r}.  Write "DATABASE.TABLE KEYCOLUMN", e.g. "asteriskcdrdb.cdr uniqueid sequence".'
        )
    return MergeTable(database, table, tuple(keys))


def endpoint(address: str, port: int) -> tuple[str, int]:
    """Host and port of "192.0.2.11", "192.0.2.11:3307", "2001:db8::1" or "[2001:db8::1]:3307"."""
    found = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", address)
    if found is None:
        return address, port
    return found[1] or found[3], int(found[2] or found[4] or port)
