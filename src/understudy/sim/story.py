"""The story teller: replays what a story says, and writes what happens below it.

A story is text: comments, commands, a line `----`, and what happened.  Both nodes have booted when it begins, and
pbx01 serves; all times count from there.  Nothing in it is random.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from understudy.config.durations import parse, show
from understudy.core.policy import Agreement, Isolation, Policy
from understudy.errors import UnderstudyError

from .commands import Unclear, obey
from .stage import Stage
from .world import NODES

RULE = "----"
ARTICLE = Policy(me="pbx01", peer="pbx02", digest="first")  # The article's numbers.
SETTINGS = ("policy", "isolation", "allow")


class StoryError(UnderstudyError):
    """A story that cannot be told, or in which a promise is not kept."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str

    @property
    def is_command(self) -> bool:
        return not self.text.startswith("#")


@dataclass(slots=True)
class Setting:
    """What the first block says about the pair."""

    policy: Policy
    isolation: dict[str, Isolation] = field(default_factory=dict)
    overlap: float = 0.0  # How long, in all, two PBXs may serve in this story.


def tell(text: str, policy: Policy = ARTICLE) -> str:
    """The story again, with what happens now.

    Raises StoryError: a line says nothing that we know, or two PBXs serve for longer than the story allows.
    """
    blocks = list(_blocks(text))
    setting = _setting(blocks, policy)
    _refuse_broken_sums(setting.policy)
    stage = Stage(setting.policy, setting.isolation)
    told = "\n\n".join(_play(stage, block) for block in blocks) + "\n"
    _refuse_overlaps(stage, setting.overlap)
    return told


def main(arguments: Iterable[str] = ()) -> int:
    """`python -m understudy.sim.story FILE...` prints each story as it happens now."""
    for name in arguments:
        try:
            sys.stdout.write(tell(Path(name).read_text(encoding="utf-8")))
        except (OSError, StoryError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 1
    return 0


def _blocks(text: str) -> Iterator[list[Line]]:
    """The lines of each block that the author wrote: what happened is left out."""
    block: list[Line] = []
    is_told = False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        stripped = line.strip()
        if not stripped:
            if block:
                yield block
            block, is_told = [], False
        elif stripped == RULE:
            is_told = True
        elif not is_told:
            block.append(Line(number, stripped))


def _play(stage: Stage, block: list[Line]) -> str:
    written = [line.text for line in block]
    commands = [line for line in block if line.is_command]
    if not commands:
        return "\n".join(written)
    for line in commands:
        if line.text.split()[0] in SETTINGS:
            continue
        try:
            obey(stage, line.text)
        except Unclear as unclear:
            raise StoryError(f"line {line.number}: {unclear}") from None
    return "\n".join([*written, RULE, *stage.heard()])


def _setting(blocks: list[list[Line]], policy: Policy) -> Setting:
    """The settings may only stand in the first block that has commands."""
    setting = Setting(policy)
    is_first = True
    for block in blocks:
        commands = [line for line in block if line.is_command]
        for line in commands:
            words = line.text.split()
            if words[0] not in SETTINGS:
                continue
            if not is_first:
                raise StoryError(
                    f"line {line.number}: {words[0]} may stand in the first block only"
                )
            try:
                _set(setting, words)
            except Unclear as unclear:
                raise StoryError(f"line {line.number}: {unclear}") from None
        is_first = is_first and not commands
    return setting


def _set(setting: Setting, words: list[str]) -> None:
    match words:
        case ["policy", *pairs] if pairs:
            for pair in pairs:
                name, _, value = pair.partition("=")
                setting.policy = _with(setting.policy, name, value)
        case ["isolation", *pairs] if pairs:
            for pair in pairs:
                name, _, value = pair.partition("=")
                if name not in NODES or value not in tuple(Isolation):
                    raise Unclear(f"{pair}: write it like isolation pbx01=keep")
                setting.isolation[name] = Isolation(value)
        case ["allow", "overlap", "of", time, _, *_] if time.endswith(":"):
            setting.overlap = _seconds(time.removesuffix(":"))
        case _:
            raise Unclear(
                f"{' '.join(words)}: write it like policy patience=60s, isolation pbx01=keep,"
                " or allow overlap of 40s: REASON"
            )


def _with(policy: Policy, name: str, value: str) -> Policy:
    if name == "isolation" and value in tuple(Isolation):
        return replace(policy, isolation=Isolation(value))
    if name == "agreement" and value in tuple(Agreement):
        return replace(policy, agreement=Agreement(value))
    times = [each.name for each in fields(Policy) if each.type is float]
    if name not in times:
        raise Unclear(f"{name}={value}: a policy has isolation, agreement, {', '.join(times)}")
    changes: dict[str, Any] = {name: _seconds(value)}
    return replace(policy, **changes)


def _seconds(text: str) -> float:
    try:
        return parse(text)
    except ValueError:
        raise Unclear(f"{text} is no time; write it like 90s, 5m or 1h30m") from None


def _refuse_broken_sums(policy: Policy) -> None:
    """T2: with other numbers nothing is promised, so there is no story to tell."""
    p = policy
    sums = {
        "announce": (p.announce, p.claim_stale + p.stop_within + p.claim_reading),
        "patience": (
            p.patience,
            max(p.checkpoints_stale + p.stop_within + 2 * p.interval + p.question, p.announce),
        ),
    }
    for name, (value, least) in sums.items():
        if value < least:
            raise StoryError(f"{name} is {show(value)}, and must be at least {show(least)} [T2]")


def _refuse_overlaps(stage: Stage, allowed: float) -> None:
    stage.end()
    overlap = sum(end - begin for begin, end in stage.overlaps)
    if overlap > allowed:
        raise StoryError(
            f"two PBXs served, for {overlap:.1f} s in all; the story allows {allowed:.1f} s:\n"
            + "\n".join(stage.all_lines)
        )
    if allowed and not stage.overlaps:
        raise StoryError(f"the story allows two PBXs for {allowed:.1f} s, and that did not happen")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
