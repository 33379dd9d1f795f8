"""An agent that dies at any step, before its record, its effect or its outcome, ends where one that lives ends.

It is back after 5 seconds; and where a PBX is starting, also when the guard has stopped that PBX meanwhile.
"""

from dataclasses import dataclass
from functools import cache

import pytest

from understudy.core.claim import Claim
from understudy.sim.commands import obey
from understudy.sim.stage import Stage
from understudy.sim.story import ARTICLE

RESTART = 5.0  # Seconds until the service manager starts the agent again.
LENGTH = 30 * 60


@dataclass(frozen=True)
class Plot:
    """What is done, who works through which steps because of it, and how it must end."""

    name: str
    commands: tuple[str, ...]
    node: str
    steps: tuple[str, ...]
    serves: str
    phases: tuple[str, str]  # Of pbx01 and pbx02.


PLOTS = (
    Plot(
        name="take-over",
        commands=("power off pbx01",),
        node="pbx02",
        steps=(
            "announce", "claim", "fence", "promote", "start", "prove", "serve", "point", "verify",
        ),
        serves="pbx02",
        phases=("off", "active"),
    ),
    Plot(
        name="switchover",
        commands=("order pbx01 switchover",),
        node="pbx01",
        steps=("ask", "stop", "demote", "hand", "wake"),
        serves="pbx02",
        phases=("standby", "active"),
    ),
    Plot(
        name="switchover-received",
        commands=("order pbx01 switchover",),
        node="pbx02",
        steps=("promote", "start", "prove", "serve", "point", "verify"),
        serves="pbx02",
        phases=("standby", "active"),
    ),
    Plot(
        name="step-down",
        commands=("isolate pbx01", "wait 10m", "heal"),
        node="pbx01",
        steps=("stop", "demote"),
        serves="pbx02",
        phases=("outdated", "active"),
    ),
    Plot(
        name="ordered-failover",
        commands=("order pbx02 failover",),
        node="pbx02",
        steps=("announce", "fence", "claim", "promote", "start", "prove", "serve", "point"),
        serves="pbx02",
        phases=("outdated", "active"),
    ),
    Plot(
        name="give-back",
        commands=("pbx pbx02 cannot start", "power off pbx01", "wait 8m", "power on pbx01"),
        node="pbx02",
        steps=("stop", "demote", "return"),
        serves="pbx01",
        phases=("active", "standby"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class End:
    serves: tuple[str, ...]
    phases: tuple[str, str]
    node: str
    epoch: int
    served: bool
    announced: str
    name: str


# A person's failover is given up when its agent dies before the claim is taken: hours may have passed, and the person
# can order it again.  (Before the first record the order itself is still there.)
GIVEN_UP = {
    ("ordered-failover", "before", "announce"),
    ("ordered-failover", "before", "fence"),
    ("ordered-failover", "after", "fence"),
    ("ordered-failover", "before recording", "claim"),
    ("ordered-failover", "before", "claim"),
}
NOTHING_MOVED = End(
    serves=("pbx01",),
    phases=("active", "standby"),
    node="pbx01",
    epoch=1,
    served=True,
    announced="",
    name="pbx01",
)


def ids(values: list[tuple[Plot, str]]) -> list[str]:
    return [f"{plot.name}-{step}" for plot, step in values]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_without_a_crash_it_ends_as_it_must(plot: Plot) -> None:
    end, _ = play(plot)
    assert (end.serves, end.phases) == ((plot.serves,), plot.phases)
    assert (end.node, end.served, end.announced) == (plot.serves, True, "")
    assert end.name == plot.serves


WHEN = ("before recording", "before", "after")  # The record; the effect; the outcome.
STEPS = [(plot, step) for plot in PLOTS for step in plot.steps]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(("plot", "step"), STEPS, ids=ids(STEPS))
def test_a_crash_leads_to_the_same_end_within_a_round(plot: Plot, step: str, when: str) -> None:
    end, at = play(plot)
    crashed_end, crashed_at = play(plot, f"crash {plot.node} {when} {step}")
    if (plot.name, when, step) in GIVEN_UP:
        assert crashed_end == NOTHING_MOVED
    else:
        assert crashed_end == end
        assert crashed_at - at <= RESTART + ARTICLE.interval


BRING_UP = [
    (plot, step) for plot, step in STEPS if plot.serves == plot.node and step in ("start", "prove")
]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(("plot", "step"), BRING_UP, ids=ids(BRING_UP))
def test_a_pbx_that_the_guard_stopped_while_it_was_starting_is_started_again(
    plot: Plot, step: str, when: str
) -> None:
    end, _ = play(plot)
    crashed_end, _ = play(plot, f"crash {plot.node} {when} {step}", away=2 * 60.0)
    assert crashed_end == end


@cache
def play(plot: Plot, crash: str = "", away: float = RESTART) -> tuple[End, float]:
    """Half an hour of it; an agent that has died is back after `away`.  How it ends, and after how many seconds."""
    stage = Stage(ARTICLE, {})
    machine = stage.machines[plot.node]
    deaths = 0
    if crash:
        obey(stage, crash)
    commands = list(plot.commands)
    waits = 0.0
    end, settled_at = end_of(stage), 0
    for second in range(LENGTH):
        while commands and waits <= 0:
            verb, _, rest = commands[0].partition(" ")
            if verb == "wait":
                waits = float(rest.removesuffix("m")) * 60
            else:
                obey(stage, commands[0])
            del commands[0]
        stage.run(1.0)
        waits -= 1.0
        if machine.agent is None and machine.has_power:
            deaths += 1
            stage.run(away)
            machine.begin(booted=False)
        if end_of(stage) != end:
            end, settled_at = end_of(stage), second
    assert deaths == (1 if crash else 0), "it never came to this step"
    stage.end()
    assert not stage.overlaps, "\n".join(stage.all_lines)
    return end, settled_at + deaths * away


def end_of(stage: Stage) -> End:
    claim = stage.claim
    assert isinstance(claim, Claim)
    first, second = (stage.phase(machine) for machine in stage.machines.values())
    return End(
        serves=tuple(stage.serving),
        phases=(first, second),
        node=claim.node,
        epoch=claim.epoch,
        served=claim.served,
        announced=claim.announced,
        name=stage.names["ns1"],
    )
