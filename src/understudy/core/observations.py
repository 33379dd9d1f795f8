"""What the outside world told us.  Times are boot-time seconds of this machine unless they say otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from .claim import Claim


class Health(StrEnum):
    """One check point's answer about one node, and what the answers of a round amount to."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"  # Could not ask, could not tell.  Never evidence of death.


@dataclass(frozen=True, slots=True)
class Report:
    """What one check point said about one node."""

    checkpoint: str
    health: Health
    text: str = ""
    took: float = 0.0  # Seconds from the question to the answer.


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """V1: all check points, asked about both nodes, once, at about the same instant."""

    asked_at: float  # When the questions were sent: ages count from here.
    reports: Mapping[str, tuple[Report, ...]]  # By node.


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimReading:
    """What the server that decides said.  `claim` is None when it could not be read, or is missing (C4)."""

    asked_at: float
    claim: Claim | None
    trouble: str = ""  # Why there is no claim, or why it proves nothing.


class Pbx(StrEnum):
    """Our own PBX, seen from this machine."""

    ANSWERING = "answering"  # Runs, and answers SIP here.
    DEAF = "deaf"  # Runs, and does not answer SIP here.
    STARTING = "starting"  # On its way: ours, or the service manager's own restart.
    DEAD = "dead"  # Gone, and nobody asked it to go.
    STOPPED = "stopped"  # Stopped on purpose: by us, or by a person.
    UNKNOWN = "unknown"  # Could not tell.


class Ready(StrEnum):
    """What the other node says when we ask whether it could take over (H2)."""

    YES = "yes"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAnswer:
    """What the other node's agent said of itself."""

    asked_at: float
    ready: Ready
    epoch: int  # The epoch that it answered for.
    why: str = ""


class Verb(StrEnum):
    """What a person may order an agent to do."""

    FAILOVER = "failover"
    SWITCHOVER = "switchover"
    REJOIN = "rejoin"
    FENCE = "fence"  # The other node's agent asks for it (T4).


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order, placed in the journal; used once, with the decision that it caused."""

    id: int
    verb: Verb
    epoch: int = 0  # T4: a fence is for the node that has an epoch below this one.
    accept_two_active: bool = False
    accept_loss: bool = False


class Result(StrEnum):
    """How an action went."""

    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # T3: the reading before it said: not ours, or announced.  Nothing was done.
    UNSURE = (
        "unsure"  # T3: the claim could not be read before it.  Nothing was done; worth another try.
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the action that we last asked for went, in a word and in a sentence."""

    result: Result
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is new since the last decision.  None means: nothing new of that kind."""

    claim: ClaimReading | None = None
    round: Round | None = None
    pbx: Pbx | None = None
    peer: PeerAnswer | None = None
    order: Order | None = None
    outcome: Outcome | None = None
    pointed: int | None = None  # The name was led here, for the claim of this epoch.
    busy: bool = False  # An action is running.
    break_glass: bool = False  # A person started the PBX with everything of ours broken.
    # From this instant on our copy is too old to serve with (on_stale = "refuse").
    stale_from: float = inf
    started: bool = False  # S2: this process has just started.
    booted: bool = False  # The machine has booted since the last decision.
    voided: str = (
        ""  # V5: why no earlier sight proves anything ("the machine stood still for 40 s").
    )


NOTHING = Seen()
