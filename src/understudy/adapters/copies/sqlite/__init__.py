"""One SQLite database that its program keeps open, such as Asterisk's astdb.

Read without a lock: Asterisk rolls back what it has acknowledged when somebody else's lock is in the way of its
COMMIT.  So the file is read as it is, looked at before and after, and checked.  Over the door:

    read [SHA256]     of the newest copy, if there is one
    what comes back   {"ok": true, "same": true}, or
                      {"ok": true, "same": false, "bytes": N, "sha256": "...", "owner": "USER:GROUP", "mode": 416},
                      a line feed, and the N bytes of the database

    STORE/2026-11-23T04-15-00.123Z/data.sqlite3   the database
    STORE/2026-11-23T04-15-00.123Z/about.json     what it is: class About
    STORE/accept                                  a person allows the next pull to lose rows
    STORE/aside/INSTANT/only-here.txt             which rows were only in the database that is kept there
"""

from collections.abc import Sequence
from pathlib import Path

from understudy.adapters.copies.store import Store
from understudy.errors import Denied
from understudy.ports import Compared, Merged, Pulled, Source

from . import aside, compare, pull, put, serve
from .about import Database
from .settings import Settings

__all__ = ["Settings", "Sqlite", "build"]


def build(name: str, settings: Settings, *, node: str, folder: Path) -> "Sqlite":
    return Sqlite(name, settings, folder=folder)


class Sqlite:
    """A ports.Copy."""

    def __init__(self, name: str, settings: Settings, *, folder: Path) -> None:
        """`folder` is for this class of data alone."""
        self.name = name
        self.store = Store(folder, keep=settings.keep, keep_bytes=settings.keep_bytes)
        self._database = Database(name, settings, self.store)

    def accept(self) -> None:
        """Let the next pull that succeeds lose as many rows as it may.  Raises Denied."""
        try:
            self.store.accept()
        except OSError as error:
            raise Denied(f"{self.store.accepted} cannot be written: {error.strerror}") from error

    # At the standby

    async def pull(self, source: Source) -> Pulled:
        """Raises Unreachable, Denied; then there is no new snapshot.

        Cancelled, it has ended when the cancellation is seen.
        """
        return await pull.pull(self._database, source)

    async def compare(self) -> Compared:
        """Raises Denied, Unreachable."""
        return await compare.compare(self._database)

    async def keep(self) -> str:
        """With its journal, and a list of the rows that are only in it.  Raises Denied, Unreachable."""
        return await aside.keep(self._database)

    async def put(self) -> bool:
        """Raises Denied, Unreachable.  Cancelled, it has ended when the cancellation is seen."""
        return await put.put(self._database)

    def bundle(self, aside: Path, target: Path) -> bool:
        """Never: what the active node has counts, and a person reads only-here.txt."""
        return False

    # At the active node

    async def merge(self, bundle: Path) -> Merged:
        """Raises Denied."""
        raise Denied(f"{self.name} is a database: it is not merged, as the active node's counts")

    # At the source

    def serve(self, words: Sequence[str]) -> int:
        """Raises Refused, Unreachable: also when whoever asked goes away."""
        return serve.serve(self._database, words)
