"""Both machines with the claim, as a graph: every state that the pair can reach, breadth first.

The real `decide` moves both nodes; only the world is abstract.  Time is slots; ages are whole slots and capped where no
rule can tell them apart any more.  In each slot the world may do one thing (cut or heal a link, crash an agent,
reboot a machine, lose or delay an answer, give an order ...), and then both nodes read, ask, decide and act, in either
order.

What is abstract: the three check points are one view that both nodes share (two majorities share a check point, and it
tells both the same), which each node may be unable to ask; a view lasts for at least `VIEW_LASTS` slots (PROTOCOL names
the exception: a check point that tells the two nodes different things in step with their rounds).  A stop takes its
whole deadline; a PBX serves from the moment it is asked to start.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from understudy.core import pace
from understudy.core.actions import (
    Action,
    AskPeer,
    Fence,
    Point,
    Restart,
    ShutOff,
    Start,
    Stop,
    WriteClaim,
)
from understudy.core.claim import Claim, How, first, touch
from understudy.core.decide import Decision, decide
from understudy.core.model import NEVER, Lineage, Phase, State, newborn
from understudy.core.observations import (
    ClaimReading,
    Health,
    Order,
    Outcome,
    Pbx,
    Ready,
    Report,
    Result,
    Round,
    Seen,
    Verb,
)
from understudy.core.policy import Policy
from understudy.runtime.door import is_stopped, readiness

NOW = 1000.0  # Every decision is made "now"; a slot later, everything is a slot older.
NODES = ("n1", "n2")
POLICY = Policy(
    me="n1",
    peer="n2",
    interval=2.0,
    hurry=1.0,
    question=0.0,
    claim_reading=0.0,
    claim_stale=1.0,
    checkpoints_stale=3.0,
    stop_within=1.0,
    announce=4.0,  # claim_stale, stop_within, one reading, and the slot in which age is noticed.
    patience=9.0,
    restart_grace=1.0,
    settle_down=0.0,
    first_proof=1.0,
    digest="d",
)
POLICIES = (POLICY, replace(POLICY, me="n2", peer="n1"))
VIEW_LASTS = 3


class Node(NamedTuple):
    """One machine.  `state` is canonical: equal situations are equal values."""

    state: State
    serves: bool = False
    stopping: bool = False  # The service manager stops the PBX, whoever asked, and whether or not that one lives.
    busy: str = ""  # "stop", "fence": an action that takes more than this slot.
    agent_down: int = 0  # Slots since the agent died, counting from 1; 0 while it lives.
    rebooted: bool = False  # The machine has booted since the agent last ran.
    unsettled: bool = False  # C2: a write of ours may still be on its way.


class World(NamedTuple):
    """The pair, and what lies between its nodes."""

    claim: Claim
    nodes: tuple[Node, Node]
    store: tuple[bool, bool] = (True, True)  # Does each node reach the claim?
    ask: tuple[bool, bool] = (True, True)  # Does each node reach the check points?
    view: tuple[bool, bool] = (True, True)  # Do the check points reach each node?
    view_age: tuple[int, int] = (VIEW_LASTS, VIEW_LASTS)
    link: bool = True  # Do the nodes reach each other?
    can_start: tuple[bool, bool] = (True, True)
    late: tuple[Claim, Claim] | None = None  # A write that may still land (C2).


@dataclass(frozen=True)
class Model:
    """Which things may happen; a smaller world is searched to a greater depth."""

    events: frozenset[str]
    policies: tuple[Policy, Policy] = POLICIES
    view_lasts: int = VIEW_LASTS

    def start(self) -> World:
        nodes = tuple(Node(newborn(NOW)) for _ in NODES)
        return World(claim=first("n1", digest="d"), nodes=nodes)  # type: ignore[arg-type]

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        for name, happened, mishap in self._happenings(world):
            for order in ((0, 1), (1, 0)):
                slot = Slot(self, happened, mishap)
                for index in order:
                    slot.play(index)
                yield f"{name}; {NODES[order[0]]} first", canonical(slot.end())

    def healed(self, world: World) -> World:
        """The world a slot later, with everything whole and every agent alive."""
        whole = _whole(world)
        for i, node in enumerate(whole.nodes):
            if node.agent_down:
                whole = _with(whole, i, _restarted(self, i, node))
        slot = Slot(self, whole, "")
        slot.play(0)
        slot.play(1)
        return canonical(slot.end())

    def _happenings(self, world: World) -> Iterator[tuple[str, World, str]]:
        yield "nothing", world, ""
        for i, node in enumerate(NODES):
            for kind, bits in (
                ("store", world.store),
                ("ask", world.ask),
                ("start", world.can_start),
            ):
                if self._may(kind, i):
                    name = "can_start" if kind == "start" else kind
                    flipped = world._replace(**{name: _flip(bits, i)})  # type: ignore[arg-type]
                    yield f"{kind} {node}", flipped, ""
            if self._may("view", i) and world.view_age[i] >= self.view_lasts:
                flipped = world._replace(
                    view=_flip(world.view, i), view_age=_put(world.view_age, i, 0)
                )
                yield f"view {node}", flipped, ""
            machine = world.nodes[i]
            if self._may("crash", i):
                if machine.agent_down == 0:
                    crashed = machine._replace(agent_down=1, busy="")
                    yield f"agent {node} dies", _with(world, i, crashed), ""
                    yield (
                        f"agent {node} restarts",
                        _with(world, i, _restarted(self, i, crashed)),
                        "",
                    )
                else:
                    yield f"agent {node} starts", _with(world, i, _restarted(self, i, machine)), ""
            if self._may("boot", i) and not machine.rebooted:
                off = machine._replace(
                    serves=False, stopping=False, agent_down=1, busy="", rebooted=True
                )
                yield f"{node} reboots", _with(world, i, off), ""
                yield f"{node} boots at once", _with(world, i, _restarted(self, i, off)), ""
            if self._may("switchover", i) and machine.agent_down == 0:
                yield f"switchover {node}", world, f"switchover {i}"
            if self._may("failover", i) and machine.agent_down == 0:
                yield f"failover {node}", world, f"failover {i}"
        if "link" in self.events:
            yield "link", world._replace(link=not world.link), ""
        if "late" in self.events:
            yield "an answer is lost", world, "lost"
            if world.late is None:
                yield "a write is late", world, "late"
            elif world.late[0] == world.claim:
                yield "the late write lands", world._replace(claim=world.late[1], late=None), ""

    def _may(self, kind: str, index: int) -> bool:
        """Of an event that has a node: `view` for both, `view1` for the first alone."""
        return kind in self.events or f"{kind}{index + 1}" in self.events


class Slot:
    """One slot of time in the making."""

    def __init__(self, model: Model, world: World, mishap: str) -> None:
        self.model, self.world, self.mishap = model, world, mishap
        self.resting = [False, False]

    def play(self, index: int) -> None:
        """One node's part: look, read, ask, and do what is decided."""
        asked = self.world.nodes[index].busy == "stop"
        self._stop(index)
        node = self.world.nodes[index]
        if node.agent_down:
            return
        if asked:
            self._put(index, node._replace(busy=""))
            self._decide(index, Seen(outcome=Outcome(Result.DONE), pbx=Pbx.STOPPED))
        elif node.busy == "fence":
            self._wait_for_fence(index)
        node = self.world.nodes[index]
        if not node.busy:
            self._decide(index, Seen(pbx=Pbx.ANSWERING if node.serves else Pbx.STOPPED))
        self._read(index)
        self._ask(index)
        order = self._order(index)
        if order is not None and not self.world.nodes[index].busy:
            self._decide(index, Seen(order=order))
        self._decide(index, Seen())

    def end(self) -> World:
        """A slot later: everything is older, guards have done their work."""
        nodes = tuple(_older(node) for node in self.world.nodes)
        ages = tuple(min(age + 1, VIEW_LASTS + 1) for age in self.world.view_age)
        late = self.world.late
        if late is not None and late[0] != self.world.claim:
            late = None  # It can never land: its prerequisite is gone.
        return self.world._replace(nodes=nodes, view_age=ages, late=late)  # type: ignore[arg-type]

    def _stop(self, index: int) -> None:
        """A stop that was begun a slot ago is done; and the guard begins one when no proof is left (S2)."""
        node = self.world.nodes[index]
        if node.stopping:
            self._put(index, node._replace(serves=False, stopping=False))
        elif node.serves and pace.serving_ends(node.state, self.model.policies[index]) < NOW:
            self._put(index, node._replace(stopping=True))

    # What a node sees

    def _read(self, index: int) -> None:
        if not self.world.store[index]:
            seen = Seen(claim=ClaimReading(asked_at=NOW, claim=None, trouble="away"))
        else:
            if self.world.nodes[index].unsettled:  # C2: bump it first.
                self.world = self.world._replace(claim=touch(self.world.claim))
                self._put(index, self.world.nodes[index]._replace(unsettled=False))
            seen = Seen(claim=ClaimReading(asked_at=NOW, claim=self.world.claim))
        self._decide(index, seen)

    def _ask(self, index: int) -> None:
        policy, state = self.model.policies[index], self.world.nodes[index].state
        if pace.next_round(state, NOW, policy) > 0:
            return
        reports = {
            name: self._reports(i) if self.world.ask[index] else () for i, name in enumerate(NODES)
        }
        self._decide(index, Seen(round=Round(asked_at=NOW, reports=reports)))

    def _reports(self, index: int) -> tuple[Report, ...]:
        up = self.world.view[index] and self.world.nodes[index].serves
        return (Report("cp", Health.UP if up else Health.DOWN),) * 3

    def _order(self, index: int) -> Order | None:
        verb, _, node = self.mishap.partition(" ")
        if node != str(index):
            return None
        return Order(id=1, verb=Verb(verb))

    # What it decides and does

    def _decide(self, index: int, seen: Seen) -> None:
        for _ in range(40):
            node = self.world.nodes[index]
            before = node.state
            seen = replace(seen, busy=bool(node.busy) or self.resting[index])
            decision = _decided(self.model.policies[index], before, seen)
            after = decision.state
            moved = (after.phase, after.runbook) != (before.phase, before.runbook)
            busy = "" if moved or decision.action is not None else node.busy
            self._put(index, node._replace(state=after, busy=busy))
            outcome = self._do(index, decision)
            if outcome is None:
                if decision.rule is None or decision.action is not None:
                    return
                order = seen.order if decision.order is None else None
                seen = Seen(order=order)
                continue
            seen = outcome
        raise AssertionError(f"no end of decisions in {self.world}")

    def _do(self, index: int, decision: Decision) -> Seen | None:
        """Perform the action; None when there is none, or when it takes longer than this slot."""
        action = decision.action
        if action is None:
            return None
        reading = None
        if decision.guarded:
            refused = self._guard(index)
            if refused is not None:
                self.resting[index] = True
                return refused
            reading = ClaimReading(asked_at=NOW, claim=self.world.claim)
        return self._perform(index, action, reading)

    def _perform(self, index: int, action: Action, reading: ClaimReading | None) -> Seen | None:
        node = self.world.nodes[index]
        done = Outcome(Result.DONE)
        match action:
            case WriteClaim(old, new):
                seen = self._write(index, old, new)
                self.resting[index] = seen.outcome != done
                return seen
            case Start():
                self._put(index, node._replace(serves=self.world.can_start[index]))
                self._check()
                return Seen(outcome=done, claim=reading, pbx=Pbx.STARTING)
            case Stop():
                if node.serves:
                    self._put(index, node._replace(stopping=True, busy="stop"))
                    return None
                return Seen(outcome=done, pbx=Pbx.STOPPED)
            case Fence():
                self._put(index, node._replace(busy="fence"))
                self._wait_for_fence(index)
                return None
            case AskPeer(epoch):
                return Seen(outcome=self._peer_is_ready(index, epoch))
            case Restart() | ShutOff():
                raise AssertionError("nothing here dies or refuses to stop")
        if type(action).__name__ == "Prove":
            result = Result.DONE if node.serves else Result.FAILED
            return Seen(outcome=Outcome(result), pbx=Pbx.ANSWERING if node.serves else Pbx.DEAD)
        pointed = node.state.epoch if isinstance(action, Point) else None
        return Seen(outcome=done, claim=reading, pointed=pointed)

    def _guard(self, index: int) -> Seen | None:
        """T3: a fresh reading before the step."""
        if not self.world.store[index]:
            return Seen(outcome=Outcome(Result.UNSURE))
        claim = self.world.claim
        reading = ClaimReading(asked_at=NOW, claim=claim)
        if claim.node != NODES[index] or claim.is_announced:
            return Seen(outcome=Outcome(Result.LOST), claim=reading)
        return None

    def _write(self, index: int, old: Claim, new: Claim) -> Seen:
        node = self.world.nodes[index]
        if not self.world.store[index]:
            return Seen(outcome=Outcome(Result.FAILED))
        if node.unsettled:
            self.world = self.world._replace(claim=touch(self.world.claim))
            self._put(index, node._replace(unsettled=False))
            return Seen(outcome=Outcome(Result.FAILED))
        if self.mishap == "late" and self.world.late is None:
            self.mishap = ""
            self.world = self.world._replace(late=(old, new))
            self._put(index, node._replace(unsettled=True))
            return Seen(outcome=Outcome(Result.FAILED))
        landed = self.world.claim == old
        if landed:
            self.world = self.world._replace(claim=new)
        if self.mishap == "lost":
            self.mishap = ""
            self._put(index, self.world.nodes[index]._replace(unsettled=True))
            return Seen(outcome=Outcome(Result.FAILED))
        reading = ClaimReading(asked_at=NOW, claim=self.world.claim)
        return Seen(outcome=Outcome(Result.DONE if landed else Result.FAILED), claim=reading)

    def _peer_is_ready(self, index: int, epoch: int) -> Outcome:
        other = self.world.nodes[1 - index]
        if not self.world.link or other.agent_down:
            return Outcome(Result.FAILED)
        answer = readiness(other.state, self.model.policies[1 - index], epoch, NOW)
        return Outcome(Result.DONE if answer.ready is Ready.YES else Result.FAILED)

    def _wait_for_fence(self, index: int) -> None:
        """H3, T4: confirmed when the other node has proved its PBX stopped."""
        other_index = 1 - index
        other = self.world.nodes[other_index]
        node = self.world.nodes[index]
        if not self.world.link or other.agent_down:
            self._put(index, node._replace(busy=""))
            self._decide(index, Seen(outcome=Outcome(Result.FAILED)))
        elif is_stopped(other.state) and not other.serves:
            self._put(index, node._replace(busy=""))
            self._decide(index, Seen(outcome=Outcome(Result.DONE)))
        elif not other.busy:
            epoch = self.world.claim.epoch + (self.world.claim.node != NODES[index])
            self._decide(other_index, Seen(order=Order(id=2, verb=Verb.FENCE, epoch=epoch)))

    def _put(self, index: int, node: Node) -> None:
        self.world = _with(self.world, index, node)

    def _check(self) -> None:
        if _both_serve(self.world):
            raise TwoActiveError(self.world)


