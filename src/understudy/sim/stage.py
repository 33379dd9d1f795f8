"""The pair of a story: the simulated pair with round times, and every deed written down as a line."""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from understudy.core.actions import Action, WriteClaim
from understudy.core.claim import Claim
from understudy.core.decide import Decision
from understudy.core.model import State
from understudy.core.observations import Outcome, Result
from understudy.core.policy import Isolation, Policy
from understudy.core.rules import Do
from understudy.core.runbooks import RUNBOOKS, Step
from understudy.runtime.perform import Performed

from .loop import MachineLoop, VirtualTask
from .world import PRIMARY, SECONDARY, WALL_AT_START, AgentDied, Machine, Pair, clock, in_words

APART = 20.0  # Seconds from the boot of pbx01 to that of pbx02: two loops are rarely in step (V4).
SETTLING = 600.0 - APART  # Until the story begins.
BREATH = 30.0  # What is repeated within these seconds is counted instead of told again.
FOLDED = 4  # What happens more often than this, in the same words one time after the other, is counted as well,
LONGEST = 40  # if it takes no more lines than this each time.

STEPS = frozenset(
    {str(step) for step in Step} | {str(do) for do in Do if do not in (Do.STEP, Do.NEXT)}
)


@dataclass(slots=True)
class Telling:
    """What one machine has told last: repetitions are counted, and outcomes belong to a deed."""

    deed: str = ""
    action: Action | None = None
    lines: set[str] = field(default_factory=set)  # Told since the phase last changed.
    outcomes: dict[str, str] = field(default_factory=dict)  # Told of each deed since then.
    at: float = 0.0
    again: Counter[str] = field(default_factory=Counter)  # Rules told again since then.


