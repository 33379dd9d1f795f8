"""The watch over the standby, beside the agent: could it take over now?  runtime.protection judges.

The active node asks the other one for its `status`; any other node looks at itself.  Only the active one tells people.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from understudy.core.model import SERVING, Phase
from understudy.errors import AdapterError, JournalError, told

from . import copy_state, readings, statecodec
from . import journal_pen as pens
from .companions import Beside
from .copy_state import ClassState, CopyState
from .journal import SqliteJournal
from .protection import (
    Account,
    Extras,
    Protection,
    Reason,
    account_of,
    judged,
    news,
    objections,
    rules,
    wanted,
)

EVERY = 30.0  # Seconds between two looks while all is well: with all deadlines, a fault is told within two minutes.
AGAIN = 10.0  # The same while it is not.
CONFIRM = 5.0  # Until what may have been an accident is looked for again.
WITHIN = 10.0  # Seconds for one question: ssh and the start of a program there.
OWN = 10.0  # Between two looks at ourselves.
VISITED = 50.0  # From cron: at most once a minute,
FRESH = 30.0  # and not so soon after this node began to serve.
STEP = 1.0  # Seconds in which a change of phase is noticed.
LATE = 2 * (EVERY + WITHIN + CONFIRM)  # A verdict that is older is none.
KEY = "protection"

# Calls are moving: who is the standby is not settled.
MOVING = frozenset({Phase.TAKING_OVER, Phase.HANDING_OVER, Phase.STEPPING_DOWN})


class Asked(Protocol):
    """The other node's agent."""

    async def status(self) -> dict[str, Any]: ...


def kept(journal: SqliteJournal) -> Protection | None:
    """The last verdict; None if there is none.  Raises JournalError when the journal cannot be read."""
    text = journal.kept(KEY)
    try:
        return statecodec.loads(Protection, text) if text else None
    except JournalError:
        return None  # Another version's.


def copies_of(file: Path | None) -> CopyState | None:
    """What the copier here has written; None where nothing is to be copied."""
    if file is None:
        return None
    try:
        return copy_state.read(file) or CopyState()
    except JournalError:
        return CopyState()  # Another version's, or unreadable: as if none had ever run.


def disk_free(journal: Path) -> int | None:
    """Bytes that the agent's user may still write; None if that cannot be told."""
    try:
        found = os.statvfs(journal.parent)
    except OSError:
        return None
    no_files_left = found.f_files > 0 and found.f_favail == 0
    return 0 if no_files_left else found.f_bavail * found.f_frsize


class Watch:
    """A runtime.companions.Companion."""

    name = "the watch over the standby"

    def __init__(
        self,
        *,
        peer: Asked,
        version: Callable[[], str],
        glass: Callable[[], bool],
        copies_file: Path | None = None,
    ) -> None:
        self._peer, self._glass, self._copies_file = peer, glass, copies_file
        self._copies: tuple[ClassState, ...] = ()
        self._find_version = version
        self._last: Protection | None = None
        self._is_loaded = False

    @cached_property
    def _version(self) -> str:
        return self._find_version()

    async def live(self, beside: Beside) -> None:
        while True:
            phase = beside.state().phase
            if phase not in MOVING:
                await self._look(beside)
            await self._wait(beside, phase in SERVING)

    async def visit(self, beside: Beside) -> None:
        self._load(beside)
        at, last, state = beside.clock.now(), self._last, beside.state()
        if state.phase not in SERVING:
            if state.phase not in MOVING:
                await self._look(beside)
            return
        recent = last is not None and 0 <= at.wall - last.looked < VISITED
        # A round that has just taken over is long enough, and the other node most probably dead.
        if not recent and at.boot - state.since >= FRESH:
            await self._look(beside)

    async def _wait(self, beside: Beside, serving: bool) -> None:
        """Until the next look is due, or another node is the standby."""
        due = beside.clock.now().boot + self._pause(serving)
        while beside.clock.now().boot < due:
            await asyncio.sleep(STEP)
            if (beside.state().phase in SERVING) is not serving:
                return

    def _pause(self, serving: bool) -> float:
        last = self._last
        if last is not None and last.doubted:
            return CONFIRM
        if not serving:
            return OWN
        return EVERY if last is not None and last.protected else AGAIN

    async def _look(self, beside: Beside) -> None:
        self._load(beside)
        self._copies = ()
        serving = beside.state().phase in SERVING
        if serving and beside.state().evidence.claim is None:
            return  # Read again in a moment: who is the standby, and of what, is not known.
        found = await self._ask(beside) if serving else self._own(beside)
        state, policy, at = beside.state(), beside.policy(), beside.clock.now()
        if (state.phase in SERVING) is not serving:
            return  # The question is no longer about the standby.
        after = judged(
            self._last,
            [*rules(state, policy, at.boot, at.wall), *found],
            standby=policy.peer if serving else policy.me,
            epoch=state.epoch,
            wall=at.wall,
        )
        after = replace(after, copies=self._copies)
        said = news(self._last, after) if serving else ""
        self._keep(beside, after)
        if said:
            beside.journal.note(KEY, said)
            beside.say(5 if after.protected else 4, said)

    async def _ask(self, beside: Beside) -> Sequence[Reason]:
        policy = beside.policy()
        sent = beside.clock.now()
        try:
            async with asyncio.timeout(WITHIN):
                answer = await self._peer.status()
        except TimeoutError:
            return [_unasked(f"{policy.peer} has not answered within {WITHIN:g} s")]
        except AdapterError as error:
            return [_unasked(told(error))]
        # A clock that is set meanwhile must not pass for the other one's fault.
        answered = sent.wall + (beside.clock.now().boot - sent.boot)
        try:
            account = account_of(answer)
        except JournalError as error:
            text = f"{policy.peer} says what this version ({self._version}) does not understand: {error}"
            return [Reason(text=f"{text}.  Install the same version on both")]
        if account.view.node != policy.peer:
            text = f"the way to {policy.peer} leads to {account.view.node}: see nodes.{policy.peer}.ssh"
            return [Reason(text=text)]
        self._copies = account.extras.copies.classes if account.extras.copies is not None else ()
        claim = beside.state().evidence.claim
        by = wanted(policy, claim, self._version, (sent.wall, answered))
        return objections(account, replace(by, active=policy.me))

    def _own(self, beside: Beside) -> Sequence[Reason]:
        policy, at, journal = beside.policy(), beside.clock.now(), beside.journal
        try:
            view = readings.status_of(journal, policy, at, boot_id=journal.boot_id, events=0)
        except JournalError as error:
            return [Reason(text=f"{policy.me} cannot read its journal: {error}", certain=False)]
        extras = Extras(
            version=self._version,
            digest=policy.digest,
            wall=at.wall,
            disk_free=disk_free(journal.path),
            journal_failing=journal.failure,
            glass=self._glass(),
            copies=copies_of(self._copies_file),
        )
        by = wanted(policy, beside.state().evidence.claim, self._version)
        return objections(Account(view=view, extras=extras), by)

    def _load(self, beside: Beside) -> None:
        if not self._is_loaded:
            self._is_loaded = True
            try:
                self._last = kept(beside.journal)
            except JournalError:
                self._last = None

    def _keep(self, beside: Beside, after: Protection) -> None:
        last, self._last = self._last, after
        same = None if last is None else replace(after, looked=last.looked, copies=last.copies)
        changed = same is None or same != last
        beside.journal.keep(partial(pens.keep, KEY, statecodec.dumps(after)), full=changed)


def _unasked(why: str) -> Reason:
    return Reason(text=f"{why}: understudy doctor", certain=False)
