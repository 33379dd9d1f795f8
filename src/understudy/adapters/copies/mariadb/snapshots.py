"""The class's snapshots: what a standby was filled with, and now and then a dump of the standby itself.

STORE/2026-11-23T04-15-00.123Z/dump.sql.gz   all databases, as they were at the other node or, later, here
STORE/2026-11-23T04-15-00.123Z/about.json    at which position, of which node
"""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from understudy.adapters.copies.stop import Stop, beside
from understudy.adapters.copies.store import Store
from understudy.adapters.copies.threads import in_thread
from understudy.errors import AdapterError, Denied

from . import aside, dump, gtid, server
from .gtid import Gtid
from .settings import Settings
from .sql import Sql

DUMP, ABOUT = "dump.sql.gz", "about.json"
WITHIN = 3600.0  # Seconds for a dump of the standby: nobody waits for it.
AGAIN = 3600.0  # Seconds after which one that failed is tried again, where they are rarer.


def describe(folder: Path, node: str, position: frozenset[Gtid]) -> None:
    about = {"node": node, "position": gtid.show(position)}
    (folder / ABOUT).write_text(json.dumps(about))


def position_of(snapshot: Path) -> frozenset[Gtid]:
    """Raises Denied."""
    try:
        return gtid.parse(json.loads((snapshot / ABOUT).read_bytes())["position"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Denied(
            f"{snapshot / ABOUT} cannot be read", hint="The next pull brings a new dump."
        ) from error


class History:
    """Dumps of the standby, so that a mistake that was copied can be taken back.

    Beside all else: who waits for the last difference must not wait for a dump.
    """

    def __init__(
        self, name: str, settings: Settings, store: Store, node: str, report: Callable[[str], None]
    ) -> None:
        self._name, self._settings, self._store = name, settings, store
        self._node, self._report = node, report
        self._task: asyncio.Task[None] | None = None
        self._tried = 0.0

    def begin(self) -> None:
        """Take one, if it is time."""
        if self._task is not None and not self._task.done():
            return
        now, newest = time.time(), self._store.newest()
        every = self._settings.snapshot_every
        if newest is not None and newest.taken <= now < newest.taken + every:
            return
        if self._tried <= now < self._tried + min(every, AGAIN):
            return
        self._tried = now
        self._task = asyncio.create_task(self._take())

    async def settled(self) -> None:
        """When none is being taken any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def end(self) -> None:
        """Give up the one that is being taken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _take(self) -> None:
        stop = Stop(WITHIN, f"a snapshot of {self._name}")
        try:
            await beside(partial(self._dump, stop), stop)
        except (AdapterError, OSError) as error:
            self._report(f"no snapshot of {self._name} could be taken: {error}")
        finally:
            await in_thread(self._store.discard)

    def _dump(self, stop: Stop) -> None:
        incoming, taken = self._store.begin(), time.time()
        with Sql(self._settings.socket, self._settings.user) as db:
            position = server.look(db).position
        with (incoming / DUMP).open("xb") as file:
            dump.write(self._settings, aside.present(self._settings), file, stop)
        describe(incoming, self._node, position)
        self._store.commit(taken)
