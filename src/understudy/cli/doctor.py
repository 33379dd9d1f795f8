"""`doctor`: looks at everything that a failover will need, on both nodes."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import click

from understudy.doctor import finding
from understudy.doctor.finding import Finding, Level

from .session import Session, as_json, pass_session, print_json

STYLES = {Level.CRITICAL: "red", Level.WARNING: "yellow", Level.UNKNOWN: "magenta"}


@click.command()
@as_json
@click.option(
    "--mail",
    is_flag=True,
    help="Also send a test message from each node, by every way that is configured.",
)
@click.option("--here", is_flag=True, help="This node alone: the other one is not asked.")
@click.option("--verbose", is_flag=True, help="Also list what is well.")
@pass_session
def doctor(session: Session, as_json: bool, mail: bool, here: bool, verbose: bool) -> int:
    """Look at everything that a failover will need, on both nodes, and say what mends it.

    Changes nothing.  Run it as root: the agent's user may not see everything.  Exit code: 0 all is
    well, 1 something is critical or a warning, 3 nothing is wrong as far as could be seen.
    """
    node, config = session.node, session.config
    found = finding.in_order(asyncio.run(_look(session, here_only=here, mail=mail)))
    code = finding.exit_code(found)
    if as_json:
        counts = Counter(each.level for each in found)
        print_json(
            {
                "ok": code == 0,
                "node": node.policy.me,
                "pair": config.pair.name,
                "verdict": finding.verdict(found),
                "counts": {level.value: counts[level] for level in Level},
                "findings": [finding.to_json(each) for each in found],
            }
        )
        return code
    title = f"{config.pair.name}: {config.pair.service}   (this is {node.policy.me})"
    click.echo("\n".join([title, *_lines(found, verbose=verbose)]))
    return code


async def _look(session: Session, *, here_only: bool, mail: bool) -> list[Finding]:
    from understudy.doctor import pair  # Heavy: not for `--help`.

    found = await pair.look(session.node, session.config, here_only=here_only)
    if mail:
        from understudy.doctor import mail as mails

        send = mails.here if here_only else mails.both
        found += await send(session.node, session.config)
    return found


def _lines(found: Sequence[Finding], *, verbose: bool) -> Iterator[str]:
    for level, group in groupby(found, key=lambda each: each.level):
        each = list(group)
        if level is Level.OK and not verbose:
            yield ""
            yield f"{len(each)} checks are well (--verbose lists them)."
            continue
        yield ""
        yield click.style(level.upper(), fg=STYLES.get(level), bold=level in STYLES)
        for one in each:
            yield from _one(one)
    yield ""
    yield finding.verdict(found)


def _one(found: Finding) -> Iterator[str]:
    yield f"  {found.node:<6} {found.check}: {found.what}"
    if found.why and found.level in STYLES:
        yield f"         why:  {found.why}"
    if found.mend:
        yield f"         mend: {found.mend}"
