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
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from understudy.core.observations import Pbx
from understudy.errors import AdapterError, JournalError, Refused, UnderstudyError, told
from understudy.ports import Clock, Copy, Courier, Pulled, Service, Source, Watcher

from . import copy_state, merges, statecodec
from .copy_state import ClassState, CopyState, Files, Role
from .merges import Inbox, MergeReport
from .put_lock import put_lock

LOOK = 0.1  # Seconds within which a change of role, or a call to pull at once, is noticed.
BEAT = 5.0  # Seconds between two signs of life.
AGAIN = 10.0  # Seconds after which a pull that failed is tried again, where `every` is longer.
PROGRESS = 2.0  # Seconds between two signs of how far a pull is.
GATHER = (
    0.5  # Seconds between two pulls of what changes all the time: a voicemail that is being left.
)
UNSEEN = 1.0  # Seconds that a change may need until the source's word has it.
MERGING = 1.0  # Seconds between two looks whether something is to be merged, or has been.
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
        self._courier, self._watcher, self._node = courier, watcher, node
        self._changed: set[str] = (
            set()
        )  # Classes that have changed at the source since they were pulled.
        self._merge_at: dict[str, float] = {}  # By class: not before this boot-time second.
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
        known, wall = self._of(name), self._clock.now().wall
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
        self._note(copy.name, tried=at.wall, busy="pulling")
        trouble, pulled = "", None
        try:
            source = Source(node=role.source, epoch=role.epoch, reach=self._reach)
            pulled = await self._while_in(
                role, self._counted(copy, copy.pull(source)), unless_called_after=at.wall
            )
            if not role.puts:
                await self._compare(copy, role)
                return
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

    async def _counted(self, copy: Copy, pull: Coroutine[Any, Any, Pulled]) -> Pulled:
        """A long pull shows how far it is."""
        task = asyncio.ensure_future(pull)
        try:
            while not (await asyncio.wait([task], timeout=PROGRESS))[0]:
                self._note(copy.name, arrived=await _to_its_end(copy.store.arrived))
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _compare(self, copy: Copy, role: Role) -> None:
        """What is in place stays: it is all that there is of its kind, until a person orders a rejoin."""
        compared = await self._while_in(role, copy.compare())
        wall = self._clock.now().wall
        self._note(copy.name, busy="", arrived=0, trouble="", compared=compared, compared_at=wall)

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
            self._note(name, busy="", arrived=0, trouble=trouble, trouble_since=since)
            if trouble != known.trouble:
                self._say(f"the copy of {name} could not be renewed: {trouble}")
            return
        if known.trouble:
            self._say(f"the copy of {name} is current again")
        self._note(
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
            if self._of(copy.name).epoch != role.epoch:
                # The first time in this epoch: what is here may be the only one of its kind.
                await self._keep_aside(copy, role)
            await self._while_in(role, copy.put())
            self._put[copy.name] = role

    async def _keep_aside(self, copy: Copy, role: Role) -> None:
        aside = await self._while_in(role, copy.keep())
        if aside:
            self._note(copy.name, aside=aside, unmerged=f"{role.source} does not have it yet")
            self._merge_at.pop(copy.name, None)
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
                    if told(error) != self._of(copy.name).note:
                        self._note(copy.name, note=told(error))
                    await asyncio.sleep(AGAIN)
            await asyncio.sleep(LOOK)

    async def _watch(self, copy: Copy, role: Role) -> None:
        source = Source(node=role.source, epoch=role.epoch, reach=self._reach)
        async with aclosing(self._watcher.changes(source, copy.name)) as news:
            async for has_changed in news:
                known = self._of(copy.name)
                if known.note:
                    self._note(copy.name, note="")
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
            role, now = self._role(), self._clock.now().boot
            if role is not None and now >= self._merge_at.get(copy.name, 0.0):
                try:
                    if role.pulls and self._of(copy.name).epoch == role.epoch:
                        await self._while_in(role, self._bring(copy, role))
                    elif role.serves:
                        await self._while_in(role, self._take(copy))
                except _RoleChangedError:
                    pass
            await asyncio.sleep(MERGING)

    async def _bring(self, copy: Copy, role: Role) -> None:
        """To the active node, whatever of ours may be merged there and has not been."""
        source = Source(node=role.source, epoch=role.epoch, reach=self._reach)
        trouble = ""
        for aside in copy.store.asides():
            known = merges.known_report(aside)
            if known is not None and known.done:
                continue
            try:
                report = await self._bring_one(copy, aside, source)
                merges.keep_report(aside, report)
            except (UnderstudyError, OSError) as error:
                trouble = told(error) if isinstance(error, UnderstudyError) else str(error)
                continue
            if report.done:
                said = f"what was kept in {aside}: {report.said}"
                self._note(copy.name, merged=said)
                self._say(f"{copy.name}, merged on {role.source}: {said}")
            else:
                trouble = report.trouble or f"{role.source} has not merged it yet"
        self._merge_at[copy.name] = self._clock.now().boot + (MERGING if trouble else AGAIN)
        if trouble != self._of(copy.name).unmerged:
            self._note(copy.name, unmerged=trouble)

    async def _bring_one(self, copy: Copy, aside: Path, source: Source) -> MergeReport:
        mark = merges.mark_of(self._node, aside)
        report = await self._courier.ask(source, copy.name, mark)
        if report is not None:
            return statecodec.from_json(MergeReport, report)
        bundle = aside.with_name(f"{aside.name}.bundle")
        try:
            bundle.unlink(missing_ok=True)
            if not await _to_its_end(partial(copy.bundle, aside, bundle)):
                return MergeReport(done=True, at=self._clock.now().wall)
            size, sha256 = await _to_its_end(partial(merges.digest, bundle))
            await self._courier.bring(source, copy.name, mark, bundle, size, sha256)
        finally:
            bundle.unlink(missing_ok=True)
        return MergeReport()

    async def _take(self, copy: Copy) -> None:
        """Merge what the other node has brought; and what was kept aside here, and never got to the other node."""
        inbox = Inbox(self._files.state, copy.name)
        for aside in copy.store.asides():
            await self._take_own(copy, aside, inbox)
        later = False
        for each in inbox.waiting():
            self._note(copy.name, busy="merging")
            wall = self._clock.now().wall
            try:
                before = await _to_its_end(partial(inbox.report, each.mark))
                report = MergeReport.of(await copy.merge(each.path), wall, before)
            except UnderstudyError as error:
                report = MergeReport(at=wall, trouble=told(error))
            except OSError as error:
                report = MergeReport(at=wall, trouble=str(error))
            self._note(copy.name, busy="")
            said = report.said if report.done else report.trouble
            self._say(f"{copy.name}, merged what {each.mark} brought: {said}")
            with suppress(JournalError):  # A full disk: it is merged again, and known.
                inbox.close(each.mark, report)
            later |= not report.done
        self._merge_at[copy.name] = self._clock.now().boot + (AGAIN if later else MERGING)

    async def _take_own(self, copy: Copy, aside: Path, inbox: Inbox) -> None:
        known = merges.known_report(aside)
        if known is not None and known.done:
            return
        mark = merges.mark_of(self._node, aside)
        try:
            report = await _to_its_end(partial(inbox.report, mark))
            if report is None:
                report = MergeReport(done=True, at=self._clock.now().wall)
                if await _to_its_end(partial(merges.bundle_here, copy, aside, mark, inbox)):
                    report = MergeReport()
            merges.keep_report(aside, report)
        except (UnderstudyError, OSError) as error:
            report = MergeReport(trouble=str(error))
        trouble = "" if report.done else report.trouble or "not merged yet"
        if trouble != self._of(copy.name).unmerged:
            self._note(copy.name, unmerged=trouble)

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


async def _to_its_end(work: Callable[[], T]) -> T:
    """In a thread, which has ended when we do: nothing is written behind our back."""
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    finally:
        await asyncio.wait([job])
