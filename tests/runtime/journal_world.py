"""What the tests of the journal share: a clock that is set by hand, sights, and decisions."""

import random
import types
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from understudy.core.actions import Action
from understudy.core.claim import Claim, first
from understudy.core.decide import Decision
from understudy.core.model import NEVER, Phase, State
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


def some(kind: Any, dice: random.Random) -> Any:
    """Any value of a type that a state may hold."""
    if kind is float:
        return dice.choice([NEVER, 0.0, -1.5, dice.uniform(0, 1e9)])
    if kind is int:
        return dice.choice([0, 1, dice.randrange(10**12), 10**25])
    if kind is bool:
        return dice.random() < 0.5
    if kind is str:
        return dice.choice(["", "pbx01", "never", 'a "quoted" \\ line\n', "日本 \udc80", "\x00"])
    if get_origin(kind) is tuple:
        return tuple(some(get_args(kind)[0], dice) for _ in range(dice.randrange(4)))
    if isinstance(kind, types.UnionType):
        return some(dice.choice(get_args(kind)), dice)
    if kind is types.NoneType:
        return None
    if issubclass(kind, StrEnum):
        return dice.choice(list(kind))
    assert is_dataclass(kind), kind
    made: Any = kind
    hints = get_type_hints(kind)
    return made(**{field.name: some(hints[field.name], dice) for field in fields(kind)})
