"""`events` and `why`: the journal, for people and scripts."""

import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from understudy.config import durations
from understudy.core.model import NEVER
from understudy.runtime.journal_rows import DecisionRow

from .facts import event_to_json
from .session import Session, about, as_json, clock, duration, pass_session, print_json
from .status import event_line


@click.command()
@click.option("--since", type=duration, metavar="2h", help="Only what is younger than this.")
@click.option(
    "-n", "count", type=click.IntRange(1), default=20, show_default=True, help="How many."
)
@as_json
@pass_session
def events(session: Session, since: float | None, count: int, as_json: bool) -> int:
    """What this node saw, decided and did; newest last."""
    journal = session.node.journal()
    begin = NEVER if since is None else time.time() - since
    found = journal.events(since=begin, limit=count)
    if as_json:
        print_json({"node": session.node.policy.me, "events": [event_to_json(e) for e in found]})
    else:
        for event in found:
            click.echo(event_line(event))
    return 0


def instant(text: str) -> float:
    """03:12, 2026-11-22T03:12:07, or a duration ago: wall clock seconds."""
    now = time.time()
    with suppress(ValueError):
        return now - durations.parse(text)
    with suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    today = datetime.now().astimezone().date()
    with suppress(ValueError):
        at = datetime.fromisoformat(f"{today}T{text}").timestamp()
        return at if at <= now else at - 86_400.0
    raise click.BadParameter(f"{text} is no time.  Write 03:12, 2026-11-22T03:12 or 2h (ago).")


@click.command()
@click.option(
    "--at", type=instant, metavar="TIME", help="03:12, 2026-11-22T03:12, or 2h (ago).  Else: now."
)
@as_json
@pass_session
def why(session: Session, at: float | None, as_json: bool) -> int:
    """The rule and the votes behind what was last done (or decided not to be done)."""
    journal = session.node.journal()
    found = journal.decisions(until=None if at is None else at + 0.999, limit=1)
    if not found:
        when = "yet" if at is None else f"before {clock(at)}"
        click.echo(f"Nothing was decided {when}.", err=True)
        return 1
    row = found[-1]
    if as_json:
        print_json(_to_json(row))
    else:
        click.echo("\n".join(_lines(row, time.time() if at is None else at)))
    return 0


def _lines(row: DecisionRow, at: float) -> list[str]:
    votes = row.votes
    change = f"{row.before} -> {row.after}" if row.before != row.after else f"{row.after}"
    lines = [
        f"{clock(row.wall)}  {row.node}  {change}   ({about(at - row.wall)} before)",
        f"  because    {row.because}",
        f"  rule       {row.rule}",
    ]
    if row.action:
        lines.append(f"  asked for  {row.action}")
    if row.times > 1:
        lines.append(f"  again      {row.times} times, last {clock(row.last)}")
    claim = votes.claim
    if claim is not None:
        announced = f", {claim.announced} announced" if claim.announced else ""
        lines.append(f"  claim      {claim.node}, epoch {claim.epoch}, {claim.how}{announced}")
    if votes.claim_trouble:
        lines.append(f"  claim      not readable: {votes.claim_trouble}")
    lines.append(f"  PBX here   {votes.pbx}")
    if votes.asked is not None:
        lines.append(
            f"  check points, asked {clock(votes.asked)}: us {votes.mine}, them {votes.theirs}"
        )
    for vote in votes.votes:
        text = f"  {vote.text}" if vote.text else ""
        lines.append(f"    {vote.checkpoint} about {vote.node}: {vote.health}{text}")
    if votes.patience:
        lines.append(f"  patience   {about(votes.patience)} spent")
    return lines


def _to_json(row: DecisionRow) -> dict[str, Any]:
    return {
        "at": row.wall,
        "node": row.node,
        "before": row.before,
        "after": row.after,
        "rule": row.rule,
        "because": row.because,
        "action": row.action,
        "order": row.order,
        "times": row.times,
        "last": row.last,
        "votes": asdict(row.votes),
    }
