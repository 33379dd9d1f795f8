"""What the demo's calls cost, and who answered when: by the callers' and the PBXs' own records."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from .caller import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of who answers, as the caller saw it."""

    before: str
    after: str
    seconds: float  # From the start of the last answered call to the start of the next that was.
    lost: int  # Calls between the two.


def moves(attempts: Sequence[Attempt]) -> list[Move]:
    """In the order of calling, whatever the order of ending."""
    found, lost = [], 0
    last: Attempt | None = None
    for each in sorted(attempts, key=lambda one: one.started):
        if not each.answered:
            lost += 1
            continue
        if last is not None and each.node != last.node:
            seconds = each.started - last.started
            found.append(Move(before=last.node, after=each.node, seconds=seconds, lost=lost))
        last, lost = each, 0
    return found


def turns(records: Iterable[Path]) -> list[str]:
    """Which PBX answered, one name per unbroken row of answers.

    Two that are active at once take turns more often than the claim has moved.
    """
    answers: list[tuple[float, str]] = []
    for record in records:
        with suppress(FileNotFoundError):
            answers += _answers(record)
    return [node for node, _ in groupby(sorted(answers), key=lambda one: one[1])]


def _answers(record: Path) -> Iterable[tuple[float, str]]:
    for line in record.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, KeyError):  # The last line of a PBX that was killed.
            fields = json.loads(line)
            yield float(fields["at"]), str(fields["node"])
