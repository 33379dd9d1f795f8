"""The journal as values: history for people, votes for replays.

Every function takes an open connection and raises sqlite3.Error.  Newest last.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from understudy.core.model import Phase, State
from understudy.core.observations import Order, Result, Verb
from understudy.core.votes import Verdict

from . import statecodec
from .journal_rows import (
    POINTING,
    VERDICT_OF,
    WRITING,
    DecisionRow,
    Event,
    EventKind,
    Failing,
    OrderRow,
    OrderState,
    RoundRow,
    Votes,
    votes_from_text,
)

FAR = 1e14  # Seconds: beyond every date.
LOOKED_BACK = 100  # Writes.


def rounds(db: sqlite3.Connection, since: float, until: float | None, limit: int) -> list[RoundRow]:
    """The newest `limit` rounds between two wall clock times."""
    texts = {row[0]: str(row[1]) for row in db.execute("SELECT id, text FROM texts")}
    rows = db.execute(_ROUNDS, (milliseconds(since), milliseconds(until), limit)).fetchall()
    return [_round_row(row, texts) for row in reversed(rows)]


def decisions(
    db: sqlite3.Connection, since: float, until: float | None, limit: int
) -> list[DecisionRow]:
    """The newest `limit` decisions between two wall clock times."""
    rows = db.execute(_DECISIONS, (since, FAR if until is None else until, limit)).fetchall()
    return [_decision_row(row) for row in reversed(rows)]


def events(db: sqlite3.Connection, since: float, until: float | None, limit: int) -> list[Event]:
    """Decisions, steps, orders and notes, as one history."""
    until = FAR if until is None else until
    found: list[tuple[float, int, int, Event]] = []
    for rank, (query, told) in enumerate(_EVENTS):
        for row in db.execute(query, (since, until, limit)).fetchall():
            event = told(row)
            found.append((event.wall, rank, row[0], event))
    return [event for *_, event in sorted(found, key=lambda each: each[:3])[-limit:]]


def order(db: sqlite3.Connection, number: int) -> OrderRow | None:
    row = db.execute(_ORDER, (number,)).fetchone()
    return None if row is None else _order_row(row)


def failing(db: sqlite3.Connection, until: float | None) -> list[Failing]:
    """Writes of the claim and of the name that have not succeeded since they last went wrong."""
    found: dict[str, Failing] = {}
    succeeded: set[str] = set()
    for action, outcome, why, times, wall, last in db.execute(
        _WRITES, (WRITING + "%", POINTING, FAR if until is None else until, LOOKED_BACK)
    ):
        if outcome == Result.DONE:
            succeeded.add(action)
        elif outcome == Result.FAILED and action not in succeeded:
            newest = found.get(action)
            found[action] = Failing(
                action=action,
                why=why if newest is None else newest.why,
                times=times + (0 if newest is None else newest.times),
                since=wall,
                last=last if newest is None else newest.last,
            )
    return list(found.values())


def waiting(db: sqlite3.Connection) -> list[tuple[Order, float]]:
    """Orders that nobody has taken yet, oldest first, with the wall clock time at which each was placed."""
    return [(_order(row), row[1]) for row in db.execute(_WAITING).fetchall()]


def milliseconds(wall: float | None) -> int:
    if wall is None or wall > FAR:
        return int(FAR * 1000)
    return int(max(wall, -FAR) * 1000)


def _order(row: Any) -> Order:
    number, _, verb, epoch, two, loss = row
    return Order(
        id=number,
        verb=Verb(verb),
        epoch=epoch,
        accept_two_active=bool(two),
        accept_loss=bool(loss),
    )


def _order_row(row: Any) -> OrderRow:
    *order, by, state, why, used_by = row
    return OrderRow(
        wall=row[1],
        by=by,
        order=_order(order),
        state=OrderState(state),
        why=why,
        decision=used_by,
    )


def _round_row(row: Any, texts: dict[int, str]) -> RoundRow:
    wall, mine, theirs, votes = row
    return RoundRow(
        wall=wall / 1000,
        mine=VERDICT_OF.get(mine, Verdict.UNCLEAR),
        theirs=VERDICT_OF.get(theirs, Verdict.UNCLEAR),
        votes=votes_from_text(votes, texts),
    )


def _decision_row(row: Any) -> DecisionRow:
    number, wall, boot, boot_id, node, before, after, rule, because, action = row[:10]
    votes, state, order, times, last = row[10:]
    return DecisionRow(
        id=number,
        wall=wall,
        boot=boot,
        boot_id=boot_id,
        node=node,
        before=Phase(before),
        after=Phase(after),
        rule=rule,
        because=because,
        action=action,
        votes=statecodec.loads(Votes, votes),
        state=statecodec.loads(State, state),
        order=order,
        times=times,
        last=last,
    )


def _decision_event(row: Any) -> Event:
    _, wall, before, after, rule, because, times, last = row
    change = after if before == after else f"{before} -> {after}"
    return Event(
        wall=wall,
        kind=EventKind.DECISION,
        text=f"{change}: {because}",
        name=rule,
        times=times,
        last=last,
    )


def _step_event(row: Any) -> Event:
    _, wall, action, outcome, why, took, times, last = row
    spent = f" in {took:.1f} s" if took is not None and outcome == Result.DONE else ""
    text = f"{action}: {outcome or 'not finished'}{spent}" + (f": {why}" if why else "")
    return Event(
        wall=wall, kind=EventKind.STEP, text=text, name=outcome or "open", times=times, last=last
    )


def _order_event(row: Any) -> Event:
    number, wall, verb, by, state, why = row
    text = f"order {number}{f' by {by}' if by else ''}: {verb}: {state}" + (
        f": {why}" if why else ""
    )
    return Event(wall=wall, kind=EventKind.ORDER, text=text, name=state, last=wall)


def _note_event(row: Any) -> Event:
    _, wall, kind, text = row
    return Event(wall=wall, kind=EventKind.NOTE, text=text, name=kind, last=wall)


_ORDER_FIELDS = "id, wall, verb, epoch, accept_two_active, accept_loss"
_ORDER = f"SELECT {_ORDER_FIELDS}, by, state, why, used_by FROM orders WHERE id = ?"
_WAITING = f"SELECT {_ORDER_FIELDS} FROM orders WHERE state = 'waiting' ORDER BY id"
_ROUNDS = "SELECT wall, mine, theirs, votes FROM rounds WHERE wall BETWEEN ? AND ? ORDER BY wall DESC LIMIT ?"
_DECISIONS = (
    "SELECT id, wall, boot, boot_id, node, before, after, rule, because, action, votes, state, order_id,"
    " times, last FROM decisions WHERE wall BETWEEN ? AND ? ORDER BY id DESC LIMIT ?"
)
_WRITES = (
    "SELECT action, outcome, why, times, wall, last FROM steps WHERE (action LIKE ? OR action = ?)"
    " AND outcome IS NOT NULL AND wall <= ? ORDER BY id DESC LIMIT ?"
)
_BETWEEN = "WHERE wall BETWEEN ? AND ? ORDER BY wall DESC, id DESC LIMIT ?"
_EVENTS: tuple[tuple[str, Callable[[Any], Event]], ...] = (
    (f"SELECT id, wall, kind, text FROM notes {_BETWEEN}", _note_event),
    (f"SELECT id, wall, verb, by, state, why FROM orders {_BETWEEN}", _order_event),
    (
        f"SELECT id, wall, before, after, rule, because, times, last FROM decisions {_BETWEEN}",
        _decision_event,
    ),
    (
        f"SELECT id, wall, action, outcome, why, took, times, last FROM steps {_BETWEEN}",
        _step_event,
    ),
)
