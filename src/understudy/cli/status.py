"""`status`: what is so, at a glance."""

import asyncio
import sys
from collections.abc import Iterator

import click

from understudy.core.model import SERVING, Phase
from understudy.core.observations import Health
from understudy.runtime.journal_rows import Event
from understudy.runtime.protection import Protection
from understudy.runtime.sentences import headline
from understudy.runtime.status import Level, NodeView, Status

from .facts import Facts, gather, protection, to_json
from .session import Session, about, as_json, clock, pass_session, print_json

STYLES = {"up": "green", "down": "bold red", "unclear": "yellow"}
CRITICAL, WARNING, WELL = "bold red", "yellow", "green"

Row = tuple[str, str, str]  # What, the text, and its style on a terminal.


@click.command()
@as_json
@pass_session
def status(session: Session, as_json: bool) -> int:
    """Who is active, is it protected, and what is wrong.

    Exit code: 0 all is well, 1 not, 3 neither the claim nor the journal could be read.
    """
    facts = asyncio.run(gather(session.node))
    pair, view, found = session.config.pair, facts.view, protection(facts)
    if as_json:
        print_json({"pair": pair.name, "service": pair.service, **to_json(facts)})
    else:
        title = f"{pair.name}: {pair.service}   (this is {view.node})"
        _show(list(_verdict(found, facts.at.wall)), title, list(_rows(facts, view, found)))
    if facts.claim is None and not facts.journal.is_there:
        return 3
    return 0 if found.protected and not view.troubles else 1


def event_line(event: Event) -> str:
    often = f"  ({event.times} times, last {clock(event.last)})" if event.times > 1 else ""
    return f"{clock(event.wall)}  {event.text}{often}"


def _verdict(found: Protection, wall: float) -> Iterator[tuple[str, str]]:
    """What everybody looks for first."""
    since = f"since {clock(found.since)} ({about(wall - found.since)})"
    if found.protected:
        yield f"PROTECTED {since}: {found.standby} could take over", f"bold {WELL}"
        return
    first, *others = found.reasons
    yield f"NOT PROTECTED {since}: {first}", CRITICAL
    for each in others:
        yield f"  and {each}", CRITICAL


def _show(verdict: list[tuple[str, str]], title: str, rows: list[Row]) -> None:
    if not sys.stdout.isatty():
        lines = [text for text, _ in verdict] + [
            title,
            *(f"{label:<14}{text}".rstrip() for label, text, _ in rows),
        ]
        click.echo("\n".join(lines))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for label, text, style in rows:
        table.add_row(Text(label, style="dim"), Text(text, style=style))
    console = Console(highlight=False)
    for line, style in verdict:
        console.print(Text(line, style=style))
    console.print(Text(title, style="bold"))
    console.print(table)


def _rows(facts: Facts, view: Status, found: Protection) -> Iterator[Row]:
    yield from _who(facts, view)
    yield from _here(facts, view)
    yield from _check_points(view)
    yield from _copy(facts, found)
    yield from _times(facts, view)
    label = "troubles"
    for each in view.troubles:
        grave = each.level is Level.CRITICAL
        yield label, f"{'!!' if grave else '! '} {each.sentence}", CRITICAL if grave else WARNING
        label = ""
    label = "events"
    for event in view.events:
        yield label, event_line(event), ""
        label = ""


def _who(facts: Facts, view: Status) -> Iterator[Row]:
    claim = facts.claim
    if claim is None:
        trouble = facts.reading.trouble or "the claim was never read"
        yield "active", f"not known: {trouble}", CRITICAL
        return
    served = "has served" if claim.served else "has not served yet"
    as_of = "" if facts.reading.claim is not None else "; as last read"
    text = f"{claim.node} (epoch {claim.epoch}, {claim.how}, {served}{as_of})"
    yield "active", text, WARNING if as_of else "bold"
    if view.nobody_serves:
        yield "serving", "nobody", CRITICAL


def _here(facts: Facts, view: Status) -> Iterator[Row]:
    if not facts.journal.is_there:
        yield "here", f"not known: {facts.journal.trouble}", CRITICAL
        return
    yield "here", headline(view), CRITICAL if view.phase is Phase.HALTED else ""
    step = f", step {view.step}" if view.step else ""
    yield "phase", f"{view.phase}{step}, since {clock(view.since)} ({about(view.seconds)})", ""
    yield "PBX here", str(view.pbx), ""
    pid, age = view.agent.pid, view.agent.heartbeat_age
    runs = f"process {pid or 'unknown'}" if pid is not None else "no process now (cron?)"
    wrote = f", wrote {about(age)} ago" if age is not None else ", has never run"
    yield "agent", f"{runs}{wrote}", CRITICAL if view.agent.is_late else ""


def _copy(facts: Facts, found: Protection) -> Iterator[Row]:
    """What the standby would start with: by its own word here, else as it was last asked."""
    own = facts.extras.copies
    if own is None:
        return
    serving = facts.state.phase in SERVING
    asked_ago = facts.at.wall - found.looked if serving else 0.0
    label = "copy"
    for each in found.copies if serving else own.classes:
        age, wall = each.age(facts.at.wall), facts.at.wall
        text = f"{each.name}: {f'{about(age)} old' if age is not None else 'never copied'}"
        if each.busy:
            text += f", {each.busy}"
        if each.trouble:
            text += f"; {each.trouble} (since {clock(each.trouble_since)})"
        for more in (each.note, each.unmerged and f"not merged yet: {each.unmerged}"):
            text += f"; {more}" if more else ""
        if serving:
            text += f"; on {found.standby}, asked {about(asked_ago)} ago"
        worrying = each.is_stale(wall) or each.note or each.unmerged
        yield label, text, WARNING if worrying else ""
        label = ""
    if label:
        yield label, "nothing is known of it", WARNING


def _check_points(view: Status) -> Iterator[Row]:
    if view.round_age is None:
        yield "check points", "not asked yet", WARNING
        return
    yield "check points", f"asked {about(view.round_age)} ago", ""
    for node in sorted(view.nodes, key=lambda each: each.node):
        yield from _node(node, is_standby=node.node != view.active)


def _node(node: NodeView, *, is_standby: bool) -> Iterator[Row]:
    """The PBX of a standby is stopped: that it does not answer needs no explanation."""
    words = "  ".join(f"{vote.checkpoint} {vote.health}" for vote in node.votes)
    style = "" if is_standby else STYLES.get(node.verdict, "")
    yield f"  {node.node}", f"{node.verdict:<9}{words}", style
    for vote in node.votes:
        expected = vote.health is Health.UP or (is_standby and vote.health is Health.DOWN)
        if vote.text and not expected:
            yield "", f"  {vote.checkpoint}: {vote.text}", "dim"


def _times(facts: Facts, view: Status) -> Iterator[Row]:
    if view.patience is not None:
        patience = view.patience
        spent = f"{about(patience.spent)} of {about(patience.total)} spent"
        if not facts.stale:
            spent += f"; it takes over in {about(patience.takes_in)} at the earliest"
        yield "patience", spent, WARNING
    if view.waiting_for:
        yield "waits for", view.waiting_for, ""
    if view.proofs is not None:
        proofs = view.proofs
        yield (
            "proofs",
            f"claim {_old(proofs.claim_age)} (of {about(proofs.claim_stale)}), "
            f"check points {_old(proofs.checkpoints_age)} (of {about(proofs.checkpoints_stale)})",
            "",
        )
    if view.paused_until is not None:
        yield "paused", f"until {clock(view.paused_until)}", WARNING


def _old(age: float | None) -> str:
    return "none yet" if age is None else f"{about(age)} old"
