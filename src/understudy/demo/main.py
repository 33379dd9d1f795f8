"""`understudy demo`: a whole pair on this machine's loopback, a power cut, and the way back.

The agents are the real ones with a real configuration; PBXs, check points and name server are small
and speak the real protocols.  Everything is judged from outside: by the caller and by what the PBXs
wrote down.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TextIO

from understudy.core.model import Phase
from understudy.core.observations import Pbx
from understudy.errors import Refused
from understudy.runtime.journal_rows import Event, EventKind
from understudy.runtime.sentences import headline
from understudy.runtime.status import NodeView, Status

from . import data
from .caller import Attempt, Caller
from .ledger import Move, moves, turns
from .screen import Lines, NodeScene, Scene, Screen, Story
from .stage import SERVICE, Stage

FIRST, SECOND = "pbx01", "pbx02"
LOOK_EVERY = 0.25  # Seconds.
TELL_PATIENCE_EVERY = 2.0  # Seconds.
LINGER = 2.5  # Seconds in which an onlooker sees that all is calm.
STARTING = 20.0  # Seconds at most, as all of these.
FAILING_OVER = 30.0
RETURNING = 15.0
SWITCHING = 20.0
MAX_STRIP = 500  # Calls kept for the picture.


class Failed(Exception):
    """The story did not go as it should; says where it stopped."""


def main(words: Sequence[str] = ()) -> int:
    """0 if both moves happened and never two PBXs answered; 1 if not, or if it was interrupted.

    Raises Refused when this machine cannot play a pair.
    """
    parser = argparse.ArgumentParser(
        prog="understudy demo",
        description="A whole pair on this machine's loopback, in less than a minute: no root, no servers.",
    )
    parser.add_argument("--plain", action="store_true", help="plain lines, on a terminal too")
    options = parser.parse_args(list(words))
    if sys.platform != "linux":
        raise Refused("the demo needs Linux: a loopback network of many addresses, and /proc")
    story = Story()
    screen = choose(story, sys.stdout, plain=options.plain)
    try:
        return asyncio.run(_perform(story, screen))
    finally:
        screen.close()


def choose(story: Story, out: TextIO, *, plain: bool) -> Screen:
    if plain or not out.isatty():
        return Lines(story, out)
    from .picture import Picture

    return Picture(story, out)


async def _perform(story: Story, screen: Screen) -> int:
    stage = Stage()
    with _interruptible():
        try:
            async with stage:
                screen.say(f"a pair on loopback, its files in {stage.folder}")
                troubles, play = await _play_all(stage, story, screen)
            screen.close()
            for line in play.summary(troubles):
                sys.stdout.write(line + "\n")
        except asyncio.CancelledError:
            screen.say(
                f"ended before its end; everything is stopped, the files are in {stage.folder}"
            )
            return 1
    return 1 if troubles else 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C, a hang-up and SIGTERM end the play once; the clearing up is not torn by a second one."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    is_ending = False

    def end() -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            task.cancel()

    for each in signals:
        loop.add_signal_handler(each, end)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


async def _play_all(stage: Stage, story: Story, screen: Screen) -> tuple[list[str], "Play"]:
    """What went wrong, if anything, and the play."""
    play = Play(stage, story, screen)
    troubles: list[str] = []
    watching = asyncio.create_task(play.watch())
    calling = asyncio.create_task(play.call())
    try:
        await play.run()
    except Failed as failure:
        screen.say(f"this did not go as it should: {failure}")
        troubles.append(str(failure))
    finally:
        watching.cancel()
        await play.hang_up()
        ended = await asyncio.gather(watching, calling, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each  # A bug of ours.
    two = play.judge()
    return [*troubles, *([two] if two else [])], play


class Play:
    """The story, and what is seen and heard while it goes on."""

    def __init__(self, stage: Stage, story: Story, screen: Screen) -> None:
        self._stage, self._story, self._screen = stage, story, screen
        self._scene = Scene(seconds=0.0, act="", service=SERVICE)
        self._act = "both nodes start"
        self._began = time.time()
        self._told: set[tuple[str, float, str]] = set()
        self._patience_told = 0.0
        self._answering: str | None = None  # Who answers calls; "" is nobody; None: not called yet.
        self._moved_at = 0.0  # Wall clock, of the failover.
        self._may_call = asyncio.Event()
        self._caller = Caller(
            SERVICE, stage.name_server, port=stage.sip_port, on_attempt=self._heard
        )

    # The story

    async def run(self) -> None:
        """Raises Failed."""
        await self._start()
        await self._lose_power()
        await self._bring_back()
        await self._switch_back()

    async def _start(self) -> None:
        self._begin("both nodes start; the claim says that pbx01 is active")
        await self._stage.power_on(FIRST)
        await self._until("pbx01 serves", lambda: self._serves(FIRST), STARTING)
        self._say(f"somebody calls {SERVICE}, five times a second")
        self._may_call.set()
        await self._stage.power_on(SECOND)
        await self._until("a call is answered by pbx01", lambda: self._answering == FIRST, STARTING)
        await self._until("pbx02 stands by, and pbx01 is proved", self._is_protected, STARTING)
        await self._until("pbx02 has a copy", lambda: self._stage.is_copied(SECOND), STARTING)
        self._begin("all is well: pbx01 is active, pbx02 could take over")
        await self._linger(LINGER)

    async def _lose_power(self) -> None:
        self._begin("pbx01 loses power: kill -9 for its agent and its PBX")
        self._tell_data()
        await self._stage.power_off(FIRST)
        await self._until(
            "pbx02 suspects that pbx01 is dead",
            lambda: self._phase(SECOND) is Phase.SUSPECTING,
            FAILING_OVER,
        )
        await self._until("pbx02 takes over", lambda: self._serves(SECOND), FAILING_OVER)
        self._moved_at = time.time()
        await self._until(
            "a call is answered by pbx02", lambda: self._answering == SECOND, FAILING_OVER
        )
        self._begin("failover: pbx02 is active")
        self._tell_data()
        await self._linger(LINGER)

    async def _bring_back(self) -> None:
        self._begin("pbx01 is back; nothing but its agent starts there")
        await self._stage.power_on(FIRST)
        await self._until(
            "pbx01 is outdated", lambda: self._phase(FIRST) is Phase.OUTDATED, RETURNING
        )
        status = self._status(FIRST)
        assert status is not None
        self._begin("pbx01 stays silent; pbx02 goes on")
        self._say(f"pbx01 stays silent: {headline(status)}")
        self._say(f"pbx01 waits for {status.waiting_for}")
        await self._linger(LINGER)
        if self._answering != SECOND:
            raise Failed("pbx02 did not go on answering when pbx01 was back")

    async def _switch_back(self) -> None:
        self._begin("a person looks what the way home would do")
        said = await self._type(FIRST, "failback", "plan")
        self._tell_data()
        self._begin("and goes it: pbx01 gets its copy, pbx02 what only pbx01 had, then calls move")
        plan_id = said[-1].rpartition(" ")[2]
        await self._type(FIRST, "failback", "apply", plan_id, "--yes")
        await self._until("pbx01 serves again", lambda: self._serves(FIRST), SWITCHING)
        await self._until(
            "a call is answered by pbx01", lambda: self._answering == FIRST, SWITCHING
        )
        self._begin("as before: pbx01 is active, pbx02 could take over")
        self._tell_data()
        await self._linger(LINGER)

    async def _type(self, node: str, *words: str) -> Sequence[str]:
        """As a person does, only that nobody is asked.  Returns what it said."""
        line = f"understudy {' '.join(words)}"
        self._say(f"{node}$ {line}")
        try:
            done = await self._stage.person(node, *words)
        except TimeoutError:
            raise Failed(f"{line} on {node} did not end") from None
        for each in done.said:
            self._say(f"        {each}")
        if done.code != 0:
            raise Failed(f"{line} on {node} ended with {done.code}: {done.said[-1]}")
        return done.said

    # What it waits for

    async def _until(self, what: str, holds: Callable[[], bool], within: float) -> None:
        ends = time.monotonic() + within
        while not holds():
            gone = self._stage.ended_by_itself()
            if gone:
                raise Failed(f"the agent of {gone} has ended: see {self._stage.hosts[gone].log}")
            if time.monotonic() > ends:
                raise Failed(f"not within {within:.0f} s: {what}")
            await asyncio.sleep(LOOK_EVERY / 2)

    async def _linger(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _status(self, node: str) -> Status | None:
        """As last looked at; None while it is off."""
        found = next((each for each in self._scene.nodes if each.name == node), None)
        return found.status if found is not None and found.is_on else None

    def _phase(self, node: str) -> Phase | None:
        status = self._status(node)
        return status.phase if status is not None else None

    def _serves(self, node: str) -> bool:
        status = self._status(node)
        return (
            status is not None
            and status.phase in (Phase.ACTIVE, Phase.DOUBTED)
            and status.pbx is Pbx.ANSWERING
            and status.active == node
            and self._scene.leads_to == node
        )

    def _is_protected(self) -> bool:
        status = self._status(FIRST)
        proofs = status.proofs if status is not None else None
        proved = proofs is not None and proofs.claim_is_fresh and proofs.checkpoints_are_fresh
        return proved and self._phase(SECOND) is Phase.STANDBY

    # What is seen

    async def watch(self) -> None:
        """Look four times a second, and tell what is new."""
        while True:
            nodes, held = await asyncio.to_thread(self._look)
            leads_to = await self._stage.leads_to()
            if leads_to != self._scene.leads_to:
                self._say(f"{SERVICE} leads to {leads_to}")
            self._scene = self._compose(nodes, held, leads_to)
            self._tell_patience()
            self._screen.show(self._scene)
            await asyncio.sleep(LOOK_EVERY)

    def _look(self) -> tuple[dict[str, Status | None], dict[str, str]]:
        """How each node stands, and what it holds.  In a thread: SQLite blocks."""
        events = [
            (event.last or event.wall, name, event)
            for name in self._stage.hosts
            for event in self._stage.events(name, self._began)
        ]
        for _, name, event in sorted(events, key=lambda each: each[0]):
            key = (name, event.wall, event.text)
            if key not in self._told and _is_worth_telling(event):
                self._told.add(key)
                self._say(f"{name}: {event.text}")
        hosts = self._stage.hosts
        held = {name: str(data.kept_in_place(host.folder)) for name, host in hosts.items()}
        return {name: self._stage.status(name) for name in hosts}, held

    def _compose(
        self, statuses: dict[str, Status | None], held: dict[str, str], leads_to: str
    ) -> Scene:
        live = [each for name, each in statuses.items() if each and self._stage.is_on(name)]
        live.sort(key=lambda each: each.claim_age if each.claim_age is not None else 1e9)
        results = self._caller.results
        by_node = Counter(each.node for each in results)
        claim = live[0].claim if live else None
        announced = f", {claim.announced} has announced" if claim and claim.announced else ""
        return Scene(
            seconds=self._story.seconds,
            act=self._act,
            service=SERVICE,
            nodes=tuple(
                NodeScene(
                    name=name,
                    is_on=self._stage.is_on(name),
                    status=status,
                    votes=_newest_votes(live, name),
                    calls=by_node[name],
                    data=held[name],
                )
                for name, status in statuses.items()
            ),
            claim=f"{claim.node}, epoch {claim.epoch}, {claim.how}{announced}" if claim else "",
            leads_to=leads_to,
            patience=next((each.patience for each in live if each.patience), None),
            reasons=tuple(
                f"{headline(each)}; it waits for {each.waiting_for}"
                for each in live
                if each.phase in (Phase.SILENT, Phase.OUTDATED, Phase.HALTED)
            ),
            calls=tuple(each.node for each in results[-MAX_STRIP:]),
            answered=len(results) - by_node[""],
            lost=by_node[""],
        )

    def _tell_data(self) -> None:
        """What callers have left, where it is."""
        held = (
            f"{name} {data.kept_in_place(host.folder)}" for name, host in self._stage.hosts.items()
        )
        self._say(f"recorded: {'; '.join(held)}")

    def _tell_patience(self) -> None:
        patience, seconds = self._scene.patience, self._scene.seconds
        # A suspicion that has just begun often ends with the next round: not worth a line.
        if patience is None or patience.spent < TELL_PATIENCE_EVERY:
            return
        if seconds - self._patience_told >= TELL_PATIENCE_EVERY:
            self._patience_told = seconds
            self._say(f"patience: {self._scene.patience_text}")

    # What is heard

    async def call(self) -> None:
        await self._may_call.wait()
        await self._caller.run()

    async def hang_up(self) -> None:
        await self._caller.stop()
        self._may_call.set()

    def _heard(self, attempt: Attempt) -> None:
        if attempt.node == self._answering:
            return
        self._answering = attempt.node
        if not attempt.answered:
            self._say(f"calls are lost: {_complaint(attempt)}")
            return
        self._say(f"calls are answered by {attempt.node}")

    # The end

    def judge(self) -> str:
        """By what the PBXs wrote down: did two answer at the same time, is anything lost?  Empty if not."""
        return self._two_at_once() or self._lost_data()

    def _two_at_once(self) -> str:
        order = turns(host.record for host in self._stage.hosts.values())
        if order == [FIRST, SECOND, FIRST][: len(order)]:
            return ""
        return f"two PBXs answered at the same time: in order {', '.join(order)}"

    def _lost_data(self) -> str:
        folders = [host.folder for host in self._stage.hosts.values()]
        gone = data.recorded(folders) - data.kept(self._stage.hosts[FIRST].folder).all
        if not gone or not self._stage.copies_files:
            return ""
        return f"recorded, and not on pbx01 at the end: {', '.join(sorted(gone)[:5])}"

    def _data(self) -> str:
        """How what was recorded ended."""
        if not self._stage.copies_files:
            return (
                "rsync is not installed here: only agents went with the calls (apt install rsync)"
            )
        first = self._stage.hosts[FIRST]
        there = data.kept_in_place(first.folder)
        aside = data.kept(first.store).all - there.all
        count = len(data.recorded(host.folder for host in self._stage.hosts.values()))
        kept = (
            f", and {len(aside)} kept aside there: recorded in pbx01's last moment" if aside else ""
        )
        return f"{count} recorded; on pbx01 now {there}{kept}"

    def summary(self, troubles: Sequence[str]) -> list[str]:
        results = self._caller.results
        answered = Counter(each.node for each in results if each.answered)
        lines = ["", "What the caller went through"]
        names = ("failover", "switchover")
        for name, move in zip(names, moves(results), strict=False):
            lines.append(f"  {name:<12}{_in_words(move)}")
        by_node = ", ".join(f"{node} {count}" for node, count in sorted(answered.items()))
        lines += [
            f"  {'calls':<12}{answered.total()} answered ({by_node or 'by nobody'}), "
            f"{len(results) - answered.total()} lost",
            f"  {'two at once':<12}{'yes' if self._two_at_once() else 'never'}, by the PBXs' own records",
            f"  {'data':<12}{self._data()}",
        ]
        if troubles:
            lines += ["", "It did not go as it should", *(f"  {each}" for each in troubles)]
        else:
            lines += [
                "",
                "Most of the failover is patience: 9 s here, 5 minutes with the defaults.  It is there so",
                "that a short loss of a network is answered by nothing.",
            ]
        return lines + list(self._files(troubles))

    def _files(self, troubles: Sequence[str]) -> Iterator[str]:
        first, second = self._stage.hosts[FIRST], self._stage.hosts[SECOND]
        yield ""
        yield f"All is stopped.  Each node's files are kept in {self._stage.folder}:"
        for name, text in (
            (first.config.name, "the configuration"),
            (self._stage.nodes[FIRST].journal_path.name, "what it saw, decided and did, and why"),
            (first.log.name, "what its agent said" + (": look here" if troubles else "")),
        ):
            yield f"  {name:<18}{text}"
        yield ""
        yield "Try next"
        if self._moved_at:
            at = time.strftime("%H:%M:%S", time.localtime(self._moved_at))
            yield f"  {second.tool} why --at {at}"
        yield f"  {second.tool} events"
        yield f"  {first.tool} status"

    def _begin(self, act: str) -> None:
        self._act = act
        self._scene = replace(self._scene, act=act)
        self._say(f"== {act}")

    def _say(self, text: str) -> None:
        self._screen.say(text)


def _is_worth_telling(event: Event) -> bool:
    """What was decided; and of what was done, what failed."""
    match event.kind:
        case EventKind.DECISION:
            return True
        case EventKind.STEP:
            return event.name not in ("open", "done")
    return False


def _newest_votes(live: Sequence[Status], node: str) -> NodeView | None:
    asked = [each for each in live if each.round_age is not None]
    if not asked:
        return None
    newest = min(asked, key=lambda each: each.round_age or 0.0)
    return next((view for view in newest.nodes if view.node == node), None)


def _complaint(attempt: Attempt) -> str:
    """Without the number that the operating system gives an error."""
    why = attempt.why.partition("] ")[2] or attempt.why
    return why if not attempt.where or attempt.where in why else f"{attempt.where}: {why}"


def _in_words(move: Move) -> str:
    calls = f"{move.lost} call{'' if move.lost == 1 else 's'} lost"
    return f"{move.seconds:.1f} s without service, {calls}: {move.before} -> {move.after}"
