"""The copier: keeps the standby's copy of each class of data current.  A process of its own, beside the agent.

It pulls from the active node, keeps what came whole, and puts it in place while the PBX here is stopped.  The agent
tells it by a file whether it may (runtime.copies); that it dies, hangs or is slow never keeps the agent from deciding.

Nothing of it is trusted with who serves: before it puts anything in place it asks the service manager, and a source
looks at the claim for each pull.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from understudy.core.observations import Pbx
from understudy.errors import AdapterError, JournalError, Refused, UnderstudyError, told
from understudy.ports import Clock, Copy, Pulled, Service, Source

from . import copy_state
from .copy_state import ClassState, CopyState, Files, Role
from .put_lock import put_lock

LOOK = 0.2  # Seconds within which a change of role, or a call to pull at once, is noticed.
BEAT = 5.0  # Seconds between two signs of life.
AGAIN = 10.0  # Seconds after which a pull that failed is tried again, where `every` is longer.
LOCK_WITHIN = 10.0  # Only the agent has the lock beside us, and for a moment.

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Managed:
    """One class of data, and how often it is pulled."""

    copy: Copy
    first: ClassState  # As configured: nothing is known of it yet.


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
        service: Service,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        """`journal` is where the agent's is: the files of both are beside it.  `reach` leads to the other node."""
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
            group.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._write()

    async def _keep(self, copy: Copy) -> None:
        while True:
            role = self._role()
            if role is not None and role.pulls and self._is_due(copy.name, role):
                await self._renew(copy, role)
            await asyncio.sleep(LOOK)

    def _is_due(self, name: str, role: Role) -> bool:
        known, wall = self._of(name), self._clock.now().wall
        if known.tried > wall:  # The clock went back.
            return True
        if known.tried < self._called_at():
            return True
        again = min(known.every, AGAIN)
        unrenewed = known.as_of < role.renew or known.epoch != role.epoch
        pause = again if known.trouble or unrenewed else known.every
        return wall - known.tried >= pause or known.tried < role.renew

    async def _renew(self, copy: Copy, role: Role) -> None:
        at = self._clock.now()
        self._note(copy.name, tried=at.wall, busy="pulling")
        trouble, pulled = "", None
        try:
            source = Source(node=role.source, epoch=role.epoch, reach=self._reach)
            pulled = await self._while_in(role, copy.pull(source))
            if pulled.changed or self._put.get(copy.name) != role:
                self._note(copy.name, busy="putting in place")
                await self._put_in_place(copy, role)
        except _RoleChangedError:
            self._note(copy.name, busy="")
            return
        except (AdapterError, Refused) as error:
            trouble = told(error)
        except OSError as error:  # What no adapter has put into words: our own disk.
            trouble = (
                f"{error.strerror or error} ({error.filename})" if error.filename else str(error)
            )
        took = self._clock.now().boot - at.boot
        self._ended(copy.name, role, at.wall, trouble, pulled, took)

    def _ended(
        self,
        name: str,
        role: Role,
        began: float,
        trouble: str,
        pulled: Pulled | None,
        took: float,
    ) -> None:
        known = self._of(name)
        if trouble or pulled is None:
            since = known.trouble_since if known.trouble else began
            self._note(name, busy="", trouble=trouble, trouble_since=since)
            if trouble != known.trouble:
                self._say(f"the copy of {name} could not be renewed: {trouble}")
            return
        if known.trouble:
            self._say(f"the copy of {name} is current again")
        self._note(
            name,
            busy="",
            trouble="",
            trouble_since=0.0,
            as_of=began,
            took=took,
            source=role.source,
            epoch=role.epoch,
            bytes=pulled.bytes if pulled.changed else known.bytes,
        )

    async def _put_in_place(self, copy: Copy, role: Role) -> None:
        async with put_lock(self._files.lock, LOCK_WITHIN):
            if self._role() != role:  # With the lock: the agent changes it before it takes that.
                raise _RoleChangedError
            runs = await self._service.look()
            if runs not in (Pbx.STOPPED, Pbx.DEAD):
                raise Refused(f"the PBX here is {runs}: nothing is put in place under it")
            if self._of(copy.name).epoch != role.epoch:
                # The first time in this epoch: what is here may be the only one of its kind.
                await self._keep_aside(copy, role)
            await self._while_in(role, copy.put())
            self._put[copy.name] = role

    async def _keep_aside(self, copy: Copy, role: Role) -> None:
        aside = await self._while_in(role, copy.keep())
        if aside:
            self._note(copy.name, aside=aside)
            self._say(f"{copy.name}: what only this node had is kept in {aside}")

    async def _while_in(self, role: Role, work: Coroutine[Any, Any, T]) -> T:
        """Its result; raises _RoleChangedError, with the work cancelled and over, when the agent takes `role` back."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=LOOK)
                if not task.done() and self._role() != role:
                    raise _RoleChangedError
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _role(self) -> Role | None:
        return copy_state.read_role(self._files.role, self._boot_id)

    def _called_at(self) -> float:
        try:
            return self._files.now.stat().st_mtime
        except OSError:
            return 0.0

    def _of(self, name: str) -> ClassState:
        found = self.state.of(name)
        assert found is not None
        return found

    def _note(self, name: str, **changed: Any) -> None:
        self.state = self.state.with_class(replace(self._of(name), **changed))
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
