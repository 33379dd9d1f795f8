"""Messages on their way to people: kept in the journal until each notifier has taken them, or for three days.

Memory leads, and the journal follows: with a disk that is full they are sent all the same.  A message is on the disk
before it is sent, so a crash in between sends it twice, under the same id, and never not at all.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from understudy.errors import JournalError
from understudy.ports import Message, Severity

from .journal_pen import Write, clean
from .journal_rows import Undelivered

PAUSES = (5.0, 15.0, 60.0, 300.0, 900.0)  # Seconds between two tries; the last one again and again.
REFUSED = (
    900.0,
    3600.0,
    14_400.0,
    43_200.0,
    86_400.0,
)  # The same after a refusal, and then no more.
GIVE_UP = 3 * 86_400.0  # Seconds of age after which nothing is tried any more,
LEAST_TRIES = 20  # if it was tried so often: a clock that jumps gives nothing up.
TELL_AFTER = 120.0  # Seconds for which a message may wait before status says so.
TOLD_FOR = 86_400.0  # Seconds for which it says that one was given up.
KEPT = 30 * 86_400.0  # Seconds for which what is settled is kept.


class State(StrEnum):
    WAITING = "waiting"
    REFUSED = "refused"  # Tried again all the same, but seldom.
    SENT = "sent"
    GIVEN_UP = "given-up"


OPEN = (State.WAITING, State.REFUSED)


class Keeper(Protocol):
    """The journal, as far as it is needed here."""

    def keep(self, *writes: Write) -> None: ...

    def ask(self, question: Callable[[sqlite3.Connection], list["Delivery"]]) -> list["Delivery"]:
        """Raises JournalError."""


@dataclass(slots=True)
class Delivery:
    """One message to one notifier.  Times are wall clock seconds."""

    message: Message
    notifier: str
    next_at: float
    state: State = State.WAITING
    tries: int = 0
    last_error: str = ""

    def is_due(self, now: float) -> bool:
        # A clock that was set back must not keep it for longer than any pause.
        return not now < self.next_at <= now + REFUSED[-1]


class Outbox:
    """All that is still to be delivered."""

    def __init__(self, journal: Keeper, notifiers: Sequence[str]) -> None:
        self._journal, self._notifiers = journal, tuple(notifiers)
        self._open: list[Delivery] = []
        self._is_loaded = False

    def load(self, now: float) -> None:
        """What an earlier process has left.  Raises JournalError; then call it again later."""
        if self._is_loaded:
            return
        here = {(each.message.id, each.notifier) for each in self._open}
        for each in self._journal.ask(_read):
            if (each.message.id, each.notifier) in here:
                continue
            self._open.append(each)
            if each.notifier not in self._notifiers:
                self._settle(each, State.GIVEN_UP, "it is not configured any more")
        self._is_loaded = True

    def put(self, messages: Iterable[Message], now: float, *also: Write) -> None:
        """Into the journal first, in one transaction with `also`."""
        new = [
            Delivery(message, notifier, next_at=now)
            for message in messages
            for notifier in self._notifiers
        ]
        self._open += new
        self._journal.keep(*(partial(_write, each) for each in new), partial(_prune, now), *also)

    def due(self, notifier: str, now: float) -> list[Delivery]:
        """What is to be tried now: new ones first, they may find that the way is open again."""
        found = [each for each in self._open if each.notifier == notifier and each.is_due(now)]
        return sorted(found, key=lambda each: (each.tries > 0, each.message.at))

    def delivered(self, delivery: Delivery, now: float) -> None:
        """The way is open: what else waits is due."""
        self._settle(delivery, State.SENT, "")
        for each in self._open:
            if each.notifier == delivery.notifier and each.state is State.WAITING:
                each.next_at = now

    def failed(self, delivery: Delivery, why: str, now: float, *, refused: bool) -> bool:
        """Is it given up now?  While the way is blocked all that was tried before waits as long."""
        delivery.tries += 1
        old = now - delivery.message.at > GIVE_UP and delivery.tries >= LEAST_TRIES
        pauses = REFUSED if refused else PAUSES
        if old or (refused and delivery.tries > len(REFUSED)):
            self._settle(delivery, State.GIVEN_UP, why)
            return True
        delivery.state = State.REFUSED if refused else State.WAITING
        delivery.last_error = clean(why)
        delivery.next_at = now + pauses[min(delivery.tries, len(pauses)) - 1]
        if not refused:
            for each in self._open:
                if each.notifier == delivery.notifier and each.tries > 0:
                    each.next_at = max(each.next_at, delivery.next_at)
        self._journal.keep(partial(_write, delivery))
        return False

    @property
    def waiting(self) -> int:
        return len(self._open)

    def _settle(self, delivery: Delivery, state: State, why: str) -> None:
        delivery.state, delivery.last_error = state, clean(why)
        self._open = [each for each in self._open if each is not delivery]
        self._journal.keep(partial(_write, delivery))


def undelivered(db: sqlite3.Connection, now: float) -> tuple[Undelivered, ...]:
    """What status says: who could not be told for too long, and why.  Raises sqlite3.Error."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'deliveries'").fetchone():
        return ()  # An agent of an older version has not been replaced yet.
    found = db.execute(
        _UNDELIVERED, {"long": now - TELL_AFTER, "lately": now - TOLD_FOR}
    ).fetchall()
    return tuple(
        Undelivered(
            notifier=notifier, count=count, since=since, why=why, given_up=state == State.GIVEN_UP
        )
        for notifier, state, count, since, why, _ in found
    )