class Stage(Pair):
    """Both nodes have booted, at 0:00:00; `lines` has what happened since."""

    def __init__(self, policy: Policy, isolation: dict[str, Isolation]) -> None:
        self.lines: list[str] = []
        self.all_lines: list[str] = []
        self.past: list[tuple[float, Claim | None, str]] = []
        self._is_open = False
        self._begins = 0.0
        self._last_speaker = ""
        super().__init__(policy, seed=1)
        self._tellings = {name: Telling() for name in self.machines}
        for name, machine in self.machines.items():
            machine.policy = replace(
                machine.policy, isolation=isolation.get(name, policy.isolation)
            )
            machine.loop = WatchedLoop(self, machine)
        self._settle()

    def _settle(self) -> None:
        for machine in self.machines.values():
            machine.begin(booted=True)
            self.run(APART)
        self.run(SETTLING - APART)
        self._begins, self._is_open = self.loop.now, True
        self._remember()

    # What the world calls

    def jitter(self) -> float:
        """Off: the times of a story are round."""
        return 1.0

    def tell(self, who: str, what: str) -> None:
        self._remember()
        telling = self._tellings.get(who)
        if what == "the PBX is starting" or (telling and not self.machines[who].has_power):
            return  # The step, or the loss of power, says so.
        if what.startswith("writes the claim") and telling and _is_writing(telling.action):
            return  # The step says so.
        self._say(who, f"{self.time} {who}: {what}")

    def check(self) -> None:
        """Two PBXs that serve, and the end of it, are told."""
        before = self._overlap_since
        super().check()
        if before is None and self._overlap_since is not None:
            self._say("", f"{self.time} BOTH PBXs serve")
        elif before is not None and self._overlap_since is None:
            self._say("", f"{self.time} no longer two PBXs, after {self.loop.now - before:.1f} s")

    def decided(self, machine: Machine, before: State, decision: Decision) -> None:
        rule, after = decision.rule, decision.state
        assert rule is not None
        moves = after.phase is not before.phase
        phases = f"{before.phase} -> {after.phase}" if moves else f"{after.phase}"
        line = f"{machine.name} {phases}: {rule.because} [{rule.name}]"
        if not self._told_again(machine, line):
            self._told_first(machine, line)
        if decision.action is not None:
            self.asked(machine, decision)

    def recording(self, machine: Machine, decision: Decision) -> None:
        if decision.action is None or machine.crash_recording != deed(decision):
            return
        machine.crash_recording = ""
        telling = self._tellings[machine.name]
        telling.deed, telling.action = deed(decision), decision.action
        self._agent_dies(machine, "before it has written down")
        raise AgentDied

    def asked(self, machine: Machine, decision: Decision) -> None:
        telling = self._tellings[machine.name]
        telling.deed, telling.action = deed(decision), decision.action
        if machine.crash_before == telling.deed:
            machine.crash_before = ""
            # Queued before the action's first step, so that is never made.
            self.loop.call_at(self.loop.now, lambda: self._agent_dies(machine, "right before"))

    def performed(self, machine: Machine, performed: Performed) -> bool:
        """How the action went, before the agent hears of it.  False if it dies of that."""
        telling = self._tellings[machine.name]
        outcome = f"{telling.deed}: {_outcome(performed.outcome, telling.action)}"
        if not telling.again or outcome != telling.outcomes.get(telling.deed):
            telling.outcomes[telling.deed] = outcome
            indented = self._last_speaker == machine.name
            line = f"    {outcome}" if indented else f"{self.time} {machine.name} {outcome}"
            self._say(machine.name, line)
        telling.action = None
        if machine.crash_after != telling.deed:
            return True
        machine.crash_after = ""
        self._agent_dies(machine, "right after")
        return False

    # What the story asks for

    @property
    def time(self) -> str:
        return clock(round(self.loop.now - self._begins, 1))

    @property
    def wall(self) -> float:
        return WALL_AT_START + self.loop.now

    def say(self, what: str) -> None:
        """A line that no machine has told."""
        self._say("", f"{self.time} {what}")

    def heard(self) -> list[str]:
        """The lines since the last call."""
        for name in self.machines:
            self._count_told(name)
        lines, self.lines, self._last_speaker = self.lines, [], ""
        return list(_folded(lines))

    def write_claim(self, who: str, claim: Claim) -> None:
        """A person writes it, with one of our verbs."""
        old, self.claim = self.claim, claim
        self.tell(who, f"the claim: {_change(old, claim) if old else claim.node}")

    def restore(self, ago: float) -> None:
        """The zone at the primary, claim and service name, as it was then."""
        then = self.loop.now - ago
        known = [(claim, target) for at, claim, target in self.past if at <= then]
        self.claim, self.names[PRIMARY] = known[-1] if known else self.past[0][1:]
        claim = self.claim
        what = f"{claim.node}, epoch {claim.epoch}" if claim else "none"
        self.tell(PRIMARY, f"restored; the claim: {what}; the name leads to {self.names[PRIMARY]}")

    def show(self) -> str:
        """Who serves, the phases, the claim, the names."""
        who = " and ".join(self.serving) or "nobody"
        phases = ", ".join(f"{each.name} {self._state(each)}" for each in self.machines.values())
        names = self.names
        name = names[PRIMARY]
        if names[SECONDARY] != name:
            name = f"{names[PRIMARY]} at {PRIMARY}, {names[SECONDARY]} at {SECONDARY}"
        verb = "serve" if len(self.serving) > 1 else "serves"
        return f"{who} {verb}; {phases}; claim: {self._claim_in_words()}; name: {name}"

    def phase(self, machine: Machine) -> str:
        if not machine.has_power:
            return "off"
        if machine.is_frozen:
            return "suspended"
        return str(machine.journal.state.phase) if machine.agent else "without-agent"

    # Helpers

    def _state(self, machine: Machine) -> str:
        """The phase, and why the newest reading of the claim proves nothing, if so."""
        phase, trouble = self.phase(machine), machine.journal.state.evidence.claim_trouble
        return f"{phase} ({trouble})" if machine.agent and trouble else phase

    def _claim_in_words(self) -> str:
        claim, wall = self.claim, self.wall
        if claim is None:
            return "none"
        words = [claim.node, f"epoch {claim.epoch}", "served" if claim.served else "not served yet"]
        if claim.announced:
            words.append(f"announced by {claim.announced}")
        if claim.pause > wall:
            words.append(f"paused until {self._until(claim.pause)}")
        if claim.settle > wall:
            words.append(f"settling until {self._until(claim.settle)}")
        return ", ".join(words)

    def _until(self, wall: float) -> str:
        return clock(round(self.loop.now - self._begins + wall - self.wall))[:-2]

    def _told_again(self, machine: Machine, line: str) -> bool:
        telling = self._tellings[machine.name]
        if line not in telling.lines or self.loop.now - telling.at > BREATH:
            return False
        telling.again[_rule(line)] += 1
        telling.at = self.loop.now
        return True

    def _told_first(self, machine: Machine, line: str) -> None:
        self._count_told(machine.name)
        telling = self._tellings[machine.name]
        if " -> " in line:  # A new situation: what was told before it may be told again.
            telling.lines.clear()
            telling.outcomes.clear()
        else:
            telling.lines.add(line)
        telling.at = self.loop.now
        self._say(machine.name, f"{self.time} {line}")

    def _count_told(self, name: str) -> None:
        telling = self._tellings[name]
        until = clock(round(telling.at - self._begins, 1))
        for rule, count in telling.again.items():
            times = "once more" if count == 1 else f"{count} times more"
            self._say(name, f"{until} {name} {times} [{rule}]")
        telling.again.clear()

    def _agent_dies(self, machine: Machine, when: str) -> None:
        self._count_told(machine.name)
        telling = self._tellings[machine.name]
        self.say(f"{machine.name}: the agent dies {when} {telling.deed}")
        telling.action = None
        telling.lines.clear()
        telling.outcomes.clear()
        machine.kill_agent()

    def _say(self, who: str, line: str) -> None:
        if self._is_open:
            self.lines.append(line)
            self.all_lines.append(line)
            self._last_speaker = who

    def _remember(self) -> None:
        self.past.append((self.loop.now, self.claim, self.names[PRIMARY]))


