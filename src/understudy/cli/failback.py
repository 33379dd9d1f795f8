"""`failback`: the way home.  Rejoin, so that nothing is lost; then a switchover to the node that is preferred.

`plan` says what that would do and what stands in the way, with an id made from the facts that it is about.  `apply`
does it if these facts still hold.  Each of its steps may be interrupted at any moment: run again, it goes on with the
first one that has not had its end.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.core.model import Phase
from understudy.core.observations import Verb
from understudy.errors import AdapterError, JournalError, Refused, Unanswered, Unreachable, told
from understudy.runtime import copy_state, statecodec
from understudy.runtime.copies import compare_all
from understudy.runtime.copy_state import ClassState, CopyState
from understudy.runtime.daemon import Node

from .facts import gather, to_json
from .notes import note
from .orders import Orders, Placed
from .plan import confirm
from .session import Session, about, as_json, duration, pass_session, print_json

if TYPE_CHECKING:
    from rich.progress import TaskID

LOOK_WITHIN = 30.0  # Seconds that the plan of a rejoin may look at the data.
RENEW_WITHIN = 12 * 3600.0  # Seconds: for a lot of data over a thin line.
FRESH = 30.0  # Seconds beyond two times `every` that the copy may be old before the PBX stops.
LOOK = 0.5
READY = frozenset({Phase.STANDBY, Phase.SUSPECTING})


@click.group()
def failback() -> None:
    """The way home: to the preferred node, with nothing lost."""


@failback.command()
@as_json
@pass_session
def plan(session: Session, as_json: bool) -> int:
    """What the way home would do, per class of data, and what stands in the way."""
    found = _plan(session, look=True)
    if as_json:
        print_json({"ok": not found.blockers, **found.to_json()})
    else:
        for line in found.lines():
            click.echo(line)
    return 1 if found.blockers else 0


@failback.command()
@click.argument("plan_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--drain",
    type=duration,
    metavar="10m",
    help="Wait up to that long for a moment without calls before the PBX moves.",
)
@pass_session
def apply(session: Session, plan_id: str, yes: bool, drain: float | None) -> int:
    """Do what `understudy failback plan` has shown under ID.  Interrupted, run it again: it goes on."""
    with Orders(session) as orders:
        found = _plan(session, look=False)
        begun = _begun(session, found)
        if found.active == found.home:
            if begun == plan_id:
                click.echo(f"{found.home} is active: this failback is done")
                return 0
            raise Refused(f"{found.home} is active already: there is no way home to go")
        if plan_id not in (found.id, begun):
            raise Refused(
                f"the facts have moved since plan {plan_id}: nothing was done",
                hint="understudy failback plan shows them as they are now.",
            )
        if found.blockers:
            raise Refused("; ".join(found.blockers), hint="See: understudy status on both nodes.")
        if begun != plan_id:
            for line in found.lines():
                click.echo(line, err=True)
            confirm(yes=yes)
            _begin(session, plan_id, found)
        rejoin = None
        if found.phase == Phase.OUTDATED:
            rejoin = orders.place(Verb.REJOIN, found.home)
        _wait_until_ready(session, found, rejoin)
        return orders.give(Verb.SWITCHOVER, yes=True, drain=drain)


# The plan


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

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "active": self.active,
            "home": self.home,
            "epoch": self.epoch,
            "phase": self.phase,
            "blockers": list(self.blockers),
            "looked": self.looked,
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
        yield f"     no calls      for about {self.gap}"
        for blocker in self.blockers:
            yield f"  in the way: {blocker}"
        if not self.blockers:
            yield f"do it with: understudy failback apply {self.id}"

    @property
    def gap(self) -> str:
        took = max((each.took for each in self.classes), default=0.0)
        last = f", and the last difference ({took:.1f} s at the last pull)" if took else ""
        return f"the time that the PBX needs to stop and to start{last}"

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


def _plan(session: Session, *, look: bool) -> Way:
    """Raises Unreachable where it cannot be told who is active, or what the preferred node is."""
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
        merges=frozenset(
            name
            for name, chosen in config.copies.items()
            if getattr(chosen.settings, "merge", "none") not in ("none", ())
        ),
        blockers=tuple(_blockers(session, home, there, copies, wall)) if claim.node != home else (),
    )


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


# Until the preferred node could take over


def _wait_until_ready(session: Session, way: Way, rejoin: Placed | None) -> None:
    """Return when it is a standby with a fresh copy, and what only it had is merged.  Raises Unanswered, Refused."""
    until = time.monotonic() + RENEW_WITHIN
    with _progress() as show:
        while True:
            now = _plan(session, look=False)
            if (now.active, now.epoch) != (way.active, way.epoch):
                raise Refused(
                    f"{now.active} holds the claim in epoch {now.epoch} now: this plan is over",
                    hint="understudy failback plan shows what is so.",
                )
            waits = list(_not_ready(now))
            show(now)
            if not waits:
                return
            if now.phase not in (*READY, Phase.REJOINING):
                _expect_more(now, rejoin)
            if time.monotonic() > until:
                raise Unanswered(
                    "; ".join(waits), hint="It goes on by itself.  Later: the same command again."
                )
            time.sleep(LOOK)


def _expect_more(way: Way, rejoin: Placed | None) -> None:
    """Raises Refused where the preferred node does nothing more by itself."""
    progress = rejoin.ask() if rejoin is not None else None
    if progress is not None and (progress.state == "waiting" or progress.is_moving):
        return
    why = f": {progress.why}" if progress is not None and progress.state == "refused" else ""
    raise Refused(
        f"{way.home} is {way.phase}: the rejoin did not succeed{why}",
        hint=f"See understudy events on {way.home}; then the same command again.",
    )


def _not_ready(way: Way) -> Iterator[str]:
    if way.phase not in READY:
        yield f"{way.home} is {way.phase}"
    for each in way.classes:
        age = each.age(way.wall)
        if age is None or age > 2 * each.every + FRESH:
            yield f"{each.name} is not current yet"
        elif each.unmerged:
            yield f"{each.name}: {each.unmerged}"


@contextmanager
def _progress() -> Iterator[Callable[[Way], None]]:
    """A bar for each class on a terminal; elsewhere a line whenever something has changed."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = ("{task.fields[label]}", BarColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def show(way: Way) -> None:
            for each in way.classes:
                total = each.compared.bytes if each.compared is not None else None
                if each.name not in tasks:
                    tasks[each.name] = progress.add_task("", label=each.name, said="", total=total)
                current = way.phase in READY and not each.busy and not each.unmerged
                done = 1 if current else each.arrived
                progress.update(
                    tasks[each.name],
                    total=1 if current else total or None,
                    completed=done,
                    said=_doing(each),
                )

        yield show


class _Lines:
    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def show(self, way: Way) -> None:
        for each in way.classes:
            said = _doing(each)
            if self._said.get(each.name) != said:
                self._said[each.name] = said
                click.echo(f"  {each.name}: {said}", err=True)


def _doing(each: ClassState) -> str:
    if each.busy:
        return f"{each.busy}, {megabytes(each.arrived)}" if each.arrived else each.busy
    return each.trouble or each.unmerged or each.merged or "is here"


# What was begun


def _begun(session: Session, way: Way) -> str:
    """The plan that is being carried out from this node; empty if none is."""
    try:
        begun = json.loads(_file(session).read_text(encoding="utf-8"))
        # Its switchover is done, or still to come; in any other epoch something else has happened meanwhile.
        is_it = way.active == way.home or begun["epoch"] == way.epoch
        return str(begun["id"]) if is_it else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _begin(session: Session, plan_id: str, way: Way) -> None:
    """Raises JournalError."""
    copy_state.replace_text(
        _file(session), json.dumps({"id": plan_id, "epoch": way.epoch, "began": time.time()})
    )
    note(session.node, "failback", f"failback {plan_id} begins: from {way.active} to {way.home}")


def _file(session: Session) -> Path:
    return session.node.journal_path.parent / "failback.json"