class TwoActiveError(Exception):
    """What must never be."""


def explore(model: Model, limit: int) -> dict[World, tuple[World, str] | None]:
    """Every world that can be reached, with the one that it was first reached from.  `limit` bounds the search."""
    start = canonical(model.start())
    found: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        try:
            for name, after in model.successors(world):
                if after not in found:
                    found[after] = (world, name)
                    queue.append(after)
        except TwoActiveError as error:
            raise AssertionError("two active:\n" + "\n".join(way(found, world))) from error
        assert len(found) <= limit, f"more than {limit} worlds"
    return found


def way(found: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    """How a world was reached, for people."""
    lines = [in_words(world)]
    at = found[world]
    while at is not None:
        world, name = at
        lines.append(f"    {name}")
        lines.append(in_words(world))
        at = found[world]
    return lines[::-1]


def in_words(world: World) -> str:
    nodes = " ".join(
        f"{name}={node.state.phase}{'*' if node.serves else ''}"
        f"{'/' + node.state.runbook + str(node.state.step) if node.state.runbook else ''}"
        f"{' agent down' if node.agent_down else ''}"
        for name, node in zip(NODES, world.nodes, strict=True)
    )
    claim = world.claim
    cuts = f"store={world.store} ask={world.ask} view={world.view} link={world.link}"
    record = (
        f"{claim.node}.{claim.epoch} {claim.how} ann={claim.announced or '-'} served={claim.served}"
    )
    return f"{nodes} claim={record} {cuts}"


# Canonical values

AGES = (
    "void_since",
    "epoch_at",
    "claim_at",
    "proved_at",
    "announced_at",
    "round_at",
    "up_since",
    "up_at",
    "down_since",
    "start_failed_at",
)


def canonical(world: World) -> World:
    """Equal situations as equal values: ages capped, epochs and serials as small as they can be."""
    epochs = _ranks(world)
    claim = _renumber(world.claim, epochs, 2)
    nodes = tuple(
        _canonical_node(i, node, world.claim, epochs) for i, node in enumerate(world.nodes)
    )
    late = world.late
    if late is not None:
        late = (claim, _renumber(late[1], epochs, 3))
    return world._replace(claim=claim, nodes=nodes, late=late)  # type: ignore[arg-type]


def _canonical_node(index: int, node: Node, actual: Claim, epochs: dict[int, int]) -> Node:
    state = node.state
    evidence = state.evidence
    known = evidence.claim
    if known is not None:
        known = _renumber(known, epochs, 2 if known == actual else 1)
    changes = {
        name: NOW - min(NOW - getattr(evidence, name), cap)
        for name, cap in _caps(state, known).items()
        if getattr(evidence, name) != NEVER
    }
    if known is not None and known.node == NODES[index]:
        changes["down_since"] = (
            NEVER  # Any way from here to a suspicion goes through another epoch.
        )
    evidence = replace(
        evidence, claim=known, strikes=(), void_why="", peer=None, pbx_good_since=NEVER, **changes
    )
    lineage = state.lineage
    halted = state.phase is Phase.HALTED
    return node._replace(
        state=replace(
            state,
            since=NOW - min(NOW - state.since, _since_cap(state)),
            epoch=epochs.get(state.epoch, 0),
            phase_epoch=epochs[state.phase_epoch] if halted else 0,
            pointed=99,  # Where the name leads is no matter of who serves.
            lineage=None if lineage is None else Lineage(lineage.node, epochs[lineage.epoch]),
            automatic=True,
            evidence=evidence,
        ),
        agent_down=min(node.agent_down, 3),
    )


def _caps(state: State, known: Claim | None) -> dict[str, int]:
    """The greatest age that a rule can still tell from an older one, for each instant."""
    announced = known is not None and known.is_announced
    serving = state.phase in (Phase.ACTIVE, Phase.DOUBTED, Phase.TAKING_OVER, Phase.HANDING_OVER)
    waits = known is not None and known.how is How.MOVED and not known.served
    return {
        "void_since": 2 if serving else 0,
        "epoch_at": 5 if waits else 0,
        "claim_at": 2,
        "proved_at": 2 if serving else 0,
        "announced_at": 13,
        "round_at": 5,
        "up_since": 4,
        "up_at": 14 if announced else 4,
        "down_since": 10,
        "start_failed_at": 4,
    }


def _since_cap(state: State) -> int:
    match state.phase:
        case Phase.ACTIVE:
            return 7
        case Phase.SILENT:
            return 6
    return 2


def _ranks(world: World) -> dict[int, int]:
    """Epochs matter by their order, and by which follows which directly."""
    seen = {world.claim.epoch, 0}
    if world.late is not None:
        seen.add(world.late[1].epoch)
    for node in world.nodes:
        state = node.state
        seen.add(state.epoch)
        if state.phase is Phase.HALTED:
            seen.add(state.phase_epoch)
        if state.lineage is not None:
            seen.add(state.lineage.epoch)
        if state.evidence.claim is not None:
            seen.add(state.evidence.claim.epoch)
    ranks: dict[int, int] = {}
    rank = last = 0
    for epoch in sorted(seen):
        rank += min(epoch - last, 2)
        ranks[epoch], last = rank, epoch
    return ranks


def _renumber(claim: Claim, epochs: dict[int, int], serial: int) -> Claim:
    return replace(claim, epoch=epochs[claim.epoch], serial=serial, settle=0)


_decisions: dict[tuple[object, ...], Decision] = {}


def _decided(policy: Policy, state: State, seen: Seen) -> Decision:
    """decide(), remembered: the same few thousand situations come up again and again."""
    key = (policy.me, state, replace(seen, round=None), _votes(seen))
    found = _decisions.get(key)
    if found is None:
        found = _decisions[key] = decide(state, seen, NOW, 0.0, policy)
    return found


def _votes(seen: Seen) -> tuple[object, ...] | None:
    return None if seen.round is None else tuple(seen.round.reports.values())


def _older(node: Node) -> Node:
    evidence = node.state.evidence
    changes = {
        name: getattr(evidence, name) - 1 for name in AGES if getattr(evidence, name) != NEVER
    }
    state = replace(node.state, since=node.state.since - 1, evidence=replace(evidence, **changes))
    return node._replace(state=state, agent_down=node.agent_down and node.agent_down + 1)


def _restarted(model: Model, index: int, node: Node) -> Node:
    """The agent starts: this process has no proof (S2)."""
    policy = model.policies[index]
    seen = Seen(started=True, booted=node.rebooted)
    state = node.state
    for _ in range(10):
        decision = _decided(policy, state, seen)
        state = decision.state
        if decision.action is not None or decision.rule is None:
            break
        seen = Seen()
    # Whatever it asked for, it asks for again: the step has no outcome.
    return node._replace(state=state, agent_down=0, rebooted=False, busy="")


def _whole(world: World) -> World:
    return world._replace(
        store=(True, True),
        ask=(True, True),
        view=(True, True),
        view_age=(VIEW_LASTS, VIEW_LASTS),
        link=True,
        can_start=(True, True),
        late=None,
    )


def _both_serve(world: World) -> bool:
    return all(node.serves for node in world.nodes)


def _with(world: World, index: int, node: Node) -> World:
    nodes = (node, world.nodes[1]) if index == 0 else (world.nodes[0], node)
    return world._replace(nodes=nodes)


def _flip(bits: tuple[bool, bool], index: int) -> tuple[bool, bool]:
    return (not bits[0], bits[1]) if index == 0 else (bits[0], not bits[1])


def _put(values: tuple[int, int], index: int, value: int) -> tuple[int, int]:
    return (value, values[1]) if index == 0 else (values[0], value)
