"""How a node stands, as one value.  Its fields are the keys of `status --json`: they only grow."""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.claim import Claim
from understudy.core.model import Phase
from understudy.core.observations import Pbx
from understudy.core.votes import Verdict

from .journal_rows import Event, Failing, Undelivered, Vote

MUTE = 15.0  # Seconds: an agent that runs writes every five.


class Level(StrEnum):
    """How much it matters; the values of a monitoring plugin (monitoring-plugins.org guidelines)."""

    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


class Code(StrEnum):
    """What is wrong, in a word."""

    AGENT = "agent"  # It has not written for too long.
    JOURNAL = "journal"
    HALTED = "halted"
    TWO_MAY_BE_ACTIVE = "two-may-be-active"
    TWO_ANSWER = "two-answer"  # Our PBX, and by the check points the other one too.
    NOBODY_SERVES = "nobody-serves"
    TAKER_DEAD = "taker-dead"  # PROTOCOL T6, last sentence.
    PBX = "pbx"  # Our own is dead, deaf or stopped while we are active.
    RETURNED = "returned"  # The claim was given back twice (T5).
    CLAIM = "claim"  # It cannot be read, or proves nothing.
    NAME = "name"  # It does not lead here, though this node is the active one.
    FAILING = "failing"  # A write is refused, or fails, again and again.
    DISAGREE = "checkpoints-disagree"
    TOO_FEW = "checkpoints-too-few"  # Too few of them answer for any verdict.
    CHECKPOINT = "checkpoint"  # One of them cannot tell; the others can.
    DOUBTED = "doubted"
    ANNOUNCED = "announced"  # The other node is about to take over from us.
    STRIKES = "strikes"  # Three announcements struck out in an hour (S4).
    START_FAILED = "start-failed"
    OUTDATED = "outdated"
    OTHER_CONFIGURATION = "other-configuration"  # C6.
    PAUSED = "paused"  # C7.
    MAIL = "mail"  # People could not be told.
    SETTLING = "settling"  # `settle_down` after an automatic change.


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    code: Code
    level: Level
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What the last round said about one node."""

    node: str
    verdict: Verdict
    votes: tuple[Vote, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds."""

    total: float
    spent: float
    remaining: float
    announced: bool
    announces_in: float | None
    takes_in: float  # At the earliest.


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """S1: ages in seconds; None is: never."""

    claim_age: float | None
    claim_stale: float
    checkpoints_age: float | None
    checkpoints_stale: float

    @property
    def claim_is_fresh(self) -> bool:
        return self.claim_age is not None and self.claim_age <= self.claim_stale

    @property
    def checkpoints_are_fresh(self) -> bool:
        age = self.checkpoints_age
        return age is not None and age <= self.checkpoints_stale


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The program on this node."""

    pid: int | None  # None: no process holds the journal now (cron: between two rounds).
    heartbeat_age: float | None  # Seconds since it last wrote; None: never.
    late_after: float  # Seconds.
    is_daemon: bool = False  # The last one was no round by cron.

    @property
    def is_late(self) -> bool:
        return self.heartbeat_age is None or self.heartbeat_age > self.late_after

    @property
    def is_mute(self) -> bool:
        """It runs, and what it has in its journal is old."""
        return self.pid is not None and (self.heartbeat_age is None or self.heartbeat_age > MUTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Times are wall clock seconds, ages seconds; None is: never, or not now."""

    node: str
    peer: str
    phase: Phase
    since: float  # When the phase began.
    seconds: float  # How long ago that was.
    automatic: bool  # Did the program bring it about, or a person?
    step: str  # Of a moving phase.
    active: str  # The node in the claim; "" when it is not known.
    serving: str  # The node that answers calls, as far as this node can tell; "" is nobody, or not known.
    nobody_serves: bool  # It is known that nobody does.
    epoch: int
    data_of: str  # Whose data is here; "" when that is not known.
    pbx: Pbx
    claim: Claim | None
    claim_age: float | None
    claim_trouble: str
    round_age: float | None
    nodes: tuple[NodeView, ...]  # This one, then the other.
    patience: Patience | None  # While the other node is suspected.
    proofs: Proofs | None  # While this node serves.
    paused_until: float | None
    settles_until: float | None
    waiting_for: str
    agent: Agent
    journal_trouble: str
    failing: tuple[Failing, ...]  # Writes that go wrong again and again.
    troubles: tuple[Trouble, ...]  # The worst first.
    events: tuple[Event, ...]
    undelivered: tuple[Undelivered, ...] = ()  # Messages that wait for too long, or were given up.