class WatchedLoop(MachineLoop):
    """Tells the stage how each action went, before the agent hears of it."""

    def __init__(self, stage: Stage, machine: Machine) -> None:
        super().__init__(stage.loop, lambda: machine.frozen_until)
        self._stage, self._machine = stage, machine

    def start(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> VirtualTask:
        def ended(result: Any) -> None:
            if not isinstance(result, Performed) or self._stage.performed(self._machine, result):
                with suppress(AgentDied):
                    done(result)

        return super().start(work, ended)


def deed(decision: Decision) -> str:
    """The name of what a decision asks for: that of the step, or of the one thing."""
    rule, state = decision.rule, decision.state
    if rule is not None and rule.do not in (None, Do.STEP, Do.NEXT):
        return str(rule.do)
    assert state.runbook is not None
    return str(RUNBOOKS[state.runbook][state.step].step)


def _folded(lines: list[str]) -> Iterator[str]:
    """The first and the last of many equal rounds, and between them how many there were."""
    words = [line if line.startswith(" ") else line.partition(" ")[2] for line in lines]
    at = 0
    while at < len(lines):
        size, count = _rounds(words, at, lines)
        if count <= FOLDED:
            yield lines[at]
            at += 1
            continue
        last = at + size * (count - 1)
        yield from lines[at : at + size]
        yield f"    ... and {count - 2} times more the same ..."
        yield from lines[last : last + size]
        at = last + size


def _rounds(words: list[str], at: int, lines: list[str]) -> tuple[int, int]:
    """How many lines the shortest round has that is repeated from here on, and how often it comes in all."""
    if lines[at].startswith(" "):
        return 1, 1  # It belongs to the line before it.
    for size in range(1, LONGEST + 1):
        count, end = 1, at + size
        while end + size <= len(words) and words[end : end + size] == words[at : at + size]:
            count, end = count + 1, end + size
        if count > FOLDED:
            return size, count
    return 1, 1


def _rule(line: str) -> str:
    return line.rpartition("[")[2].removesuffix("]")


def _outcome(outcome: Outcome, action: Action | None) -> str:
    if outcome.result is not Result.DONE:
        return f"{outcome.result}, {outcome.why}" if outcome.why else f"{outcome.result}"
    if isinstance(action, WriteClaim):
        return f"done, the claim: {_change(action.old, action.new)}"
    return "done"


def _change(old: Claim, new: Claim) -> str:
    if new.node == old.node and new.epoch != old.epoch:
        return f"{new.node} again, epoch {new.epoch}, {new.how}"
    if new.epoch == old.epoch and new.returns < old.returns:
        return "earlier moves are forgotten"
    return in_words(old, new)


def _is_writing(action: Action | None) -> bool:
    return isinstance(action, WriteClaim)
