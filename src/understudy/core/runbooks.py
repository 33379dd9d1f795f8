"""The ordered steps of the phases in which something moves.  Order is safety, so each place has its reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from .model import Runbook


class Step(StrEnum):
    """One step; `core.decide` turns it into the action for the claim of the moment."""

    ANNOUNCE = "announce"
    CLAIM = "claim"
    FENCE = "fence"
    PROMOTE = "promote"
    DEMOTE = "demote"
    START = "start"
    PROVE = "prove"
    SERVE = "serve"
    POINT = "point"
    VERIFY = "verify"
    ASK = "ask"
    STOP = "stop"
    COPY = "copy"
    HAND = "hand"
    RETURN = "return"
    WAKE = "wake"
    RENEW = "renew"
    SHUT_OFF = "shut-off"


# Their action is made from the claim as it was read.
NEED_THE_CLAIM = frozenset(
    {
        Step.ANNOUNCE,
        Step.CLAIM,
        Step.FENCE,
        Step.SERVE,
        Step.POINT,
        Step.ASK,
        Step.COPY,
        Step.HAND,
        Step.RETURN,
        Step.RENEW,
    }
)


class OnFailure(StrEnum):
    SKIP = "skip"  # Go on: nothing that follows depends on it.
    RETRY = "retry"  # Ask again, as long as we may be here at all.
    FAIL = "fail"  # The row for this failure says where to go.


@dataclass(frozen=True, slots=True)
class Entry:
    step: Step
    on_failure: OnFailure = OnFailure.FAIL
    # T3: begins with a fresh reading that says: ours, not announced.
    guarded: bool = False


_BRING_UP = (
    Entry(Step.PROMOTE, guarded=True),  # Before the PBX: it must find a database that it may write.
    Entry(Step.START, guarded=True),
    Entry(Step.PROVE),  # An exit code is no proof (T5).
    Entry(Step.SERVE, OnFailure.SKIP),  # From here on our data is the newest (T5, T6).
    Entry(Step.POINT, OnFailure.SKIP, guarded=True),  # Callers move once somebody can answer them.
    Entry(Step.VERIFY, OnFailure.SKIP),  # A server that lags behind is told, not waited for.
    # What was skipped, rows of the serving phases make up for: the PBX serves already.
)

RUNBOOKS: Mapping[Runbook, tuple[Entry, ...]] = {
    Runbook.TAKE: (
        Entry(Step.CLAIM),  # First: all that follows is safe only while the claim is ours (T1).
        Entry(Step.FENCE, OnFailure.SKIP, guarded=True),  # A dead node cannot obey.
        *_BRING_UP,
    ),
    Runbook.ORDERED: (
        Entry(Step.ANNOUNCE),  # First: with it standing the other node may not start its PBX (H3).
        Entry(Step.FENCE),  # Unconfirmed, the announcement is withdrawn.
        Entry(Step.CLAIM),
        *_BRING_UP,
    ),
    Runbook.FORCED: (
        Entry(Step.ANNOUNCE),
        Entry(Step.FENCE, OnFailure.SKIP),  # A person accepted that two may be active (H3).
        Entry(Step.CLAIM),
        *_BRING_UP,
    ),
    Runbook.START: _BRING_UP,
    Runbook.HAND: (
        Entry(Step.ASK),  # Before anything stops: the other node must be ready (H2).
        Entry(Step.STOP),
        # Nothing changes here any more: the other node reads the last difference.
        Entry(Step.COPY),
        Entry(Step.DEMOTE),
        # Only with our own PBX proved stopped (H1).  The write itself has the whole record as its prerequisite, and
        # an announcement of the node that it goes to is no reason against it.
        Entry(Step.HAND),
        Entry(Step.WAKE, OnFailure.SKIP),  # It would see it by itself, some seconds later.
    ),
    Runbook.STOP: (
        Entry(Step.STOP),
        Entry(Step.DEMOTE, OnFailure.SKIP),
    ),
    Runbook.GIVE_BACK: (
        Entry(Step.STOP),
        Entry(Step.DEMOTE, OnFailure.SKIP),
        Entry(Step.RETURN, OnFailure.RETRY),  # Only with our own PBX proved stopped (H1, T5).
    ),
    Runbook.RENEW: (Entry(Step.RENEW),),
    Runbook.SHUT_OFF: (
        Entry(Step.SHUT_OFF, OnFailure.RETRY),  # First: nothing else keeps callers from it now.
        Entry(Step.STOP, OnFailure.SKIP),
    ),
}
