"""The check points, asked from each node, and what their answers say about them.

Asking is one thing, judging another: only who has heard both nodes can tell a check point that is down from one that
does not talk to this node.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from understudy.adapters.probes import nrpe, nrpe_tls
from understudy.adapters.probes.nrpe_trouble import Tls
from understudy.core.observations import Health

from . import catalogue as c
from .finding import PAIR, Finding, Level, printable
from .here import Here

OURS = re.compile(r"^SIP (OK|WARNING|CRITICAL|UNKNOWN) - ")  # As plugins/check_sip.py writes.
STRANGER = re.compile(r"^(SIP \w+ - )?(401|403|407)\b")
SOON = 14.0  # Days.
SHOWN_WITHIN = 5.0  # Seconds for one certificate.


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one check point told one node about one node."""

    asker: str
    checkpoint: str
    kind: str  # Of probe.
    node: str
    health: Health
    text: str


async def ask(here: Here) -> list[Sighting]:
    """All of them about both nodes, once."""
    kinds = {name: chosen.kind for name, chosen in here.config.checkpoints.items()}
    nodes = (here.me, here.peer)
    reports = await asyncio.gather(
        *(probe.ask(node) for node in nodes for probe in here.node.probes)
    )
    about = [node for node in nodes for _ in here.node.probes]
    return [
        Sighting(
            asker=here.me,
            checkpoint=report.checkpoint,
            kind=kinds.get(report.checkpoint, ""),
            node=node,
            health=report.health,
            text=report.text,
        )
        for node, report in zip(about, reports, strict=True)
    ]


def to_json(sighting: Sighting) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(sighting).items()}


def from_json(fields: Any) -> Sighting:
    """Raises ValueError, KeyError, TypeError."""
    names = ("asker", "checkpoint", "kind", "node", "health", "text")
    asker, checkpoint, kind, node, health, text = (printable(str(fields[n])) for n in names)
    return Sighting(
        asker=asker,
        checkpoint=checkpoint,
        kind=kind,
        node=node,
        health=Health(health),
        text=text,
    )


def judge(seen: Sequence[Sighting], active: str, count: int) -> Iterator[Finding]:
    """`active`: by the claim, or "".  `count`: how many check points are configured."""
    yield from _answers(seen, count)
    for checkpoint in dict.fromkeys(each.checkpoint for each in seen):
        theirs = [each for each in seen if each.checkpoint == checkpoint]
        yield from _plugin(checkpoint, theirs)
    if active:
        about = [each for each in seen if each.node == active]
        yield from _sees(active, about)
        yield from _known(active, about)
        yield from _standby([each for each in seen if each.node != active], count)


def _answers(seen: Sequence[Sighting], count: int) -> Iterator[Finding]:
    for asker in dict.fromkeys(each.asker for each in seen):
        for node in dict.fromkeys(each.node for each in seen):
            mine = [each for each in seen if (each.asker, each.node) == (asker, node)]
            silent = [each for each in mine if each.health is Health.UNKNOWN]
            few = count - len(silent) < count // 2 + 1
            for each in silent:
                yield c.CHECKPOINT_ANSWERS.bad(
                    asker,
                    f"{each.checkpoint} says nothing about {node}{_but(each, seen)}: {each.text}",
                    level=Level.CRITICAL if few else None,
                    checkpoint=each.checkpoint,
                )
            if not silent:
                said = f"all {len(mine)} check points answer about {node}"
                yield c.CHECKPOINT_ANSWERS.well(asker, said)


def _but(silent: Sighting, seen: Sequence[Sighting]) -> str:
    """Whom does it talk to?  That tells what is wrong."""
    heard = [
        each
        for each in seen
        if each.checkpoint == silent.checkpoint and each.health is not Health.UNKNOWN
    ]
    others = sorted({each.asker for each in heard} - {silent.asker})
    if others and not any(each.asker == silent.asker for each in heard):
        return f" to {silent.asker}, and does to {others[0]}"
    return ""


def _plugin(checkpoint: str, theirs: Sequence[Sighting]) -> Iterator[Finding]:
    """A probe of kind sip asks by itself: there is no plugin."""
    told = [each for each in theirs if each.kind == "nrpe" and each.health is not Health.UNKNOWN]
    strange = [each for each in told if not OURS.match(each.text)]
    if strange:
        said = f"{checkpoint} runs another check than check_sip: {strange[0].text}"
        yield c.CHECKPOINT_PLUGIN.bad(PAIR, said, checkpoint=checkpoint)
    elif told:
        yield c.CHECKPOINT_PLUGIN.well(PAIR, f"{checkpoint} runs check_sip")


