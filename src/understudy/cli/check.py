"""`check`: the state of this node as a monitoring plugin.

Monitoring Plugins Development Guidelines: one line, performance data behind `|`, exit 0 OK, 1 WARNING, 2 CRITICAL,
3 UNKNOWN.
"""

import asyncio

import click

from understudy.errors import UnderstudyError
from understudy.runtime.readings import exit_code_check

from .facts import Facts, gather, protection
from .session import Session, clock, pass_session

UNKNOWN = 3


@click.command()
@pass_session
def check(session: Session) -> int:
    """The state of this node as a monitoring plugin: exit 0-3, one line, performance data."""
    try:
        facts = asyncio.run(gather(session.node, events=0))
    except UnderstudyError as error:
        click.echo("UNDERSTUDY UNKNOWN: " + " ".join(str(error).replace("|", "/").split()))
        return UNKNOWN
    code, line = _judge(facts)
    click.echo(line)
    return code


def _judge(facts: Facts) -> tuple[int, str]:
    code, line = exit_code_check(facts.view)
    found = protection(facts)
    line = f"{line} protected={int(found.protected)};;;0;1"
    if code != 0 or found.protected:
        return code, line
    _, _, data = line.partition(" | ")
    why = " ".join("; ".join(found.reasons).replace("|", "/").split())
    return 1, f"UNDERSTUDY WARNING: NOT PROTECTED since {clock(found.since)}: {why} | {data}"
