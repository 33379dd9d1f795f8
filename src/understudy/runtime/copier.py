"""The copier: keeps the standby's copy of each class of data current.  A process of its own, beside the agent.

It pulls from the active node, keeps what came whole, and puts it in place while the PBX here is stopped.  What only
this node had it sends to the active node, whose copier merges it.  The agent tells it by a file what it may
(runtime.copies); that it dies, hangs or is slow never keeps the agent from deciding.

Nothing of it is trusted with who serves: before it puts anything in place it asks the service manager, and a source
looks at the claim for each pull.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from understudy.core.observations import Pbx
from understudy.errors import AdapterError, JournalError, Refused, UnderstudyError, told
from understudy.ports import Clock, Copy, Courier, Pulled, Service, Source, Watcher

from . import copy_state, merger
from .copy_state import ClassState, CopyState, Files, Role
from .merger import Merger
from .put_lock import put_lock
from .threads import to_its_end

LOOK = 0.1  # Seconds within which a change of role, or a call to pull at once, is noticed.
BEAT = 5.0  # Seconds between two signs of life.
AGAIN = 10.0  # Seconds after which a pull that failed is tried again, where `every` is longer.
PROGRESS = 2.0  # Seconds between two signs of how far a pull is.
GATHER = (
    0.5  # Seconds between two pulls of what changes all the time: a voicemail that is being left.
)
UNSEEN = 1.0  # Seconds that a change may need until the source's word has it.
LOCK_WITHIN = 10.0  # Only the agent has the lock beside us, and for a moment.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Managed:
    """One class of data, and how often it is pulled."""

    copy: Copy
    first: ClassState  # As configured: nothing is known of it yet.
    on_change: bool = False  # It is pulled as soon as it changes at the source, too.


class _RoleChangedError(Exception):
    """What was being done must not go on."""


class Copier:
    def __init__(
        self,
        classes: Sequence[Managed],
        *,
        journal: Path,
        boot_id: str,
        reach: tuple[str, ...],
        courier: Courier,
        watcher: Watcher,
        node: str,
        service: Service,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        """`journal` is where the agent's is: the files of both are beside it.  `reach` leads to the other node, and so
        does `courier`; `node` is this one.
        """
        self._merger = Merger(
            node=node, journal=journal, courier=courier, notes=self, clock=clock, say=say
        )
        self._watcher = watcher
        self._changed: set[str] = set()  # Classes that have since they were pulled.
        self._classes, self._clock, self._say = classes, clock, say
        self._boot_id, self._reach, self._service = boot_id, reach, service
        self._files = Files(journal)
        self.state = CopyState()
        self._failed_to_write = ""
        self._put: dict[str, Role] = {}  # By class: in which role it was last put in place.

    async def live(self) -> None:
        """Until cancelled.  Raises JournalError when its first word cannot be written."""
        known = None
        with suppress(JournalError):  # Another version's: everything is pulled anew.
            known = copy_state.read(self._files.state)
        self.state = copy_state.merged(known, (each.first for each in self._classes))
        self._write(must=True)
        async with asyncio.TaskGroup() as group:
            for each in self._classes:
                group.create_task(self._keep(each.copy))
                group.create_task(self._keep_merging(each.copy))
                if each.on_change:
                    group.create_task(self._keep_watching(each.copy))
            group.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1.0 if any(each.on_change for each in self._classes) else BEAT)
            self._write()

    async def _keep(self, copy: Copy) -> None:
        while True:
            role = self._role()
            if role is not None and role.pulls and self._is_due(copy.name, role):
                await self._renew(copy, role)
            await asyncio.sleep(LOOK)

    def _is_due(self, name: str, role: Role) -> bool:
        known, wall = self.of(name), self._clock.now().wall
        if known.tried > wall:  # The clock went back.
            return True
        if known.tried < self._called_at():
            return True
        if not role.puts:
            return False  # Only when it is asked: nobody starts on it.
        if name in self._changed and not known.trouble and wall - known.tried >= GATHER:
            return True
        again = min(known.every, AGAIN)
        unrenewed = known.as_of < role.renew or known.epoch != role.epoch
        pause = again if known.trouble or unrenewed else known.every
        return wall - known.tried >= pause or known.tried < role.renew

    async def _renew(self, copy: Copy, role: Role) -> None:
        at = self._clock.now()
        self._changed.discard(copy.name)  # What changes from here on may be missed by this pull.
        self.note(copy.name, tried=at.wall, busy="pulling")
        trouble, pulled = "", None
        try:
            pull = self._counted(copy, copy.pull(self._source(role)))
            pulled = await self._while_in(role, pull, unless_called_after=at.wall)
            if not role.puts:
                await self._compare(copy, role)
                return
            if pulled.changed or self._put.get(copy.name) != role:
                self.note(copy.name, busy="putting in place")
                await self._put_in_place(copy, role)
        except _RoleChangedError:
            self.note(copy.name, busy="")
            return
        except (AdapterError, Refused) as error:
            trouble = told(error)
        except OSError as error:  # What no adapter has put into words: our own disk.
            trouble = (
                f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
            )
        took = self._clock.now().boot - at.boot
        self._ended(copy.name, role, at.wall, trouble, pulled, took)

    async def _counted(self, copy: Copy, pull: Coroutine[Any, Any, Pulled]) -> Pulled:
        """A long pull shows how far it is."""
        task = asyncio.ensure_future(pull)
        try:
            while not (await asyncio.wait([task], timeout=PROGRESS))[0]:
                self.note(copy.name, arrived=await to_its_end(copy.store.arrived))
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _compare(self, copy: Copy, role: Role) -> None:
        """What is in place stays: it is all that there is of its kind, until a person orders a rejoin."""
        compared = await self._while_in(role, copy.compare())
        wall = self._clock.now().wall
        self.note(copy.name, busy="", arrived=0, trouble="", compared=compared, compared_at=wall)

    def _ended(
        self,
        name: str,
        role: Role,
        began: float,
        trouble: str,
        pulled: Pulled | None,
        took: float,
    ) -> None:
        known = self.of(name)
        if trouble or pulled is None:
            since = known.trouble_since if known.trouble else began
            self.note(name, busy="", arrived=0, trouble=trouble, trouble_since=since)
            if trouble != known.trouble:
                self._say(f"the copy of {name} could not be renewed: {trouble}")
            return
        if known.trouble:
            self._say(f"the copy of {name} is current again")
        self.note(
            name,
            busy="",
            arrived=0,
            trouble="",
            trouble_since=0.0,
            compared=None,
            as_of=began,
            took=took,
            source=role.source,
            epoch=role.epoch,
            bytes=pulled.bytes if pulled.changed else known.bytes,
        )

    async def _put_in_place(self, copy: Copy, role: Role) -> None:
        async with put_lock(self._files.lock, LOCK_WITHIN, shared=True):
            if self._role() != role:  # With the lock: the agent changes it before it takes that.
                raise _RoleChangedError
            runs = await self._service.look()
            if runs not in (Pbx.STOPPED, Pbx.DEAD):
                raise Refused(f"the PBX here is {runs}: nothing is put in place under it")
            if self.of(copy.name).epoch != role.epoch:
                # The first time in this epoch: what is here may be the only one of its kind.
                await self._keep_aside(copy, role)
            await self._while_in(role, copy.put())
            self._put[copy.name] = role

    async def _keep_aside(self, copy: Copy, role: Role) -> None:
        aside = await self._while_in(role, copy.keep())
        if aside:
            self.note(copy.name, aside=aside, unmerged=f"{role.source} does not have it yet")
            self._merger.soon(copy.name)
            self._say(f"{copy.name}: what only this node had is kept in {aside}")

    async def _while_in(
        self, role: Role, work: Coroutine[Any, Any, T], *, unless_called_after: float = inf
    ) -> T:
        """Its result; raises _RoleChangedError, with the work cancelled and over, when the agent takes `role` back.

        Likewise when somebody calls for everything after that wall clock second: the work began too early to count,
        and he who calls may have stopped his PBX for it.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=LOOK)
                outdated = self._role() != role or self._called_at() > unless_called_after
                if not task.done() and outdated:
                    raise _RoleChangedError
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    # What changes

    async def _keep_watching(self, copy: Copy) -> None:
        while True:
            role = self._role()
            if role is not None and role.pulls and role.puts:
                try:
                    await self._while_in(role, self._watch(copy, role))
                except _RoleChangedError:
                    pass
                except (AdapterError, Refused) as error:
                    if told(error) != self.of(copy.name).note:
                        self.note(copy.name, note=told(error))
                    await asyncio.sleep(AGAIN)
            await asyncio.sleep(LOOK)

    async def _watch(self, copy: Copy, role: Role) -> None:
        async with aclosing(self._watcher.changes(self._source(role), copy.name)) as news:
            async for has_changed in news:
                known = self.of(copy.name)
                if known.note:
                    self.note(copy.name, note="")
                if has_changed:
                    self._changed.add(copy.name)
                elif not (known.busy or known.trouble or copy.name in self._changed):
                    self._is_current(known, role)

    def _is_current(self, known: ClassState, role: Role) -> None:
        """Nothing has changed at the source: what is here is as old as this word.  Written with the next beat."""
        as_of = self._clock.now().wall - UNSEEN
        if known.as_of and known.epoch == role.epoch and known.as_of < as_of:
            self.state = self.state.with_class(replace(known, as_of=as_of))

    # What only one node had

    async def _keep_merging(self, copy: Copy) -> None:
        while True:
            role = self._role()
            if role is not None and self._merger.is_due(copy.name):
                with suppress(_RoleChangedError):
                    if role.pulls and self.of(copy.name).epoch == role.epoch:
                        source = self._source(role)
                        await self._while_in(role, self._merger.bring(copy, source))
                    elif role.serves:
                        await self._while_in(role, self._merger.take(copy))
            await asyncio.sleep(merger.LOOK)

    def _source(self, role: Role) -> Source:
        return Source(node=role.source, epoch=role.epoch, reach=self._reach)

    def _role(self) -> Role | None:
        return copy_state.read_role(self._files.role, self._boot_id)

    def _called_at(self) -> float:
        try:
            return self._files.now.stat().st_mtime
        except OSError:
            return 0.0

    def of(self, name: str) -> ClassState:
        found = self.state.of(name)
        assert found is not None
        return found

    def note(self, name: str, **changed: Any) -> None:
        self.state = self.state.with_class(replace(self.of(name), **changed))
        self._write()

    def _write(self, *, must: bool = False) -> None:
        self.state = replace(self.state, written=self._clock.now().wall, pid=os.getpid())
        try:
            copy_state.write(self._files.state, self.state)
        except UnderstudyError as error:
            if must:
                raise
            if str(error) != self._failed_to_write:  # A full disk: pulls go on as far as they can.
                self._failed_to_write = str(error)
                self._say(told(error))
        else:
            self._failed_to_write = ""
