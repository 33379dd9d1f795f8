"""What a story may say: one command per line, and what it does to the pair.

docs/reference/stories.md explains them.
"""

from dataclasses import replace
from math import inf

from understudy.config.durations import parse
from understudy.core import claim as records
from understudy.core.observations import Health, Pbx, Verb
from understudy.core.votes import Verdict, verdict
from understudy.errors import AdapterError

from .stage import STEPS, Stage
from .world import CHECKPOINTS, NODES, PRIMARY, SECONDARY, FakeProbe, FakeStore, Machine

PLACES = (*NODES, *CHECKPOINTS, PRIMARY, SECONDARY)
ALL = "check-points"  # All of them, where a place may stand.
EDITED = "edited"  # The digest of the configuration that `edit` leads to, on either node.


class Unclear(Exception):
    """The sentence for the author of the story."""


def obey(stage: Stage, command: str) -> None:
    """Do what one line of a story says.  Raises Unclear."""
    words = command.split()
    match words:
        case ["wait", time]:
            stage.run(_seconds(time))
        case ["repeat", times, *rest] if rest and times.endswith(":"):
            for _ in range(_count(times.removesuffix(":"))):
                for each in " ".join(rest).split(";"):
                    obey(stage, each)
        case ["show"]:
            stage.say(stage.show())
        case ["expect", *_]:
            _expect(stage, words)
        case ["pbx", _, *_] | ["dialplan", *_]:
            _touch_pbx(stage, words)
        case ["power" | "agent" | "crash" | "freeze" | "clock" | "glass" | "copy", *_]:
            _touch_machine(stage, words)
        case ["cut" | "isolate" | "heal" | "loss", *_]:
            _touch_network(stage, words)
        case ["check", "point" | "points", *_] | ["name", "server", *_] | ["ns1" | "ns2", *_]:
            _touch_server(stage, words)
        case ["order" | "pause" | "resume" | "set-active" | "edit", *_]:
            _act_as_person(stage, words)
        case _:
            raise _no_such(words)
    stage.check()
    stage.run(0.0)  # What follows at once belongs to this command.


def _touch_pbx(stage: Stage, words: list[str]) -> None:
    match words:
        case ["pbx", node, "dies"]:
            _machine(stage, node).pbx.die()
        case ["pbx", node, "goes", "deaf"]:
            _machine(stage, node).pbx.become(Pbx.DEAF)
        case ["pbx", node, "answers", "again"]:
            _machine(stage, node).pbx.become(Pbx.ANSWERING)
        case ["pbx", node, "is", "stopped", "by", "a", "person"]:
            _machine(stage, node).pbx.become(Pbx.STOPPED)
        case ["pbx", node, "is", "started", "by", "a", "person"]:
            _start_by_person(_machine(stage, node))
        case ["pbx", node, "is", "restarted", "by", "a", "person"]:
            _machine(stage, node).pbx.become(Pbx.STOPPED)
            _start_by_person(_machine(stage, node))
        case ["pbx", node, ("can" | "cannot") as can, "start"]:
            _machine(stage, node).pbx.cannot_start = can == "cannot"
        case ["pbx", node, ("can" | "cannot") as can, "stop"]:
            _machine(stage, node).pbx.cannot_stop = can == "cannot"
        case ["dialplan", "kills", "every", "pbx"]:
            for machine in stage.machines.values():
                machine.pbx.dies_when_called = True
                stage.later(5.0, machine.pbx.die)
        case ["dialplan", "is", "mended"]:
            for machine in stage.machines.values():
                machine.pbx.dies_when_called = False
        case _:
            raise _no_such(words)


