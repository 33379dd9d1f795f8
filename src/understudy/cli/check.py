"""`check`: the state of this node as a monitoring plugin.

Monitoring Plugins Development Guidelines: one line, performance data behind `|`, exit 0 OK, 1 WARNING, 2 CRITICAL,
3 UNKNOWN.
"""

import asyncio

import click

from understudy.errors import UnderstudyError
from understudy.runtime.readings import exit_code_check

from .facts import Facts, gather, protection
from .session import Session, pass_session

UNKNOWN = 3


@click.command()
@pass_session
def check(session: Session) -> int:
    """The state of this node as a monitoring plugin: exit 0-3, one line, performance data."""
    try:
        facts = asyncio.run(gather(session.node, peer=True, events=0))
    except UnderstudyError as error:
        click.echo("UNDERSTUDY UNKNOWN: " + " ".join(str(error).replace("|", "/").split()))
        return UNKNOWN
    code, line = _judge(facts)
    click.echo(line)
    return code


def _judge(facts: Facts) -> tuple[int, str]:
    code, line = exit_code_check(facts.view)
    why = protection(facts)
    if code != 0 or not why:
        return code, line
    _, _, data = line.partition(" | ")
    why = " ".join(why.replace("|", "/").split())
    return 1, f"UNDERSTUDY WARNING: not protected: {why} | {data}"
