"""`set-active`, `pause`, `resume`: what a person writes into the claim itself.

They need no agent: they work where one is dead.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import click

from understudy.core import claim as records
from understudy.core.claim import Claim, How
from understudy.core.observations import Result
from understudy.errors import (
    AdapterError,
    ClaimMissing,
    Refused,
    Unanswered,
)
from understudy.runtime.daemon import Node

from .facts import Facts, gather
from .notes import note
from .orders import order_options
from .plan import Accepted, agree, declaration, show, waits_after_declaration
from .session import Session, about, as_json, clock, duration, pass_session, print_json

TRIES = 5  # Against nodes that write at the same moment.


@click.command("set-active")
@click.argument("node")
@click.option(
    "--accept-two-active",
    is_flag=True,
    help="Even if the check points say that the other node is up, and without waiting for its stop.",
)
@order_options
@pass_session
def set_active(
    session: Session, node: str, accept_two_active: bool, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Say that NODE is the active one; write the first claim where there is none."""
    here = session.node
    if node not in session.config.nodes:
        names = " or ".join(session.config.nodes)
        raise click.UsageError(f"{node} is no node: {names}")
    facts = asyncio.run(gather(here, ask=True, events=0))
    plan = declaration(
        node, facts, session.config.pair.service, Accepted(two_active=accept_two_active)
    )
    if dry_run:
        print_json({"ok": not plan.refused, **plan.to_json()}) if as_json else show(plan)
        return 1 if plan.refused else 0
    if not as_json:
        show(plan)
    agree(plan, yes=yes)
    claim = asyncio.run(_declare(here, node, facts, forced=accept_two_active))
    said = f"the claim says {node}, epoch {claim.epoch}"
    note(here, "set-active", f"a person: {said}")
    text = f"{said}: {here.store.where}"
    if claim.how is How.MOVED:
        waits = waits_after_declaration(here.policy)
        text += f".  {node} starts its PBX {waits}.  At once: --accept-two-active"
    return _said(text, claim, as_json=as_json)


@click.command()
@click.option("--for", "span", type=duration, required=True, metavar="2h", help="How long.")
@click.option("--reason", default="", metavar="TEXT", help="Kept in the journal.")
@as_json
@pass_session
def pause(session: Session, span: float, reason: str, as_json: bool) -> int:
    """Turn automatic failover off, for a time; it comes back by itself."""
    if span <= 0:
        raise click.UsageError("--for 0s is no pause.  Write e.g. --for 2h.")
    until = int(time.time() + span)
    claim = asyncio.run(_change(session.node, lambda claim: records.pause(claim, until)))
    why = f": {reason}" if reason else ""
    text = f"automatic failover is paused until {clock(until)} ({about(span)})"
    note(session.node, "pause", f"a person: {text}{why}")
    return _said(
        f"{text}.  Orders still work.  To end it: understudy resume", claim, as_json=as_json
    )


@click.command()
@as_json
@pass_session
def resume(session: Session, as_json: bool) -> int:
    """Turn automatic failover on again; also after a change that is settling."""
    claim = asyncio.run(_change(session.node, records.resume))
    note(session.node, "resume", "a person: automatic failover is on again")
    return _said("automatic failover is on", claim, as_json=as_json)


def _said(text: str, claim: Claim, *, as_json: bool) -> int:
    if as_json:
        print_json(
            {
                "ok": True,
                "said": text,
                "node": claim.node,
                "epoch": claim.epoch,
                "how": claim.how,
                "pause": claim.pause,
            }
        )
    else:
        click.echo(text)
    return 0


async def _change(node: Node, change: Callable[[Claim], Claim]) -> Claim:
    """Compare-and-set the whole record, again where somebody else wrote in between (C2)."""
    keeper = node.keeper()
    why = ""
    for _ in range(TRIES):
        reading = await keeper.read()
        if reading.claim is None:
            raise Unanswered(
                f"nothing was changed: the claim cannot be read: {reading.trouble}",
                hint="Where there is none: understudy set-active NODE",
            )
        wanted = change(reading.claim)
        outcome, _now = await keeper.write(reading.claim, wanted)
        if outcome.result is Result.DONE:
            await _spread(node)
            return wanted
        why = outcome.why
    raise Unanswered(f"the claim could not be written: {why}")


async def _declare(node: Node, active: str, facts: Facts, *, forced: bool) -> Claim:
    """Raises Refused when the claim is not any longer what the plan was made from."""
    epoch = await _epoch_above(node, facts)
    digest = node.policy.digest
    try:
        await node.store.read()
    except ClaimMissing:
        claim = records.first(active, digest=digest, epoch=epoch, forced=forced)
        if not await node.store.create(claim):
            raise Refused(
                "somebody else wrote a claim at this moment", hint="See: understudy status"
            ) from None
        await _spread(node)
        return claim
    planned = facts.reading.claim.node if facts.reading.claim is not None else ""

    def change(claim: Claim) -> Claim:
        if planned and claim.node != planned:
            raise Refused(
                f"the claim has changed meanwhile: it names {claim.node}, epoch {claim.epoch}"
            )
        above = max(epoch, claim.epoch + 1)
        return records.declare(claim, active, epoch=above, digest=digest, forced=forced)

    return await _change(node, change)


async def _epoch_above(node: Node, facts: Facts) -> int:
    """Above all that this node, the other one and the claim have seen (C5)."""
    seen = [facts.state.epoch, facts.claim.epoch if facts.claim is not None else 0]
    try:
        there = await node.peer.status()
        seen.append(int(there.get("epoch") or 0))
    except (AdapterError, ValueError):
        click.echo(
            f"{node.policy.peer} cannot be asked which epoch it has seen: should it have seen more than "
            f"{max(seen)}, say set-active again there.",
            err=True,
        )
    return max(seen) + 1


async def _spread(node: Node) -> None:
    """Both agents read the claim within some seconds anyway."""
    with contextlib.suppress(OSError):
        node.wake_file.touch()
    await node.peer.wake()
