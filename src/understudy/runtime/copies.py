"""The agent's side of the copy: what the copier may do, and what promote and renew mean for files.

A runtime.companions.Companion and a ports.Copies.  The copier (runtime.copier) is a process of its own; the two talk
through files beside the journal, so either may die and come back at any moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf
from pathlib import Path
from types import MappingProxyType

from understudy.core.model import SERVING, Phase
from understudy.errors import AdapterError, Denied, JournalError, Unreachable, told
from understudy.ports import Clock, Database, Moment

from . import copy_state
from .companions import Beside
from .copy_state import ClassState, CopyState, Files, Role
from .put_lock import put_lock
from .waiting import span

LOOK = 0.5  # Seconds between two looks at the phase.
KEEP_OPEN = (
    2.0  # Seconds between two looks whether the database takes writes, where the PBX writes.
)
LOCK_WITHIN = 10.0  # Seconds that a copier may take to let go: it looks at its role each 0.2 s.
NO_COPIER = 5.0  # Seconds that one may take to begin.
NEWS = 0.1  # Seconds between two looks at what the copier has done.
PULLING = frozenset({Phase.STANDBY, Phase.SUSPECTING})


class Copies:
    def __init__(
        self,
        *,
        journal: Path,
        boot_id: str,
        peer: str,
        clock: Clock,
        refuses: bool,
        fetch: Callable[[int], Awaitable[None]],
        report: Callable[[str], None],
        databases: Mapping[str, Database] = MappingProxyType({}),
        strict: Collection[str] = (),
    ) -> None:
        """`journal` is where the agent's is; `refuses`: some class has on_stale = "refuse".

        `fetch` has the other node read all that is here, for an epoch.  `databases` are those of the classes that a
        server of their own copies; without those in `strict` the PBX does not start.
        """
        self._databases, self._strict = databases, strict
        self._one = (
            asyncio.Lock()
        )  # For the databases: who opens one must not overtake who closes it.
        self._closed: dict[str, str] = {}  # Why a database could not be opened, by class.
        self._peer, self._clock, self._report = peer, clock, report
        self._boot_id, self._refuses, self._fetch = boot_id, refuses, fetch
        self._files = Files(journal)
        self._role: Role | None = None
        self._epoch = 0

    # A companion

    name = "the copier's orders"

    async def live(self, beside: Beside) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_telling(beside))
            if self._databases:
                group.create_task(self._keep_open(beside))

    async def visit(self, beside: Beside) -> None:
        self._tell(beside)
        if self._serves(beside):
            await self._open()

    async def _keep_telling(self, beside: Beside) -> None:
        trouble = ""
        while True:
            try:
                self._tell(beside)
                trouble = ""
            except JournalError as error:  # A full disk: it may have room again at any moment.
                if told(error) != trouble:
                    trouble = told(error)
                    self._report(trouble)
            await asyncio.sleep(LOOK)

    async def _keep_open(self, beside: Beside) -> None:
        """A database that was restarted takes no writes, as at boot: it cannot know who serves."""
        while True:
            await asyncio.sleep(KEEP_OPEN)
            async with self._one:
                # Looked at with the lock: a hand-over that has begun waits for us, and closes after us.
                if self._serves(beside):
                    await self._open()

    def _serves(self, beside: Beside) -> bool:
        state = beside.state()
        claim = state.evidence.claim
        ours = claim is not None and claim.node != self._peer and not claim.is_announced
        return state.phase in SERVING and state.runbook is None and ours

    async def _open(self) -> dict[str, AdapterError]:
        """Returns what stands in the way, by class; said once."""
        found: dict[str, AdapterError] = {}
        for name, database in self._databases.items():
            try:
                await database.promote()
            except AdapterError as error:
                found[name] = error
                if self._closed.get(name) != str(error):
                    self._report(f"{name} takes no writes: {told(error)}")
        self._closed = {name: str(error) for name, error in found.items()}
        return found

    def _tell(self, beside: Beside) -> None:
        state = beside.state()
        claim = state.evidence.claim
        self._epoch = state.epoch
        if state.phase is Phase.REJOINING:
            return  # `renew` has said it.
        theirs = claim is not None and claim.node == self._peer
        self._say(
            pulls=state.phase in (*PULLING, Phase.OUTDATED) and theirs,
            puts=state.phase is not Phase.OUTDATED,
            serves=self._serves(beside),
            epoch=state.epoch,
        )

    def _say(
        self,
        *,
        pulls: bool,
        epoch: int,
        puts: bool = True,
        renew: float = 0.0,
        serves: bool = False,
    ) -> None:
        """Raises JournalError when it cannot be written."""
        role = Role(
            boot_id=self._boot_id,
            pulls=pulls,
            source=self._peer if pulls else "",
            epoch=epoch,
            renew=renew,
            puts=puts,
            serves=serves,
        )
        if role == self._role:
            return
        copy_state.write_role(self._files.role, role)
        self._role = role

    def stale_from(self, at: Moment) -> float:
        """What a copier that was not at work has not written counts as never copied."""
        if not self._refuses:
            return inf
        try:
            state = self._state()
        except AdapterError:
            state = None
        instant = state.stale_from() if state is not None else 0.0
        return inf if instant is None else at.boot + instant - at.wall

    # Steps of a runbook

    async def promote(self) -> None:
        """Return when nothing is put in place any more, so that the PBX may start on what is there.

        Raises Unreachable when the copier does not let go.
        """
        try:
            self._say(pulls=False, epoch=self._epoch)
        except JournalError as error:
            # A full disk.  The lock keeps the copier out for now, and the PBX once it runs.
            self._report(told(error))
        async with put_lock(self._files.lock, LOCK_WITHIN):
            pass
        self._tell_ages()
        async with self._one:
            closed = await self._open()
        for name, why in closed.items():
            if name in self._strict:
                raise why  # What is not, is better than no telephones: it is told, and tried again.

    async def hand(self, epoch: int) -> None:
        await self._close()
        await self._fetch(epoch)

    async def demote(self) -> None:
        """Only databases: the files of a node that has served stay as they are until they are renewed."""
        try:
            await self._close()
        except AdapterError as error:
            # Whoever needs it closed has closed it before (`hand`); the node that serves next is not kept waiting.
            self._report(told(error))

    async def _close(self) -> None:
        """Raises what the first of them says that cannot be closed."""
        async with self._one:
            for database in self._databases.values():
                await database.demote()

    async def renew(self, epoch: int) -> None:
        """Return when every class has been read at the active node after now.  Raises what stands in the way."""
        began = self._clock.now().wall
        try:
            self._say(pulls=True, epoch=epoch, renew=began)
        except JournalError as error:
            raise Denied(told(error)) from error
        await _done_since(self._files.state, self._clock, began, lambda each: each.as_of)
        state = self._state()
        for each in state.classes if state is not None else ():
            if each.aside:
                self._report(f"{each.name}: what only this node had is kept in {each.aside}")

    def _state(self) -> CopyState | None:
        return _state(self._files.state)

    def _tell_ages(self) -> None:
        """The operator wants to know what the PBX starts with."""
        try:
            state = self._state()
        except AdapterError as error:
            self._report(str(error))
            return
        if state is None:
            self._report(
                "no class of data has ever been copied here: the PBX starts with what is there"
            )
            return
        wall = self._clock.now().wall
        self._report(
            "the copy that the PBX starts with: "
            + ", ".join(said(each, wall) for each in state.classes)
        )


async def fetch_all(journal: Path, clock: Clock, within: float) -> None:
    """Have the copier read every class now.  Raises what stands in the way, Unreachable at the deadline."""
    await _call_for(journal, clock, within, lambda each: each.as_of)


async def compare_all(journal: Path, clock: Clock, within: float) -> None:
    """Have the copier of an outdated node look what a rejoin would do.  Raises as `fetch_all`."""
    await _call_for(journal, clock, within, lambda each: each.compared_at)


async def _call_for(
    journal: Path, clock: Clock, within: float, seen: Callable[[ClassState], float]
) -> None:
    files = Files(journal)
    try:
        files.now.touch()
        began = files.now.stat().st_mtime
    except OSError as error:
        raise Denied(f"{files.now} cannot be written: {error.strerror}") from error
    try:
        async with asyncio.timeout(within):
            await _done_since(files.state, clock, began, seen)
    except TimeoutError:
        raise Unreachable(f"not all data has been read within {within:g} s") from None


async def _done_since(
    file: Path, clock: Clock, began: float, seen: Callable[[ClassState], float]
) -> None:
    """Wait for it, as long as a copier is at work."""
    while True:
        state, wall = _state(file), clock.now().wall
        if state is None or state.is_silent(wall):
            if wall - began > NO_COPIER:
                raise Unreachable(
                    "no copier is at work here, so nothing can be copied",
                    hint="systemctl start understudy-copier",
                )
        elif (failed := _failed(state, began)) is not None:
            raise Denied(f"{failed.name}: {failed.trouble}")
        elif all(seen(each) >= began for each in state.classes):
            return
        await asyncio.sleep(NEWS)


def _state(file: Path) -> CopyState | None:
    try:
        return copy_state.read(file)
    except JournalError as error:
        raise Denied(told(error)) from error


def said(each: ClassState, wall: float) -> str:
    """One class, for a sentence."""
    age = each.age(wall)
    if age is None:
        return f"{each.name} was never copied"
    return f"{each.name} {span(age)} old" + (" (STALE)" if each.is_stale(wall) else "")


def _failed(state: CopyState, since: float) -> ClassState | None:
    tried = (c for c in state.classes if c.trouble and c.tried >= since and not c.busy)
    return next(tried, None)
