"""`events` and `why`: the journal, for people and scripts."""

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime

import click

from understudy.config import durations
from understudy.core.model import NEVER
from understudy.errors import Refused
from understudy.runtime import readings, statecodec
from understudy.runtime.waiting import in_short

from .facts import stale_copy
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
    begin = NEVER if since is None else time.time() - since
    with closing(session.node.journal()) as journal:
        found = journal.events(since=begin, limit=count)
    if as_json:
        print_json(
            {"node": session.node.policy.me, "events": [statecodec.to_json(each) for each in found]}
        )
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
    """The rule and the votes behind what was done, or was not done."""
    when = time.time() if at is None else at + 0.999
    node = session.node
    with closing(node.journal()) as journal:
        # How old the copy was at another time is not kept.
        kept = "" if at is not None else stale_copy(node, journal.state)
        found = readings.why_at(journal, node.policy, when, stale=kept)
    if found is None:
        raise Refused(f"nothing was decided before {clock(when)}", hint="See: understudy events")
    if as_json:
        print_json(statecodec.to_json(found))
    else:
        click.echo("\n".join(_lines(found)))
    return 0


def _lines(found: readings.Why) -> Iterator[str]:
    votes, claim = found.votes, found.votes.claim
    change = f"{found.before} -> {found.after}" if found.before != found.after else str(found.after)
    yield f"{clock(found.since)}  {found.node}  {change}   ({about(found.at - found.since)} earlier)"
    yield f"  because      {found.because}"
    yield f"  rule         {found.rule}"
    if found.action:
        yield f"  asked for    {found.action}"
    if found.times > 1:
        yield f"  again        {found.times} times"
    if found.kept:
        yield f"  waits for    {found.kept}"
    for each in found.failing:
        yield f"  in vain      {in_short(each)}"
    if claim is not None:
        announced = f", {claim.announced} announced" if claim.announced else ""
        yield f"  claim        {claim.node}, epoch {claim.epoch}, {claim.how}{announced}"
    if votes.claim_trouble:
        yield f"  claim        {votes.claim_trouble}"
    yield f"  PBX here     {votes.pbx}"
    if votes.patience:
        yield f"  patience     {about(votes.patience)} spent"
    if votes.asked is not None:
        yield f"  check points asked {clock(votes.asked)}: us {votes.mine}, the other {votes.theirs}"
    for vote in votes.votes:
        text = f": {vote.text}" if vote.text else ""
        yield f"    {vote.checkpoint} about {vote.node}: {vote.health}{text}"
