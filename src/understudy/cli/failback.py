"""`failback`: the way home.  Rejoin, so that nothing is lost; then a switchover to the node that is preferred.

`plan` says what that would do and what stands in the way, with an id made from the facts that it is about.  `apply`
does it if these facts still hold.  Each of its steps may be interrupted at any moment: run again, it goes on with the
first one that has not had its end.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.core.model import Phase
from understudy.core.observations import Verb
from understudy.errors import Refused, Unanswered
from understudy.runtime import copy_state
from understudy.runtime.copy_state import ClassState

from .calls import Counter
from .notes import note
from .orders import Orders, Placed
from .plan import confirm
from .session import Session, as_json, duration, pass_session, print_json
from .way import READY, Way, megabytes, way_home

if TYPE_CHECKING:
    from rich.progress import TaskID

RENEW_WITHIN = 12 * 3600.0  # Seconds: for a lot of data over a thin line.
FRESH = 30.0  # Seconds beyond two times `every` that the copy may be old before the PBX stops.
LOOK = 0.5


@click.group()
def failback() -> None:
    """The way home: to the preferred node, with nothing lost."""


@failback.command()
@as_json
@pass_session
def plan(session: Session, as_json: bool) -> int:
    """What the way home would do, per class of data, and what stands in the way."""
    counter = Counter(session)  # Before the session is used: see there.
    try:
        found = way_home(session, look=True)
        if found.active != found.home:
            found = replace(found, calls=counter.count(found.active))
    finally:
        counter.close()
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
        found = way_home(session, look=False)
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


# Until the preferred node could take over


def _wait_until_ready(session: Session, way: Way, rejoin: Placed | None) -> None:
    """Return when it is a standby with a fresh copy, and what only it had is merged.  Raises Unanswered, Refused."""
    until = time.monotonic() + RENEW_WITHIN
    with _progress() as show:
        while True:
            now = way_home(session, look=False)
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
