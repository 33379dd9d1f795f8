"""The agent on a real machine: as a daemon, or for one round from cron.

The only asyncio outside the adapters.  Whatever ends this process, the PBX is left exactly as it is: a restart of the
agent is no event for callers.
"""

import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from understudy.core import pace
from understudy.core.decide import Decision
from understudy.core.model import NEVER, SERVING, Phase, State
from understudy.core.observations import Order, Result, Seen
from understudy.core.policy import Policy
from understudy.errors import Refused
from understudy.ports import (
    ClaimStore,
    Clock,
    Copies,
    Moment,
    Peer,
    Probe,
    Service,
    ServiceName,
)

from . import journal_pen as pens
from .agent import Agent
from .companions import Beside, Companion, Company
from .guard_file import GuardFile, place
from .journal import SqliteJournal
from .journal_lock import agent_lock, holder
from .journal_news import news
from .journal_rows import in_words
from .keeper import Keeper, Memory
from .perform import World
from .readings import CRON, DAEMON

POLL = 0.5  # Seconds between two looks for an order that a person placed.
AGAIN = 60.0  # Seconds for which the same failure is not told again on standard error.
OF_A_BEGINNING = ("in-doubt", "proved")  # A process that has just started has no proof yet (S2).
RESERVE = 30.0  # Seconds that a runbook may take beside its starting and stopping of a PBX.


class Reports:
    """Where adapters tell what went wrong beside their work.  Who runs the agent listens."""

    def __init__(self) -> None:
        self.listener: Callable[[str], None] = lambda sentence: _write(f"{sentence}\n")

    def __call__(self, sentence: str) -> None:
        self.listener(sentence)


class Way(Peer, Protocol):
    """The way to the other node's agent, for commands too."""

    async def status(self) -> dict[str, Any]: ...

    async def calls(self) -> int:
        """How many are in progress on its PBX.  Raises."""

    async def fetch(self, epoch: int) -> None:
        """Have it read all of our data, which does not change any more.  Raises."""

    async def compare(self, epoch: int) -> None:
        """Have it look what a rejoin would do to its data.  Raises."""


