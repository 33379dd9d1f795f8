"""What the core may ask of the outside world.

Every action is safe to repeat: after a crash we ask again.
"""

from dataclasses import dataclass

from .claim import Claim


@dataclass(frozen=True, slots=True)
class WriteClaim:
    """C2: compare-and-set, the whole old record as the prerequisite."""

    old: Claim
    new: Claim


@dataclass(frozen=True, slots=True)
class Fence:
    """Ask the other node to prove its PBX stopped (T4).

    In a hurry, a host that shows no life at once is taken for dead and not waited for: callers have waited for all of
    patience already, and the sums (T2) have stopped whoever lives there without an answer.
    """

    node: str
    epoch: int
    hurry: bool = False


@dataclass(frozen=True, slots=True)
class Promote:
    """Make our copy of the database the writable one."""


@dataclass(frozen=True, slots=True)
class Demote:
    """Make our database a copy again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the PBX here."""


@dataclass(frozen=True, slots=True)
class Prove:
    """See the PBX answer SIP here."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Our own PBX is dead or deaf: stop what is left of it and start it again."""


@dataclass(frozen=True, slots=True)
class Point:
    """Let the service name lead here."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Verify:
    """See every authoritative server send callers here."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the PBX here, and prove it (S5)."""


@dataclass(frozen=True, slots=True)
class ShutOff:
    """S5: the PBX could not be proved stopped; no SIP may leave or enter this machine."""


@dataclass(frozen=True, slots=True)
class AskPeer:
    """H2: is the other node ready to take over, for this epoch?"""

    epoch: int


@dataclass(frozen=True, slots=True)
class WakePeer:
    """Tell the other node that the claim has news for it."""


@dataclass(frozen=True, slots=True)
class CopyRest:
    """Our PBX is stopped: have the other node read what it has not copied yet."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew our copy from the node that is active in this epoch."""

    epoch: int


Action = (
    WriteClaim
    | Fence
    | Promote
    | Demote
    | Start
    | Prove
    | Restart
    | Point
    | Verify
    | Stop
    | ShutOff
    | AskPeer
    | WakePeer
    | CopyRest
    | Renew
)
