"""How strict and how patient to be.  Both nodes of a pair run with the same numbers (PROTOCOL C6)."""

from dataclasses import dataclass
from enum import StrEnum


class Agreement(StrEnum):
    """V2: what makes the verdict `down`."""

    UNANIMOUS = (
        "unanimous"  # A majority of the configured check points answers, and every answer is down.
    )
    MAJORITY = "majority"  # More than half of the configured check points say down.
    ALL = "all"  # Every configured check point says down: the article of 2011.


class Isolation(StrEnum):
    """What an active node does when nobody can tell it any more that it is the one."""

    STOP = "stop"  # Never two active; this office falls silent.
    KEEP = "keep"  # This office goes on telephoning; two may be active.


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All times are seconds.  The defaults are the article's numbers."""

    me: str
    peer: str
    isolation: Isolation = Isolation.STOP
    checkpoints: int = 3  # How many are configured.
    agreement: Agreement = Agreement.UNANIMOUS
    interval: float = 60.0
    patience: float = 300.0
    announce: float = 45.0
    claim_stale: float = 15.0
    checkpoints_stale: float = 90.0
    question: float = 10.0  # The deadline of one question to a check point.
    claim_reading: float = 3.0  # The deadline of one reading of the claim.
    stop_within: float = 25.0
    restart_grace: float = 20.0
    settle_down: float = 600.0
    first_proof: float = 15.0  # How long an agent without any proof may look for its first (S2).
    hurry: float = 5.0  # V4: between two rounds while something is about to happen.
    digest: str = ""

    @property
    def quick(self) -> float:
        """V4: how often a node asks while something is about to happen."""
        return min(self.interval, self.hurry)

    @property
    def announce_after(self) -> float:
        """T1: how long suspicion lasts before it is announced.

        The last question may be asked `question` before patience ends, and its answer is there when it does.
        """
        return self.patience - self.announce - self.question

    @property
    def ask_ahead(self) -> float:
        """H2: how long before `restart_grace` is over the other node is asked; the answer is fresh when it is."""
        return self.claim_stale / 2

    @property
    def span(self) -> float:
        """V3: how long "up" must have held: so long that the other node has asked in between, whenever it asks."""
        return 1.1 * self.interval + self.question

    @property
    def outlives(self) -> float:
        """T2, for a node that a person has declared: the other one has stopped by then, whatever it could see."""
        rounds = 2 * self.interval + self.question
        return max(self.announce, self.checkpoints_stale + self.stop_within + rounds)

    @property
    def late(self) -> float:
        """V5: rounds that are further apart than this are no unbroken sight."""
        return 2 * self.interval + self.question