def _touch_machine(stage: Stage, words: list[str]) -> None:
    match words:
        case ["power", "off", node]:
            _machine(stage, node).power_off()
        case ["power", "on", node]:
            _machine(stage, node).power_on()
        case ["agent", node, "dies"]:
            _machine(stage, node).kill_agent()
        case ["agent", node, "starts"]:
            _machine(stage, node).begin(booted=False)
        case ["crash", node, ("before" | "after") as when, step]:
            machine = _machine(stage, node)
            if when == "before":
                machine.crash_before = _step(step)
            else:
                machine.crash_after = _step(step)
        case ["crash", node, "before", "recording", step]:
            _machine(stage, node).crash_recording = _step(step)
        case ["copy", node, "is", "too", "old"]:
            machine = _machine(stage, node)
            machine.copies.stale_since = machine.now().boot
        case ["copy", node, "is", "fresh"]:
            _machine(stage, node).copies.stale_since = inf
        case ["copy", node, ("can" | "cannot") as can, "be", "read"]:
            _machine(stage, node).copies.cannot_be_read = can == "cannot"
        case ["glass", node, "is", "broken"]:
            _machine(stage, node).glass_broken = True
        case ["glass", node, "is", "mended"]:
            _machine(stage, node).glass_broken = False
        case ["freeze", node, "for", time]:
            _machine(stage, node).freeze(_seconds(time))
        case ["clock", "of", node, "jumps", "by", time]:
            sign = -1.0 if time.startswith("-") else 1.0
            _machine(stage, node).wall_offset += sign * _seconds(time.lstrip("+-"))
        case _:
            raise _no_such(words)


def _touch_network(stage: Stage, words: list[str]) -> None:
    network = stage.network
    match words:
        case ["cut", here, there]:
            for place in _places(there):
                network.separate(_place(here), place)
        case ["cut", here, "->", there]:
            for place in _places(there):
                network.separate(_place(here), place, one_way=True)
        case ["isolate", node]:
            for place in PLACES:
                if place != node:
                    network.separate(_machine(stage, node).name, place)
        case ["heal"]:
            network.cut.clear()
        case ["heal", here, there]:
            for place in _places(there):
                network.join(_place(here), place)
        case ["loss", chance]:
            network.loss = _percent(chance)
        case _:
            raise _no_such(words)


def _touch_server(stage: Stage, words: list[str]) -> None:
    match words:
        case ["check", "point", name, ("dies" | "lives") as deed]:
            _live(stage, _one_of(name, CHECKPOINTS), deed)
        case ["check", "points", ("die" | "live") as deed]:
            for name in CHECKPOINTS:
                _live(stage, name, f"{deed}s")
        case ["check", "point", name, "lies", ("up" | "down") as lie]:
            stage.lies[_one_of(name, CHECKPOINTS)] = Health(lie)
        case ["check", "point", name, "tells", "the", "truth"]:
            stage.lies.pop(_one_of(name, CHECKPOINTS), None)
        case ["name", "server", name, ("dies" | "lives") as deed]:
            _live(stage, _one_of(name, (PRIMARY, SECONDARY)), deed)
        case ["ns1", "is", "restored", "from", "the", "backup", "of", time, "ago"]:
            stage.restore(_seconds(time))
        case ["ns2", "stops", "following"]:
            _live(stage, SECONDARY, "dies")
        case ["ns2", "follows", "again"]:
            _live(stage, SECONDARY, "lives")
            stage.names[SECONDARY] = stage.names[PRIMARY]
        case _:
            raise _no_such(words)


def _act_as_person(stage: Stage, words: list[str]) -> None:
    claim = stage.claim
    match words:
        case ["order", node, verb, *accepts]:
            _order(stage, _machine(stage, node), verb, accepts)
        case ["edit", "configuration", "of", node]:
            _edit(_machine(stage, node))
        case ["pause", time]:
            if claim is not None:
                until = int(stage.wall + _seconds(time))
                stage.write_claim("a person", records.pause(claim, until))
        case ["resume"]:
            if claim is not None:
                stage.write_claim("a person", records.resume(claim))
        case ["set-active", node, *accepts] if accepts in ([], ["accept-two-active"]):
            seen = max(each.journal.state.epoch for each in stage.machines.values())
            epoch = max(seen, claim.epoch if claim else 0) + 1
            name, digest = _machine(stage, node).name, _machine(stage, node).policy.digest
            old = claim or records.first(name, digest=digest)
            declared = records.declare(old, name, epoch=epoch, digest=digest, forced=bool(accepts))
            stage.write_claim("a person", declared)
        case _:
            raise _no_such(words)


