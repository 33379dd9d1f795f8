"""One class of data that MariaDB's own replication copies, transaction by transaction, while it is being written.

The standby's server reads from the active one's.  A pull finds out how far; it brings a dump where the standby cannot
go on from what it has, and `put` loads that.  Files: snapshots.py, plan.py, aside.py.  Over the door: way.py.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from understudy.adapters.copies.stop import Stop, beside
from understudy.adapters.copies.store import Store
from understudy.adapters.copies.threads import in_thread
from understudy.adapters.notify import secret
from understudy.errors import Denied, Unreachable
from understudy.ports import Compared, Merged, Pulled, Source

from . import aside, divergence, dump, gtid, plan, rows, server, snapshots, way
from .gtid import Gtid
from .plan import Plan
from .server import Slave, Standing
from .settings import Settings, endpoint
from .snapshots import DUMP, History
from .sql import Sql

GOOD_FOR = (
    1800.0  # Seconds that a dump may wait to be loaded; the source's logs go back much further.
)
CONNECT_WITHIN = 10.0  # Seconds for our server to get through to the other.
RECEIVED_WITHIN = 10.0  # Seconds for what a dead server has sent to be in place.


class MariaDb:
    """A ports.Copy and a ports.Database."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        node: str,
        folder: Path,
        addresses: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`folder` is for this class of data alone; `addresses` has both nodes' hosts, in the configuration's order.

        `report` takes what a person should know though we go on.
        """
        self.name = name
        self._node, self._settings, self._addresses = node, settings, dict(addresses or {})
        self._report = report
        self.store = Store(folder, keep=settings.keep, keep_bytes=settings.keep_bytes)
        self.history = History(name, settings, self.store, node, report)

    def accept(self) -> None:
        """Let the next pull bring all anew though this server has what the active one has not.  Raises Denied."""
        try:
            self.store.accept()
        except OSError as error:
            raise Denied(f"{self.store.accepted} cannot be written: {error.strerror}") from error

    # In the agent

    async def promote(self) -> None:
        """Raises Unreachable, Denied."""

        def work() -> None:
            with self._sql(server.STOP_WITHIN) as db:
                server.promote(db, self._report, RECEIVED_WITHIN)

        await in_thread(work)

    async def demote(self) -> None:
        """Raises Unreachable, Denied."""

        def work() -> None:
            with self._sql(server.STOP_WITHIN) as db:
                server.demote(db)

        await in_thread(work)

    # At the standby

    async def pull(self, source: Source) -> Pulled:
        """Changes nothing in the server: it may become the active one at any moment.  Raises Unreachable, Denied."""
        stop = Stop(self._settings.within, f"the pull of {self.name}")
        try:
            return await self._pull(source, stop)
        except OSError as error:
            raise self._disk(error) from error

    async def _pull(self, source: Source, stop: Stop) -> Pulled:
        there = await way.ask(self.name, source, self._settings.within)
        here = await beside(self._look, stop)
        divergence.check_pair((self._node, source.node), here, there)
        if self._is_of(here.slave, source.node) and not here.loading:
            return await self._follow(source, here, there, stop)
        if here.loading or not here.position or gtid.lacking(here.position, there.history):
            # It was active, or has another past; `keep` saves what only it had.
            return await self._bring(source, there, stop)
        await self._note(source.node, there)
        return Pulled(changed=True)

    async def _follow(self, source: Source, here: Standing, there: Standing, stop: Stop) -> Pulled:
        """It copies from there already."""
        if divergence.is_broken(here, there):
            if not (self.store.accepted.exists() or divergence.is_only_behind(here, there)):
                raise await self._diverged(source.node, here, there, stop)
            return await self._bring(source, there, stop)
        await self._note(source.node, there)
        if not self._is_well(here):
            return Pulled(changed=True)
        await self._await(source.node, there, stop)
        self.history.begin()
        return Pulled(changed=False)

    def _is_well(self, here: Standing) -> bool:
        """Nothing that `put` would have to set right; that it cannot connect may pass."""
        slave = here.slave
        return (
            slave is not None
            and slave.applies
            and slave.receives != "No"
            and slave.io_errno not in server.LOGIN
            and here.read_only
            and here.strict
        )

    async def _diverged(self, node: str, here: Standing, there: Standing, stop: Stop) -> Denied:
        words = (self.name, self._settings, (self._node, node), here, there, stop)
        return await beside(partial(divergence.told, *words), stop)

    async def _await(self, node: str, there: Standing, stop: Stop) -> None:
        """Until all that `there` had is in place here, and what it will have can come."""
        connect_by = time.monotonic() + CONNECT_WITHIN
        while True:
            is_there, here = await beside(partial(self._slice, there.position, stop), stop)
            slave = here.slave
            if is_there and slave is not None and slave.receives == "Yes" and slave.applies:
                return
            stop.check()
            if slave is None:
                raise Unreachable(f"MariaDB on {self._node} was told to copy from nobody")
            if slave.sql_errno or slave.io_errno == server.PURGED:
                raise await self._diverged(node, here, there, stop)
            if slave.receives != "Yes" and (
                slave.io_errno in server.LOGIN or time.monotonic() > connect_by
            ):
                settings = self._settings
                raise server.refusal(
                    slave, node, settings.replication_user, settings.replication_password_file
                )
            if not slave.applies:
                raise Unreachable(f"MariaDB on {self._node} was told to copy nothing")

    def _slice(self, position: frozenset[Gtid], stop: Stop) -> tuple[bool, Standing]:
        with self._sql() as db:
            within = max(0.0, min(server.SLICE, stop.left))
            is_there = server.wait(db, position, within)
            here = server.look(db)
        if is_there and here.slave is not None and here.slave.receives != "Yes":
            time.sleep(0.1)  # It connects.
        return is_there, here

    # A dump of the source

    async def _bring(self, source: Source, there: Standing, stop: Stop) -> Pulled:
        await self.history.end()
        if await beside(partial(self._has_brought, source.node, there), stop):
            return Pulled(changed=True)
        try:
            incoming = await beside(self.store.begin, stop)
            taken = time.time()
            with (incoming / DUMP).open("xb+") as file:
                size = await way.fetch(self.name, source, file, stop)
            words = (source.node, there, taken, stop)
            await beside(partial(self._take_in, incoming, *words), stop)
        finally:
            await in_thread(self.store.discard)
        return Pulled(changed=True, files=1, bytes=size)

    def _has_brought(self, node: str, there: Standing) -> bool:
        """A dump that waits to be loaded is not brought again because something else was in the way."""
        found = plan.read(self.store.folder)
        waiting = {each.name: each for each in self.store.all()}
        if found is None or found.source != node or found.seed not in waiting:
            return False
        snapshot = waiting[found.seed]
        is_fresh = snapshot.taken <= time.time() < snapshot.taken + GOOD_FOR
        if not is_fresh or gtid.lacking(snapshots.position_of(snapshot.path), there.history):
            return False
        self.store.use_up_acceptance()
        plan.write(self.store.folder, _plan(node, there, found.seed))
        return True

    def _take_in(
        self, incoming: Path, node: str, there: Standing, taken: float, stop: Stop
    ) -> None:
        try:
            found = dump.check(incoming / DUMP, stop)
        except Denied as error:
            raise Unreachable(
                f"{node} did not send {self.name} whole: {error}", hint="Was the connection cut?"
            ) from error
        # What its logs do not say is in the position from which it copied itself, before it became active.
        position = gtid.ends(found | there.position)
        snapshots.describe(incoming, node, position)
        snapshot = self.store.commit(taken)
        self.store.use_up_acceptance()
        plan.write(self.store.folder, _plan(node, there, snapshot.name))

    async def _note(self, node: str, there: Standing) -> None:
        """Go on from what is here."""
        await in_thread(partial(plan.write, self.store.folder, _plan(node, there)))

    # What would be lost

    async def compare(self) -> Compared:
        """Raises Denied, Unreachable."""
        stop = Stop(self._settings.within, f"comparing {self.name}")
        return await beside(partial(self._compare, stop), stop)

    def _compare(self, stop: Stop) -> Compared:
        found = self._planned()
        here = self._look()
        if not found.seed:
            before = {each.domain: each.number for each in here.position}
            comes = sum(max(0, each.number - before.get(each.domain, 0)) for each in found.position)
            return Compared(unit="transactions", comes=comes)
        size = (self.store.folder / found.seed / DUMP).stat().st_size
        if here.loading:
            return Compared(unit="transactions", comes=1, bytes=size)
        compared = aside.compare(self._settings, found.history, stop)
        return Compared(
            unit=compared.unit,
            comes=1,
            bytes=size,
            only_here=compared.only_here,
            examples=compared.examples,
        )

    async def keep(self) -> str:
        """Raises Denied, Unreachable."""
        stop = Stop(self._settings.within, f"keeping {self.name} aside")
        try:
            return await beside(partial(self._keep, self._planned(), stop), stop)
        except OSError as error:
            raise self._disk(error) from error

    def _keep(self, found: Plan, stop: Stop) -> str:
        here = self._look()
        if (
            not found.seed or here.loading
        ):  # Half of a copy: what was ours is kept since it was begun.
            return ""
        kept, mark = self.store.folder / plan.KEPT, f"{gtid.show(here.position)}\n"
        if kept.exists() and kept.read_text() == mark:
            return ""
        copied = self.store.folder / found.seed / DUMP
        where = aside.keep(self._settings, self.store, found.history, copied, stop)
        plan.replace(kept, mark)
        return where

    # Becoming a copy

    async def put(self) -> bool:
        """Raises Denied, Unreachable.  Cancelled, it has ended when the cancellation is seen."""
        stop = Stop(self._settings.within, f"putting {self.name} in place")
        try:
            found = self._planned()
            if found.seed:
                await self.history.end()
            changed = await beside(partial(self._put, found, stop), stop)
        except OSError as error:
            raise self._disk(error) from error
        if changed:
            there = Standing.at(found.position, found.history)
            await self._await(found.source, there, stop)
        return changed

    def _put(self, found: Plan, stop: Stop) -> bool:
        host, port = self._endpoint(found.source)
        if found.seed:
            self._load(found, stop)
        with self._sql(server.STOP_WITHIN) as db:
            here = server.look(db)
            if here.loading:
                raise Denied(
                    f"the data of MariaDB on {self._node} is half of a copy",
                    hint="The next pull brings it again.",
                )
            if self._is_of(here.slave, found.source) and self._is_well(here):
                return False
            settings = self._settings
            password = secret.read(settings.replication_password_file, "the replication password")
            user, authority = settings.replication_user, settings.tls_ca
            stop.check()
            server.attach(db, here, host, port, user, password, authority)
        return True

    def _load(self, found: Plan, stop: Stop) -> None:
        snapshot = self.store.folder / found.seed
        position = snapshots.position_of(snapshot)
        # A copier that knows this epoch already does not call `keep` again.
        where = self._keep(found, stop)
        if where:
            self._report(f"{self.name}: what only this node had is kept in {where}")
        with self._sql(max(server.STOP_WITHIN, stop.left)) as db:
            server.begin_loading(db)
            dump.await_loader(db, stop)
            for name in self._settings.databases:
                stop.check()
                db.do(f"DROP DATABASE IF EXISTS `{name}`")
        dump.load(self._settings, dump.chunks(snapshot / DUMP), stop)
        with self._sql(max(server.STOP_WITHIN, stop.left)) as db:
            # Before the mark goes: who dies in between loads it once more, and nobody twice.
            plan.write(
                self.store.folder,
                Plan(source=found.source, position=found.position, history=found.history),
            )
            (self.store.folder / plan.KEPT).unlink(missing_ok=True)
            server.end_loading(db, position)

    def _planned(self) -> Plan:
        found = plan.read(self.store.folder)
        if found is None:
            raise Denied(f"nothing has been copied yet for {self.name}", hint="understudy copies")
        return found

    # What goes to the active node later

    def bundle(self, aside: Path, target: Path) -> bool:
        """Raises OSError."""
        return rows.bundle(self._settings.tables, aside / "rows", target)

    async def merge(self, bundle: Path) -> Merged:
        """Raises Denied, Unreachable, OSError."""
        stop = Stop(self._settings.within, f"merging into {self.name}")
        return await beside(partial(rows.merge, self._settings, bundle, stop), stop)

    # At the source

    def serve(self, words: Sequence[str]) -> int:
        """Raises Refused, Unreachable, Denied: also when whoever asked goes away."""
        return way.serve(self.name, self._settings, words)

    # Small things

    def _look(self) -> Standing:
        with self._sql() as db:
            return server.look(db)

    def _sql(self, within: float = 10.0) -> Sql:
        return Sql(self._settings.socket, self._settings.user, within=within)

    def _endpoint(self, node: str) -> tuple[str, int]:
        if node not in self._addresses:
            raise Denied(
                f"nobody has said where {node} is, so {self.name} cannot be copied from it",
                hint=f"Give nodes.{node} its address.",
            )
        return endpoint(self._addresses[node], self._settings.port)

    def _is_of(self, slave: Slave | None, node: str) -> bool:
        return (
            slave is not None
            and slave.uses_gtid
            and (slave.host, slave.port) == self._endpoint(node)
        )

    def _disk(self, error: OSError) -> Denied:
        why = error.strerror or str(error)
        return Denied(f"{self.name} cannot be kept in {self.store.folder}: {why}")


def _plan(node: str, there: Standing, seed: str = "") -> Plan:
    return Plan(source=node, position=there.position, history=there.history, seed=seed)
