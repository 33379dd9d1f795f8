"""A test message from each node, by every way that is configured: the one that dies at night tells nobody."""

import asyncio
import time
from collections.abc import Sequence

from understudy.config.schema import Config
from understudy.errors import AdapterError, ConfigError, told
from understudy.ports import Message, Notifier
from understudy.runtime.daemon import Node

from . import catalogue as c
from . import finding, pair
from .finding import Finding, Level

WITHIN = 60.0  # Seconds for each way: a mail server may greet slowly on purpose.


async def both(node: Node, config: Config) -> list[Finding]:
    mine, theirs = await asyncio.gather(here(node, config), _there(node, config))
    return [*mine, *theirs]


async def _there(node: Node, config: Config) -> list[Finding]:
    peer = node.policy.peer
    try:
        said = await pair.door_to_other(node, config).trial()
        return [finding.from_json(each) for each in said["findings"]]
    except (AdapterError, KeyError, TypeError, ValueError) as error:
        why = told(error) if isinstance(error, AdapterError) else "do both run the same version?"
        return [c.MAIL.unknown(peer, f"{peer} did not say whether its messages go out: {why}")]


async def here(node: Node, config: Config) -> list[Finding]:
    # Both need what only those have who are told: TLS, mail, HTTP.
    from understudy.runtime.telling import About, trial
    from understudy.wiring import notifiers

    about = About(pair=config.pair.name, service=config.pair.service, glass=str(node.glass))
    me = node.policy.me
    try:
        ways = notifiers(config, me)
    except ConfigError as error:
        return [c.MAIL.bad(me, str(error))]
    return await send(ways, trial(about, me, time.time()), me)


async def send(notifiers: Sequence[Notifier], message: Message, me: str) -> list[Finding]:
    if not notifiers:
        said = "nobody is told of anything: no [notify] is configured"
        mend = '[notify.mail] kind = "mail"; or let your monitoring run understudy check'
        return [c.MAIL.bad(me, said, level=Level.WARNING, mend=mend)]
    return list(await asyncio.gather(*(_send(each, message, me) for each in notifiers)))


async def _send(notifier: Notifier, message: Message, me: str) -> Finding:
    try:
        async with asyncio.timeout(WITHIN):
            await notifier.send(message)
    except TimeoutError:
        said = f"{notifier.name}: not taken within {WITHIN:g} s"
        return c.MAIL.bad(me, said)
    except AdapterError as error:
        return c.MAIL.bad(me, f"{notifier.name}: {error}", mend=error.hint)
    return c.MAIL.well(me, f"{notifier.name}: the message was taken; look whether it arrives")
