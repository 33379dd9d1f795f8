"""The journal: what a node saw, decided, did and why; and what it must still know after a crash.

One SQLite file for the agent and for the commands beside it.  A transaction per decision that matters, on the disk
before anything is done about it; a cheap one per round; none for a mere reading of the claim.

The agent outlives its journal: with a full, read-only or broken disk it keeps everything in memory, says so in
`trouble`, and tries again every RETRY seconds.  Orders are not taken meanwhile, because it could not be written down
that they were used.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from understudy.core.decide import Decision
from understudy.core.model import NEVER, Phase, State, newborn
from understudy.core.observations import Order, Result, Round, Seen, Verb
from understudy.core.policy import Policy
from understudy.errors import JournalError
from understudy.ports import Clock, Moment

from . import journal_file as files
from . import journal_history as history
from . import journal_pen as pens
from . import outbox, statecodec
from .journal_lock import agent_lock, holder
from .journal_news import is_durable, news, shifted, votes
from .journal_pen import ORDER_LIFE, Pen, Write, clean
from .journal_rows import (
    DecisionRow,
    Deed,
    Event,
    Failing,
    OrderRow,
    RoundRow,
    Undelivered,
    in_words,
    votes_of,
)

RETRY = 10.0  # Seconds between two tries to write a journal that could not be written.
BEAT = 5.0  # Seconds between two heartbeats on the disk, at least.
PRUNE = 600.0  # Seconds between two prunings.
BACKLOG = 1000  # Writes that wait for a disk; the oldest ones go first.
TOLD = 86_400.0  # Seconds for which a lost journal is told as trouble.
INTERRUPTED = "interrupted"  # An outcome in the journal, beside those of Result.

Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Open:
    """The step that was asked for and has no outcome yet."""

    boot: float | None  # When; None if an earlier process asked.


class SqliteJournal:
    """runtime.agent.AgentJournal and runtime.keeper.Memory, on a disk.

    The one agent of a node opens it as it is (and holds `lock()`); a command opens it with `owner=False`: that makes
    and mends nothing, raises JournalError when the file cannot be read, and reads `state` afresh each time.

    Raises JournalError when a newer version of this program has written the file.
    """

    def __init__(
        self, path: Path, clock: Clock, *, keep_days: float = 90, owner: bool = True
    ) -> None:
        self.path = path
        self._clock = clock
        self._pen = Pen(keep_days * 86_400.0)
        self._owner = owner
        self._db: sqlite3.Connection | None = None
        at = clock.now()
        self._state = newborn(at.boot)
        self._adopted: Policy | None = None
        self._unsettled = False
        self._boot_id = ""
        self._node = ""
        self._round: Round | None = None
        self._round_wall: float | None = None
        self._open: _Open | None = None
        self._glass = False
        # What is to be written, and how that goes.
        self._failure = ""
        self._retry_at = NEVER
        self._loaded = False
        self._backlog: list[Write] = []
        self._unwritten: list[Deed] = []
        self._used: set[int] = set()
        self._broken = False  # The file itself: it must be begun anew.
        self._inode = 0
        self._full: bool | None = None
        self._beat_at = NEVER
        self._prune_at = NEVER
        if owner:
            self._open_as_agent(at)
        else:
            self._db = files.open_for_others(path)
            self._load(self._db)

    # What the agent remembers

    @property
    def state(self) -> State:
        """The last known State; for a command: as the agent last wrote it."""
        if not self._owner:
            self._ask(self._load)
        return self._state

    @property
    def adopted(self) -> Policy | None:
        """The values that hold here (C6)."""
        return self._adopted

    @adopted.setter
    def adopted(self, policy: Policy | None) -> None:
        self._adopted = policy
        self._save([], full=True)

    @property
    def unsettled(self) -> bool:
        """A write of ours may still be on its way (C2).  True is on the disk before this returns."""
        return self._unsettled

    @unsettled.setter
    def unsettled(self, unsettled: bool) -> None:
        if unsettled == self._unsettled:
            return
        self._unsettled = unsettled
        # Forgetting a False costs one needless settling; forgetting a True lets a late write land.
        write = partial(pens.keep, "unsettled", "yes" if unsettled else "")
        self._save([write], full=unsettled)

    def begin(self, boot_id: str, *, node: str = "") -> bool:
        """Has the machine booted since the last decision?  False for a journal that has just been begun.

        `boot_id` is /proc/sys/kernel/random/boot_id (random(4)).  It is kept with the next record, so that a crash
        before that does not make the boot forgotten.
        """
        booted = self._boot_id not in ("", boot_id)
        self._boot_id, self._node = boot_id, node or self._node
        return booted

    @property
    def boot_id(self) -> str:
        """In which life of the machine the boot times in `state` count."""
        return self._boot_id

    def record(self, decision: Decision, seen: Seen, at: Moment) -> None:
        """tick.Journal: written before anything is done.  Never raises: see `trouble`."""
        before, after = self._state, decision.state
        self._state = after
        glass = seen.break_glass is not self._glass
        writes = self._observed(before, after, seen, at)
        lasting = self._decided(before, decision, seen, at)
        if writes or lasting or shifted(before, after):
            self._save([*writes, *lasting], full=bool(lasting), at=at)
        elif self._failure and at.boot >= self._retry_at:
            self._save([], full=True, at=at)
        if decision.rule is not None:
            self._hear(_deed(before, decision, seen, at))
        if glass:
            self._hear(Deed(wall=at.wall, name="glass", text=_GLASS[seen.break_glass]))

    def beat(self, at: Moment) -> None:
        """A sign of life, with the state of this moment, for commands to read; cheap, at most every BEAT seconds."""
        if at.boot - self._beat_at >= BEAT:
            self._save([], full=False, at=at)

    def note(self, kind: str, text: str) -> None:
        """Write down what is no decision of the core's: a person's act, a stop of the agent.

        Never raises for the agent; raises JournalError for a command, which has no memory to keep it in.
        """
        wall = self._clock.now().wall
        write = partial(pens.note, wall, kind, clean(text))
        if self._owner:
            self._save([write], full=True)
            self._hear(Deed(wall=wall, name=kind, text=clean(text)))
            return
        self._ask(lambda db: self._write_beside(write, db))

    @property
    def failure(self) -> str:
        """Why it cannot be written now, and what to do; empty when it can."""
        return self._failure

    @property
    def trouble(self) -> str:
        """What is wrong with the journal and what to do; empty when nothing is."""
        if self._failure or self._db is None:
            return self._failure
        with suppress(sqlite3.Error):
            row = self._db.execute("SELECT value, wall FROM meta WHERE key = 'loss'").fetchone()
            if row is not None and abs(self._clock.now().wall - row[1]) < TOLD:
                return str(row[0])
        return ""

    def lock(self) -> AbstractContextManager[None]:
        """Hold this while an agent runs.  Raises Refused with the pid of the agent that runs already."""
        return agent_lock(self.path.with_suffix(".lock"))

    @property
    def agent_pid(self) -> int | None:
        """Who holds `lock()`: 0 if that cannot be told, None if no agent runs."""
        return holder(self.path.with_suffix(".lock"))

    def close(self) -> None:
        if self._owner and self._failure == "" and self._db is not None:
            self._save([], full=True)
        self._close()

    # Orders

    def place(
        self,
        verb: Verb,
        *,
        by: str = "",
        epoch: int = 0,
        accept_two_active: bool = False,
        accept_loss: bool = False,
    ) -> int:
        """Put an order where the agent finds it; returns its id.  It is void after ORDER_LIFE seconds.

        Raises JournalError when it cannot be written: then it is not placed.
        """
        if self._owner and self._failure:
            raise JournalError(f"the order is not accepted: {self._failure}")
        if self._db is None:
            raise JournalError(f"the order is not accepted: {self.path} is not open")
        row = (self._clock.now().wall, clean(by), verb, epoch, accept_two_active, accept_loss)
        try:
            self._sync(full=True)
            with pens.transaction(self._db) as db:
                placed = db.execute(pens.PLACE, row).lastrowid
        except sqlite3.Error as error:
            raise JournalError(
                f"the order is not accepted: the journal {self.path} cannot be written: {error}",
                hint=files.cure(error),
            ) from error
        assert placed is not None
        return placed

    def next_order(self) -> Order | None:
        """The oldest order that waits.  None while the journal cannot be written.  Never raises."""
        if self._db is None or self._failure:
            return None
        try:
            waiting = history.waiting(self._db)
        except sqlite3.Error as error:
            self._fail(error, self._clock.now().boot)
            return None
        if not waiting:
            return None
        wall = self._clock.now().wall
        late = [order.id for order, placed in waiting if abs(wall - placed) > ORDER_LIFE]
        if any(number not in self._used for number in late):
            self._used.update(late)
            self._save([partial(pens.refuse_late, late)], full=True)
        return next((order for order, _ in waiting if order.id not in self._used), None)

    def order_outcome(self, number: int) -> OrderRow:
        """What became of it.  Raises JournalError when there is no such order."""
        row = self._ask(lambda db: history.order(db, number))
        if row is None:
            raise JournalError(f"there is no order {number} in {self.path}")
        return row

    # Readings.  All raise JournalError when the file cannot be read.  Newest last.

    @property
    def heartbeat(self) -> float | None:
        """Wall clock: when the agent last wrote; None if it never did."""
        query = "SELECT wall FROM meta WHERE key = 'state'"
        row = self._ask(lambda db: db.execute(query).fetchone())
        return None if row is None else float(row[0])

    def rounds(
        self, *, since: float = NEVER, until: float | None = None, limit: int = 1000
    ) -> list[RoundRow]:
        """The newest `limit` rounds between two wall clock times."""
        return self._ask(lambda db: history.rounds(db, since, until, limit))

    def decisions(
        self, *, since: float = NEVER, until: float | None = None, limit: int = 100
    ) -> list[DecisionRow]:
        """The newest `limit` decisions between two wall clock times."""
        return self._ask(lambda db: history.decisions(db, since, until, limit))

    def events(
        self, *, since: float = NEVER, until: float | None = None, limit: int = 100
    ) -> list[Event]:
        """Decisions, steps, orders and notes, as one history."""
        return self._ask(lambda db: history.events(db, since, until, limit))

    @property
    def last_round(self) -> RoundRow | None:
        """The last round of this process, without a look at the disk."""
        if self._round is None or self._round_wall is None:
            return None
        evidence, votes = self._state.evidence, votes_of(self._round)
        return RoundRow(
            wall=self._round_wall, mine=evidence.mine, theirs=evidence.theirs, votes=votes
        )

    def failing(self, *, until: float | None = None) -> list[Failing]:
        """Writes of the claim and of the name that go wrong, as of a wall clock time."""
        return self._ask(lambda db: history.failing(db, until))

    def undelivered(self, wall: float) -> tuple[Undelivered, ...]:
        """Messages that people should have had, as of a wall clock time."""
        return self._ask(lambda db: outbox.undelivered(db, wall))

    # For what runs beside the agent

    def keep(self, *writes: Write, full: bool = True) -> None:
        """In one transaction, on the disk before this returns, or as soon as it can be written.  Never raises.

        Unless `full`, a power cut may take it back: the agent is not made to wait for the disk.
        """
        self._save(list(writes), full=full)

    def kept(self, key: str) -> str:
        """What `pens.keep` wrote under that key; empty if nothing.  Raises JournalError."""
        query = "SELECT value FROM meta WHERE key = ?"
        row = self._ask(lambda db: db.execute(query, (key,)).fetchone())
        return str(row[0]) if row is not None else ""

    def ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Raises JournalError."""
        return self._ask(question)

    def unwritten(self) -> list[Deed]:
        """Decisions and notes that wait for a disk, each of them once.  They will be in the file when it is well."""
        taken, self._unwritten = self._unwritten, []
        return taken

    def _hear(self, deed: Deed) -> None:
        if self._failure:
            self._unwritten.append(deed)
            del self._unwritten[:-BACKLOG]

    # What a record writes

    def _observed(self, before: State, after: State, seen: Seen, at: Moment) -> list[Write]:
        """What was seen: cheap to lose, and never written twice."""
        writes: list[Write] = []
        if seen.round is not None:
            self._round = seen.round
            self._round_wall = at.wall - (at.boot - seen.round.asked_at)
            writes.append(partial(self._pen.round, seen.round, self._round_wall, after.evidence))
            if at.boot >= self._prune_at:
                self._prune_at = at.boot + PRUNE
                writes.append(partial(self._pen.prune, at.wall))
        for kind, text in news(before, after, seen):
            writes.append(partial(pens.note, at.wall, kind, clean(text)))
        if seen.break_glass is not self._glass:
            self._glass = seen.break_glass
            writes.append(partial(pens.note, at.wall, "glass", _GLASS[seen.break_glass]))
        return writes

    def _decided(self, before: State, decision: Decision, seen: Seen, at: Moment) -> list[Write]:
        """What must be on the disk before anything is done about it."""
        after, rule, action = decision.state, decision.rule, decision.action
        writes: list[Write] = []
        if seen.outcome is not None:
            took = (
                None if self._open is None or self._open.boot is None else at.boot - self._open.boot
            )
            self._open = None
            result, why = seen.outcome.result, clean(seen.outcome.why)
            writes.append(partial(self._pen.settle, result, why, took, at.wall))
        moved = (after.phase, after.runbook) != (before.phase, before.runbook)
        if self._open is not None and (moved or action is not None or seen.started):
            self._open = None
            why = "the agent ended" if seen.started else f"the node went on: {after.phase}"
            writes.append(partial(self._pen.settle, INTERRUPTED, why, None, at.wall))
        if rule is not None:
            writes.append(partial(self._pen.decision, self._row(before, decision, at)))
            if decision.order is not None:
                self._used.add(decision.order.id)
                writes.append(partial(self._pen.use, decision.order.id, rule.name, rule.because))
        if action is not None:
            self._open = _Open(at.boot)
            writes.append(partial(self._pen.step, at.wall, in_words(action), int(decision.guarded)))
        if not writes and is_durable(before, after, seen):
            writes.append(pens.nothing)
        return writes

    def _row(self, before: State, decision: Decision, at: Moment) -> tuple[object, ...]:
        assert decision.rule is not None
        after = decision.state
        return (
            at.wall,
            at.boot,
            self._boot_id,
            self._node or (self._adopted.me if self._adopted is not None else ""),
            before.phase,
            after.phase,
            decision.rule.name,
            decision.rule.because,
            in_words(decision.action) if decision.action is not None else "",
            statecodec.dumps(votes(after, self._round, self._round_wall, at.boot)),
            statecodec.dumps(after),
            decision.order.id if decision.order is not None else None,
            at.wall,
        )

    # How it gets to the disk

    def _save(self, writes: list[Write], *, full: bool, at: Moment | None = None) -> None:
        """One transaction, or the backlog.  Never raises."""
        at = at or self._clock.now()
        if not self._owner:
            raise JournalError("only the agent writes its journal", hint="Place an order instead.")
        if self._failure and at.boot < self._retry_at:
            self._keep_for_later(writes)
            return
        try:
            if self._failure:
                self._reopen(at)
            self._write([*self._backlog, *writes], at, full=full or bool(self._failure))
        except (sqlite3.Error, OSError, JournalError) as error:
            self._keep_for_later(writes)
            self._fail(error, at.boot)
            return
        if self._failure:
            self._failure = ""
        self._backlog.clear()

    def _write(self, writes: list[Write], at: Moment, *, full: bool) -> None:
        assert self._db is not None
        if full and self.path.stat().st_ino != self._inode:
            raise OSError("it was replaced while the agent ran")
        self._sync(full=full)
        with pens.transaction(self._db) as db:
            for write in writes:
                write(db)
            db.execute(pens.SET, ("state", statecodec.dumps(self._state), at.wall, at.boot))
            if full:
                self._write_rest(db, at)
        self._beat_at = at.boot

    def _write_rest(self, db: sqlite3.Connection, at: Moment) -> None:
        adopted = statecodec.dumps(self._adopted) if self._adopted is not None else ""
        for key, value in (
            ("marks", files.marks_to_text(self._state)),
            ("adopted", adopted),
            ("unsettled", "yes" if self._unsettled else ""),
            ("boot_id", self._boot_id),
            ("node", self._node),
        ):
            db.execute(pens.SET, (key, value, at.wall, at.boot))

    def _write_beside(self, write: Write, db: sqlite3.Connection) -> None:
        self._sync(full=True)
        with pens.transaction(db):
            write(db)

    def _sync(self, *, full: bool) -> None:
        assert self._db is not None
        if full is not self._full:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full = full

    def _keep_for_later(self, writes: list[Write]) -> None:
        self._backlog += [each for each in writes if not pens.is_round(each)]
        del self._backlog[:-BACKLOG]

    def _fail(self, error: Exception, boot: float) -> None:
        hint = error.hint if isinstance(error, JournalError) else ""
        self._failure = (
            f"the journal {self.path} cannot be written: {error}.  {hint or files.cure(error)}"
            "  Until then this node remembers in memory only, and takes no orders."
        )
        self._retry_at = boot + RETRY
        self._pen.forget_numbers()
        if files.is_corrupt(error):
            self._broken = True

    # How it is opened

    def _open_as_agent(self, at: Moment) -> None:
        try:
            self._reopen(at)
        except (sqlite3.Error, OSError) as error:
            self._fail(error, at.boot)
            self._unsettled = True  # Nobody can tell; settling is harmless (C2).
            self._look_at_what_is_there()

    def _reopen(self, at: Moment) -> None:
        """Raises sqlite3.Error or OSError when there is no journal to be had; JournalError for a newer one."""
        self._close()
        fresh = not self.path.exists()
        lost = ""
        try:
            db = self._opened()
        except (files.Corrupt, sqlite3.DatabaseError) as error:
            if not files.is_corrupt(error):
                raise
            db, lost = self._begin_anew(error, at)
        self._db, self._full, self._inode = db, None, self.path.stat().st_ino
        if fresh or lost or not self._loaded:
            self._write([partial(pens.lose, at.wall, lost)] if lost else [], at, full=True)
        self._loaded, self._broken = True, False

    def _opened(self) -> sqlite3.Connection:
        if self._broken:
            raise files.Corrupt(f"the journal {self.path} is corrupt")
        db = files.open_for_agent(self.path)
        try:
            if not self._loaded:
                self._load(db)
        except BaseException:
            db.close()
            raise
        return db

    def _begin_anew(self, error: Exception, at: Moment) -> tuple[sqlite3.Connection, str]:
        """A new file, and a sentence about the old one.  Raises OSError, sqlite3.Error: then there is only memory."""
        if not self._loaded:  # Else we know better than any file.
            saved = files.salvage(self.path)
            self._remember(replace(newborn(at.boot), epoch=saved.epoch, lineage=saved.lineage))
            self._unsettled = True
        aside = files.move_aside(self.path, at.wall)
        lost = (
            f"the journal could not be read ({error}): it was moved to {aside} and a new one begun."
            f"  This node remembers epoch {self._state.epoch}, but no history.  Look at the disk: dmesg, smartctl."
        )
        return files.open_for_agent(self.path), lost

    def _load(self, db: sqlite3.Connection) -> None:
        """Raises Corrupt, sqlite3.Error."""
        values: dict[str, str] = dict(db.execute("SELECT key, value FROM meta").fetchall())
        try:
            if values.get("state"):
                self._remember(statecodec.loads(State, values["state"]))
            adopted = statecodec.loads(Policy, values["adopted"]) if values.get("adopted") else None
        except JournalError as error:
            raise files.Corrupt(f"the journal {self.path} makes no sense: {error}") from error
        stored = values.get("unsettled") == "yes"
        self._unsettled = stored or (self._owner and self._unsettled)
        if self._failure:
            return  # This process has begun without it: what it learnt itself is newer.
        self._adopted = adopted
        self._boot_id, self._node = values.get("boot_id", ""), values.get("node", "")
        if db.execute("SELECT 1 FROM steps WHERE outcome IS NULL").fetchone():
            self._open = _Open(None)

    def _remember(self, stored: State) -> None:
        """The state on the disk; or, when this process had to begin without it, what both must not forget."""
        here = self._state
        if not self._failure:
            self._state = stored
            return
        quiet = here.phase in (Phase.SILENT, Phase.STANDBY, Phase.SUSPECTING)
        lineage = stored.lineage if quiet and stored.lineage is not None else here.lineage
        self._state = replace(here, epoch=max(here.epoch, stored.epoch), lineage=lineage)

    def _look_at_what_is_there(self) -> None:
        """A read-only disk still tells what this node was; should it be mended, we look again."""
        failure, self._failure = self._failure, ""
        with (
            suppress(sqlite3.Error, OSError, JournalError),
            closing(files.open_read_only(self.path)) as db,
        ):
            self._load(db)
        self._failure = failure

    def _ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        if self._db is None:
            raise JournalError(f"the journal {self.path} is not open: {self._failure}")
        try:
            return question(self._db)
        except sqlite3.Error as error:
            raise JournalError(
                f"the journal {self.path} cannot be read: {error}", hint=files.cure(error)
            ) from error

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _deed(before: State, decision: Decision, seen: Seen, at: Moment) -> Deed:
    assert decision.rule is not None
    outcome = seen.outcome
    return Deed(
        wall=at.wall,
        name=decision.rule.name,
        text=decision.rule.because,
        before=before.phase,
        after=decision.state.phase,
        why=clean(outcome.why) if outcome is not None and outcome.result is Result.FAILED else "",
    )


_GLASS = {
    True: "the glass is broken: a person runs the PBX here whatever the claim says",
    False: "the glass is whole again",
}
