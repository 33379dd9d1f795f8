"""What the demo shows: a picture on a terminal, else one line for each thing that happens."""

import time
from dataclasses import dataclass
from typing import Protocol, TextIO

from understudy.runtime.status import NodeView, Patience, Status

KEPT = 600  # Characters of a line at most: what a program said may be long.


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeScene:
    """One node, as an onlooker sees it."""

    name: str
    is_on: bool
    status: Status | None  # By its own journal; None before it has one.
    votes: NodeView | None  # What the last round of a node that is on said about it.
    calls: int  # That it answered.
    data: str = ""  # What it holds: "12 messages, 3 agents".


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a picture needs."""

    seconds: float  # Since the demo began.
    act: str
    service: str
    nodes: tuple[NodeScene, ...] = ()
    claim: str = ""
    leads_to: str = ""
    patience: Patience | None = None
    reasons: tuple[str, ...] = ()  # Why a node does not serve, in its own words.
    calls: tuple[str, ...] = ()  # The newest last: who answered, or "".
    answered: int = 0
    lost: int = 0

    @property
    def patience_text(self) -> str:
        """How far patience is; empty while nobody is suspected."""
        patience = self.patience
        if patience is None:
            return ""
        text = f"{min(patience.spent, patience.total):.0f} s of {patience.total:.0f} s"
        if patience.announced:
            return f"{text}; announced, takes over in {patience.takes_in:.0f} s"
        if patience.announces_in is None:
            return text
        return f"{text}; announces in {patience.announces_in:.0f} s"


class Screen(Protocol):
    def say(self, text: str) -> None:
        """Something happened."""

    def show(self, scene: Scene) -> None:
        """How things stand now."""

    def close(self) -> None:
        """Leave the terminal as it was, with all that was said on it.  Safe to repeat."""


class Story:
    """All that was said, each line with its time."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def tell(self, text: str) -> str:
        clean = "".join(c for c in text if c.isprintable())[:KEPT]
        self.lines.append(f"{self.seconds:5.1f} s  {clean}")
        return self.lines[-1]


class Lines:
    """A Screen for where no terminal is: a log of continuous integration, a pipe."""

    def __init__(self, story: Story, out: TextIO) -> None:
        self._story, self._out = story, out

    def say(self, text: str) -> None:
        self._out.write(self._story.tell(text) + "\n")
        self._out.flush()

    def show(self, scene: Scene) -> None:
        pass

    def close(self) -> None:
        pass


def bar(share: float, width: int) -> str:
    """`share` of `width` characters."""
    full = round(max(0.0, min(share, 1.0)) * width)
    return "━" * full + "─" * (width - full)


def votes_in_words(view: NodeView | None) -> str:
    if view is None or not view.votes:
        return "not asked yet"
    return f"{view.verdict}: " + " ".join(f"{each.checkpoint} {each.health}" for each in view.votes)


def letter(node: str) -> str:
    """One call: the last digit of who answered it, x if nobody did."""
    return node[-1] if node else "x"
