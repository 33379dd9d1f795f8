"""What the journal holds, as values: rounds, decisions, steps, orders, notes.

`wall` is wall clock seconds (for people, and across boots); `boot` is boot-time seconds of the machine.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from understudy.core.actions import (
    Action,
    AskPeer,
    CopyRest,
    Demote,
    Fence,
    Point,
    Promote,
    Prove,
    Renew,
    Restart,
    ShutOff,
    Start,
    Stop,
    Verify,
    WakePeer,
    WriteClaim,
)
from understudy.core.claim import Claim
from understudy.core.model import Phase, State
from understudy.core.observations import Health, Order, Pbx, Report, Round
from understudy.core.votes import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One report, as it is kept: the text only where the report is not `up`."""

    node: str
    checkpoint: str
    health: Health
    text: str = ""
    took: float = 0.0  # Seconds.


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRow:
    wall: float  # When the round was asked.
    mine: Verdict
    theirs: Verdict
    votes: tuple[Vote, ...]

    def asked_at(self, boot: float) -> Round:
        """The round as it was seen, its questions sent at boot time `boot`: for replays."""
        nodes = dict.fromkeys(vote.node for vote in self.votes)
        return Round(
            asked_at=boot,
            reports={
                node: tuple(
                    Report(vote.checkpoint, vote.health, vote.text, vote.took)
                    for vote in self.votes
                    if vote.node == node
                )
                for node in nodes
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """What a decision rested on."""

    asked: float | None = None  # Wall clock: when the round was asked; None before the first.
    mine: Verdict = Verdict.UNCLEAR
    theirs: Verdict = Verdict.UNCLEAR
    votes: tuple[Vote, ...] = ()
    claim: Claim | None = None
    claim_trouble: str = ""
    pbx: Pbx = Pbx.UNKNOWN
    patience: float = 0.0  # Seconds of it that were spent.


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    id: int
    wall: float
    boot: float
    boot_id: str
    node: str
    before: Phase
    after: Phase
    rule: str
    because: str
    action: str = ""  # In words; empty when it asked for nothing.
    votes: Votes = Votes()
    state: State  # After the decision.
    order: int | None = None  # The order that it used.
    times: int = 1  # So often in a row, with the same failure each time;
    last: float = 0.0  # and when for the last time (wall clock).


class OrderState(StrEnum):
    WAITING = "waiting"
    USED = "used"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    wall: float
    by: str
    order: Order
    state: OrderState
    why: str = ""  # Why it was used, or refused.
    decision: int | None = None


class EventKind(StrEnum):
    DECISION = "decision"
    STEP = "step"
    ORDER = "order"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the history."""

    wall: float
    kind: EventKind
    text: str
    name: str = ""  # The rule, the outcome, the order's fate, the kind of note.
    times: int = 1
    last: float = 0.0  # Wall clock; later than `wall` when it happened more than once.


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """A decision or a note, for those who tell people about it."""

    wall: float
    name: str  # The rule, or the kind of note.
    text: str
    before: Phase | None = None  # None: a note.
    after: Phase | None = None
    why: str = ""  # What went wrong just before, and led to the decision.


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """Messages that one notifier could not pass on."""

    notifier: str
    count: int
    since: float  # Wall clock: the oldest of them.
    why: str  # The last time.
    given_up: bool = False  # They are not tried any more.


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """A write of the claim or of the name that goes wrong again and again."""

    action: str  # In words.
    why: str  # The last time.
    times: int
    since: float  # Wall clock.
    last: float  # Wall clock.


# Rounds, compact: {"pbx01": {"cp1": "u12", "cp2": "d3001:7"}}: health, milliseconds, number of a text.

_LETTERS = {Health.UP: "u", Health.DOWN: "d", Health.UNKNOWN: "?"}
_HEALTHS = {letter: health for health, letter in _LETTERS.items()}
VERDICTS = {Verdict.UP: "u", Verdict.DOWN: "d", Verdict.UNCLEAR: "?"}
VERDICT_OF = {letter: verdict for verdict, letter in VERDICTS.items()}
_DUMP = json.JSONEncoder(separators=(",", ":")).encode


def round_to_text(asked: Round, number: Callable[[str], int]) -> str:
    """`number` keeps a text and says which it is."""
    return _DUMP(
        {
            node: {report.checkpoint: _short(report, number) for report in reports}
            for node, reports in asked.reports.items()
        }
    )


def votes_from_text(text: str, texts: Mapping[int, str]) -> tuple[Vote, ...]:
    """Raises ValueError for what `round_to_text` cannot have written."""
    found: dict[str, dict[str, str]] = json.loads(text)
    return tuple(
        _vote(node, checkpoint, short, texts)
        for node, reports in found.items()
        for checkpoint, short in reports.items()
    )


def votes_of(asked: Round | None) -> tuple[Vote, ...]:
    return tuple(
        Vote(
            node=node,
            checkpoint=report.checkpoint,
            health=report.health,
            text=report.text,
            took=report.took,
        )
        for node, reports in (asked.reports if asked is not None else {}).items()
        for report in reports
    )


def _short(report: Report, number: Callable[[str], int]) -> str:
    short = f"{_LETTERS[report.health]}{report.took * 1000:.0f}"
    if report.health is Health.UP or not report.text:
        return short
    return f"{short}:{number(report.text)}"


def _vote(node: str, checkpoint: str, short: str, texts: Mapping[int, str]) -> Vote:
    took, _, number = short[1:].partition(":")
    return Vote(
        node=node,
        checkpoint=checkpoint,
        health=_HEALTHS.get(short[:1], Health.UNKNOWN),
        text=texts.get(int(number), "") if number else "",
        took=int(took) / 1000,
    )


# Actions in words

WRITING = "write the claim: "
POINTING = "point the name here"

_PLAIN: dict[type[Any], str] = {
    Promote: "make our copy of the database the writable one",
    Demote: "make our database a copy again",
    Start: "start the PBX",
    Prove: "see the PBX answer here",
    Restart: "restart the PBX",
    Verify: "see every name server send callers here",
    Stop: "stop the PBX and prove it stopped",
    ShutOff: "shut SIP off on this machine",
    WakePeer: "tell the other node that the claim has news",
    CopyRest: "let the other node read the last of our data",
    Renew: "renew our copy from the active node",
}


def in_words(action: Action) -> str:
    """What is done, as an administrator would say it."""
    match action:
        case WriteClaim(old, new):
            return f"{WRITING}{_change(old, new)}"
        case Fence(node, epoch):
            return f"have {node} stop its PBX (epoch {epoch})"
        case Point():
            return POINTING
        case AskPeer(epoch):
            return f"ask the other node whether it is ready (epoch {epoch})"
    return _PLAIN[type(action)]


def _change(old: Claim, new: Claim) -> str:
    if new.node != old.node:
        return f"{new.node}, epoch {new.epoch}, {new.how}"
    if new.announced != old.announced:
        return (
            f"{new.announced} is about to take over"
            if new.announced
            else f"strike out that {old.announced} is about to take over"
        )
    if new.served != old.served:
        return f"{new.node} has answered calls"
    if new.digest != old.digest:
        return "our configuration holds"
    return "a new serial"
