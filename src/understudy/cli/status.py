"""`status`: what is so, at a glance."""

import asyncio
import sys
from collections.abc import Iterator

import click

from understudy.core.model import Phase
from understudy.runtime.journal_rows import Event

from .facts import Facts, Weight, gather, protection, to_json, troubles
from .session import Session, about, as_json, clock, pass_session, print_json

STYLES = {"up": "green", "down": "bold red", "unclear": "yellow", "unknown": "yellow"}
CRITICAL, WARNING, WELL = "bold red", "yellow", "green"

Row = tuple[str, str, str]  # What, the text, and its style on a terminal.


@click.command()
@as_json
@pass_session
def status(session: Session, as_json: bool) -> int:
    """Who is active, is it protected, and what is wrong.

    Exit code: 0 all is well, 1 not, 3 neither the claim nor the journal could be read.
    """
    facts = asyncio.run(gather(session.node, peer=True))
    pair = session.config.pair
    if as_json:
        print_json({"pair": pair.name, "service": pair.service, **to_json(facts)})
    else:
        _show(f"{pair.name}: {pair.service}   (this is {facts.policy.me})", list(_rows(facts)))
    if facts.claim is None and facts.state is None:
        return 3
    return 1 if troubles(facts) else 0


def _show(title: str, rows: list[Row]) -> None:
    if not sys.stdout.isatty():
        click.echo("\n".join([title, *(f"{label:<13}{text}".rstrip() for label, text, _ in rows)]))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for label, text, style in rows:
        table.add_row(Text(label, style="dim"), Text(text, style=style))
    console = Console(highlight=False)
    console.print(Text(title, style="bold"))
    console.print(table)


def _rows(facts: Facts) -> Iterator[Row]:
    yield from _who(facts)
    yield from _here(facts)
    yield from _check_points(facts)
    yield from _times(facts)
    label = "troubles"
    for each in troubles(facts):
        style = CRITICAL if each.weight is Weight.CRITICAL else WARNING
        yield label, f"{'!!' if each.weight is Weight.CRITICAL else '! '} {each.text}", style
        label = ""
    label = "events"
    for event in facts.events:
        yield label, event_line(event), ""
        label = ""


def _who(facts: Facts) -> Iterator[Row]:
    claim = facts.claim
    if claim is None:
        yield "active", f"unknown: {facts.claim_trouble or 'the claim was never read'}", CRITICAL
        return
    served = "serves" if claim.served else "has not served yet"
    stale = " (as last read)" if facts.claim_trouble else ""
    text = f"{claim.node}, epoch {claim.epoch}, {claim.how}, {served}{stale}"
    yield "active", text, "bold" if not stale else WARNING
    why = protection(facts)
    yield (
        "protected",
        f"no: {why}" if why else f"yes, {facts.standby} could take over",
        WARNING if why else WELL,
    )


def _here(facts: Facts) -> Iterator[Row]:
    state = facts.state
    if state is None:
        yield "phase", f"unknown: {facts.journal_trouble}", CRITICAL
    else:
        since = facts.wall(state.since) if facts.same_boot else None
        ago = f" since {clock(since)} ({about(facts.at.wall - since)})" if since else ""
        step = f", {state.runbook} step {state.step + 1}" if state.runbook is not None else ""
        yield "phase", f"{state.phase}{step}{ago}", CRITICAL if state.phase is Phase.HALTED else ""
    yield "PBX here", str(facts.evidence.pbx), ""
    pid, age = facts.agent_pid, facts.heartbeat_age
    runs = f"process {pid or 'unknown'}" if pid is not None else "not running"
    wrote = f", wrote {about(age)} ago" if age is not None else ""
    yield "agent", f"{runs}{wrote}", "" if facts.agent_is_alive else CRITICAL


def _check_points(facts: Facts) -> Iterator[Row]:
    if facts.round is None:
        yield "check points", "not asked yet", WARNING
        return
    yield "check points", f"asked {about(facts.at.wall - facts.round.wall)} ago", ""
    verdicts = {facts.policy.me: facts.round.mine, facts.policy.peer: facts.round.theirs}
    for node in sorted(verdicts):
        said = [vote for vote in facts.round.votes if vote.node == node]
        words = "  ".join(f"{vote.checkpoint} {vote.health}" for vote in said)
        yield f"  {node}", f"{verdicts[node]:<9}{words}", STYLES.get(verdicts[node], "")
        for vote in said:
            if vote.text and vote.health != "up":
                yield "", f"  {vote.checkpoint}: {vote.text}", "dim"


def _times(facts: Facts) -> Iterator[Row]:
    evidence, policy = facts.evidence, facts.policy
    spent = facts.age(evidence.down_since)
    if spent is not None:
        yield "patience", f"{about(spent)} of {about(policy.patience)} spent", WARNING
    if facts.state is not None and facts.state.phase in (Phase.ACTIVE, Phase.DOUBTED):
        claim, points = facts.age(evidence.proved_at), facts.age(evidence.up_at)
        yield (
            "proofs",
            f"claim {_old(claim)} (of {about(policy.claim_stale)}), "
            f"check points {_old(points)} (of {about(policy.checkpoints_stale)})",
            "",
        )


def _old(age: float | None) -> str:
    return "none yet" if age is None else f"{about(age)} old"


def event_line(event: Event) -> str:
    often = f"  ({event.times} times, last {clock(event.last)})" if event.times > 1 else ""
    return f"{clock(event.wall)}  {event.text}{often}"
