"""What is written into the journal: one function or method per kind of row, each called inside one transaction."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from understudy.core.model import Evidence
from understudy.core.observations import Result, Round
from understudy.core.votes import Verdict

from .journal_history import milliseconds
from .journal_rows import VERDICTS, OrderState, round_to_text

Write = Callable[[sqlite3.Connection], None]

PRUNED = 5000  # Rows at most that one pruning takes: no transaction is long.
LONGER = (
    10  # Decisions, steps, orders and notes are few: they are kept ten times as long as rounds.
)
ORDER_LIFE = 120.0  # Seconds after which an order that nobody took must not surprise anybody.
REFUSING = "order-refused"  # core.rules: the row that takes an order only to refuse it.
MOST_TEXTS = 500  # Numbers of texts that are kept in memory.
LONGEST = 500  # Characters of a text from outside.


class Pen:
    """Writes rows, and remembers the numbers that later rows refer to."""

    def __init__(self, keep: float) -> None:
        self.keep = keep  # Seconds.
        self._decision: int | None = None
        self._texts: dict[str, tuple[int, int]] = {}

    def forget_numbers(self) -> None:
        """A transaction is gone, and with it perhaps the texts that it numbered."""
        self._texts.clear()

    def round(self, asked: Round, wall: float, evidence: Evidence, db: sqlite3.Connection) -> None:
        counted = (
            evidence.round_at == asked.asked_at
        )  # Else it came too late to prove anything (V5).
        mine = VERDICTS[evidence.mine] if counted else VERDICTS[Verdict.UNCLEAR]
        theirs = VERDICTS[evidence.theirs] if counted else VERDICTS[Verdict.UNCLEAR]
        votes = round_to_text(asked, partial(self._number, db, wall))
        when = milliseconds(wall)
        while not db.execute(_ROUND, (when, mine, theirs, votes)).rowcount:
            when += 1

    def _number(self, db: sqlite3.Connection, wall: float, text: str) -> int:
        """Reports say the same again and again: each text is kept once."""
        text, today = clean(text), int(wall // 86_400)
        known = self._texts.get(text)
        if known is not None and known[1] == today:
            return known[0]
        db.execute(_TEXT, (text, wall))
        number = int(db.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()[0])
        if len(self._texts) >= MOST_TEXTS:
            self._texts.clear()
        self._texts[text] = (number, today)
        return number

    def prune(self, wall: float, db: sqlite3.Connection) -> None:
        """A bounded number at a time, so that a clock that jumps ahead for a moment costs little."""
        cutoff = wall - self.keep
        db.execute(_PRUNE_ROUNDS, (milliseconds(cutoff), PRUNED))
        db.execute("DELETE FROM texts WHERE wall < ?", (cutoff - 2 * 86_400,))
        for table in ("decisions", "steps", "notes", "orders"):
            db.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE wall < ?"
                f" AND id < (SELECT max(id) FROM {table}) LIMIT ?)",
                (wall - LONGER * self.keep, PRUNED),
            )

    def decision(self, row: tuple[object, ...], db: sqlite3.Connection) -> None:
        self._decision = db.execute(_DECIDE, row).lastrowid

    def use(self, order: int, rule: str, because: str, db: sqlite3.Connection) -> None:
        state = OrderState.REFUSED if rule == REFUSING else OrderState.USED
        db.execute(_USE, (state, because, self._decision, order))

    def step(self, wall: float, action: str, guarded: int, db: sqlite3.Connection) -> None:
        db.execute(_STEP, (wall, self._decision, action, guarded, wall))

    def settle(
        self, outcome: str, why: str, took: float | None, wall: float, db: sqlite3.Connection
    ) -> None:
        """The last open step went like this.  A failure that repeats itself becomes a count."""
        step = db.execute(_OPEN_STEP).fetchone()
        if step is None:
            return
        db.execute(_SETTLE, (outcome, why, took, wall, step[0]))
        if outcome == Result.DONE:
            return
        last = db.execute(_STEP_BEFORE, (step[0],)).fetchone()
        if (
            last is not None
            and last[2:] == (*step[2:], outcome, why)
            and self._fold(step, last, db)
        ):
            db.execute(
                "UPDATE steps SET times = times + 1, last = ?, took = ? WHERE id = ?",
                (wall, took, last[0]),
            )
            db.execute("DELETE FROM steps WHERE id = ?", (step[0],))

    def _fold(self, step: Any, last: Any, db: sqlite3.Connection) -> bool:
        """Were both steps asked for by the same decision, or by two that only differ in time?"""
        if step[1] == last[1]:
            return True
        rows = db.execute(_LAST_TWO_DECISIONS).fetchall()
        if [row[0] for row in rows] != [step[1], last[1]] or rows[0][1:] != rows[1][1:]:
            return False
        db.execute(_FOLD, (step[1], last[1]))
        db.execute("DELETE FROM decisions WHERE id = ?", (step[1],))
        self._decision = last[1]
        return True


def nothing(db: sqlite3.Connection) -> None:
    """The state alone is news."""


def keep(key: str, value: str, db: sqlite3.Connection) -> None:
    db.execute(SET, (key, value, 0.0, 0.0))


def note(wall: float, kind: str, text: str, db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO notes (wall, kind, text) VALUES (?, ?, ?)", (wall, kind, text))


def lose(wall: float, text: str, db: sqlite3.Connection) -> None:
    db.execute(SET, ("loss", text, wall, 0.0))
    note(wall, "journal", text, db)


def refuse_late(orders: list[int], db: sqlite3.Connection) -> None:
    why = f"nobody took it within {ORDER_LIFE:.0f} s: the agent was away, or busy.  Order again."
    for order in orders:
        db.execute(_USE, (OrderState.REFUSED, why, None, order))


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


def is_round(write: Write) -> bool:
    """Rounds are not kept for later: each would be overtaken by the next."""
    return isinstance(write, partial) and write.func.__name__ in ("round", "prune")


def clean(text: str) -> str:
    """What came from outside, bounded, and fit for a database."""
    return text[:LONGEST].encode("utf-8", "replace").decode()


SET = (
    "INSERT INTO meta VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
    " SET value = excluded.value, wall = excluded.wall, boot = excluded.boot"
)
PLACE = "INSERT INTO orders (wall, by, verb, epoch, accept_two_active, accept_loss) VALUES (?, ?, ?, ?, ?, ?)"
_DECIDE = (
    "INSERT INTO decisions (wall, boot, boot_id, node, before, after, rule, because, action, votes, state,"
    " order_id, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ROUND = "INSERT OR IGNORE INTO rounds (wall, mine, theirs, votes) VALUES (?, ?, ?, ?)"
_TEXT = (
    "INSERT INTO texts (text, wall) VALUES (?, ?) ON CONFLICT DO UPDATE SET wall = excluded.wall"
)
_PRUNE_ROUNDS = "DELETE FROM rounds WHERE wall IN (SELECT wall FROM rounds WHERE wall < ? LIMIT ?)"
_LAST_TWO_DECISIONS = (
    "SELECT id, rule, before, after, action, order_id FROM decisions ORDER BY id DESC LIMIT 2"
)
_FOLD = (
    "UPDATE decisions SET times = decisions.times + 1, last = new.wall, votes = new.votes, state = new.state"
    " FROM (SELECT wall, votes, state FROM decisions WHERE id = ?) AS new WHERE id = ?"
)
_STEP = "INSERT INTO steps (wall, decision, action, guarded, last) VALUES (?, ?, ?, ?, ?)"
_OPEN_STEP = (
    "SELECT id, decision, action, guarded FROM steps WHERE outcome IS NULL ORDER BY id DESC LIMIT 1"
)
_STEP_BEFORE = "SELECT id, decision, action, guarded, outcome, why FROM steps WHERE id < ? ORDER BY id DESC LIMIT 1"
_SETTLE = "UPDATE steps SET outcome = ?, why = ?, took = ?, last = ? WHERE id = ?"
_USE = "UPDATE orders SET state = ?, why = ?, used_by = ? WHERE id = ? AND state = 'waiting'"
