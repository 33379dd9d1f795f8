"""The pair, searched breadth first: never two active, and once the network is whole, exactly one.

Each set of events is searched to its end: every world that can be reached with them, in any order, for ever.
`make prove` searches larger sets, for hours.
"""

from dataclasses import replace

import pytest

from core.pair_model import POLICY, Model, World, explore, way
from understudy.core.model import Phase

# Rounds as close as slots: fewer ages, so more kinds of events can be searched to the end.
HASTY = replace(POLICY, interval=1.0, checkpoints_stale=2.0, patience=6.0)
# A question that may take a slot is answered at once, and its round counts until patience is over (T1).
ASKING = replace(HASTY, question=1.0, checkpoints_stale=3.0, patience=8.0)

SLOW = {
    "nobody disturbs it": "",
    "the check points lose sight of a node": "view",
    "a node loses the check points": "ask",
    "a node loses the claim": "store",
}
FAST = {
    "a node loses the check points, and they lose sight of it": "view ask",
    "a node loses the claim": "store",
    "the standby cannot start its PBX when it is needed": "view1 start2",
    "a person orders switchovers, and a node is not seen": "view1 switchover",
    "writes arrive late, and answers are lost": "view1 late",
    "a person orders failovers while the nodes cannot talk": "failover link",
    "agents crash and restart": "view1 crash1",
    "the standby's agent crashes and restarts": "view1 crash2",
    "the active machine reboots": "view1 boot1",
    "the standby's machine reboots": "view1 boot2",
}
ANSWERED = {
    "the check points lose sight of a node": "view",
    "a node loses the claim, and the check points lose sight of one": "view1 store2",
    "a node loses the check points": "ask",
    "the active machine reboots": "view1 boot1",
}
MOST = 60_000  # Worlds; a search that grows beyond it says so and fails.


@pytest.mark.parametrize("events", SLOW.values(), ids=SLOW.keys())
def test_with_rounds_of_two_slots(events: str) -> None:
    """Rounds of the two nodes may be offset by half a round."""
    check(Model(frozenset(events.split())))


@pytest.mark.parametrize("events", FAST.values(), ids=FAST.keys())
def test_with_rounds_of_one_slot(events: str) -> None:
    policies = (HASTY, replace(HASTY, me="n2", peer="n1"))
    check(Model(frozenset(events.split()), policies=policies, view_lasts=2))


@pytest.mark.parametrize("events", ANSWERED.values(), ids=ANSWERED.keys())
def test_with_a_last_question_asked_before_patience_is_over(events: str) -> None:
    policies = (ASKING, replace(ASKING, me="n2", peer="n1"))
    check(Model(frozenset(events.split()), policies=policies, view_lasts=2))


def check(model: Model) -> None:
    found = explore(model, MOST)  # Raises with the way to it when two are active.
    stuck = one_that_never_serves(model, set(found))
    assert stuck is None, "nobody serves in the end:\n" + "\n".join(way(found, stuck))
    print(f"{len(found)} worlds")


def one_that_never_serves(model: Model, worlds: set[World]) -> World | None:
    """From every world, with the network whole from now on: does exactly one node serve in the end?"""
    good: set[World] = set()
    for world in worlds:
        path: list[World] = []
        seen: set[World] = set()
        at = world
        while at not in good and at not in seen:
            path.append(at)
            seen.add(at)
            at = model.healed(at)
        if at not in good and not all(is_well(each) for each in path[path.index(at) :]):
            return world
        good.update(path)
    return None


def is_well(world: World) -> bool:
    """One serves; or a person has been called and has not come."""
    halted = any(node.state.phase is Phase.HALTED for node in world.nodes)
    return halted or sum(node.serves for node in world.nodes) == 1
