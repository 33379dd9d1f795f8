"""What the tests of the journal share: a clock that is set by hand, sights, and decisions."""

from dataclasses import dataclass, field
from pathlib import Path

from understudy.core.actions import Action
from understudy.core.claim import Claim, first
from understudy.core.decide import Decision
from understudy.core.model import Phase, State
from understudy.core.observations import ClaimReading, Health, Order, Report, Round, Seen
from understudy.core.policy import Policy
from understudy.core.rules import RULES, Rule
from understudy.ports import Moment
from understudy.runtime.journal import SqliteJournal
from understudy.runtime.tick import tick

WALL = 1_800_000_000.0
CHECKPOINTS = ("cp1", "cp2", "cp3")
POLICY = Policy(me="pbx02", peer="pbx01", digest="d1")
BOOT_ID = "9f2c6f3e-0000-4000-8000-000000000001"


@dataclass
class HandClock:
    """ports.Clock."""

    boot: float = 1000.0
    wall: float = WALL

    def now(self) -> Moment:
        return Moment(boot=self.boot, wall=self.wall, monotonic=self.boot)

    def pass_(self, seconds: float) -> None:
        self.boot += seconds
        self.wall += seconds


@dataclass
class Node:
    """A node without a network: its journal, and the real tick."""

    path: Path
    clock: HandClock = field(default_factory=HandClock)
    policy: Policy = POLICY
    keep_days: float = 90

    def __post_init__(self) -> None:
        self.journal = SqliteJournal(self.path, self.clock, keep_days=self.keep_days)

    def is_in(self, phase: Phase) -> bool:
        return self.journal.state.phase is phase

    def start(self, boot_id: str = BOOT_ID) -> bool:
        booted = self.journal.begin(boot_id, node=self.policy.me)
        self.see(Seen(started=True, booted=booted))
        return booted

    def see(self, seen: Seen) -> Decision:
        return tick(self.journal, seen, self.clock.now(), self.policy)

    def read(self, claim: Claim | None, trouble: str = "") -> Decision:
        return self.see(
            Seen(claim=ClaimReading(asked_at=self.clock.boot, claim=claim, trouble=trouble))
        )

    def ask(self, mine: str = "ddd", theirs: str = "uuu", *, why: str = "no answer") -> Decision:
        return self.see(
            Seen(round=asked(self.clock.boot, mine, theirs, why=why, policy=self.policy))
        )

    def crash(self) -> None:
        """The process is gone; a new one opens the journal."""
        self.journal._close()
        self.journal = SqliteJournal(self.path, self.clock, keep_days=self.keep_days)

    def suspect(self) -> None:
        """A standby that has begun to miss the active node."""
        self.start()
        self.read(first("pbx01", digest="d1", epoch=7))
        self.ask()
        self.clock.pass_(60)
        self.ask(theirs="ddd")
        assert self.is_in(Phase.SUSPECTING)


def asked(
    at: float, mine: str, theirs: str, *, why: str = "no answer", policy: Policy = POLICY
) -> Round:
    """One letter per check point: u, d or ? ."""
    healths = {"u": Health.UP, "d": Health.DOWN, "?": Health.UNKNOWN}
    return Round(
        asked_at=at,
        reports={
            node: tuple(
                Report(name, healths[letter], "SIP OK" if letter == "u" else why, 0.012)
                for name, letter in zip(CHECKPOINTS, letters, strict=True)
            )
            for node, letters in ((policy.me, mine), (policy.peer, theirs))
        },
    )


def rule(phase: Phase, name: str) -> Rule:
    return next(each for each in RULES[phase] if each.name == name)


def decided(
    state: State,
    *,
    by: Rule | None = None,
    action: Action | None = None,
    order: Order | None = None,
) -> Decision:
    return Decision(state, by, action, order)
