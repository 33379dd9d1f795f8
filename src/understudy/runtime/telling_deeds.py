"""Which decisions and notes of the journal are told, and as what.  Pure but for the two queries.

The node that acts tells: a failover is the taker's to tell, a hand-over the one's who serves afterwards.
"""

import heapq
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from understudy.core.model import Phase
from understudy.core.rules import RULES

from .journal_rows import Deed
from .telling_words import capital

MOST = 200  # Decisions, or notes, that are taken up at once.

# The rule that began a take-over says what its end is called.
_TAKEN: Mapping[str, str] = {
    "patience-spent": "failover-done",
    "failover-ordered": "failover-ordered",
    "failover-forced": "failover-ordered",
    "failover-lossy": "failover-ordered",
    "failover-lossy-forced": "failover-ordered",
}
_RULES: Mapping[str, str] = {
    "claim-taken-from-us": "returned",
    "start-failed-return": "start-failed",
    "start-failed": "start-failed",
    "stop-failed": "halted",
    "returned-twice": "halted",
    "start-failed-again": "halted",
    "pbx-restart": "pbx-restarted",
    "pbx-lost": "handing-over",
    "hand-failed": "hand-over-failed",
    "fence-unconfirmed": "order-failed",
    "announcement-gone": "order-failed",
    "order-interrupted": "order-failed",
    "rejoin-done": "rejoin-done",
    "rejoin-failed": "rejoin-failed",
}
_NOTES: Mapping[str, str] = {"companion": "companion-failed"}
# By a message of their own: the failed start, and the outdated node that is back.
_STOPPING_IS_TOLD = ("start-failed-return", "start-failed", "other-holds-claim")
_GAVE = {
    True: "It had served nobody, so the claim was given back to the other node",
    False: "What had started of it was stopped, and it is tried again after a while",
}
BECAUSE = {rule.name: rule.because for rules in RULES.values() for rule in rules}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far the journal is told."""

    decision: int = -1  # -1: nothing yet; the past is not told.
    note: int = -1
    began: str = ""  # The rule that led into the phase of this moment.


def kinds_of(deed: Deed, began: str, *, returned: bool = False) -> tuple[str, ...]:
    """What it is told as; most of what happens is not.

    `returned`: the claim of this moment was given back by a node that could not serve (T5).
    """
    if deed.before is None:
        return _kinds_of_note(deed)
    match deed.name:
        case "take-over-done":
            handed = began == "claim-given" and not returned
            kind = "switchover-done" if handed else _TAKEN.get(began, "serves-again")
            return (kind, "name-server-behind") if deed.why else (kind,)
        case "take-refused":
            return ("failover-failed" if began == "patience-spent" else "order-failed",)
        case "stepped-down" if began == "stray-pbx":
            return ("stray-pbx",)
        case "stepped-down":
            return () if began in _STOPPING_IS_TOLD else ("stepped-down",)
    kind = _RULES.get(deed.name, "")
    return (kind,) if kind else ()


def fields_of(deed: Deed, began: str) -> dict[str, str]:
    return {
        "text": without_letters(deed.text),
        "why": f"  {capital(deed.why)}." if deed.why else "",
        "began": without_letters(BECAUSE.get(began, deed.text)),
        "gave": _GAVE[deed.name == "start-failed-return"],
    }


def without_letters(because: str) -> str:
    """The letters of PROTOCOL.md say nothing at night."""
    text, bracket, rest = because.rpartition(" [")
    return text if bracket and rest.endswith("]") else because.rstrip(".")


def after(deed: Deed, began: str) -> str:
    """The rule that led into the phase after it."""
    moved = deed.before is not None and deed.after is not deed.before
    return deed.name if moved else began


def _kinds_of_note(deed: Deed) -> tuple[str, ...]:
    match deed.name:
        case "protection":
            return ("not-protected" if "NOT PROTECTED" in deed.text else "protected",)
        case "glass":
            return ("glass-whole" if "whole" in deed.text else "break-glass",)
    kind = _NOTES.get(deed.name, "")
    return (kind,) if kind else ()


def newest(db: sqlite3.Connection) -> Cursor:
    """The end of the journal.  Raises sqlite3.Error."""
    decision = db.execute("SELECT max(id) FROM decisions").fetchone()[0]
    note = db.execute("SELECT max(id) FROM notes").fetchone()[0]
    began = db.execute(
        "SELECT rule FROM decisions WHERE before <> after ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return Cursor(decision=decision or 0, note=note or 0, began=began[0] if began else "")


def since(db: sqlite3.Connection, cursor: Cursor) -> tuple[list[Deed], int, int]:
    """What was decided and noted after it, oldest first; and the last number of each.  Raises sqlite3.Error."""
    decisions = db.execute(_DECISIONS, (cursor.decision, MOST)).fetchall()
    notes = db.execute(_NOTED, (cursor.note, MOST)).fetchall()
    decided = [
        Deed(
            wall=wall,
            name=rule,
            text=because,
            before=Phase(before),
            after=Phase(after),
            why=why or "",
        )
        for _, wall, before, after, rule, because, why in decisions
    ]
    noted = [Deed(wall=wall, name=kind, text=text) for _, wall, kind, text in notes]
    # Not sorted: where a clock was set back, decisions keep their order all the same.
    deeds = list(heapq.merge(decided, noted, key=lambda each: each.wall))
    last_decision = decisions[-1][0] if decisions else cursor.decision
    last_note = notes[-1][0] if notes else cursor.note
    return deeds, last_decision, last_note


# The outcome that led to a decision is written with it, at the same moment.
_DECISIONS = (
    "SELECT id, wall, before, after, rule, because, (SELECT why FROM steps WHERE steps.wall <= decisions.wall"
    " AND steps.last = decisions.wall AND outcome = 'failed' ORDER BY steps.id DESC LIMIT 1)"
    " FROM decisions WHERE id > ? ORDER BY id LIMIT ?"
)
_NOTED = (
    "SELECT id, wall, kind, text FROM notes WHERE id > ? AND kind IN ('protection', 'glass', 'companion')"
    " ORDER BY id LIMIT ?"
)
