"""`guard`: what stands behind the process of understudy.guard: how the PBX is stopped here, and its stop.

PROTOCOL.md S2, docs/explanation/guard.md.
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Any, NoReturn

import click

from understudy.core.observations import Pbx
from understudy.errors import AdapterError, ConfigError, NotStopped, Refused, told
from understudy.guard import python, read
from understudy.runtime.daemon import Node

from .become import become_owner
from .notes import note
from .session import Session, clock, pass_session, print_json


@click.command()
@click.option("--explain", is_flag=True, help="Print as JSON what it would run, and end.")
@click.option(
    "--stop", is_flag=True, help="Stop the PBX unless an agent has a proof for it, and end."
)
@pass_session
def guard(session: Session, explain: bool, stop: bool) -> int:
    """Be the guard of this node: stop its PBX when no agent proves any longer that it may run.

    For systemd, as root, beside `run`.  Exit code of --stop: 0 the PBX is stopped or shut off, or may run
    again; 1 it runs and should not.
    """
    if stop:
        return asyncio.run(_stop(session.node))
    if explain:
        print_json(plan(session))
    else:
        _become(["--config", str(session.path), "--node", session.node.policy.me])
    return 0


def _become(words: list[str]) -> NoReturn:
    os.execv(sys.executable, [*python("understudy.guard"), *words])


def plan(session: Session) -> dict[str, Any]:
    """understudy.guard.Plan.  The guard may not depend on this program when it stops a PBX."""
    node, service = session.node, session.config.service
    where = ["--config", str(session.path.absolute()), "--node", node.policy.me]
    return {
        "node": node.policy.me,
        "file": str(node.guard_file.absolute()),
        "glass": str(node.glass),
        "stop_within": node.policy.stop_within,
        "stop": [*python("understudy"), *where, "guard", "--stop"],
        **_plainly(service.settings),
        **_shut(service.settings),
    }


def _plainly(settings: Any) -> dict[str, Any]:
    """By the kind of service: a unit of systemd, or the operator's commands."""
    unit = getattr(settings, "unit", "")
    if unit:
        systemctl = ["systemctl", "--no-pager", "--no-ask-password"]
        return {
            "plain": [
                [*systemctl, "stop", "--", unit],
                [*systemctl, "kill", "--signal=KILL", "--", unit],
            ],
            "gone": [*systemctl, "is-active", "--", unit],
            "gone_codes": [],
        }
    ways = (getattr(settings, name, None) for name in ("stop", "kill"))
    status = getattr(settings, "status", None) or []
    return {
        "plain": [list(way) for way in ways if way],
        "gone": list(status),
        "gone_codes": [1, 2, 3] if status else [],  # adapters.services.command: LSB.
    }


def _shut(settings: Any) -> dict[str, Any]:
    from understudy.adapters.services.shutoff import script

    return {"shut": ["nft", "-f", "-"], "shut_input": script(settings.all_ports)}


async def _stop(node: Node) -> int:
    """What was done is journalled when it is done: the disk may be what keeps the agent from working."""
    if node.glass_is_broken():
        click.echo(f"the glass is broken ({node.glass}): the PBX goes on", err=True)
        return 0
    since = _proved_until(node)
    if since is None:
        click.echo("an agent has a proof again: the PBX goes on", err=True)
        return 0
    if await node.service.look() is Pbx.STOPPED:
        click.echo("the PBX is stopped already", err=True)
        return 0
    why = f"no agent has proved since {clock(since)} that it may run [S2]"
    began = clock(node.clock.now().wall)
    try:
        await node.service.stop()
    except NotStopped as error:
        return await _shut_off(node, f"{told(error)}  ({why})")
    _tell(node, f"the guard stopped the PBX at {began}: {why}")
    return 0


async def _shut_off(node: Node, why: str) -> int:
    try:
        await node.service.shut_off()
    except AdapterError as error:
        _tell(node, f"the guard cannot stop the PBX: {why}.  {told(error)}")
        return 1
    _tell(node, f"the guard has shut SIP off, because the PBX could not be stopped: {why}")
    return 0


def _tell(node: Node, said: str) -> None:
    click.echo(said, err=True)
    with suppress(Refused, ConfigError):
        become_owner(node.journal_path.parent)  # Root's work is done; the journal is the agent's.
        note(node, "guard", said)


def _proved_until(node: Node) -> float | None:
    """Wall clock: since when no proof holds; None if one does.  A file that makes no sense proves nothing."""
    at = node.clock.now()
    try:
        word = read(node.guard_file)
    except (OSError, ValueError):
        return at.wall
    if word.boot_id != node.boot_id:
        return at.wall
    if word.stopped or word.ends is None or word.ends > at.boot:
        return None
    return at.wall - (at.boot - word.ends)
