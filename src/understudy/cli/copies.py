"""`copies`: the process that keeps the standby's copy current, and what a person may do about snapshots."""

import asyncio
import signal
from contextlib import suppress
from datetime import UTC, datetime

import click

from understudy.errors import Refused
from understudy.runtime.copier import Copier

from .session import Session, about, as_json, pass_session, print_json


@click.group()
def copies() -> None:
    """The copy of the active node's data."""


@copies.command()
@pass_session
def run(session: Session) -> int:
    """Keep this node's copy current: the copier, for systemd.  Beside the agent, which says when it may."""
    from understudy import wiring

    asyncio.run(_until_ended(wiring.copier_of(session.config, session.node, _say)))
    return 0


async def _until_ended(copier: Copier) -> None:
    work = asyncio.ensure_future(copier.live())
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, work.cancel)
    with suppress(asyncio.CancelledError):
        await work


def _say(sentence: str) -> None:
    click.echo(sentence, err=True)


@copies.command("list")
@as_json
@pass_session
def list_(session: Session, as_json: bool) -> int:
    """The snapshots of each class, the newest first."""
    from understudy import wiring

    found = {
        name: copy.store.all()[::-1]
        for name, copy in wiring.copies_of(session.config, session.node.policy.me).items()
    }
    if as_json:
        print_json({name: [each.name for each in kept] for name, kept in found.items()})
        return 0
    wall = session.node.clock.now().wall
    for name, kept in found.items():
        click.echo(f"{name}: {len(kept) or 'no'} snapshot{'' if len(kept) == 1 else 's'}")
        for each in kept:
            when = (
                datetime.fromtimestamp(each.taken, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            )
            click.echo(f"    {each.name}   {when}, {about(wall - each.taken)} ago")
    return 0


@copies.command()
@click.argument("name")
@pass_session
def accept(session: Session, name: str) -> int:
    """Let the next pull of class NAME through though much of it is gone at the source."""
    from understudy import wiring

    found = wiring.copies_of(session.config, session.node.policy.me)
    if name not in found:
        raise Refused(f"there is no [copies.{name}]: {', '.join(found) or 'none at all'}")
    found[name].accept()
    click.echo(f"the next pull of {name} is taken as it comes")
    return 0