def _order(stage: Stage, machine: Machine, verb: str, accepts: list[str]) -> None:
    verbs = (Verb.FAILOVER, Verb.SWITCHOVER, Verb.REJOIN)
    known = ("accept-two-active", "accept-loss")
    _one_of(verb, verbs)
    for word in accepts:
        _one_of(word, known)
    if machine.agent is None:
        stage.say(f"{machine.name}: the order is refused, no agent runs there")
        return
    machine.journal.place(Verb(verb), **{word.replace("-", "_"): True for word in accepts})
    machine.wake_soon()


def _edit(machine: Machine) -> None:
    """A person edits the file and restarts the agent."""
    machine.policy = replace(machine.policy, digest=EDITED)
    if machine.agent is not None:
        machine.kill_agent()
        machine.begin(booted=False)


def _start_by_person(machine: Machine) -> None:
    machine.loop.start(_start_if_permitted(machine), lambda _: None)


async def _start_if_permitted(machine: Machine) -> None:
    """`may-start`, as the unit asks it, and then the start."""
    refusal = "" if machine.glass_broken else await _refusal(machine)
    if refusal:
        machine.pair.tell(machine.name, f"a person's start is refused: {refusal}")
    else:
        await machine.pbx.start()


async def _refusal(machine: Machine) -> str:
    """T7: a fresh claim that is ours and not announced, and no report that the other node is up."""
    try:
        claim = await FakeStore(machine).read()
    except AdapterError as error:
        return f"the claim cannot be read: {error}"
    if claim.epoch < machine.journal.state.epoch:
        return f"the claim says epoch {claim.epoch}, lower than one that was seen here"
    if claim.node != machine.name:
        return f"{claim.node} holds the claim"
    if claim.is_announced:
        return f"{claim.announced} has announced that it is about to take over"
    peer = machine.policy.peer
    reports = await machine.loop.gather(
        *(FakeProbe(each, machine).ask(peer) for each in CHECKPOINTS)
    )
    if verdict(reports, machine.policy) is Verdict.UP:
        return f"the check points report {peer} up"
    return ""


def _expect(stage: Stage, words: list[str]) -> None:
    """What must be so, whatever happened on the way: no rewriting of a story accepts anything else."""
    match words:
        case ["expect", who, "serves"]:
            found = " and ".join(stage.serving) or "nobody"
            if found != _one_of(who, (*NODES, "nobody")):
                raise Unclear(f"{who} should serve, and {found} does; {stage.show()}")
        case ["expect", node, "is", phase]:
            found = stage.phase(_machine(stage, node))
            if found != phase:
                raise Unclear(f"{node} should be {phase}, and is {found}; {stage.show()}")
        case ["expect", "the", "name", "leads", "to", node]:
            found = stage.names[PRIMARY]
            if found != _machine(stage, node).name:
                raise Unclear(f"the name should lead to {node}, and leads to {found}")
        case _:
            raise _no_such(words)


def _live(stage: Stage, name: str, deed: str) -> None:
    if deed == "dies":
        stage.dead.add(name)
    else:
        stage.dead.discard(name)


def _step(name: str) -> str:
    if name not in STEPS:
        raise Unclear(f"{name} is no step; the steps are {', '.join(sorted(STEPS))}")
    return name


def _machine(stage: Stage, node: str) -> Machine:
    return stage.machines[_one_of(node, NODES)]


def _place(name: str) -> str:
    return _one_of(name, PLACES)


def _places(name: str) -> tuple[str, ...]:
    return CHECKPOINTS if name == ALL else (_place(name),)


def _one_of(word: str, known: tuple[str, ...]) -> str:
    if word not in known:
        raise Unclear(f"{word} is none of {', '.join(known)}")
    return word


def _seconds(text: str) -> float:
    try:
        return parse(text)
    except ValueError:
        raise Unclear(f"{text} is no time; write it like 90s, 5m or 1h30m") from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise Unclear(f"{text} is no number; write it like repeat 12: wait 2m; show")
    return int(text)


def _percent(text: str) -> float:
    number = text.removesuffix("%")
    if not (number.isdecimal() and text.endswith("%") and int(number) <= 100):
        raise Unclear(f"{text} is no chance; write it like 30%")
    return int(number) / 100


def _no_such(words: list[str]) -> Unclear:
    return Unclear(f"no such command: {' '.join(words)}; docs/reference/stories.md has them all")
