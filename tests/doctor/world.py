"""What the tests of `doctor` share: one node as an examination finds it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.pair import NODES, CliPair
from understudy.core.claim import Claim, first
from understudy.doctor.finding import Finding, Level
from understudy.doctor.here import Here
from understudy.wiring import build, load_config

Look = Callable[[Here], Awaitable[Sequence[Finding]]]


def here(pair: CliPair, node: str = "pbx01", **changes: Any) -> Here:
    """Without a claim, where `changes` have none."""
    config = load_config(pair.config(node), check_files=False)
    built = build(config, node, lenient=True)
    found = Here(node=built, config=config, version="1.0", is_root=True)
    return replace(found, **changes)


def claim(active: str = "pbx01", **changes: Any) -> Claim:
    return replace(first(active, digest="d"), served=True, **changes)


def run(look: Look, place: Here) -> list[Finding]:
    async def within() -> Sequence[Finding]:
        async with asyncio.timeout(60):
            return await look(place)

    return list(asyncio.run(within()))


def levels(found: Iterable[Finding], check: str) -> list[Level]:
    return [each.level for each in found if each.check == check]


def only(found: Iterable[Finding], check: str) -> Finding:
    (one,) = [each for each in found if each.check == check]
    return one


def edit(pair: CliPair, old: str, new: str, *nodes: str) -> None:
    """In the configuration of these nodes; of both, if none is named."""
    for node in nodes or NODES:
        path = pair.config(node)
        text = path.read_text()
        assert old in text, f"{path} has no {old}"
        path.write_text(text.replace(old, new))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)
