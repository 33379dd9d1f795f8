"""`qualify`: after a start of Asterisk its queues know at once which phones are there (ExecStartPost=).

Asterisk takes the phones that registered before from its astdb, but counts a queue's member as unavailable until its
contact was qualified, which it spreads at random over qualify_frequency.
"""

import asyncio
import time

import click

from understudy.adapters import asterisk

from .session import as_json, print_json

BOOT_WITHIN = 60.0  # Seconds for Asterisk to be there.
NAMED = 20  # Endpoints that are named one by one.


@click.command()
@as_json
def qualify(as_json: bool) -> int:
    """Qualify all phones that Asterisk knows, so that its queues ring them at once.  The unit does it after a start."""
    began = time.monotonic()
    endpoints, failed = asyncio.run(_qualify())
    took = time.monotonic() - began
    if as_json:
        print_json({"ok": True, "qualified": len(endpoints) - len(failed), "failed": failed})
        return 0
    if not endpoints:
        click.echo("qualify: no PJSIP endpoint has a contact")
        return 0
    click.echo(
        f"qualify: {len(endpoints) - len(failed)} of {len(endpoints)} endpoints, {took:.1f} s"
    )
    for endpoint, why in list(failed.items())[:NAMED]:
        click.echo(f"qualify: not {endpoint}: {why}", err=True)
    if len(failed) > NAMED:
        click.echo(f"qualify: nor {len(failed) - NAMED} more", err=True)
    return 0


async def _qualify() -> tuple[tuple[str, ...], dict[str, str]]:
    """All that have a contact, and those of them that failed."""
    await asterisk.booted(BOOT_WITHIN)
    endpoints = await asterisk.endpoints_with_contact()
    return endpoints, await asterisk.qualify(endpoints)
