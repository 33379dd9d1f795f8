"""Which classes of data are too old to serve with, in words.  Pure.

Ages are seconds; `wall` is wall clock seconds of the machine whose copies they are.
"""

from collections.abc import Iterable
from math import inf

from understudy.core.model import NEVER, State

from .copy_state import ClassState, CopyState
from .waiting import span

REFUSE = 'on_stale = "refuse"'


def measured(state: State, now: float, wall: float) -> float:
    """The wall clock second to which the gate measures ages: the last moment when the other node was not down.

    See core.when.copy_is_stale.
    """
    down_since = state.evidence.down_since
    return wall if down_since == NEVER else wall - max(now - down_since, 0.0)


def stale(classes: Iterable[ClassState], at: float) -> tuple[ClassState, ...]:
    """Those that are older than their max_age at wall clock time `at`."""
    return tuple(each for each in classes if each.is_stale(at))


def age_of(each: ClassState, wall: float) -> str:
    """astdb is 3h old, astdb was never copied"""
    age = each.age(wall)
    return f"{each.name} was never copied" if age is None else f"{each.name} is {span(age)} old"


def keeps(
    copies: CopyState | None, state: State, now: float, wall: float, stale_from: float = inf
) -> str:
    """Why the copy here keeps this node from taking over by itself; empty if it does not.

    `stale_from` is ports.Copies.stale_from: it knows of copies of which nothing has been written yet.
    """
    at = measured(state, now, wall)
    if copies is None or now - (wall - at) < stale_from:
        return ""
    found = [each for each in stale(copies.classes, at) if each.refuses]
    if not found:
        return f"nothing has been copied here yet ({REFUSE})"
    names = ", ".join(age_of(each, wall) for each in found)
    return f"the copy of {names} ({REFUSE})"