@dataclass(slots=True)
class Scratch:
    """runtime.keeper.Memory of a command, which ends at once."""

    unsettled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node as its configuration describes it; `understudy.wiring` builds it."""

    policy: Policy
    clock: Clock
    boot_id: str  # random(4)
    store: ClaimStore
    name: ServiceName
    service: Service
    peer: Way
    copies: Copies
    probes: Sequence[Probe]
    journal_path: Path
    journal_days: float
    glass: Path  # Break-glass: a person runs the PBX whatever the claim says, while this exists.
    start_within: float = 60.0  # Seconds.
    copies_file: Path | None = (
        None  # Where the copier says how the copy is; None: there is nothing to copy.
    )
    reports: Reports = field(default_factory=Reports)
    companions: Callable[[], Sequence[Companion]] = tuple  # Made for who is the agent.

    def world(self, memory: Memory) -> World:
        return World(
            me=self.policy.me,
            keeper=self.keeper(memory),
            name=self.name,
            service=self.service,
            peer=self.peer,
            copies=self.copies,
        )

    def keeper(self, memory: Memory | None = None) -> Keeper:
        return Keeper(self.store, memory or Scratch(), self.clock)

    def journal(self) -> SqliteJournal:
        """For a command: beside the agent, reading and placing orders.  Raises JournalError."""
        return SqliteJournal(self.journal_path, self.clock, owner=False)

    @contextmanager
    def as_agent(self) -> Iterator[SqliteJournal]:
        """The journal as its one agent has it.  Raises Refused when another process is that."""
        with suppress(OSError):
            self.journal_path.parent.mkdir(parents=True, exist_ok=True)
        with agent_lock(self.journal_path.with_suffix(".lock")):
            journal = SqliteJournal(self.journal_path, self.clock, keep_days=self.journal_days)
            try:
                yield journal
            finally:
                journal.close()

    @property
    def agent_pid(self) -> int | None:
        """0 if it cannot be told, None if no agent runs."""
        return holder(self.journal_path.with_suffix(".lock"))

    @property
    def wake_file(self) -> Path:
        """Touched by who has news about the claim for the agent."""
        return self.journal_path.with_suffix(".wake")

    @property
    def guard_file(self) -> Path:
        """Where the agent says until when the PBX here may run (S2)."""
        return place(self.journal_path)

    @property
    def trouble_file(self) -> Path:
        """Where the agent says, as long as it can, that it cannot write its journal."""
        return self.journal_path.with_suffix(".trouble")

    def noted_trouble(self) -> str:
        """What the living agent has said there; empty if there is none, or it said nothing."""
        try:
            text = self.trouble_file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
        return text if text and self.agent_pid is not None else ""

    def note_trouble(self, text: str) -> None:
        """Best effort: on a full or read-only disk this may fail as well."""
        with suppress(OSError):
            if text:
                self.trouble_file.write_text(f"{text}\n", encoding="utf-8")
            else:
                self.trouble_file.unlink(missing_ok=True)

    def glass_is_broken(self) -> bool:
        return self.glass.exists()


def run_daemon(node: Node) -> int:
    """Be the agent of this node until SIGTERM or SIGINT.  Raises Refused when there is one already."""
    with node.as_agent() as journal:
        asyncio.run(_serve(node, journal))
    return 0


def run_tick(node: Node) -> int:
    """One round, for cron; longer only where cron would be too late, or would tear something apart.

    When another agent is at work it says so and leaves everything to that.
    """
    try:
        with node.as_agent() as journal:
            asyncio.run(_tick(node, journal))
    except Refused as refusal:
        _write(f"nothing to do: {refusal}\n")
    return 0


class AsyncLoop:
    """ports.Loop on asyncio.  What ends with an exception is a bug: `check` raises it where it is seen."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._jobs: set[_Job] = set()
        self._bug: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> "_Job":
        job = _Job(asyncio.get_running_loop().create_task(work), done)
        self._jobs.add(job)
        job.task.add_done_callback(lambda _: self._ended(job))
        return job

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def gather(self, *work: Awaitable[Any]) -> list[Any]:
        return list(await asyncio.gather(*work))

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def check(self) -> None:
        if self._bug is not None:
            raise self._bug

    async def end(self) -> None:
        """Cancel what runs, and see it gone."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*(job.task for job in jobs), return_exceptions=True)

    def _ended(self, job: "_Job") -> None:
        self._jobs.discard(job)
        self.news.set()
        if job.cancelled or job.task.cancelled():
            # Cancelled just after it had ended: to the agent it was cancelled.
            return
        try:
            job.done(job.task.result())
        except BaseException as error:
            self._bug = self._bug or error


class _Job:
    def __init__(self, task: "asyncio.Task[Any]", done: Callable[[Any], None]) -> None:
        self.task, self.done, self.cancelled = task, done, False

    def cancel(self) -> None:
        self.cancelled = True
        self.task.cancel()


class _Life:
    """One process's agent, and how it is driven."""

    def __init__(self, node: Node, journal: SqliteJournal, *, in_a_hurry: bool = False) -> None:
        self.node, self.journal, self.in_a_hurry = node, journal, in_a_hurry
        self.manager = _Manager()
        self.loop = AsyncLoop()
        self.speaker = Speaker()
        self.ended_by = ""
        self._woken_at = _changed_at(node.wake_file)
        self._said_trouble = self._said_guard = ""
        self.guard_file = GuardFile(node.guard_file, node.boot_id)
        node.reports.listener = self._report
        told = _Told(journal, self.speaker, every_look=not in_a_hurry)
        self.agent = Agent(
            world=node.world(journal),
            probes=node.probes,
            journal=told,
            configured=node.policy,
            clock=node.clock,
            loop=self.loop,
            jitter=lambda: random.uniform(0.9, 1.1),
            broken_glass=node.glass_is_broken,
            on_turn=self._tell_guard,
        )
        beside = Beside(
            journal,
            node.clock,
            lambda: self.agent.state,
            lambda: self.agent.policy,
            self.speaker.say,
        )
        self.company = Company(node.companions(), beside)

    def begin(self) -> None:
        running = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            running.add_signal_handler(each, self._end, each.name)
        running.add_signal_handler(signal.SIGHUP, self._hang_up)
        self.node.note_trouble("")  # An earlier process's.
        booted = self.journal.begin(self.node.boot_id, node=self.node.policy.me)
        kind = CRON if self.in_a_hurry else DAEMON
        self.journal.keep(partial(pens.keep, "agent", kind), full=False)
        # From cron a round is due whenever we are called.
        self.agent.begin(booted=booted, ask_now=self.in_a_hurry)
        if not self.in_a_hurry:
            self._watch_pbx()

    async def step(self) -> None:
        """Wake the agent, then wait until it is due again, something ended, or a person wants something."""
        wait = self.agent.wake()
        self.loop.check()
        self.journal.beat(self.node.clock.now())
        self._say_alive()
        self._say_trouble()
        until = time.monotonic() + wait
        while not self.ended_by:
            left = until - time.monotonic()
            if left <= 0 or await self._news_within(min(left, POLL)):
                break
            self.journal.beat(self.node.clock.now())
            self._say_alive()
            if self._is_called():
                break
        self.loop.news.clear()
        self.loop.check()

    async def end(self) -> None:
        await self.company.end()
        await self.loop.end()
        if self.ended_by:
            pbx = self.agent.state.evidence.pbx
            text = f"the agent ends ({self.ended_by}): the PBX is left as it is: {pbx}"
            self.journal.note("agent", text)
            self.speaker.say(5, text)

    def leave(self) -> None:
        """A round by cron is over."""
        now = self.node.clock.now().boot
        self.guard_file.leave(self.agent.state, self.agent.policy, now)

    def _watch_pbx(self) -> None:
        self.loop.start(self.node.service.ended(), self._pbx_ended)

    def _pbx_ended(self, _: None) -> None:
        self.agent.look()
        self._watch_pbx()

    def _tell_guard(self, _: Decision) -> None:
        now = self.node.clock.now().boot
        self.guard_file.tell(self.agent.state, self.agent.policy, now)
        trouble = self.guard_file.trouble
        if trouble != self._said_guard:
            self._said_guard = trouble
            self.journal.note("guard", trouble or "the guard can be told again")
            self.speaker.say(3 if trouble else 5, trouble or "the guard can be told again")

    async def _news_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.loop.news.wait()
        except TimeoutError:
            return False
        return True

    def _is_called(self) -> bool:
        """Has somebody placed an order, or touched the file that says: the claim has news?"""
        changed = _changed_at(self.node.wake_file)
        if changed != self._woken_at:
            self._woken_at = changed
            self.agent.hurry()
            return True
        return not self.agent.is_busy and self.journal.next_order() is not None

    def _report(self, sentence: str) -> None:
        self.journal.note("service", sentence)
        self.speaker.say(4, sentence)

    def _say_alive(self) -> None:
        self.manager.alive(_status(self.agent.state, self.journal.failure))

    def _say_trouble(self) -> None:
        trouble = self.journal.trouble
        if trouble != self._said_trouble:
            self._said_trouble = trouble
            self.node.note_trouble(self.journal.failure)
            self.speaker.say(3, trouble or "the journal is well again")

    def _end(self, name: str) -> None:
        self.ended_by = name
        self.loop.news.set()

    def _hang_up(self) -> None:
        self.speaker.say(
            5, "SIGHUP: a restart of the agent reads a new configuration; nothing is changed now"
        )


