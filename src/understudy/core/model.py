"""The nouns: phases, what a node remembers, and what it has evidence of.

Times are boot-time seconds of this machine.  NEVER is earlier than all of them.
"""

from dataclasses import dataclass
from enum import StrEnum

from .claim import Claim
from .observations import Pbx, PeerAnswer
from .votes import Verdict

NEVER = float("-inf")


class Phase(StrEnum):
    """What a node is doing about its PBX."""

    STANDBY = "standby"  # The other node is active; our copy is kept current.
    SUSPECTING = "suspecting"  # The verdict on the active node is down; patience runs.
    TAKING_OVER = "taking-over"  # Calls are moving here.
    ACTIVE = "active"  # We serve.
    DOUBTED = "doubted"  # We serve, but a proof is too old: we may be the isolated one.
    HANDING_OVER = "handing-over"  # An orderly switchover to the other node.
    STEPPING_DOWN = "stepping-down"  # We must not serve any longer.
    SILENT = "silent"  # Nothing starts before the claim has been read.
    OUTDATED = "outdated"  # The other node took the claim; our copy may hold data that it lacks.
    REJOINING = "rejoining"  # Our copy is being renewed.
    HALTED = "halted"  # A step that must not fail has failed; a person decides.


SERVING = frozenset({Phase.ACTIVE, Phase.DOUBTED})


class Runbook(StrEnum):
    """Which ordered steps a moving phase works through; core.runbooks has them."""

    TAKE = "take"  # A failover.
    ORDERED = "ordered"  # A failover that a person ordered: the fence must be confirmed (H3).
    FORCED = "forced"  # The same, with two active accepted by that person.
    START = "start"  # The claim is ours already: handed over, returned, or ours from before.
    HAND = "hand"  # A switchover.
    STOP = "stop"  # Stop serving.
    GIVE_BACK = "give-back"  # Stop, and return the claim to the node that had it (T5).
    RENEW = "renew"  # A rejoin.
    SHUT_OFF = "shut-off"  # No SIP leaves or enters this machine (S5).


@dataclass(frozen=True, slots=True)
class Lineage:
    """Whose data this node has: that of `node` in `epoch`."""

    node: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the observations so far prove.  Only `core.evidence` makes new ones."""

    void_since: float = NEVER  # Nothing that was seen before this instant is a proof (S2, V5).
    void_why: str = ""
    claim: Claim | None = None  # The last one that was read and counts.
    epoch_at: float = NEVER  # When its epoch was first read here.
    claim_at: float = NEVER  # When that reading was asked for.
    claim_trouble: str = ""  # Why the newest reading does not count; empty if it does.
    proved_at: float = NEVER  # S1, proof 1: the claim is ours and not announced.
    announced_at: float = (
        NEVER  # Since when the announcement in `claim` has stood, as far as we saw.
    )
    round_at: float = NEVER  # When the last round was asked.
    mine: Verdict = Verdict.UNCLEAR  # What that round says about this node,
    theirs: Verdict = Verdict.UNCLEAR  # and about the other.
    up_since: float = NEVER  # V3: since when a majority says in each round that we are up.
    up_at: float = (
        NEVER  # S1, proof 2: when the last round was asked that such a time had led up to.
    )
    down_since: float = NEVER  # Since when the verdict on the other node is down, without a break.
    pbx: Pbx = Pbx.UNKNOWN
    stop_seen: bool = False  # We saw it run, and then saw it stopped on purpose: a person's doing.
    pbx_good_since: float = NEVER  # Since when our own PBX answers,
    pbx_bad_since: float = NEVER  # and since when it has not for longer than a moment.
    restarted_at: float = NEVER  # When we last tried to restart it.
    start_failed_at: float = NEVER  # When it last could not be started.
    peer: PeerAnswer | None = None
    strikes: tuple[float, ...] = ()  # When we struck announcements out, the last hour's (S4).


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that a node remembers from one decision to the next; the journal keeps it."""

    phase: Phase
    since: float
    runbook: Runbook | None = None
    step: int = 0  # Position in the runbook.
    epoch: int = 0  # C5: the highest that this node has ever seen.
    phase_epoch: int = 0  # `epoch` when the phase began.
    pointed: int = 0  # The epoch for which this node has led the name here.
    lineage: Lineage | None = None
    automatic: bool = True  # Did the program start what is going on, or a person?
    evidence: Evidence = Evidence()


def newborn(now: float) -> State:
    """A node that has never run: it stays silent until it has read the claim."""
    return State(phase=Phase.SILENT, since=now, evidence=Evidence(void_since=now))
