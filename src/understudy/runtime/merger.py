"""Has what only one node had merged where the PBX runs: the copier's part of it, on either node.

At the node that had it: bring each thing that was kept aside to the active node, and keep what became of it.  At the
active node: take what has come.  Every step may be repeated, because each bundle has one name for good.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from understudy.errors import JournalError, UnderstudyError, told
from understudy.ports import Clock, Copy, Courier, Source

from . import merges, statecodec
from .copy_state import ClassState
from .merges import Bundle, Inbox, MergeReport
from .threads import to_its_end

LOOK = 1.0  # Seconds between two looks whether something is to be merged, or has been.
AGAIN = 10.0  # Seconds, where nothing is expected, or something stands in the way.


class Notes(Protocol):
    """What the copier says about its classes."""

    def of(self, name: str) -> ClassState: ...

    def note(self, name: str, **changed: Any) -> None: ...


class Merger:
    def __init__(
        self,
        *,
        node: str,
        journal: Path,
        courier: Courier,
        notes: Notes,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        """`node` is this one; bundles that come are beside `journal`."""
        self._node, self._journal, self._courier = node, journal, courier
        self._notes, self._clock, self._say = notes, clock, say
        self._next: dict[str, float] = {}  # By class: not before this boot-time second.

    def is_due(self, name: str) -> bool:
        return self._clock.now().boot >= self._next.get(name, 0.0)

    def soon(self, name: str) -> None:
        """Something has been kept aside."""
        self._next.pop(name, None)

    async def bring(self, copy: Copy, source: Source) -> None:
        """To the active node, whatever of ours may be merged there and has not been."""
        trouble = ""
        for aside in _open(copy):
            try:
                report = await self._bring(copy, aside, source)
                merges.keep_report(aside, report)
            except (UnderstudyError, OSError) as error:
                trouble = _told(error)
                continue
            if report.done:
                said = f"what was kept in {aside}: {report.said}"
                self._notes.note(copy.name, merged=said)
                self._say(f"{copy.name}, merged on {source.node}: {said}")
            else:
                trouble = report.trouble or f"{source.node} has not merged it yet"
        self._done_until(copy.name, LOOK if trouble else AGAIN)
        self._is_unmerged(copy.name, trouble)

    async def _bring(self, copy: Copy, aside: Path, source: Source) -> MergeReport:
        mark = merges.mark_of(self._node, aside)
        known = await self._courier.ask(source, copy.name, mark)
        if known is not None:
            return statecodec.from_json(MergeReport, known)
        bundle = await to_its_end(partial(Bundle.of, copy, aside))
        if bundle is None:
            return MergeReport(done=True, at=self._clock.now().wall)
        try:
            await self._courier.bring(
                source, copy.name, mark, bundle.path, bundle.size, bundle.sha256
            )
        finally:
            await asyncio.to_thread(bundle.path.unlink, missing_ok=True)
        return MergeReport()

    async def take(self, copy: Copy) -> None:
        """Merge what the other node has brought; and what was kept aside here, and never got to the other node."""
        inbox = Inbox(self._journal, copy.name)
        for aside in _open(copy):
            await self._take_own(copy, aside, inbox)
        pause = LOOK
        for each in inbox.waiting():
            self._notes.note(copy.name, busy="merging")
            try:
                before = await to_its_end(partial(inbox.report, each.mark))
                report = await self._merge(copy, each.path, before)
            finally:
                self._notes.note(copy.name, busy="")
            if before is None or report.trouble != before.trouble or report.done:
                said = report.said if report.done else f"not yet: {report.trouble}"
                self._say(f"{copy.name}, merging what {each.mark} brought: {said}")
            with suppress(JournalError):  # A full disk: it is merged again, and known.
                inbox.close(each.mark, report)
            pause = pause if report.done else AGAIN
        self._done_until(copy.name, pause)

    async def _merge(self, copy: Copy, bundle: Path, before: MergeReport | None) -> MergeReport:
        wall = self._clock.now().wall
        try:
            return MergeReport.of(await copy.merge(bundle), wall, before)
        except (UnderstudyError, OSError) as error:
            taken = before.taken if before is not None else ()
            return MergeReport(at=wall, trouble=_told(error), taken=taken)

    async def _take_own(self, copy: Copy, aside: Path, inbox: Inbox) -> None:
        mark = merges.mark_of(self._node, aside)
        try:
            report = await to_its_end(partial(inbox.report, mark))
            if report is None:
                has_come = await to_its_end(partial(inbox.take_own, copy, aside, mark))
                report = MergeReport(done=not has_come, at=self._clock.now().wall)
            merges.keep_report(aside, report)
        except (UnderstudyError, OSError) as error:
            report = MergeReport(trouble=_told(error))
        self._is_unmerged(copy.name, "" if report.done else report.trouble or "not merged yet")

    def _done_until(self, name: str, pause: float) -> None:
        self._next[name] = self._clock.now().boot + pause

    def _is_unmerged(self, name: str, trouble: str) -> None:
        if trouble != self._notes.of(name).unmerged:
            self._notes.note(name, unmerged=trouble)


def _open(copy: Copy) -> list[Path]:
    """What was kept aside and has not had its end."""
    reports = ((each, merges.known_report(each)) for each in copy.store.asides())
    return [each for each, report in reports if report is None or not report.done]


def _told(error: UnderstudyError | OSError) -> str:
    return told(error) if isinstance(error, UnderstudyError) else str(error)
