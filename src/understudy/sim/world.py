"""The pair in memory: two machines, three check points, a claim, name servers, and the network between them.

Everything that the agent meets is a fake of a port, on virtual time; the agent itself, its tick and its core are the
real ones.
"""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf

from understudy.core import pace
from understudy.core.claim import Claim, first
from understudy.core.decide import Decision
from understudy.core.model import NEVER, Phase, Runbook, State, newborn
from understudy.core.observations import (
    Health,
    Order,
    Pbx,
    PeerAnswer,
    Report,
    Seen,
    Verb,
)
from understudy.core.policy import Isolation, Policy
from understudy.errors import (
    ClaimMissing,
    Denied,
    NotStopped,
    Unanswered,
    Unreachable,
)
from understudy.ports import Moment
from understudy.runtime.agent import Agent
from understudy.runtime.door import fence_refusal, is_stopped, readiness
from understudy.runtime.keeper import Keeper
from understudy.runtime.perform import World

from .loop import MachineLoop, Sleep, VirtualLoop

NODES = ("pbx01", "pbx02")
CHECKPOINTS = ("cp1", "cp2", "cp3")
PRIMARY, SECONDARY = "ns1", "ns2"
WALL_AT_START = 1_800_000_000.0


@dataclass
class Network:
    """Who reaches whom.  One-way cuts; loss is a chance per exchange."""

    dice: random.Random
    cut: set[tuple[str, str]] = field(default_factory=set)
    loss: float = 0.0
    delay: float = 0.0  # Seconds that an exchange takes, at most.

    def carries(self, here: str, there: str, tries: int = 1) -> bool:
        """Does a question get there and its answer back, in so many tries?"""
        if (here, there) in self.cut or (there, here) in self.cut:
            return False
        return self.loss == 0.0 or any(self.dice.random() >= self.loss for _ in range(tries))

    def reaches(self, here: str, there: str) -> bool:
        """Is there a way at all, both ways?"""
        return (here, there) not in self.cut and (there, here) not in self.cut and self.loss == 0.0

    def carries_there(self, here: str, there: str) -> bool:
        return (here, there) not in self.cut

    def separate(self, here: str, there: str, *, one_way: bool = False) -> None:
        self.cut.add((here, there))
        if not one_way:
            self.cut.add((there, here))

    def join(self, here: str, there: str) -> None:
        self.cut -= {(here, there), (there, here)}