def _read(db: sqlite3.Connection) -> list[Delivery]:
    return [_delivery(row) for row in db.execute(_OPEN).fetchall()]


def _delivery(row: Sequence[str | float | int]) -> Delivery:
    number, wall, kind, subject, body, node, pair, severity, notifier, state, tries, at, why = row
    if severity not in tuple(Severity) or state not in tuple(State):
        raise JournalError(f"the outbox holds a message that makes no sense: {number}")
    return Delivery(
        message=Message(
            id=str(number),
            kind=str(kind),
            subject=str(subject),
            body=str(body),
            at=float(wall),
            node=str(node),
            pair=str(pair),
            severity=Severity(str(severity)),
        ),
        notifier=str(notifier),
        next_at=float(at),
        state=State(str(state)),
        tries=int(tries),
        last_error=str(why),
    )


def _write(delivery: Delivery, db: sqlite3.Connection) -> None:
    """All of it each time: the file may have been begun anew."""
    m = delivery.message
    row = (m.id, m.at, m.kind, m.subject, m.body, m.node, m.pair, m.severity)
    db.execute("INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    d = delivery
    db.execute(
        "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?)",
        (m.id, d.notifier, m.at, d.state, d.tries, d.next_at, d.last_error),
    )


def _prune(now: float, db: sqlite3.Connection) -> None:
    db.execute(
        "DELETE FROM deliveries WHERE wall < ? AND state IN ('sent', 'given-up')", (now - KEPT,)
    )
    db.execute(
        "DELETE FROM outbox WHERE wall < ? AND id NOT IN (SELECT message FROM deliveries)",
        (now - KEPT,),
    )


_OPEN = (
    "SELECT id, outbox.wall, kind, subject, body, node, pair, severity, notifier, state, tries, next_at, last_error"
    " FROM deliveries JOIN outbox ON outbox.id = message WHERE state IN ('waiting', 'refused') ORDER BY outbox.wall"
)
# The bare column is that of the newest row: https://www.sqlite.org/lang_select.html#bareagg
_UNDELIVERED = (
    "SELECT notifier, state, count(*), min(wall), last_error, max(next_at) FROM deliveries WHERE"
    " (state = 'waiting' AND wall < :long AND tries > 0) OR state = 'refused'"
    " OR (state = 'given-up' AND wall > :lately) GROUP BY notifier, state ORDER BY notifier, state"
)