async def _serve(node: Node, journal: SqliteJournal) -> None:
    life = _Life(node, journal)
    life.begin()
    life.company.begin()
    life.manager.tell("READY=1")
    try:
        while not life.ended_by:
            await life.step()
        life.manager.tell("STOPPING=1")
    finally:
        await life.end()


async def _tick(node: Node, journal: SqliteJournal) -> None:
    life = _Life(node, journal, in_a_hurry=True)
    began = node.clock.now().boot
    life.begin()
    try:
        while not life.ended_by:
            await life.step()
            if _round_is_over(life, began):
                break
        life.leave()
        if not life.ended_by:
            await life.company.visit()
    finally:
        await life.end()


def _round_is_over(life: _Life, began: float) -> bool:
    """All was looked at, nothing runs, and the next run by cron will be in time."""
    if not life.loop.is_idle or life.journal.next_order() is not None:
        return False
    state, policy = life.agent.state, life.agent.policy
    now = life.node.clock.now().boot
    spent = now - began
    if state.runbook is not None:
        needs = 2 * policy.stop_within + life.node.start_within + RESERVE
        return spent > policy.interval + needs
    if _our_announcement_stands(state, policy):
        return spent > policy.interval + policy.announce + policy.question
    return spent >= policy.interval or not _cannot_wait(state, now, policy)