def _sees(active: str, about: Sequence[Sighting]) -> Iterator[Finding]:
    up = {each.checkpoint for each in about if each.health is Health.UP}
    down = {each.checkpoint: each for each in about if each.health is Health.DOWN}
    for checkpoint in down.keys() & up:
        said = f"{checkpoint} tells one node that {active} is up, and the other that it is down"
        yield c.CHECKPOINT_SEES.bad(PAIR, said, node=active, checkpoint=checkpoint)
    if down and not up:
        first = next(iter(down.values()))
        said = f"no check point sees {active} up; {first.checkpoint}: {first.text}"
        yield c.CHECKPOINT_SEES.bad(
            PAIR, said, level=Level.CRITICAL, node=active, checkpoint="all check points"
        )
        return
    for checkpoint in down.keys() - up:
        others = f"{', '.join(sorted(up))} see it up: is {checkpoint} banned, or cut off?"
        said = f"{checkpoint} says that {active} is down, and {others} {down[checkpoint].text}"
        yield c.CHECKPOINT_SEES.bad(PAIR, said, node=active, checkpoint=checkpoint)
    if up and not down:
        yield c.CHECKPOINT_SEES.well(PAIR, f"{', '.join(sorted(up))} see {active} up")


def _known(active: str, about: Sequence[Sighting]) -> Iterator[Finding]:
    strangers = {
        each.checkpoint: each
        for each in about
        if each.health is Health.UP and STRANGER.search(each.text)
    }
    for checkpoint, each in strangers.items():
        said = f"{active} does not know {checkpoint}: {each.text}"
        yield c.CHECKPOINT_KNOWN.bad(PAIR, said, node=active, checkpoint=checkpoint)
    if not strangers and any(each.health is Health.UP for each in about):
        yield c.CHECKPOINT_KNOWN.well(PAIR, f"{active} knows the check points")


def _standby(about: Sequence[Sighting], count: int) -> Iterator[Finding]:
    up = {each.checkpoint: each for each in about if each.health is Health.UP}
    for checkpoint, each in up.items():
        yield c.CHECKPOINT_STANDBY.bad(
            PAIR,
            f"{checkpoint} says that {each.node} is up too, and it is the standby: {each.text}",
            level=None if len(up) > count // 2 else Level.WARNING,
            checkpoint=checkpoint,
        )
    if about and not up:
        said = f"no check point sees {about[0].node}, the standby, up"
        yield c.CHECKPOINT_STANDBY.well(PAIR, said)


async def certificates(here: Here) -> list[Finding]:
    """Of the NRPE daemons that prove themselves by one."""
    found = []
    for name, chosen in here.config.checkpoints.items():
        settings = chosen.settings
        if isinstance(settings, nrpe.Settings) and settings.tls is Tls.VERIFIED:
            found.append(await _certificate(here, name, settings))
    return found


async def _certificate(here: Here, name: str, settings: nrpe.Settings) -> Finding:
    try:
        async with asyncio.timeout(SHOWN_WITHIN):
            days = await _days_left(settings)
    except ssl.SSLCertVerificationError as error:
        said = f"the certificate of {name} is not accepted: {error.verify_message}"
        return c.CERTIFICATE.bad(here.me, said, checkpoint=name)
    except OSError as error:
        return c.CERTIFICATE.unknown(here.me, f"{name} shows no certificate: {error}")
    said = f"the certificate of {name} ends in {days:.0f} days"
    if days < SOON:
        return c.CERTIFICATE.bad(here.me, said, checkpoint=name)
    return c.CERTIFICATE.well(here.me, said)


async def _days_left(settings: nrpe.Settings) -> float:
    """Raises OSError."""
    tls = nrpe_tls.verified(settings.ca_file, settings.cert_file, settings.key_file)
    _, writer = await asyncio.open_connection(
        settings.address,
        settings.port,
        ssl=tls.context,
        server_hostname=settings.server_name or settings.address,
    )
    try:
        shown = writer.get_extra_info("peercert")
    finally:
        writer.transport.abort()
    return (ssl.cert_time_to_seconds(shown["notAfter"]) - time.time()) / 86_400.0
