"""Keeps the claim in a file: for the demo, for tests, and for a pair on one machine."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from understudy.adapters.claims import record
from understudy.adapters.disk import sync_folder
from understudy.config.settings import Seconds, setting
from understudy.core.claim import Claim
from understudy.errors import ClaimMissing, Denied, Unanswered, Unreachable

Result = TypeVar("Result")

_LOCK_TRY = 0.01  # seconds between two tries


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    path: str = setting(
        "The file, on a local disk that both agents see; a lock file lies beside it.",
        example="/var/lib/understudy/claim",
    )
    timeout: Seconds = setting(
        "How long one reading or one writing may take.", default=Seconds(3.0), example="3s"
    )


def build(settings: Settings, *, service: str, **inherited: object) -> "FileClaims":
    """Whatever [name] has is of no use here."""
    return FileClaims(settings)


class FileClaims:
    """ports.ClaimStore.  All of the file is replaced or nothing; writers queue at a lock: flock(2)."""

    def __init__(self, settings: Settings) -> None:
        self._path = Path(settings.path)
        self._timeout = settings.timeout
        self.where = f"the claim in {self._path}"

    async def read(self) -> Claim:
        text = await self._within(self._load, Unreachable)
        if text is None:
            raise ClaimMissing(
                f"there is no claim in {self._path}",
                hint="Say who is active: understudy set-active NODE",
            )
        try:
            return record.from_text(text)
        except ValueError as error:
            raise Denied(
                f"{self.where} cannot be read: {error}",
                hint="Somebody else wrote it.  Say who is active: understudy set-active NODE",
            ) from error

    async def confirm(self, claim: Claim) -> bool:
        return await self._within(self._load, Unreachable) == record.to_text(claim)

    async def swap(self, old: Claim, new: Claim) -> bool:
        before, after = record.to_text(old), record.to_text(new)
        return await self._within(lambda: self._exchange(before, after), Unanswered)

    async def create(self, claim: Claim) -> bool:
        text = record.to_text(claim)
        return await self._within(lambda: self._exchange(None, text), Unanswered)

    async def _within(
        self, work: Callable[[], Result], late: type[Unreachable] | type[Unanswered]
    ) -> Result:
        # A second more than the lock's own deadline: what is later than that hangs in the kernel.
        try:
            async with asyncio.timeout(self._timeout + 1.0):
                return await asyncio.to_thread(work)
        except TimeoutError:
            raise late(f"the disk below {self.where} does not answer") from None

    def _load(self) -> str | None:
        try:
            return self._path.read_bytes().decode("ascii", "backslashreplace").removesuffix("\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreachable(f"{self.where} cannot be read: {error.strerror}") from error

    def _exchange(self, before: str | None, after: str) -> bool:
        with self._lock():
            if self._load() != before:
                return False
            self._replace(after)
            return True

    @contextmanager
    def _lock(self) -> Iterator[None]:
        deadline = time.monotonic() + self._timeout
        path = self._path.with_name(self._path.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        except OSError as error:
            raise Unreachable(
                f"{self.where} cannot be written: {path}: {error.strerror}",
                hint=f"The agent's user must be allowed to write in {self._path.parent}.",
            ) from error
        try:
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"{self.where} cannot be written: another process has held {path}"
                        f" for {self._timeout:g} s",
                        hint=f"See who: fuser {path}",
                    )
                time.sleep(_LOCK_TRY)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, text: str) -> None:
        incoming = self._path.with_name(self._path.name + ".new")
        try:
            with incoming.open("w", encoding="ascii") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(self._path)
        except OSError as error:
            incoming.unlink(missing_ok=True)
            raise Unreachable(
                f"{self.where} cannot be written: {error.strerror}; the old one stands",
                hint=f"Look at the space in {self._path.parent}: df -h {self._path.parent}",
            ) from error
        try:
            sync_folder(self._path.parent)
        except OSError as error:
            raise Unanswered(
                f"{self.where} may be lost at a power cut: {error.strerror}"
            ) from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
