"""The claim as the agent handles it: readings that count, and writes that cannot land late (PROTOCOL C2, C3)."""

from dataclasses import dataclass
from typing import Protocol

from understudy.core import claim as records
from understudy.core.claim import Claim
from understudy.core.observations import ClaimReading, Outcome, Result
from understudy.errors import AdapterError, Unanswered, told
from understudy.ports import ClaimStore, Clock


class Memory(Protocol):
    """One durable flag: a write of ours may still be on its way."""

    unsettled: bool


@dataclass(slots=True)
class Keeper:
    store: ClaimStore
    memory: Memory
    clock: Clock

    async def read(self, known: Claim | None = None) -> ClaimReading:
        """What the server that decides says now.  Never raises.

        `known` saves the server work: it only has to confirm it, and a confirmation is a proof (C3).
        """
        asked_at = self.clock.now().boot
        try:
            claim = await self._look(known)
        except AdapterError as error:
            return ClaimReading(asked_at=asked_at, claim=None, trouble=told(error))
        return ClaimReading(asked_at=asked_at, claim=claim)

    async def write(self, old: Claim, new: Claim) -> tuple[Outcome, ClaimReading | None]:
        """C2: compare-and-set.  Never raises; the reading is what holds now, where that is known."""
        asked_at = self.clock.now().boot
        try:
            if self.memory.unsettled:
                await self._settle()
                return Outcome(Result.FAILED, "an earlier write had to be settled first"), None
            written = await self._swap(old, new)
        except AdapterError as error:
            return Outcome(Result.FAILED, told(error)), None
        if written:
            return Outcome(Result.DONE), ClaimReading(asked_at=asked_at, claim=new)
        return Outcome(Result.FAILED, "the claim has changed since it was read"), await self.read()

    async def _look(self, known: Claim | None) -> Claim:
        if self.memory.unsettled:
            return await self._settle()
        if known is not None and await self.store.confirm(known):
            return known
        return await self.store.read()

    async def _settle(self) -> Claim:
        """Give the record a new serial, so that a late write of ours finds its prerequisite gone."""
        claim = await self.store.read()
        touched = records.touch(claim)
        if not await self._swap(claim, touched):
            raise Unanswered("the claim changed while an earlier write was being settled")
        return touched

    async def _swap(self, old: Claim, new: Claim) -> bool:
        # Set before the write: it must survive a crash in the middle of it.
        self.memory.unsettled = True
        try:
            written = await self.store.swap(old, new)
        except Unanswered:
            raise
        except AdapterError:
            self.memory.unsettled = False  # Certainly not written.
            raise
        self.memory.unsettled = False
        return written
