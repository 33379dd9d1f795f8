"""`copies`: the process that keeps the standby's copy current, and what a person may do about snapshots."""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import click

from understudy.adapters import processes
from understudy.errors import Refused
from understudy.ports import Copy
from understudy.runtime.copier import Copier

from .session import Session, about, as_json, pass_session, print_json

COPY_WITHIN = 3600.0  # Seconds.


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
    """The snapshots of each class, the newest first; and what was kept aside."""
    found = {name: copy.store for name, copy in _classes(session).items()}
    if as_json:
        print_json(
            {
                name: {
                    "snapshots": [each.name for each in store.all()[::-1]],
                    "aside": [str(each) for each in store.asides()],
                }
                for name, store in found.items()
            }
        )
        return 0
    wall = session.node.clock.now().wall
    for name, store in found.items():
        kept = store.all()[::-1]
        click.echo(f"{name}: {len(kept) or 'no'} snapshot{'' if len(kept) == 1 else 's'}")
        for each in kept:
            click.echo(f"    {each.name}   {about(wall - each.taken)} ago")
        for aside in store.asides():
            click.echo(f"    kept aside: {aside}")
    return 0


@copies.command()
@click.argument("name")
@click.argument("snapshot")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder that is not there yet.",
)
@pass_session
def restore(session: Session, name: str, snapshot: str, target: Path) -> int:
    """Take SNAPSHOT of class NAME out of the store, into a folder.

    So that a mistake that was copied from the active node can be taken back there.  Nothing is put in place: what
    is in place here is renewed from the active node anyway.
    """
    store = _class(session, name).store
    found = {each.name: each.path for each in store.all()}
    if snapshot not in found:
        raise Refused(
            f"there is no snapshot {snapshot} of {name}", hint="understudy copies list shows them."
        )
    if target.exists():
        raise Refused(f"{target} is there already", hint="Name a folder that is not.")
    # A copy of its own, owners and all: the snapshot shares its files with others.
    done = asyncio.run(
        processes.run(("cp", "-a", "--", str(found[snapshot]), str(target)), within=COPY_WITHIN)
    )
    if done.code != 0:
        raise Refused(f"not all of it could be copied to {target}: {done.said}")
    click.echo(f"{name} as it was at {snapshot} is in {target}")
    return 0


@copies.command()
@click.argument("name")
@pass_session
def accept(session: Session, name: str) -> int:
    """Let the next pull of class NAME through though much of it is gone at the source."""
    _class(session, name).accept()
    click.echo(f"the next pull of {name} is taken as it comes")
    return 0


def _classes(session: Session) -> dict[str, Copy]:
    from understudy import wiring

    return wiring.copies_of(session.config, session.node.policy.me)


def _class(session: Session, name: str) -> Copy:
    found = _classes(session)
    if name not in found:
        raise Refused(
            f"there is no [copies.{name}]", hint=f"There are: {', '.join(found) or 'none'}."
        )
    return found[name]
