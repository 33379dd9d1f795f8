"""Random stories: whatever fails, in whatever order, the promises hold.

A story is made from its seed alone: two simulated hours, at least three faults that overlap, and at the end everything
is mended, so that exactly one node must serve.  `make soak` plays them for as long as one likes.
"""

import gc
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from understudy.core import claim as records
from understudy.core import pace
from understudy.core.claim import Claim
from understudy.core.model import Phase, Runbook
from understudy.core.observations import Health, Pbx, Verb
from understudy.core.policy import Isolation, Policy
from understudy.core.votes import Verdict

from .world import CHECKPOINTS, NODES, PRIMARY, WALL_AT_START, Machine, Pair, clock

HOURS_2 = 7200.0


@dataclass
class Telling:
    """What came of one story."""

    seed: int
    broken: list[str] = field(default_factory=list)  # Promises that were not kept.
    takeovers: int = 0
    replaced: int = 0  # Times that a dead active node was replaced within patience and two rounds.
    faults: int = 0
    most_at_once: int = 0
    fired: Counter[tuple[Phase, str]] = field(default_factory=Counter)


@dataclass
class Fault:
    """Something that is wrong from `begins` to `ends`, in seconds of the story."""

    what: str
    begins: float
    ends: float
    strike: Callable[[], None]
    mend: Callable[[], None]


def policy_of(dice: random.Random) -> Policy:
    """Numbers that keep PROTOCOL T2, from hasty to the article's own."""
    interval = dice.choice([30.0, 60.0, 60.0])
    claim_stale = dice.choice([60.0, 90.0, 120.0])
    checkpoints_stale = interval * dice.choice([2.5, 3.0])
    stop_within = dice.choice([5.0, 10.0, 25.0])
    question = min(10.0, interval / 2)
    announce = claim_stale + stop_within + 3.0 + dice.choice([0.0, 10.0])
    least = checkpoints_stale + stop_within + 2 * interval + question
    least = max(least + dice.choice([0.0, 60.0]), announce, claim_stale + 40.0 + stop_within)
    return Policy(
        me="pbx01",
        peer="pbx02",
        interval=interval,
        claim_stale=claim_stale,
        checkpoints_stale=checkpoints_stale,
        stop_within=stop_within,
        question=question,
        announce=announce,
        patience=least + dice.choice([0.0, 30.0]),
        restart_grace=dice.choice([60.0, 120.0]),
        settle_down=dice.choice([120.0, 600.0]),
        first_proof=15.0,
        hurry=15.0,
        digest="d",
    )