class FakePbx:
    """ports.Service: a PBX that can die, go deaf, refuse to start, and be touched by a person."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.is_ = Pbx.STOPPED
        self.start_takes = 0.8
        self.stop_takes = 0.6
        self.cannot_start = False
        self.cannot_stop = False
        self.cannot_be_shut_off = False
        self.dies_when_called = False  # The dialplan kills it.
        self.is_shut_off = False
        self._starts = 0

    @property
    def serves(self) -> bool:
        """Could a caller be answered by it now?"""
        runs = self.is_ is Pbx.ANSWERING
        return (
            runs and self.machine.has_power and not self.is_shut_off and not self.machine.is_frozen
        )

    def become(self, pbx: Pbx) -> None:
        """Whatever happens to it happens here, so that the pair notices two that serve."""
        if pbx is not self.is_:
            self.machine.pair.tell(self.machine.name, f"the PBX is {pbx}")
            self.is_ = pbx
            self.machine.pair.check()

    async def start(self) -> None:
        self.is_shut_off = False
        if self.is_ in (Pbx.STARTING, Pbx.ANSWERING):
            return
        self.become(Pbx.STARTING)
        self._starts += 1
        count = self._starts
        self.machine.pair.later(self.start_takes, lambda: self._come_up(count))

    async def prove(self) -> None:
        while self.is_ is Pbx.STARTING:
            await Sleep(0.1)
        if self.is_ is not Pbx.ANSWERING:
            raise Unreachable("the PBX ended before it answered")

    def _come_up(self, count: int) -> None:
        if self.is_ is not Pbx.STARTING or count != self._starts:
            return
        came_up = Pbx.DEAD if self.cannot_start else Pbx.ANSWERING
        self.become(came_up)
        if self.dies_when_called and came_up is Pbx.ANSWERING:
            self.machine.pair.later(5.0, self.die)

    def die(self) -> None:
        if self.is_ in (Pbx.ANSWERING, Pbx.STARTING, Pbx.DEAF):
            self.become(Pbx.DEAD)

    async def stop(self) -> None:
        if self.is_ in (Pbx.STOPPED, Pbx.DEAD):
            self.become(Pbx.STOPPED)
            return
        await Sleep(self.stop_takes)
        if self.cannot_stop:
            raise NotStopped("the PBX process does not go away")
        self.become(Pbx.STOPPED)

    async def shut_off(self) -> None:
        if self.cannot_be_shut_off:
            raise NotStopped("the packet filter refuses the rule")
        self.is_shut_off = True
        self.machine.pair.check()

    async def ended(self) -> None:
        """Only the daemon asks; in stories the PBX is seen to have died at the next look, which is later."""
        await Sleep(float("inf"))

    async def look(self) -> Pbx:
        if self.is_shut_off and self.is_ is Pbx.ANSWERING:
            return Pbx.DEAF
        return self.is_


class FakeProbe:
    """ports.Probe: one check point, asked from one machine."""

    def __init__(self, checkpoint: str, asker: "Machine") -> None:
        self.checkpoint, self.asker = checkpoint, asker

    async def ask(self, node: str) -> Report:
        pair = self.asker.pair
        network = pair.network
        if network.delay:
            await Sleep(pair.dice.random() * network.delay)
        if self.checkpoint in pair.dead or not network.carries(self.asker.name, self.checkpoint):
            await Sleep(self.asker.policy.question / 2)
            return Report(self.checkpoint, Health.UNKNOWN, "no answer from the check point")
        lie = pair.lies.get(self.checkpoint)
        if lie is not None:
            return Report(self.checkpoint, lie, "lies")
        machine = pair.machines[node]
        # The check point's own question goes over UDP and is sent again when it is lost.
        answers = machine.pbx.serves and network.carries(self.checkpoint, node, tries=4)
        return Report(self.checkpoint, Health.UP if answers else Health.DOWN)


class FakeStore:
    """ports.ClaimStore: the one primary name server, as one machine reaches it."""

    where = "ns1"

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    async def read(self) -> Claim:
        self._reach()
        claim = self.machine.pair.claim
        if claim is None:
            raise ClaimMissing("ns1 holds no claim")
        return claim

    async def confirm(self, claim: Claim) -> bool:
        self._reach()
        return self.machine.pair.claim == claim

    async def swap(self, old: Claim, new: Claim) -> bool:
        pair, me = self.machine.pair, self.machine.name
        if PRIMARY in pair.dead or not pair.network.carries_there(me, PRIMARY):
            await Sleep(self.machine.policy.claim_reading)
            raise Unreachable("ns1 does not answer")
        fate = pair.dice.random()
        if fate < pair.late_writes:  # C2: it arrives long after its author has given up.
            pair.later(pair.dice.uniform(1, 300), lambda: self._land(old, new))
            await Sleep(self.machine.policy.claim_reading)
            raise Unanswered("ns1 has not answered the update")
        landed = self._land(old, new)
        await Sleep(0.02)
        lost = not pair.network.carries(PRIMARY, me) or fate < 2 * pair.late_writes
        if lost:
            await Sleep(self.machine.policy.claim_reading)
            raise Unanswered("ns1 has not answered the update")
        return landed

    async def create(self, claim: Claim) -> bool:
        self._reach()
        if self.machine.pair.claim is not None:
            return False
        self.machine.pair.claim = claim
        return True

    def _reach(self) -> None:
        pair = self.machine.pair
        if PRIMARY in pair.dead or not pair.network.carries(self.machine.name, PRIMARY):
            raise Unreachable("ns1 does not answer")

    def _land(self, old: Claim, new: Claim) -> bool:
        pair = self.machine.pair
        if pair.claim != old:
            return False
        pair.claim = new
        pair.on_write(self.machine, new)
        pair.tell(self.machine.name, f"writes the claim: {in_words(old, new)}")
        return True


class FakeName:
    """ports.ServiceName: a primary, and a secondary that follows it."""

    where = "sip.example.com at ns1"

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    async def point(self, node: str, claim: Claim) -> None:
        pair = self.machine.pair
        if PRIMARY in pair.dead or not pair.network.carries(self.machine.name, PRIMARY):
            raise Unreachable("ns1 does not answer")
        if pair.claim != claim:
            raise Denied("ns1 refused the update: the claim has moved on")
        if pair.names[PRIMARY] != node:
            pair.names[PRIMARY] = node
            pair.tell(self.machine.name, f"the name leads to {node}")
        if SECONDARY not in pair.dead:
            pair.names[SECONDARY] = node

    async def verify(self, node: str) -> None:
        await Sleep(0.02)
        behind = [server for server, target in self.machine.pair.names.items() if target != node]
        if behind:
            raise Unreachable(f"{', '.join(behind)} still serves the old node")

    async def look(self) -> dict[str, str]:
        return dict(self.machine.pair.names)


class FakePeer:
    """ports.Peer: the way to the other machine's agent."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine

    @property
    def other(self) -> "Machine":
        return self.machine.pair.machines[self.machine.policy.peer]

    async def ask(self, epoch: int) -> PeerAnswer:
        asked_at = self.machine.now().boot
        agent = self._reach()
        stale_from = self.other.copies.stale_since
        now = self.other.now().boot
        answer = readiness(agent.state, agent.policy, epoch, now, stale_from=stale_from)
        return replace(answer, asked_at=asked_at)

    async def fence(self, node: str, epoch: int, *, hurry: bool) -> None:
        agent = self._reach()
        refusal = fence_refusal(agent.state, agent.policy, node, epoch)
        if refusal:
            raise Denied(refusal)
        await Sleep(self.machine.pair.ssh_takes())
        agent = self._reach()
        if not is_stopped(agent.state):
            self.other.journal.place(Verb.FENCE, epoch=epoch)
            self.other.wake_soon()
        for _ in range(int(self.machine.policy.stop_within) + 1):
            await Sleep(1.0)
            agent = self._reach()
            gone = self.other.pbx.is_ in (Pbx.STOPPED, Pbx.DEAD) or self.other.pbx.is_shut_off
            if is_stopped(agent.state) and gone:
                return
        raise Unreachable(f"{node} has not confirmed that its PBX is stopped")

    async def order(self, order: Order) -> str:
        raise Unreachable("orders are placed on their own node here")

    async def wake(self) -> None:
        if self.other.agent is not None and self._reachable():
            self.other.agent.hurry()

    def _reach(self) -> Agent:
        if not self._reachable() or self.other.agent is None:
            raise Unreachable(f"{self.other.name} does not answer")
        return self.other.agent

    def _reachable(self) -> bool:
        network = self.machine.pair.network
        return (
            self.other.has_power
            and not self.other.is_frozen
            and network.carries(self.machine.name, self.other.name)
        )


