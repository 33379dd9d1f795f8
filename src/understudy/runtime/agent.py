"""The agent: keeps looking, has every sight decided upon, and has one action done at a time.

It owns no loop.  A driver calls `wake` when the time that it returned has passed (asyncio in the daemon, virtual time
in the simulator) and runs what the agent starts; everything that comes back goes through `tick`.  Readings of the
claim, rounds of questions, looks at our own PBX and the action under way run beside each other, so a long step never
keeps the node from seeing that it has lost the claim (PROTOCOL S3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from understudy.core import pace
from understudy.core.actions import Action, Point, Prove, Restart, ShutOff, Start, Stop, WriteClaim
from understudy.core.decide import Decision
from understudy.core.model import NEVER, SERVING, State
from understudy.core.observations import (
    ClaimReading,
    Order,
    Pbx,
    Report,
    Result,
    Round,
    Seen,
)
from understudy.core.policy import Policy
from understudy.ports import Clock, Loop, Moment, Probe, Task

from . import tick as turns
from .perform import Performed, World, perform

JUMP = 2.0  # Seconds by which two clocks of one machine may drift apart between two wakes (V5).
LATER = float("inf")  # Under way: the next time is planned when it is back.
SLEEP = 1.0  # Seconds that the machine may have slept: CLOCK_BOOTTIME against CLOCK_MONOTONIC.


class AgentJournal(turns.Journal, Protocol):
    """The journal, with what a person may have put there."""

    adopted: Policy | None  # The values that hold here (C6).

    def next_order(self) -> Order | None: ...


@dataclass(slots=True)
class Agent:
    world: World
    probes: Sequence[Probe]
    journal: AgentJournal
    configured: Policy
    clock: Clock
    loop: Loop
    jitter: Callable[[], float] = lambda: 1.0  # V4: a factor for the next interval, 0.9 to 1.1.
    broken_glass: Callable[[], bool] = lambda: False
    on_turn: Callable[[Decision], None] = lambda _: None
    policy: Policy = field(init=False)
    _running: Task | None = None  # The one action that is being done.
    _touches_pbx: bool = False  # That starts or stops our own PBX: a look says nothing meanwhile.
    _writing: bool = False  # That is a write of the claim: whatever is read meanwhile is overtaken.
    _reading: Task | None = None
    _offered: int = 0  # The order that the last turn was offered.
    _has_read: bool = False  # Orders wait for the first reading: no order is judged blindly.
    _asking: Task | None = None
    _looking: Task | None = None
    _reading_from: float = NEVER
    _reading_due: float = NEVER
    _round_due: float = NEVER
    _look_due: float = NEVER
    _turn_due: float = NEVER
    _rest_until: float = NEVER
    _factor: float = 1.0
    _generation: int = 0  # Of our own PBX: a look from before an action says nothing after it.
    _last: Moment | None = None

    def __post_init__(self) -> None:
        self.policy = self.configured

    @property
    def state(self) -> State:
        return self.journal.state

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def begin(self, *, booted: bool, ask_now: bool = False) -> None:
        """This process has just started, on a machine that has booted since the last one (or not).

        With `ask_now` the first round does not wait until an interval after the last one (cron keeps the time).
        """
        self._factor = 0.0 if ask_now else 1.0
        self.policy = self._policy_to_begin_with()
        self._see(started=True, booted=booted)

    def wake(self) -> float:
        """Start what is due; return in how many seconds to be called again, at the latest."""
        at = self.clock.now()
        jump = self._jump(at)
        self._last = at
        if jump:
            self._reading_from = NEVER  # What was read before is void: read again at once.
            self._see(voided=jump)
        now = at.boot
        if now >= self._reading_due and not self._writing:
            self._read_claim()
        if now >= self._round_due:
            self._ask_check_points()
        if now >= self._look_due:
            self._look_at_pbx()
        if now >= self._turn_due or self._order_is_new():
            self._see()
        return max(self.due - now, pace.TICK)

    @property
    def due(self) -> float:
        """The boot-time second at which `wake` has something to start, as far as is known now."""
        return min(self._reading_due, self._round_due, self._look_due, self._turn_due)

    def _order_is_new(self) -> bool:
        """An order that has to wait is looked at again with whatever happens next."""
        order = self.journal.next_order() if self._has_read else None
        return order is not None and order.id != self._offered

    def hurry(self) -> None:
        """Read the claim now: the other node, or a person, has changed it."""
        if self._reading is None and not self._writing:
            self._read_claim()

    def look(self) -> None:
        """Look at our own PBX now: something has happened to it, which a look under way may have missed."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._look_at_pbx()

    # What to look at

    def _read_claim(self) -> None:
        self._reading_due = LATER
        self._reading_from = self.clock.now().boot
        work = self.world.keeper.read(self.state.evidence.claim)
        self._reading = self.loop.start(work, self._claim_read)

    def _claim_read(self, reading: ClaimReading) -> None:
        self._reading = None
        self._has_read = True
        self._see(claim=reading)

    def _ask_check_points(self) -> None:
        self._round_due = LATER
        self._factor = self.jitter()
        self._asking = self.loop.start(self._ask(), self._asked)

    async def _ask(self) -> Round:
        """V1: all check points about both nodes, once, at about the same instant."""
        asked_at = self.clock.now().boot
        nodes = (self.policy.me, self.policy.peer)
        reports = await self.loop.gather(
            *(probe.ask(node) for node in nodes for probe in self.probes)
        )
        count = len(self.probes)
        by_node: Mapping[str, tuple[Report, ...]] = {
            nodes[0]: tuple(reports[:count]),
            nodes[1]: tuple(reports[count:]),
        }
        return Round(asked_at=asked_at, reports=by_node)

    def _asked(self, asked: Round) -> None:
        self._asking = None
        self._see(round=asked)

    def _look_at_pbx(self) -> None:
        now = self.clock.now().boot
        self._look_due = now + pace.next_look(self.state, self.policy)
        if self._looking is None:
            self._looking = self.loop.start(self._look(self._generation), self._looked)

    async def _look(self, generation: int) -> tuple[int, Pbx]:
        return generation, await self.world.service.look()

    def _looked(self, found: tuple[int, Pbx]) -> None:
        self._looking = None
        generation, pbx = found
        current = generation == self._generation and not self._touches_pbx
        if current and pbx is not self.state.evidence.pbx:
            self._see(pbx=pbx)
            soon = self.clock.now().boot + pace.next_look(self.state, self.policy)
            self._look_due = min(self._look_due, soon)

    # What to do about it

    def _see(self, **new: Any) -> None:
        """Have what is new (fields of Seen) decided upon, and do what the decision asks for."""
        at = self.clock.now()
        before = self.state
        order = self.journal.next_order() if self._has_read else None
        self._offered = order.id if order is not None else 0
        seen = Seen(
            order=order,
            busy=self._running is not None or at.boot < self._rest_until,
            break_glass=self.broken_glass(),
            stale_from=self.world.copies.stale_from(at),
            **new,
        )
        decision = turns.tick(self.journal, seen, at, self.policy)
        after = self.state
        if after.phase is not before.phase or after.runbook is not before.runbook:
            self._cancel()
        if decision.action is not None:
            self._do(decision)
        if self.journal.adopted is not self.configured:
            self._adopt()
        self._plan(at.boot)
        self.on_turn(decision)

    def _do(self, decision: Decision) -> None:
        assert decision.action is not None
        self._cancel()
        action = decision.action
        self._writing = isinstance(action, WriteClaim)
        if self._writing and self._reading is not None:
            self._reading.cancel()  # It would take our own write for a lost one (C2).
            self._reading = None
        self._touches_pbx = isinstance(action, Start | Prove | Stop | Restart | ShutOff)
        if self._touches_pbx:
            self._generation += 1
        work = perform(
            self.world, action, guarded=decision.guarded, known=self.state.evidence.claim
        )
        self._running = self.loop.start(work, lambda performed: self._done(action, performed))

    def _done(self, action: Action, performed: Performed) -> None:
        self._running = None
        self._writing = self._touches_pbx = False
        done = performed.outcome.result is Result.DONE
        if not done:
            self._rest_until = self.clock.now().boot + self._rest
        self._see(
            outcome=performed.outcome,
            claim=performed.claim,
            peer=performed.peer,
            pbx=_proved(action) if done else None,
            pointed=action.claim.epoch if done and isinstance(action, Point) else None,
        )

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None
            self._writing = self._touches_pbx = False

    @property
    def _rest(self) -> float:
        return min(2.0, self.policy.claim_stale / 3)

    # Time

    def _plan(self, now: float) -> None:
        """When to look next; whatever was seen or decided may have changed it."""
        state, policy = self.state, self.policy
        self._turn_due = now + pace.next_turn(state, now, policy)
        if now < self._rest_until < self._turn_due:
            self._turn_due = self._rest_until
        if self._reading is None:
            again = self._reading_from + policy.claim_stale / 3  # Also when it has failed.
            due = now + pace.next_reading(state, now, policy)
            self._reading_due = again if again > due else due
        if self._asking is None:
            self._round_due = now + pace.next_round(state, now, policy, self._factor)

    def _jump(self, at: Moment) -> str:
        """V5: did this machine stand still, or do its clocks disagree about how long it was?"""
        if self._last is None:
            return ""
        boot, wall = at.boot - self._last.boot, at.wall - self._last.wall
        slept = boot - (at.monotonic - self._last.monotonic)
        if slept > SLEEP:
            return f"this machine slept for {slept:.0f} s"
        if abs(wall - boot) > JUMP:
            return f"the clock of this machine jumped by {wall - boot:+.0f} s"
        return ""

    # C6

    def _policy_to_begin_with(self) -> Policy:
        """A node that serves goes on with the old values until the claim says the new ones."""
        old = self.journal.adopted
        if old is None or old.digest == self.configured.digest or self.state.phase not in SERVING:
            return self.configured
        return replace(old, digest=self.configured.digest)

    def _adopt(self) -> None:
        claim = self.state.evidence.claim
        if self.journal.adopted == self.configured or claim is None:
            return
        if claim.digest == self.configured.digest or self.state.phase not in SERVING:
            self.policy = self.configured
            self.journal.adopted = self.configured


def _proved(action: Action) -> Pbx | None:
    """What the success of an action says about our own PBX."""
    match action:
        case Stop():
            return Pbx.STOPPED
        case Prove():
            return Pbx.ANSWERING
        case Start() | Restart():
            return Pbx.STARTING
        case ShutOff():
            return Pbx.UNKNOWN  # It may run on, and nobody can reach it: the next look tells.
    return None
