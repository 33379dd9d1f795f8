"""An agent that dies at any step, right before its effect or right after it, ends where one that lives ends."""

from dataclasses import dataclass

import pytest

from understudy.core.claim import Claim
from understudy.sim.commands import obey
from understudy.sim.stage import Stage
from understudy.sim.story import ARTICLE

# Plots that do not end as they must, and why.  Take a mended one off the list.
AWAITED = {
    "switchover": "the node that handed over counts the time before that as patience",
    "switchover-received": "the same",
    "ordered-failover": "the same, and the journal in memory forgets a step that no row asked for",
}
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


def _marks(*names: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(reason=AWAITED[each]) for each in names if each in AWAITED]


@pytest.mark.parametrize(
    "plot", [pytest.param(plot, id=plot.name, marks=_marks(plot.name)) for plot in PLOTS]
)
def test_without_a_crash_it_ends_as_it_must(plot: Plot) -> None:
    end = play(plot)
    assert (end.serves, end.phases) == ((plot.serves,), plot.phases)
    assert (end.node, end.served, end.announced) == (plot.serves, True, "")
    assert end.name == plot.serves


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("plot", "step"),
    [
        pytest.param(
            plot,
            step,
            id=f"{plot.name}-{step}",
            marks=_marks(plot.name, f"{plot.name}-{step}"),
        )
        for plot in PLOTS
        for step in plot.steps
    ],
)
def test_a_crash_leads_to_the_same_end(plot: Plot, step: str, when: str) -> None:
    assert play(plot, f"crash {plot.node} {when} {step}") == play(plot)


def play(plot: Plot, crash: str = "") -> End:
    """Half an hour of it; an agent that has died is started again."""
    stage = Stage(ARTICLE, {})
    machine = stage.machines[plot.node]
    deaths = 0
    if crash:
        obey(stage, crash)
    commands = list(plot.commands)
    waits = 0.0
    for _ in range(LENGTH):
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
            stage.run(RESTART)
            machine.begin(booted=False)
    assert deaths == (1 if crash else 0), "it never came to this step"
    stage.end()
    assert not stage.overlaps, "\n".join(stage.all_lines)
    return end_of(stage)


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