class FakeCopies:
    """ports.Copies: no data, but time passes, and a disk can be full."""

    def __init__(self) -> None:
        self.broken = False
        self.renewing_takes = 0.0
        self.handing_takes = 0.0
        self.cannot_be_read = False  # By the other node.
        self.stale_since = inf  # Boot-time seconds.

    def stale_from(self, at: Moment) -> float:
        return self.stale_since

    async def promote(self) -> None:
        self._work()

    async def hand(self, epoch: int) -> None:
        await Sleep(self.handing_takes)
        if self.cannot_be_read:
            raise Unreachable("the other node could not read it all")

    async def demote(self) -> None:
        self._work()

    async def renew(self, epoch: int) -> None:
        await Sleep(self.renewing_takes)
        self._work()

    def _work(self) -> None:
        if self.broken:
            raise Unreachable("no space left on the disk")


class MemoryJournal:
    """runtime.agent.AgentJournal that survives what a disk survives."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.state: State = newborn(0.0)
        self.adopted: Policy | None = None
        self.unsettled = False
        self._durable = self.state
        self._orders: list[Order] = []
        self._last_order = 0

    def record(self, decision: Decision, seen: Seen, at: Moment) -> None:
        self.machine.pair.recording(self.machine, decision)
        before, self.state = self.state, decision.state
        matters = decision.rule is not None or decision.action is not None or seen.round is not None
        if matters or decision.state.epoch != before.epoch:
            self._durable = decision.state
        if decision.order is not None:
            self._orders.remove(decision.order)
        if decision.rule is not None:
            self.machine.pair.decided(self.machine, before, decision)
        elif decision.action is not None:
            self.machine.pair.asked(self.machine, decision)

    def next_order(self) -> Order | None:
        return self._orders[0] if self._orders else None

    def place(self, verb: Verb, *, epoch: int = 0, **accepts: bool) -> None:
        self._last_order += 1
        self._orders.append(Order(id=self._last_order, verb=verb, epoch=epoch, **accepts))

    def crash(self) -> None:
        """What was only in memory is gone."""
        self.state = self._durable


class Machine:
    """One node: power, clocks, an agent, a PBX, and a disk that survives."""

    def __init__(self, pair: "Pair", policy: Policy) -> None:
        self.pair, self.policy, self.name = pair, policy, policy.me
        self.has_power = True
        self.booted_at = 0.0
        self.frozen_until = NEVER
        self.lost = 0.0  # Seconds that the clocks of this machine have missed.
        self.drift = 1.0
        self.wall_offset = 0.0
        self.agent: Agent | None = None
        self.glass_broken = False
        self.pbx = FakePbx(self)
        self.copies = FakeCopies()
        self.journal = MemoryJournal(self)
        self.loop = MachineLoop(pair.loop, lambda: self.frozen_until)
        self.crash_before: str = ""  # Name of an action before which the agent dies (stories).
        self.crash_after: str = ""
        self.crash_recording: str = ""
        self._wake_count = 0

    # Clocks

    @property
    def is_frozen(self) -> bool:
        return self.frozen_until > self.pair.loop.now

    def now(self) -> Moment:
        true = self.pair.loop.now
        boot = (true - self.booted_at) * self.drift - self.lost
        return Moment(boot=boot, wall=WALL_AT_START + true + self.wall_offset, monotonic=boot)

    # What may happen to it

    def begin(self, *, booted: bool = True) -> None:
        """Start the agent."""
        if self.agent is not None or not self.has_power:
            return
        if self.is_frozen:
            self.pair.loop.call_at(self.frozen_until, lambda: self.begin(booted=booted))
            return
        if booted:
            self.lost = 0.0
        world = World(
            me=self.name,
            keeper=Keeper(FakeStore(self), self.journal, self),
            name=FakeName(self),
            service=self.pbx,
            peer=FakePeer(self),
            copies=self.copies,
        )
        self.agent = Agent(
            world=world,
            probes=[FakeProbe(each, self) for each in CHECKPOINTS],
            journal=self.journal,
            configured=self.policy,
            clock=self,
            loop=self.loop,
            jitter=self.pair.jitter,
            broken_glass=lambda: self.glass_broken,
            on_turn=lambda _: self._wake_when_due(),  # What was decided may be due earlier.
        )
        try:
            self.agent.begin(booted=booted)
        except AgentDied:
            return
        self.wake_soon()

    def kill_agent(self) -> None:
        """kill -9: what it had started is gone with it; the guard holds the PBX to the proofs that it had."""
        if self.agent is None or self.is_frozen:
            return
        ends = pace.serving_ends(self.journal.state, self.policy)
        self.agent = None
        self.loop.end_all()
        self.journal.crash()
        self._guard(ends)

    def power_off(self) -> None:
        if not self.has_power:
            return
        self.frozen_until = NEVER
        self.kill_agent()
        self.has_power = False
        self.pbx.become(Pbx.STOPPED)
        self.pbx.is_shut_off = False

    def power_on(self) -> None:
        if self.has_power:
            return
        self.has_power = True
        self.booted_at = self.pair.loop.now
        self.begin(booted=True)

    def freeze(self, seconds: float) -> None:
        """A suspended virtual machine: its clocks miss the time, and the wall clock is set right afterwards."""
        if not self.has_power or self.is_frozen:
            return
        self.frozen_until = self.pair.loop.now + seconds
        self.pair.later(seconds, lambda: self._thaw(seconds))

    def wake_soon(self) -> None:
        self._wake_count += 1
        count = self._wake_count
        self.pair.loop.call_at(self.pair.loop.now, lambda: self._wake(count))

    def _wake_when_due(self) -> None:
        if self.agent is not None:
            self._wake_count += 1
            count = self._wake_count
            wait = max(self.agent.due - self.now().boot, 0.0)
            self.pair.loop.call_at(self.pair.loop.now + wait, lambda: self._wake(count))

    def _wake(self, count: int) -> None:
        if count != self._wake_count or self.agent is None:
            return
        if self.is_frozen:
            self.pair.loop.call_at(self.frozen_until, lambda: self._wake(count))
            return
        try:
            wait = self.agent.wake()
        except AgentDied:
            return
        if count == self._wake_count:
            self.pair.loop.call_at(self.pair.loop.now + wait, lambda: self._wake(count))

    def _thaw(self, seconds: float) -> None:
        if self.has_power:
            self.lost += seconds * self.drift
            self.pair.thawed(self)
            self.wake_soon()

    def _guard(self, ends: float) -> None:
        """S2: outside the agent, something small stops the PBX when both proofs are too old."""
        if self.policy.isolation is Isolation.STOP:
            self.pair.later(max(ends - self.now().boot, 0.0), lambda: self._guard_now(ends))

    def _guard_now(self, ends: float) -> None:
        if self.is_frozen:
            self.pair.loop.call_at(self.frozen_until, lambda: self._guard_now(ends))
            return
        later = pace.serving_ends(self.journal.state, self.policy)
        proved_since = self.agent is not None and later > ends
        if self.glass_broken:  # A person runs the PBX, whatever the proofs say.
            return
        if not proved_since and self.has_power and self.pbx.is_ is not Pbx.STOPPED:
            self.pair.tell(self.name, "the guard stops the PBX: no agent has a proof for it")
            self.loop.start(self._stop_pbx(), lambda _: None)

    async def _stop_pbx(self) -> None:
        """The guard goes on until no caller can reach the PBX any more, or an agent is back to see to it."""
        while True:
            with suppress(NotStopped):
                await self.pbx.stop()
                return
            with suppress(NotStopped):
                await self.pbx.shut_off()
                return
            if self.agent is not None:
                return
            await Sleep(5.0)


class AgentDied(Exception):
    """kill -9 between two lines."""


class Pair:
    """The world: make things happen to it with its members, let time pass with `run`."""

    def __init__(
        self,
        policy: Policy,
        *,
        seed: int = 0,
        told: Callable[[str], None] | None = None,
        isolation: dict[str, object] | None = None,
    ) -> None:
        self.dice = random.Random(seed)
        self.loop = VirtualLoop()
        self.network = Network(self.dice)
        self.claim: Claim | None = first("pbx01", digest=policy.digest)
        self.names = {PRIMARY: "pbx01", SECONDARY: "pbx01"}
        self.dead: set[str] = set()
        self.lies: dict[str, Health] = {}
        self.late_writes = 0.0
        self.fired: Counter[tuple[Phase, str]] = Counter()
        self.overlaps: list[tuple[float, float]] = []
        self.takeovers = 0
        self._overlap_since: float | None = None
        self._told = told
        self.ssh_takes: Callable[[], float] = lambda: 0.0  # Seconds until the other node hears.
        self.on_write: Callable[[Machine, Claim], None] = lambda _machine, _claim: None
        self.on_phase: Callable[[Machine, Phase], None] = lambda _machine, _phase: None
        policies = (
            replace(policy, me="pbx01", peer="pbx02"),
            replace(policy, me="pbx02", peer="pbx01"),
        )
        self.machines = {each.me: Machine(self, each) for each in policies}

    def jitter(self) -> float:
        """V4: a factor for the next interval."""
        return self.dice.uniform(0.9, 1.1)

    def boot(self) -> None:
        for machine in self.machines.values():
            machine.begin(booted=True)

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        self.loop.call_at(self.loop.now + max(seconds, 0.0), what)

    def run(self, seconds: float) -> None:
        self.loop.run_until(self.loop.now + seconds)

    @property
    def serving(self) -> list[str]:
        return [name for name, machine in self.machines.items() if machine.pbx.serves]

    # What the world notices

    def check(self) -> None:
        """Called whenever a PBX begins or ends to serve: are there two?"""
        two = len(self.serving) > 1
        if two and self._overlap_since is None:
            self._overlap_since = self.loop.now
        elif not two and self._overlap_since is not None:
            self.overlaps.append((self._overlap_since, self.loop.now))
            self._overlap_since = None

    def end(self) -> None:
        """The story is over: an overlap that still lasts counts too."""
        if self._overlap_since is not None:
            self.overlaps.append((self._overlap_since, self.loop.now))

    def thawed(self, machine: Machine) -> None:
        self.tell(machine.name, "the machine goes on")
        self.check()

    def decided(self, machine: Machine, before: State, decision: Decision) -> None:
        rule, after = decision.rule, decision.state
        assert rule is not None
        self.fired[before.phase, rule.name] += 1
        if rule.name == "take-over-done" and before.runbook is not Runbook.START:
            self.takeovers += 1
        if self._told is not None:
            change = (
                f"{before.phase} -> {after.phase}"
                if after.phase != before.phase
                else f"{after.phase}"
            )
            self.tell(machine.name, f"{change}: {rule.because} [{rule.name}]")
        if decision.action is not None:
            self.asked(machine, decision)
        if after.phase is not before.phase:
            self.on_phase(machine, after.phase)

    def recording(self, machine: Machine, decision: Decision) -> None:
        """A decision is about to be written down.  Raises AgentDied where the story says so."""

    def asked(self, machine: Machine, decision: Decision) -> None:
        pass

    def tell(self, who: str, what: str) -> None:
        if self._told is not None:
            self._told(f"{clock(self.loop.now)} {who}: {what}")


def clock(seconds: float) -> str:
    """A time of the story: h:mm:ss.s."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{seconds % 60:04.1f}"


def in_words(old: Claim, new: Claim) -> str:
    if new.node != old.node:
        return f"{new.node}, epoch {new.epoch}, {new.how}"
    if new.announced != old.announced:
        return f"{new.announced} announces" if new.announced else "the announcement is struck out"
    if new.served != old.served:
        return f"{new.node} has served"
    if new.digest != old.digest:
        return "new configuration"
    if (new.pause, new.settle) != (old.pause, old.settle):
        return "paused" if new.pause else "resumed"
    return "a new serial"