def _our_announcement_stands(state: State, policy: Policy) -> bool:
    claim = state.evidence.claim
    return claim is not None and claim.announced == policy.me and state.phase is Phase.SUSPECTING


def _cannot_wait(state: State, now: float, policy: Policy) -> bool:
    """Would the next run by cron, in up to an interval, be too late?"""
    if pace.is_attentive(state, now, policy):
        return True
    if state.phase in SERVING:
        return state.evidence.pbx_bad_since != NEVER
    # Twice the interval: so only what is due at an instant of its own is nearer than one.
    due = pace.next_round(state, now, policy, jitter=2.0)
    return state.phase is Phase.SUSPECTING and due < policy.interval


# What is said


class Speaker:
    """One line on standard error each; with a priority in front where journald reads (sd-daemon(3))."""

    def __init__(self) -> None:
        self._prefixed = "JOURNAL_STREAM" in os.environ
        self._said: dict[str, float] = {}

    def say(self, priority: int, text: str) -> None:
        _write(f"<{priority}>{text}\n" if self._prefixed else f"{text}\n")

    def say_once(self, priority: int, text: str) -> None:
        """What fails again and again is told once a minute."""
        now = time.monotonic()
        if now - self._said.get(text, NEVER) >= AGAIN:
            self._said = {each: at for each, at in self._said.items() if now - at < AGAIN}
            self._said[text] = now
            self.say(priority, text)


class _Told:
    """The journal, and each line of it said aloud as it is written.

    Without `every_look` only what was decided and done is: cron sends a mail for every line.
    """

    def __init__(self, journal: SqliteJournal, speaker: Speaker, *, every_look: bool) -> None:
        self._journal, self._speaker, self._every_look = journal, speaker, every_look
        self._doing = ""
        self._since = 0.0

    @property
    def state(self) -> State:
        return self._journal.state

    @property
    def adopted(self) -> Policy | None:
        return self._journal.adopted

    @adopted.setter
    def adopted(self, policy: Policy | None) -> None:
        self._journal.adopted = policy

    def next_order(self) -> Order | None:
        return self._journal.next_order()

    def record(self, decision: Decision, seen: Seen, at: Moment) -> None:
        before = self._journal.state
        self._journal.record(decision, seen, at)
        for kind, text in news(before, decision.state, seen) if self._every_look else ():
            if kind == "claim-trouble":
                self._speaker.say_once(4, text)
            elif not (seen.started and kind == "pbx"):  # Then it was only not looked at yet.
                self._speaker.say(6, text)
        if seen.outcome is not None and self._doing:
            self._tell_outcome(seen, at)
        self._tell_decision(before, decision)
        if decision.action is not None:
            self._doing, self._since = in_words(decision.action), at.boot

    def _tell_outcome(self, seen: Seen, at: Moment) -> None:
        outcome = seen.outcome
        assert outcome is not None
        if outcome.result is Result.DONE:
            self._speaker.say(6, f"{self._doing}: done in {at.boot - self._since:.1f} s")
        else:
            self._speaker.say_once(4, f"{self._doing}: {outcome.result}: {outcome.why}")
        self._doing = ""

    def _tell_decision(self, before: State, decision: Decision) -> None:
        rule, after = decision.rule, decision.state
        if rule is None or (rule.name in OF_A_BEGINNING and not self._every_look):
            return
        if after.phase is before.phase:
            self._speaker.say_once(5, f"{after.phase}: {rule.because} [{rule.name}]")
        else:
            self._speaker.say(5, f"{before.phase} -> {after.phase}: {rule.because} [{rule.name}]")


class _Manager:
    """systemd, if it started us: sd_notify(3)."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._status = ""
        self._alive_at = NEVER

    def alive(self, status: str) -> None:
        """The loop goes on: this is what the unit's watchdog waits for."""
        now = time.monotonic()
        if status != self._status or now - self._alive_at >= 1.0:
            self._status, self._alive_at = status, now
            self.tell(f"WATCHDOG=1\nSTATUS={status}")

    def tell(self, words: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(address)
            out.send(words.encode())


def _status(state: State, trouble: str) -> str:
    step = f", {state.runbook} step {state.step + 1}" if state.runbook is not None else ""
    return f"{state.phase}, epoch {state.epoch}{step}" + (f"; {trouble}" if trouble else "")


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # Nobody listens any more: no reason to end.
        sys.stderr.write(text)
        sys.stderr.flush()
