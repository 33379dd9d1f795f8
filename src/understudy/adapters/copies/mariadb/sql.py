"""One connection to the MariaDB server of this machine, through its socket: no password, and a deadline each time.

The server knows us by the user of our process (https://mariadb.com/kb/en/authentication-plugin-unix-socket/).
"""

import os
import pwd
import socket as sockets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pymysql
from pymysql.converters import conversions, encoders
from pymysql.cursors import DictCursor, SSCursor

from understudy.errors import Denied, Unreachable

SHOWN = 300  # Characters of what the server said.

# Error numbers (https://mariadb.com/kb/en/mariadb-error-code-reference/) by which a server says that it cannot be asked
# now: too many connections, shutting down, the network, our connection was killed.
_AWAY = frozenset((1040, 1053, 1077, 1152, 1158, 1159, 1160, 1161, 1203, 1927))
_NOT_LET_IN = frozenset((1044, 1045, 1698))
_CLIENT = range(2000, 2100)  # What the driver itself finds: gone, lost, out of step.


class SqlDenied(Denied):
    """The server refused a statement; `number` is its error number."""

    def __init__(self, message: str, *, hint: str = "", number: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.number = number


class Sql:
    """`with Sql(socket) as db:`; every statement is a transaction of its own unless BEGIN says otherwise.

    Raises Unreachable where the server is not there, or does not answer in time, and Denied where it says no.
    """

    def __init__(
        self, socket: Path, user: str = "", *, within: float = 5.0, texts: bool = False
    ) -> None:
        """`user` is the database's; empty: named as the user of this process.  `within`: seconds for each answer.

        `texts`: values come as the server writes them, str, bytes or None.
        """
        self._socket, self._within, self._texts = socket, within, texts
        self._user = user or process_user()
        self._db: pymysql.Connection[DictCursor] | None = None

    def __enter__(self) -> Self:
        conv: Any = encoders if self._texts else conversions
        db = pymysql.connect(
            defer_connect=True,
            user=self._user,
            charset="utf8mb4",
            read_timeout=self._within,
            write_timeout=self._within,
            autocommit=True,
            conv=conv,
            cursorclass=DictCursor,
        )
        # Connected by ourselves: the driver leaves its socket open when nobody listens.
        way = sockets.socket(sockets.AF_UNIX)
        try:
            way.settimeout(self._within)
            way.connect(str(self._socket))
        except OSError as error:
            way.close()
            raise Unreachable(
                f"MariaDB does not answer at {self._socket}: {error.strerror or error}",
                hint="Is it running?  systemctl status mariadb",
            ) from error
        with self._sentences():
            db.connect(way)
        self._db = db
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None and self._db.open:
            self._db.close()
        self._db = None

    def rows(self, sql: str, args: Sequence[object] = ()) -> list[dict[str, Any]]:
        """What a question brings, column by column name.  `args` go where %s stands."""
        with self._sentences(), self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(args) or None)
            return list(cursor.fetchall())

    def do(self, sql: str, args: Sequence[object] = (), *, secrets: Sequence[str] = ()) -> int:
        """How many rows it changed.  `secrets` are never in the error's text, even if the server repeats them."""
        with self._sentences(secrets), self._connection.cursor() as cursor:
            return cursor.execute(sql, tuple(args) or None)

    def many(self, sql: str, args: Iterable[Sequence[object]]) -> int:
        """`do` with each of `args`."""
        with self._sentences(), self._connection.cursor() as cursor:
            return cursor.executemany(sql, args) or 0

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Row by row, however many there are: read them all, or ask nothing more."""
        with self._sentences(), self._connection.cursor(SSCursor) as cursor:
            cursor.execute(sql)
            yield from iter(cursor.fetchone, None)

    def value(self, sql: str, args: Sequence[object] = ()) -> Any:
        """The first column of the only row; None where there is no row."""
        found = self.rows(sql, args)
        return next(iter(found[0].values())) if found else None

    @property
    def _connection(self) -> "pymysql.Connection[DictCursor]":
        assert self._db is not None, "use it in a with statement"
        return self._db

    @contextmanager
    def _sentences(self, secrets: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
        except pymysql.MySQLError as error:
            # From None: the driver's own error may hold what must not be shown.
            raise self._error(error, secrets) from None

    def _error(self, error: pymysql.MySQLError, secrets: Sequence[str]) -> Denied | Unreachable:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        said = str(error.args[1] if len(error.args) > 1 else error)
        for secret in secrets:
            said = said.replace(secret, "[secret]")
        said = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:SHOWN]
        if number in _NOT_LET_IN:
            return SqlDenied(
                f"MariaDB does not let {self._user} do this ({number}: {said})",
                hint="See which users there are: SELECT user, host, plugin FROM mysql.user.",
                number=number,
            )
        if number in _CLIENT and "timed out" in said:
            return Unreachable(
                f"MariaDB at {self._socket} gave no answer within {self._within:g} s"
            )
        if number in _CLIENT or number in _AWAY or isinstance(error, pymysql.InterfaceError):
            return Unreachable(f"MariaDB at {self._socket} is going, or gone ({number}: {said})")
        return SqlDenied(f"MariaDB says {number}: {said}", number=number)


def process_user() -> str:
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
