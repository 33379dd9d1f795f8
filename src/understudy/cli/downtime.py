"""For how long nobody served while calls moved: by what both nodes have journalled.

Each instant is taken as an age, by the clock of the node that journalled it, at the moment when that node was asked:
so the wall clocks of the two may differ.  What is not known is where on the way there and back the answer was given:
half of that way is how far the sum may be off.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from understudy.core.actions import Fence, Prove, Stop
from understudy.core.observations import Result, Verb
from understudy.errors import UnderstudyError
from understudy.runtime import statecodec
from understudy.runtime.daemon import Node
from understudy.runtime.journal_rows import EventKind, in_words

FEW = 60  # Events: those of one move are some twenty.


@dataclass(frozen=True, slots=True, kw_only=True)
class _History:
    """What a node has done, oldest first."""

    at: float  # time.monotonic() here, when
    wall: float  # that was the time there.
    events: Sequence[Mapping[str, Any]]

    def done(self, what: str, key: str, since: float) -> float | None:
        """time.monotonic() of the last step `what` that was done: its beginning ("wall") or its end ("last")."""
        for event in reversed(self.events):
            is_it = event["kind"] == EventKind.STEP and str(event["text"]).startswith(what)
            at = self.at - (self.wall - float(event[key]))
            if is_it and event["name"] == Result.DONE and at >= since:
                return at
        return None


def downtime(node: Node, verb: Verb, *, old: str, new: str, since: float) -> float | None:
    """Seconds from when `old` was told to stop its PBX until that of `new` answered; None where that is not known.

    `since` is the time.monotonic() at which the order was placed.
    """
    try:
        at_new = _history(node, new)
        if verb is Verb.FAILOVER:  # The node that takes over has the other one stopped.
            fence = in_words(Fence(old, 0)).partition(" (")[0]
            stopped = at_new.done(fence, "wall", since)
        else:
            stopped = _history(node, old).done(in_words(Stop()), "wall", since)
        answered = at_new.done(in_words(Prove()), "last", since)
    except (UnderstudyError, KeyError, TypeError, ValueError):
        return None  # The order has been carried out all the same.
    if stopped is None or answered is None:
        return None
    return round(max(answered - stopped, 0.0), 1)


def _history(node: Node, name: str) -> _History:
    if name == node.policy.me:
        with closing(node.journal()) as journal:
            events = [statecodec.to_json(each) for each in journal.events(limit=FEW)]
        return _History(at=time.monotonic(), wall=node.clock.now().wall, events=events)
    sent = time.monotonic()
    there = asyncio.run(node.peer.status())
    at = (sent + time.monotonic()) / 2
    return _History(at=at, wall=float(there["wall"]), events=there["events"])
