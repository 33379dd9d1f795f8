"""What the way home is about: who serves, who is preferred, the data of both, and what stands in the way."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from understudy.core.model import Phase
from understudy.errors import AdapterError, JournalError, Refused, Unreachable, told
from understudy.runtime import statecodec
from understudy.runtime.copies import compare_all
from understudy.runtime.copy_state import ClassState, CopyState
from understudy.runtime.daemon import Node

from .calls import Counted
from .facts import gather, to_json
from .orders import COST
from .session import Session, about

EVENTS = 500  # In which the last move is looked for.
LOOK_WITHIN = 30.0  # Seconds that the plan of a rejoin may look at the data.
READY = frozenset({Phase.STANDBY, Phase.SUSPECTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What the way home is about."""

    id: str
    active: str
    home: str  # The preferred node.
    epoch: int
    phase: str  # Of the preferred node.
    classes: tuple[ClassState, ...] = ()  # As they are there.
    wall: float = 0.0  # There.
    looked: str = ""  # Why nobody has looked at the data just now.
    merges: frozenset[str] = frozenset()  # The classes with a rule for what only that node has.
    blockers: tuple[str, ...] = ()
    before: str = ""  # What the last move has cost, by this node's journal.
    calls: Counted | None = None  # That the switchover would cut off, if anybody has counted.

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "active": self.active,
            "home": self.home,
            "epoch": self.epoch,
            "phase": self.phase,
            "blockers": list(self.blockers),
            "looked": self.looked,
            "before": self.before,
            "calls": self.calls.number if self.calls is not None else None,
            "classes": [
                {**statecodec.to_json(each), "merges": each.name in self.merges}
                for each in self.classes
            ],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.active == self.home:
            yield f"{self.home} is active already: there is no way home to go"
            return
        yield f"failback {self.id}: from {self.active} to {self.home}, which is {self.phase}"
        if self.phase == Phase.OUTDATED:
            yield f"  1. rejoin     {self.home} gets the data of {self.active} while that serves"
            for each in self.classes:
                yield f"     {each.name:<14} {self._renewed(each)}"
            if self.looked:
                yield f"     how much that is, nobody could look: {self.looked}"
            if not self.classes:
                yield "     no class of data is configured: something else must have copied it"
        else:
            yield f"  1. rejoin     not needed: {self.home} is {self.phase}"
            for each in self.classes:
                yield f"     {each.name:<14} {self._kept(each)}"
        yield f"  2. switchover {self.active} stops its PBX, {self.home} reads the last difference and starts its own"
        if self.calls is not None:
            yield f"     drops          {self.calls.sentence}"
        yield f"     nobody serves  for about {self.gap}"
        for blocker in self.blockers:
            yield f"  in the way: {blocker}"
        if not self.blockers:
            yield f"do it with: understudy failback apply {self.id}"

    @property
    def gap(self) -> str:
        took = max((each.took for each in self.classes), default=0.0)
        last = f", and the last difference ({took:.1f} s at the last pull)" if took else ""
        before = f"; the last {self.before}" if self.before else ""
        return f"the time that the PBX needs to stop and to start{last}{before}"

    def _renewed(self, each: ClassState) -> str:
        found = each.compared
        if found is None:
            return each.trouble or "not looked at"
        size = f" ({megabytes(found.bytes)})" if found.bytes else ""
        said = f"{_count(found.comes, found.unit, 'comes', 'come')}{size}; "
        if not found.only_here:
            return said + "nothing is only here"
        shown = ", ".join(found.examples)
        rule = (
            f"merged on {self.active} where its rule allows it, and kept aside"
            if each.name in self.merges
            else f"kept aside: {self.active}'s state wins"
        )
        only_here = _count(found.only_here, found.unit, "is", "are")
        return said + f"{only_here} only here ({shown}): {rule}"

    def _kept(self, each: ClassState) -> str:
        age = each.age(self.wall)
        said = f"{about(age)} old" if age is not None else "never copied"
        for more in (each.trouble, each.unmerged, each.merged):
            if more:
                said += f"; {more}"
        return said


def _count(number: int, unit: str, one: str, many: str) -> str:
    """1 file is, 2 files are."""
    return f"1 {unit.removesuffix('s')} {one}" if number == 1 else f"{number} {unit} {many}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


def way_home(session: Session, *, look: bool) -> Way:
    """As it is now; with `look`, what a rejoin would do is looked at as well.

    Raises Unreachable where it cannot be told who is active, or what the preferred node is.
    """
    node, config = session.node, session.config
    home = config.pair.preferred
    facts = asyncio.run(gather(node, events=0))
    claim = facts.reading.claim
    if claim is None:
        raise Unreachable(
            f"the claim cannot be read, so nobody knows who is active: {facts.reading.trouble}"
        )
    looked, there = "", _told_by(node, home)
    # A standby has it all already, and compares nothing.
    if look and claim.node != home and there["phase"] == Phase.OUTDATED:
        looked, there = _look(session, claim.epoch), _told_by(node, home)
    copies = statecodec.from_json(CopyState, there["copies"]) if there.get("copies") else None
    phase, wall = str(there["phase"]), float(there["wall"])
    facts_of_it = (
        config.pair.name,
        claim.node,
        claim.epoch,
        home,
        phase in READY,
        node.policy.digest,
    )
    return Way(
        id=hashlib.sha256(json.dumps(facts_of_it).encode()).hexdigest()[:8],
        active=claim.node,
        home=home,
        epoch=claim.epoch,
        phase=phase,
        classes=copies.classes if copies is not None else (),
        wall=wall,
        looked=looked,
        before=_cost_before(node) if look else "",
        merges=frozenset(
            name
            for name, chosen in config.copies.items()
            if getattr(chosen.settings, "merge", "none") not in ("none", ())
        ),
        blockers=tuple(_blockers(session, home, there, copies, wall)) if claim.node != home else (),
    )


def _cost_before(node: Node) -> str:
    try:
        with closing(node.journal()) as journal:
            events = journal.events(limit=EVENTS)
    except JournalError:
        return ""
    return next((each.text for each in reversed(events) if each.name == COST), "")


def _told_by(node: Node, name: str) -> dict[str, Any]:
    """The status of a node."""
    if node.policy.me == name:
        return to_json(asyncio.run(gather(node, events=0)))
    return asyncio.run(node.peer.status())


def _look(session: Session, epoch: int) -> str:
    """Have the preferred node compare its data with the active one's.  Returns why it could not."""
    node = session.node
    try:
        if node.policy.me == session.config.pair.preferred:
            asyncio.run(compare_all(node.journal_path, node.clock, LOOK_WITHIN))
        else:
            asyncio.run(node.peer.compare(epoch))
    except (AdapterError, Refused, JournalError) as error:
        return told(error)
    return ""


def _blockers(
    session: Session, home: str, there: dict[str, Any], copies: CopyState | None, wall: float
) -> Iterator[str]:
    phase = there["phase"]
    if phase not in (*READY, Phase.OUTDATED, Phase.REJOINING):
        yield f"{home} is {phase}"
    if there.get("agent", {}).get("pid") is None and there.get("agent", {}).get("is_daemon"):
        yield f"no agent runs on {home}: systemctl start understudy there"
    if session.config.copies:
        if copies is None or copies.is_silent(wall):
            yield f"no copier is at work on {home}: systemctl start understudy-copier there"
        elif phase in READY:
            for each in copies.classes:
                if each.trouble:
                    yield f"{each.name}: {each.trouble}"
