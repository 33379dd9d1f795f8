"""`check`: the state of this node as a monitoring plugin.

Monitoring Plugins Development Guidelines: one line, performance data behind `|`, exit 0 OK, 1 WARNING, 2 CRITICAL,
3 UNKNOWN.
"""

import asyncio

import click

from understudy.errors import UnderstudyError

from .facts import Facts, Weight, gather, troubles
from .session import Session, pass_session

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


@click.command()
@pass_session
def check(session: Session) -> int:
    """The state of this node as a monitoring plugin: exit 0-3, one line, performance data."""
    try:
        facts = asyncio.run(gather(session.node, peer=True, events=0))
    except UnderstudyError as error:
        click.echo(f"UNDERSTUDY UNKNOWN - {_one_line(str(error))}")
        return UNKNOWN
    code, text = _judge(facts)
    click.echo(f"UNDERSTUDY {WORDS[code]} - {_one_line(text)} | {_data(facts)}")
    return code


def _judge(facts: Facts) -> tuple[int, str]:
    claim, state = facts.claim, facts.state
    if claim is None and state is None:
        return UNKNOWN, facts.journal_trouble or facts.claim_trouble
    found = troubles(facts)
    if found:
        code = CRITICAL if found[0].weight is Weight.CRITICAL else WARNING
        more = f" (and {len(found) - 1} more: understudy status)" if len(found) > 1 else ""
        return code, found[0].text + more
    phase = state.phase if state is not None else "unknown"
    active = f"{claim.node} is active, epoch {claim.epoch}" if claim is not None else ""
    return OK, f"{facts.policy.me} is {phase}; {active}"


def _data(facts: Facts) -> str:
    votes = facts.round.votes if facts.round is not None else ()
    asked = {vote.checkpoint for vote in votes if vote.health != "unknown"}
    epoch = facts.claim.epoch if facts.claim is not None else 0
    values = [f"epoch={epoch}", f"checkpoints={len(asked)};;;0;{facts.policy.checkpoints}"]
    for name, age in (
        ("heartbeat_age", facts.heartbeat_age),
        ("claim_age", facts.age(facts.evidence.claim_at)),
    ):
        if age is not None:
            values.append(f"{name}={age:.1f}s")
    spent = facts.age(facts.evidence.down_since) or 0.0
    values.append(f"patience_spent={spent:.1f}s;;;0;{facts.policy.patience:g}")
    return " ".join(values)


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
