"""What the agent tells the guard outside it (PROTOCOL S2): the instant at which the PBX here must be stopped.

A small file that is replaced whenever that instant moves.  It lies in memory where it can: a full or hanging disk is no
reason to stop a PBX.  See docs/explanation/guard.md.
"""

import os
from contextlib import suppress
from pathlib import Path

from understudy.core import pace
from understudy.core.model import NEVER, SERVING, Phase, State
from understudy.core.observations import Pbx
from understudy.core.policy import Isolation, Policy
from understudy.core.runbooks import RUNBOOKS, Step
from understudy.guard import Word, read

from .door import is_stopped

NAME = "serving.json"
STATE, RUN = Path("/var/lib/understudy"), Path("/run/understudy")
LENGTH = (
    256  # Bytes, filled up with spaces: a file that is overwritten has no rest of what was there.
)
JOINS = 2.0  # Seconds that a living agent has to itself to stop its PBX, before the guard helps.
GONE = (Pbx.STOPPED, Pbx.DEAD)
# With these under way a PBX that is gone stays so.
QUIET = frozenset(
    {
        *(Step.ANNOUNCE, Step.CLAIM, Step.FENCE, Step.PROMOTE),
        *(Step.COPY, Step.DEMOTE, Step.HAND, Step.RETURN, Step.WAKE),
    }
)


def place(journal: Path) -> Path:
    """Where the file is: in memory, for a journal in its usual place; else beside it."""
    return (RUN if journal.parent == STATE else journal.parent) / NAME


def told(
    state: State, policy: Policy, boot_id: str, now: float, before: Word | None, *, voided: bool
) -> Word | None:
    """What the guard must know; None: what it was told before still holds.

    `voided`: the machine stood still, and nothing has been proved since (V5).
    """
    if is_stopped(state) or _is_quiet(state):
        gone = state.evidence.pbx in GONE
        return Word(boot_id, policy.me, stopped=True) if gone else None
    if policy.isolation is Isolation.KEEP:
        return Word(boot_id, policy.me)
    ends = pace.serving_ends(state, policy)
    if state.phase in (Phase.STEPPING_DOWN, Phase.HALTED):
        ends = state.since + JOINS
    elif ends == NEVER:
        # Once for each time that it stood still: an agent that dies again and again gets no more of it.
        if not voided and before is not None and before.ends is not None:
            return None
        ends = now + policy.first_proof
    return Word(boot_id, policy.me, ends=ends)


class GuardFile:
    """The file, as the agent writes it.  Never raises: see `trouble`."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self.path = path
        self.trouble = ""  # Why it could not be written the last time.
        self._boot_id = boot_id
        self._last: Word | None = None
        self._void_since: float | None = None
        with suppress(OSError, ValueError):
            word = read(path)
            self._last = word if word.boot_id == boot_id else None

    def tell(self, state: State, policy: Policy, now: float) -> None:
        """After each decision, before anything is done about it."""
        void_since = state.evidence.void_since
        voided = self._void_since not in (None, void_since)  # Else only this process has begun.
        self._void_since = void_since
        word = told(state, policy, self._boot_id, now, self._last, voided=voided)
        if word is not None:
            self._write(word)

    def leave(self, state: State, policy: Policy, now: float) -> None:
        """A round by cron is over: nobody proves anything until the next one."""
        last = self._last
        if state.phase in SERVING and last is not None and last.ends is not None:
            until = now + policy.interval + policy.first_proof
            self._write(last._replace(ends=max(last.ends, until)))

    def _write(self, word: Word) -> None:
        if word == self._last and not self.trouble:
            return
        self._last = word
        try:
            write(self.path, word)
        except OSError as error:
            self.trouble = (
                f"the guard cannot be told until when the PBX may run: {self.path}: {error.strerror}."
                f"  Create {self.path.parent}, writable for the agent's user, with room on its file system."
            )
        else:
            self.trouble = ""


def allow(path: Path, word: Word) -> None:
    """A PBX is about to be started by whomever: unless an agent holds it to an instant of its own.  Best effort."""
    with suppress(OSError, ValueError):
        held = read(path)
        ahead = held.ends is not None and word.ends is not None and held.ends > word.ends - 1.0
        endless = held.ends is None and not held.stopped
        if held.boot_id == word.boot_id and (ahead or endless):
            return
    with suppress(OSError):
        write(path, word)


def write(path: Path, word: Word) -> None:
    """In one piece.  Raises OSError."""
    text = (word.text() + "\n").rjust(LENGTH).encode()
    try:
        _replace(path, text)
    except OSError as error:
        # No room for a second file: over the first one, which has that length already.
        if not _overwrite(path, text):
            raise error from None


def _overwrite(path: Path, text: bytes) -> bool:
    try:
        file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(file).st_size == len(text) == os.pwrite(file, text, 0)
    except OSError:
        return False
    finally:
        os.close(file)


def _replace(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    # Not through a link: root writes here too, in a folder that is not root's.
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            os.write(file, text)
        finally:
            os.close(file)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _is_quiet(state: State) -> bool:
    book = RUNBOOKS[state.runbook] if state.runbook is not None else ()
    return state.step < len(book) and book[state.step].step in QUIET
