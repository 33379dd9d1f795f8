"""Both nodes' accounts beside each other: what neither of them can see alone."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from understudy.adapters.peers.door import Door
from understudy.config.schema import Config
from understudy.core.claim import Claim
from understudy.errors import AdapterError, Unreachable, told
from understudy.runtime.daemon import Node
from understudy.wiring import way_prefix

from . import catalogue as c
from . import checkpoints, settings
from .examine import Account, examine, from_json
from .finding import PAIR, Finding, Level
from .here import Here, is_root

APART = 1.0  # Seconds that the clocks of two nodes may be apart.
SHOWN = 4  # Differing settings that are named.


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the other node said, between two looks at our clock."""

    account: Account
    sent: float  # Wall clock here, seconds.
    received: float


async def look(node: Node, config: Config, *, here_only: bool = False) -> list[Finding]:
    """Everything that both nodes find, and what follows from both."""
    if here_only:
        mine = await examine(node, config)
        return [*mine.findings, *_judged(mine, None, config, await _active(node))]
    mine, other = await asyncio.gather(examine(node, config), _other(node, config))
    active = await _active(node)
    if isinstance(other, Finding):
        return [other, *mine.findings, *_judged(mine, None, config, active)]
    both = [*mine.findings, *other.account.findings]
    return [
        c.OTHER_NODE.well(mine.node, f"{other.account.node} can be asked"),
        *dict.fromkeys(both),  # What is about the pair is found by each of them.
        *compare(mine, other),
        *_judged(mine, other.account, config, active),
    ]


async def _other(node: Node, config: Config) -> Told | Finding:
    peer, me = node.policy.peer, node.policy.me
    sent = time.time()
    try:
        account = from_json(await door_to_other(node, config).examine())
        if account.node != peer:
            raise Unreachable(
                f"at the door of {peer} answers {account.node}", hint=f"Mend [nodes.{peer}] ssh."
            )
    except AdapterError as error:
        return c.OTHER_NODE.bad(me, f"{peer} was not examined: {told(error)}", node=peer)
    return Told(account=account, sent=sent, received=time.time())


def door_to_other(node: Node, config: Config) -> Door:
    """As the agent's user would knock.  Raises Unreachable where no way is configured."""
    peer = node.policy.peer
    prefix = way_prefix(config, peer)
    if not prefix:
        raise Unreachable(f"no way to {peer} is configured", hint=f"Set nodes.{peer}.ssh.")
    here = Here(node=node, config=config, version="", is_root=is_root())
    return Door(peer, (*here.as_agent, *prefix), clock=lambda: node.clock.now().boot)


async def _active(node: Node) -> str:
    try:
        claim: Claim = await node.store.read()
    except AdapterError:
        return ""
    return claim.node


def _judged(mine: Account, other: Account | None, config: Config, active: str) -> Iterator[Finding]:
    seen = [*mine.sightings, *(other.sightings if other is not None else ())]
    yield from checkpoints.judge(seen, active, len(config.checkpoints))


def compare(mine: Account, other: Told) -> Iterator[Finding]:
    theirs = other.account
    yield from _configurations(mine, theirs)
    yield _versions(mine, theirs)
    yield _clocks(mine, other)
    yield from _one_server(mine.identities, theirs.identities)


def _configurations(mine: Account, theirs: Account) -> Iterator[Finding]:
    differing = settings.differences(mine.settings, theirs.settings)
    if mine.digest != theirs.digest:
        named = _named(mine, theirs, differing) or "they are not equal"
        yield c.CONFIGURATION.bad(PAIR, f"the configurations differ: {named}")
        return
    yield c.CONFIGURATION.well(PAIR, f"both nodes judge alike (digest {mine.digest})")
    ours = [key for key in differing if not settings.is_local(key)]
    local = [key for key in differing if settings.is_local(key)]
    if ours:
        yield c.SETTINGS.bad(PAIR, f"not the same: {_named(mine, theirs, ours)}")
    if local:
        said = f"not the same, as may be on two machines: {_named(mine, theirs, local)}"
        yield c.SETTINGS.bad(PAIR, said, level=Level.NOTE)
    if not differing:
        yield c.SETTINGS.well(PAIR, "every setting is the same")


def _named(mine: Account, theirs: Account, keys: Sequence[str]) -> str:
    named = [_beside(key, mine, theirs) for key in keys[:SHOWN]]
    more = len(keys) - SHOWN
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _beside(key: str, mine: Account, theirs: Account) -> str:
    values = [(each.node, each.settings.get(key, "nothing")) for each in (mine, theirs)]
    if any(settings.is_command(value) for _, value in values):
        return key
    return f"{key} ({', '.join(f'{node}: {value}' for node, value in values)})"


def _versions(mine: Account, theirs: Account) -> Finding:
    if mine.version == theirs.version:
        return c.VERSIONS.well(PAIR, f"both nodes run {mine.version}")
    older, newer = sorted((mine, theirs), key=lambda each: _number(each.version))
    said = f"{mine.node} runs {mine.version}, {theirs.node} {theirs.version}"
    return c.VERSIONS.bad(PAIR, said, version=newer.version, node=older.node)


def _number(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) if part.isdigit() else -1 for part in parts)


def _clocks(mine: Account, other: Told) -> Finding:
    """As NTP does it (RFC 5905, section 8): half of what the way took may be on either side of it."""
    theirs = other.account
    ahead = ((theirs.began - other.sent) + (theirs.ended - other.received)) / 2
    error = max((other.received - other.sent) - (theirs.ended - theirs.began), 0.0) / 2
    said = (
        f"{theirs.node} is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} {mine.node}"
    )
    exact = f"{said}, give or take {error:.1f} s"
    if abs(ahead) - error > APART:
        return c.CLOCKS.bad(PAIR, f"the clocks are apart: {exact}")
    return c.CLOCKS.well(PAIR, f"the clocks agree: {exact}")


def _one_server(mine: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Finding]:
    """The same address, another machine: anycast, or two views of it."""
    for server in mine.keys() & theirs.keys():
        if mine[server] != theirs[server]:
            yield c.PRIMARY.bad(
                PAIR,
                f"at {server} one node meets {mine[server]}, and the other {theirs[server]}: anycast?",
            )