class Weather:
    """One story: makes the faults, lets them happen, and watches the promises."""

    def __init__(self, seed: int, told: Callable[[str], None] | None = None) -> None:
        self.dice = random.Random(seed)
        self.policy = policy_of(self.dice)
        self.pair = Pair(self.policy, seed=seed, told=told)
        self.telling = Telling(seed)
        self.open: set[str] = set()
        self.excused_until = 0.0  # A named exception of PROTOCOL.md may show until then.
        self.keeps = self.dice.random() < 0.15  # Two may be active then: PROTOCOL says so.
        if self.keeps:
            for machine in self.pair.machines.values():
                if self.dice.random() < 0.5:
                    machine.policy = replace(machine.policy, isolation=Isolation.KEEP)

    def play(self) -> Telling:
        pair, dice = self.pair, self.dice
        for machine in pair.machines.values():
            machine.pbx.stop_takes = dice.uniform(0.2, self.policy.stop_within - 0.5)
            machine.pbx.start_takes = dice.uniform(0.5, 10.0)
            machine.copies.renewing_takes = dice.uniform(0.0, 60.0)
            machine.copies.handing_takes = dice.uniform(0.0, 20.0)
        if dice.random() < 0.3:
            pair.late_writes = 0.03
        pair.on_phase = self._at_the_worst_moment
        pair.on_write = self._after_a_write
        pair.ssh_takes = lambda: dice.choice([0.0, 0.3, 3.0, 20.0])
        pair.boot()
        for fault in self._faults():
            self._schedule(fault)
        for at in sorted(dice.uniform(300, 6000) for _ in range(dice.randint(0, 6))):
            pair.loop.call_at(at, self._person)
        pair.run(6300.0 - pair.loop.now)
        self._mend_all()
        if dice.random() < 0.3:
            pair.loop.call_at(6600.0, self._active_dies)
        pair.run(HOURS_2 - pair.loop.now)
        self._settle()
        pair.end()
        self._judge()
        return self.telling

    # Faults

    def _faults(self) -> Iterator[Fault]:
        dice = self.dice
        when_ = dice.uniform(200, 1500)
        for index in range(dice.randint(4, 9)):
            lasts = dice.choice([5, 30, 90, 300, 600, 1200, 2400]) * dice.uniform(0.7, 1.3)
            if index < 3:  # At least three at once: a long one, one within it, one within that.
                lasts = 600.0 / 2**index
                yield from self._fault(when_, when_ + lasts, dice.choice(LASTING))
                when_ += dice.uniform(1, 40)
                continue
            yield from self._fault(when_, min(when_ + lasts, 6200.0))
            # Mostly while the one before still lasts.
            when_ += dice.choice([0.0, 0.1, 0.3, 0.5, 1.3]) * lasts + dice.uniform(0, 120)
            if when_ > 5900:
                return

    def _fault(self, begins: float, ends: float, kind: str = "") -> Iterator[Fault]:
        dice, pair = self.dice, self.pair
        machine = pair.machines[dice.choice(NODES)]
        checkpoint = dice.choice(CHECKPOINTS)
        kind = kind or dice.choice(KINDS)
        match kind:
            case "power":
                yield Fault(
                    f"{kind} {machine.name}", begins, ends, machine.power_off, machine.power_on
                )
            case "pbx dies" | "pbx deaf":
                bad = Pbx.DEAD if kind == "pbx dies" else Pbx.DEAF

                def worsen() -> None:
                    if machine.pbx.is_ is Pbx.ANSWERING:
                        machine.pbx.become(bad)
                        machine.pbx.cannot_start = dice.random() < 0.7

                def better() -> None:
                    machine.pbx.cannot_start = False

                yield Fault(f"{kind} {machine.name}", begins, ends, worsen, better)
            case "cannot start":

                def forbid() -> None:
                    machine.pbx.cannot_start = True

                def allow() -> None:
                    machine.pbx.cannot_start = False

                yield Fault(f"{kind} {machine.name}", begins, ends, forbid, allow)
            case "agent":
                restart = min(ends, begins + dice.choice([0.5, 5.0, 60.0, 900.0]))
                yield Fault(
                    f"{kind} {machine.name}",
                    begins,
                    restart,
                    machine.kill_agent,
                    lambda: machine.begin(booted=False),
                )
            case "freeze":
                seconds = dice.choice([3.0, 20.0, 90.0, 400.0])

                def freeze() -> None:
                    machine.freeze(seconds)
                    policy = self.policy
                    self._excuse(
                        seconds + policy.first_proof + policy.claim_reading + policy.stop_within
                    )

                yield Fault(f"{kind} {machine.name}", begins, begins + seconds, freeze, _nothing)
            case "cut":
                there = dice.choice([*CHECKPOINTS, PRIMARY, _other(machine.name)])
                yield self._cut(machine.name, there, begins, ends, one_way=dice.random() < 0.4)
            case "isolated" | "isolated from check points":
                targets = [*CHECKPOINTS]
                if kind == "isolated":
                    targets += [PRIMARY, _other(machine.name)]
                ends = max(ends, begins + 300.0)
                for there in targets:
                    yield self._cut(machine.name, there, begins, ends, one_way=False)
            case "check point dead":
                yield Fault(
                    f"{kind} {checkpoint}",
                    begins,
                    ends,
                    lambda: pair.dead.add(checkpoint),
                    lambda: pair.dead.discard(checkpoint),
                )
            case "check point lies":
                lie = dice.choice([Health.UP, Health.DOWN, Health.UNKNOWN])
                yield Fault(
                    f"{kind} {checkpoint}",
                    begins,
                    ends,
                    lambda: pair.lies.__setitem__(checkpoint, lie),
                    lambda: _forget(pair.lies, checkpoint),
                )
            case "name server":
                yield Fault(
                    kind,
                    begins,
                    ends,
                    lambda: pair.dead.add(PRIMARY),
                    lambda: pair.dead.discard(PRIMARY),
                )
            case "loss":

                def lose() -> None:
                    pair.network.loss = dice.choice([0.02, 0.1, 0.3])
                    pair.network.delay = dice.choice([0.0, 0.5])

                def lose_no_more() -> None:
                    pair.network.loss = pair.network.delay = 0.0

                yield Fault(kind, begins, ends, lose, lose_no_more)
            case "clock":

                def jump() -> None:
                    machine.wall_offset += dice.choice([-30.0, 5.0, 90.0])

                yield Fault(f"{kind} {machine.name}", begins, begins + 1.0, jump, _nothing)
            case "configuration":

                def edit() -> None:
                    self._reconfigure(machine, "edited")

                def edit_back() -> None:
                    self._reconfigure(machine, "d")

                yield Fault(f"{kind} {machine.name}", begins, ends, edit, edit_back)
            case "disk full":

                def fill() -> None:
                    machine.copies.broken = True

                def empty() -> None:
                    machine.copies.broken = False

                yield Fault(f"{kind} {machine.name}", begins, ends, fill, empty)
            case "cannot stop":
                shut = dice.random() < 0.5

                def stick() -> None:
                    machine.pbx.cannot_stop = True
                    machine.pbx.cannot_be_shut_off = shut
                    if shut:  # S5: nothing is left that could keep it from serving.
                        self._excuse(ends - begins + self.policy.stop_within)

                def unstick() -> None:
                    machine.pbx.cannot_stop = machine.pbx.cannot_be_shut_off = False

                yield Fault(f"{kind} {machine.name}", begins, ends, stick, unstick)

    def _cut(self, here: str, there: str, begins: float, ends: float, *, one_way: bool) -> Fault:
        network = self.pair.network
        return Fault(
            f"cut {here} {there}",
            begins,
            ends,
            lambda: network.separate(here, there, one_way=one_way),
            lambda: network.join(here, there),
        )

    def _reconfigure(self, machine: Machine, digest: str) -> None:
        if machine.is_frozen:  # Nobody edits anything there; the file is put right later.
            self.pair.later(60.0, lambda: self._reconfigure(machine, digest))
            return
        machine.policy = replace(machine.policy, digest=digest)
        if machine.agent is not None:
            machine.kill_agent()
            machine.begin(booted=False)

    def _schedule(self, fault: Fault) -> None:
        self.telling.faults += 1
        key = f"{fault.what} {fault.begins}"

        def begin() -> None:
            self.open.add(key)
            self.telling.most_at_once = max(self.telling.most_at_once, len(self.open))
            self.pair.tell("weather", fault.what)
            fault.strike()

        def end() -> None:
            self.open.discard(key)
            self.pair.tell("weather", f"no more: {fault.what}")
            fault.mend()

        self.pair.loop.call_at(fault.begins, begin)
        self.pair.loop.call_at(fault.ends, end)

    # The worst moment

    def _at_the_worst_moment(self, machine: Machine, phase: Phase) -> None:
        """Something goes wrong just when something moves."""
        self._check_the_move(machine, phase)
        mischiefs, chance = WORST.get(phase, ((), 0.0))
        if self.pair.loop.now < 5800 and self.dice.random() < chance:
            self._play_mischief(self.dice.choice(mischiefs), machine)

    def _after_a_write(self, machine: Machine, claim: Claim) -> None:
        """The claim has been written, and its author has not heard of it yet."""
        pair, dice = self.pair, self.dice
        if pair.loop.now > 5800:
            return
        if dice.random() < 0.06:
            pair.later(0.01, machine.kill_agent)
            pair.later(1.0, lambda: machine.begin(booted=False))
        elif (
            claim.is_announced and dice.random() < 0.3
        ):  # The announcement stays, and the other is seen again.
            pair.later(0.1, machine.power_off)
            pair.later(600.0, machine.power_on)
            for checkpoint in CHECKPOINTS:
                pair.network.join(checkpoint, _other(machine.name))

    def _play_mischief(self, mischief: str, machine: Machine) -> None:
        dice, pair = self.dice, self.pair
        soon = dice.choice([0.0, 0.03, 0.5, 3.0, 8.0])
        lasts = dice.choice([0.3, 5.0, 60.0, 400.0])
        peer = pair.machines[_other(machine.name)]
        match mischief:
            case "agent":
                pair.later(soon, machine.kill_agent)
                pair.later(soon + lasts, lambda: machine.begin(booted=False))
            case "agent, at once":  # Before the effect.
                pair.later(0.0, machine.kill_agent)
                pair.later(1.0, lambda: machine.begin(booted=False))
            case "cannot start":
                machine.pbx.cannot_start = True
                pair.later(200.0, lambda: setattr(machine.pbx, "cannot_start", False))
            case "agent, now":  # After the effect, before the outcome.
                pair.later(0.01, machine.kill_agent)
                pair.later(1.0, lambda: machine.begin(booted=False))
            case "agent and pbx":
                pair.later(soon, machine.kill_agent)
                pair.later(soon, lambda: self._stop_by_hand(machine))
                pair.later(soon + 1.0, lambda: machine.begin(booted=False))
            case "power":
                pair.later(soon, machine.power_off)
                pair.later(soon + lasts, machine.power_on)
            case "isolated":
                now = pair.loop.now
                for there in (*CHECKPOINTS, PRIMARY, peer.name):
                    cut = self._cut(
                        machine.name, there, now + soon, now + soon + lasts, one_way=False
                    )
                    self._schedule(cut)
            case "the other's power":
                pair.later(soon, peer.power_off)
                pair.later(soon + 400.0, peer.power_on)
            case "name server":
                pair.later(soon, lambda: pair.dead.add(PRIMARY))
                pair.later(soon + lasts, lambda: pair.dead.discard(PRIMARY))
            case "failover":
                lossy, forced = dice.random() < 0.7, dice.random() < 0.5
                pair.later(soon, lambda: self._order_failover(peer, forced=forced, lossy=lossy))
            case "ordered failover":
                pair.later(soon, lambda: self._order_failover(peer, forced=False, lossy=True))
            case "forced failover, no way to fence":
                now = pair.loop.now
                self._schedule(
                    self._cut(machine.name, peer.name, now + 0.5, now + 60.0, one_way=False)
                )
                pair.later(0.6, lambda: self._order_failover(peer, forced=True, lossy=True))
                for seconds in (1.5, 4.0, 9.0):  # It reads the claim while it is at it.
                    pair.later(seconds, lambda: self._hurry(machine))
            case "cut off but for the other":
                now = pair.loop.now
                for there in (*CHECKPOINTS, PRIMARY):
                    self._schedule(self._cut(machine.name, there, now, now + 400.0, one_way=False))
                left = max(machine.policy.claim_stale, machine.policy.checkpoints_stale)
                late = left - dice.uniform(-2, machine.pbx.stop_takes + 20.0)
                pair.later(late, lambda: self._order(machine, Verb.SWITCHOVER))
            case "switchover, late":
                left = pace.serving_ends(machine.journal.state, machine.policy) - machine.now().boot
                pair.later(left - dice.uniform(0, 8), lambda: self._order(machine, Verb.SWITCHOVER))
            case "set-active":
                pair.later(soon, lambda: self._declare(peer))
            case "set-active, the other dead":
                pair.later(soon, peer.power_off)
                pair.later(soon + 0.5, lambda: self._declare(machine))
                pair.later(soon + 400.0, peer.power_on)
            case "stray":
                pair.later(soon, lambda: self._start_around_the_guard(machine))
            case "disk full":
                pair.later(0.0, lambda: setattr(machine.copies, "broken", True))
                pair.later(70.0, lambda: setattr(machine.copies, "broken", False))
            case "cannot be read":
                machine.copies.cannot_be_read = True
                pair.later(70.0, lambda: setattr(machine.copies, "cannot_be_read", False))
            case "pbx":
                pair.later(soon, machine.pbx.die)
            case "cannot stop":
                machine.pbx.cannot_stop = True
                pair.later(120.0, lambda: setattr(machine.pbx, "cannot_stop", False))
            case "stopped for long":
                self._stop_by_hand(machine)
                pair.later(self.policy.patience + 100.0, lambda: self._start_by_hand(machine))
            case "seen again late":
                # The check points lose it until just after the other's announcement, the claim's server for longer.
                seen = pair.loop.now + self.policy.announce_after + dice.uniform(0, 60)
                for there in CHECKPOINTS:
                    self._schedule(
                        self._cut(there, machine.name, pair.loop.now + 1.0, seen, one_way=True)
                    )
            case "blind":
                # It cannot ask, is not seen, and keeps serving; the other announces, and dies.
                machine.policy = replace(machine.policy, isolation=Isolation.KEEP)
                self.keeps = True
                machine.kill_agent()
                machine.begin(booted=False)
                ends = pair.loop.now + 2 * self.policy.patience + 3 * self.policy.interval
                for there in CHECKPOINTS:
                    self._schedule(
                        self._cut(machine.name, there, pair.loop.now + 1.0, ends, one_way=False)
                    )
                dies = self.policy.announce_after + self.policy.interval + 5.0
                pair.later(dies, peer.power_off)
                pair.later(ends - pair.loop.now, peer.power_on)

    # A person

    def _person(self) -> None:
        """Somebody gives an order, or touches the PBX by hand."""
        pair, dice = self.pair, self.dice
        machine = pair.machines[dice.choice(NODES)]
        whim = dice.choice(WHIMS)
        pair.tell("person", f"{whim} {machine.name}")
        match whim:
            case "failover" | "forced failover":
                forced = whim == "forced failover"
                self._order_failover(machine, forced=forced, lossy=dice.random() < 0.7)
            case "set-active":
                self._declare(machine)
            case "starts the pbx around the guard":
                self._start_around_the_guard(machine)
            case "switchover":
                machine.journal.place(Verb.SWITCHOVER)
            case "rejoin":
                machine.journal.place(Verb.REJOIN)
            case "pause":
                if pair.claim is not None:
                    until = int(WALL_AT_START + pair.loop.now + dice.choice([60, 600]))
                    pair.claim = records.pause(pair.claim, until)
            case "resume":
                if pair.claim is not None:
                    pair.claim = records.resume(pair.claim)
            case "stops the pbx" | "restarts the pbx":
                if machine.pbx.is_ is Pbx.ANSWERING:
                    machine.pbx.become(Pbx.STOPPED)
                seconds = 8.0 if whim == "restarts the pbx" else dice.uniform(60, 900)
                pair.later(seconds, lambda: self._start_by_hand(machine))
        machine.wake_soon()

    def _start_around_the_guard(self, machine: Machine) -> None:
        stopped = machine.pbx.is_ in (Pbx.STOPPED, Pbx.DEAD)
        if stopped and machine.agent is not None and not machine.is_frozen:
            # Until the agent looks at its PBX, and has stopped it.
            self._excuse(2 * self.policy.restart_grace + self.policy.stop_within + 40.0)
            machine.pbx.become(Pbx.ANSWERING)

    def _hurry(self, machine: Machine) -> None:
        if machine.agent is not None and not machine.is_frozen:
            machine.agent.hurry()

    def _stop_by_hand(self, machine: Machine) -> None:
        if machine.pbx.is_ is Pbx.ANSWERING:
            machine.pbx.become(Pbx.STOPPED)

    def _order(self, machine: Machine, verb: Verb) -> None:
        machine.journal.place(verb)
        machine.wake_soon()

    def _order_failover(self, machine: Machine, *, forced: bool, lossy: bool) -> None:
        machine.journal.place(Verb.FAILOVER, accept_two_active=forced, accept_loss=lossy)
        machine.wake_soon()

    def _excuse_two_active(self) -> None:
        """Until the other node has read the claim, or its proofs are too old, and its PBX is stopped."""
        policy = self.policy
        stale = max(policy.claim_stale, policy.checkpoints_stale, policy.first_proof)
        self._excuse(policy.announce + 2 * policy.stop_within + stale + policy.interval + 30.0)
        self.pair.later(policy.announce, lambda: self._excuse_who_cannot_read(120))

    def _declare(self, machine: Machine) -> None:
        """set-active, as the verb allows it: nobody serves, or this node does."""
        pair = self.pair
        if pair.claim is not None and not set(pair.serving) - {machine.name}:
            epoch = max(each.journal.state.epoch for each in pair.machines.values()) + 1
            pair.claim = records.declare(pair.claim, machine.name, epoch=epoch, digest="d")

    def _excuse_who_cannot_read(self, times: int) -> None:
        """After --accept-two-active the other node serves for as long as it cannot learn of it, and is seen up."""
        pair, policy = self.pair, self.policy
        for machine in pair.machines.values():
            reached = PRIMARY not in pair.dead and pair.network.reaches(machine.name, PRIMARY)
            if machine.pbx.serves and not self._is_holder(machine) and not reached:
                self._excuse(policy.claim_stale + policy.stop_within + policy.claim_reading)
        if times:
            pair.later(10.0, lambda: self._excuse_who_cannot_read(times - 1))

    def _excuse(self, seconds: float) -> None:
        """PROTOCOL.md names an exception; it has a bound."""
        self.excused_until = max(self.excused_until, self.pair.loop.now + seconds)

    def _start_by_hand(self, machine: Machine, tries: int = 30) -> None:
        """`systemctl start`, until it works: may-start has the last word (T7)."""
        if tries == 0 or machine.pbx.is_ is not Pbx.STOPPED or not self._is_holder(machine):
            return
        agent = machine.agent
        claim = self.pair.claim
        if agent is None or machine.is_frozen or claim is None or claim.is_announced:
            self.pair.later(5.0, lambda: self._start_by_hand(machine, tries - 1))
            return
        reached = PRIMARY not in self.pair.dead and self.pair.network.carries(machine.name, PRIMARY)
        if reached and agent.state.evidence.theirs is not Verdict.UP:
            machine.pbx.become(Pbx.DEAD if machine.pbx.cannot_start else Pbx.ANSWERING)

    def _is_holder(self, machine: Machine) -> bool:
        return self.pair.claim is not None and self.pair.claim.node == machine.name

    # The promises

    def _check_the_move(self, machine: Machine, phase: Phase) -> None:
        """No failover while a check point majority says up."""
        state = machine.journal.state
        evidence = state.evidence
        if state.runbook is Runbook.FORCED:
            self._excuse_two_active()
        if phase is Phase.TAKING_OVER and state.runbook is Runbook.TAKE:
            now, policy = machine.now().boot, machine.policy
            patient = now - evidence.down_since >= policy.patience
            announced = evidence.round_at - evidence.announced_at >= policy.announce
            if (
                evidence.theirs is not Verdict.DOWN
                or not (patient and announced)
                or now - evidence.round_at > policy.late
            ):
                self.telling.broken.append(f"{machine.name} took over without a verdict")

    def _active_dies(self) -> None:
        """In a quiet moment the active node loses power: the standby must serve within patience and two rounds."""
        pair, policy = self.pair, self.policy
        active = [pair.machines[name] for name in pair.serving]
        if len(active) != 1 or not self._is_quiet(active[0]):
            return
        machine, standby = active[0], pair.machines[_other(active[0].name)]
        began = pair.loop.now
        pair.tell("weather", f"{machine.name} dies in a quiet moment")
        machine.power_off()
        # A round that is on its way, two rounds, and the start itself.
        limit = policy.patience + 2 * 1.1 * policy.interval + standby.pbx.start_takes + 1.0
        pair.later(limit, lambda: self._check_replaced(standby, began))
        pair.later(limit + 1.0, machine.power_on)

    def _is_quiet(self, machine: Machine) -> bool:
        pair = self.pair
        other = pair.machines[_other(machine.name)]
        claim = pair.claim
        return (
            not self.open
            and not pair.network.cut
            and not pair.dead
            and other.agent is not None
            and not other.is_frozen
            and not other.pbx.cannot_start
            and not other.copies.broken
            and pair.late_writes == 0.0
            and other.journal.state.phase is Phase.STANDBY
            and claim is not None
            and claim.digest == other.agent.configured.digest
            and not claim.is_announced
            and max(claim.pause, claim.settle) < WALL_AT_START + pair.loop.now
            and pair.loop.now - other.journal.state.evidence.start_failed_at > 600.0
        )

    def _check_replaced(self, standby: Machine, began: float) -> None:
        if standby.name in self.pair.serving:
            self.telling.replaced += 1
        else:
            self.telling.broken.append(
                f"the node that died at {clock(began)} was not replaced by {clock(self.pair.loop.now)}"
            )

    # The end

    def _mend_all(self) -> None:
        pair = self.pair
        self.open.clear()
        pair.network.cut.clear()
        pair.network.loss = pair.network.delay = pair.late_writes = 0.0
        pair.dead.clear()
        pair.lies.clear()
        for machine in pair.machines.values():
            machine.pbx.cannot_start = machine.pbx.cannot_stop = False
            machine.pbx.cannot_be_shut_off = machine.copies.broken = False
            machine.copies.cannot_be_read = False
            machine.power_on()
            machine.begin(booted=False)
            if machine.policy.digest != "d":
                self._reconfigure(machine, "d")
            if machine.pbx.is_ is Pbx.STOPPED:
                self._start_by_hand(machine)

    def _settle(self) -> None:
        """Everything is well.  Give it the time that the numbers ask for, then somebody must serve."""
        policy = self.policy
        longest = 2 * (2 * policy.patience + 6 * policy.interval + 6 * policy.restart_grace + 100)
        ends = self.pair.loop.now + longest
        while len(self.pair.serving) != 1 and self.pair.loop.now < ends:
            self.pair.run(60.0)
            for machine in self.pair.machines.values():
                self._start_by_hand(machine, tries=1)

    def _judge(self) -> None:
        pair, telling = self.pair, self.telling
        telling.fired = pair.fired
        telling.takeovers = pair.takeovers
        for begins, ends in pair.overlaps:
            if not self.keeps and ends > begins and ends > self.excused_until:
                telling.broken.append(f"two active from {clock(begins)} to {clock(ends)}")
        phases = {each.journal.state.phase for each in pair.machines.values()}
        if len(pair.serving) != 1 and Phase.HALTED not in phases:
            telling.broken.append(f"all is well again, but {pair.serving or 'nobody'} serves")


def _other(node: str) -> str:
    return NODES[1 - NODES.index(node)]


def _forget(lies: dict[str, Health], checkpoint: str) -> None:
    lies.pop(checkpoint, None)


def _nothing() -> None:
    pass


KINDS = (
    "power", "power", "power", "pbx dies", "pbx dies", "pbx deaf", "cannot start", "agent", "agent", "freeze",
    "cut", "cut", "cut", "isolated", "isolated", "isolated from check points", "check point dead",
    "check point lies", "name server", "loss", "clock", "configuration", "cannot stop", "disk full",
)  # fmt: skip
# Of those, the ones that last as long as they are told to.
LASTING = (
    "power", "pbx dies", "pbx deaf", "cannot start", "cut", "isolated", "isolated from check points",
    "check point dead", "check point lies", "name server", "loss", "configuration", "cannot stop", "disk full",
)  # fmt: skip
# What may go wrong when a node enters a phase, and how often something does.
_MOVE = ("agent", "agent, now", "power", "isolated", "name server", "failover", "set-active", "pbx")
WORST: dict[Phase, tuple[tuple[str, ...], float]] = {
    Phase.SUSPECTING: (
        ("failover", "failover", "set-active", "agent", "stray", "the other's power"),
        0.2,
    ),
    Phase.TAKING_OVER: ((*_MOVE, *["agent, at once"] * 3, *["cannot start"] * 3), 0.4),
    Phase.ACTIVE: (
        (
            "forced failover, no way to fence",
            "agent and pbx",
            "agent",
            "stopped for long",
            "seen again late",
            "blind",
            "cut off but for the other",
            "cut off but for the other",
            "cut off but for the other",
            "cut off but for the other",
            "ordered failover",
            "ordered failover",
        ),
        0.2,
    ),
    Phase.DOUBTED: (
        ("switchover, late", "switchover, late", "agent and pbx", "the other's power"),
        0.3,
    ),
    Phase.HANDING_OVER: (
        (
            *_MOVE,
            "agent, now",
            *["failover"] * 8,
            "cannot stop",
            *["cannot be read"] * 3,
            *["forced failover, no way to fence"] * 4,
        ),
        0.7,
    ),
    Phase.STEPPING_DOWN: ((*_MOVE, "agent, now"), 0.3),
    Phase.SILENT: (("stray", "set-active", "agent"), 0.05),
    Phase.STANDBY: (("stray", "agent", "set-active"), 0.03),
    Phase.OUTDATED: (("stray", "set-active, the other dead", "failover"), 0.08),
    Phase.REJOINING: (("stray", "disk full", "set-active, the other dead", "agent"), 0.7),
    Phase.HALTED: (("agent", "set-active", "set-active, the other dead", "stray"), 0.5),
}
WHIMS = (
    "failover", "forced failover", "switchover", "switchover", "rejoin", "rejoin", "rejoin", "pause", "resume",
    "stops the pbx", "restarts the pbx", "set-active", "starts the pbx around the guard",
)  # fmt: skip


def play(seed: int) -> Telling:
    """One story.  The garbage collector waits: it is a tenth of the time, and a story is soon forgotten."""
    gc.disable()
    try:
        return Weather(seed).play()
    finally:
        gc.enable()
