"""`kill -9` of the real agent at every step: the agent that is started again ends as if nothing had been."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters import bind
from end_to_end import crashing_agent
from end_to_end.outside import Watch, leads_to, until, watch
from end_to_end.pair import NODES, ZONE, Pair, name_section, quick_pair
from understudy.adapters.claims.record import from_text, to_text
from understudy.core.claim import Claim, How
from understudy.core.observations import Verb

pytestmark = pytest.mark.real
AT_ONCE = 10  # Pairs that run beside each other: they mostly wait.
WITHIN = 25.0  # Seconds for two patiences and what follows, on a loaded machine.
RESTART = 0.3  # Seconds until the service manager starts the agent again.
DETECTION = {
    "interval": "1s",
    "announce": "4s",
    "claim_stale": "2s",
    "checkpoints_stale": "2500ms",
    "restart_grace": "4s",
    "settle_down": "1s",
    "first_proof": "3s",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What happens, whose agent dies in which steps of it, and how it must end."""

    name: str
    agents: tuple[str, ...]  # Those that live.
    dies: str
    steps: tuple[str, ...]
    serves: tuple[str, ...]
    phases: tuple[str, ...]  # Of `agents`.
    claim: tuple[str, int, How, bool]  # Node, epoch, how, served.
    name_leads_to: str = "pbx02"
    patience: str = "20s"  # More than any switchover takes.


PLOTS = (
    Plot(
        name="take-over",
        agents=("pbx02",),
        dies="pbx02",
        steps=(
            "announce", "claim", "fence", "promote", "start", "prove", "serve", "point", "verify",
        ),
        serves=("pbx02",),
        phases=("active",),
        claim=("pbx02", 2, How.TAKEN, True),
        patience="6500ms",
    ),
    Plot(
        name="switchover",
        agents=NODES,
        dies="pbx01",
        steps=("ask", "stop", "copy", "demote", "hand", "wake"),
        serves=("pbx02",),
        phases=("standby", "active"),
        claim=("pbx02", 2, How.HANDED, True),
    ),
    Plot(
        name="switchover-received",
        agents=NODES,
        dies="pbx02",
        steps=("promote", "start", "prove", "serve", "point", "verify"),
        serves=("pbx02",),
        phases=("standby", "active"),
        claim=("pbx02", 2, How.HANDED, True),
    ),
    Plot(
        name="step-down",
        agents=("pbx01",),
        dies="pbx01",
        steps=("stop", "demote"),
        serves=(),
        phases=("outdated",),
        claim=("pbx02", 2, How.TAKEN, True),
        name_leads_to="pbx01",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class End:
    serves: tuple[str, ...]
    phases: tuple[str, ...]
    claim: tuple[str, int, How, bool]
    announced: str
    name: str


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bind.Pair]:
    with bind.bind_pair(tmp_path_factory.mktemp("dns")) as made:
        yield made


@pytest.mark.parametrize("moment", crashing_agent.MOMENTS)
@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_a_killed_agent_leads_to_the_same_end(
    plot: Plot, moment: str, names: bind.Pair, tmp_path: Path
) -> None:
    """The first moment's runs have one beside them in which nobody is killed: that is the end."""
    cases = [(moment, step) for step in plot.steps]
    if moment == crashing_agent.MOMENTS[0]:
        cases.append(("", ""))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        runs = {case: threads.submit(play, plot, *case, names, tmp_path) for case in cases}
    failures = [
        f"{' '.join(case) or 'no crash'}: {why}"
        for case, run in runs.items()
        if (why := run.result())
    ]
    assert not failures, "\n".join(failures)


def play(plot: Plot, moment: str, step: str, names: bind.Pair, folder: Path) -> str:
    """Why it did not end as it must; empty if it did."""
    label = f"{plot.name}-{moment}-{step}".strip("-")
    service = f"{label}.{ZONE}"
    names.nsupdate(f"update delete {service}", f"update add {service} 1 CNAME pbx01.{ZONE}")

    def rest(port: int) -> str:
        points = "".join(
            f'[checkpoints.cp{each}]\nkind = "sip"\nport = {port}\ntimeout = "500ms"\n'
            for each in (1, 2, 3)
        )
        ports = (names.primary.port, names.secondary.port)
        return points + name_section(names.key(), names.primary.port, *ports)

    detection = {**DETECTION, "patience": plot.patience}
    with quick_pair(folder / (step or "plain"), detection, rest, service) as pair:
        try:
            with watch(pair.addresses, pair.port) as watching:
                _let_happen(plot, pair, moment, step)
                _wait_for_end(plot, pair, names, watching)
        except AssertionError as error:
            said = "\n".join(f"{node}:\n{pair.said(node)}" for node in plot.agents)
            return f"{error}\n{said}"
    return ""


def _let_happen(plot: Plot, pair: Pair, moment: str, step: str) -> None:
    _write_claim(pair, pair.old_claim())
    what = [moment, step, str(pair.config(plot.dies)), plot.dies]
    crashing = [sys.executable, crashing_agent.__file__, *what]
    dying = pair.start(plot.dies, argv=crashing if moment else None)
    for node in plot.agents:
        if node != plot.dies:
            pair.start(node)
    match plot.name:
        case "switchover" | "switchover-received":
            _wait_for_phases(pair, ("active", "standby"))
            with closing(pair.journal("pbx01")) as journal:
                journal.place(Verb.SWITCHOVER, by="a person")
        case "step-down":
            _wait_for_phases(pair, ("active",))
            _write_claim(
                pair, pair.old_claim("pbx02", epoch=2, serial=90, how=How.TAKEN, served=True)
            )
    if moment:
        try:
            code = dying.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError("it never came to this step") from None
        assert code == -signal.SIGKILL, f"the agent ended with {code}"
        time.sleep(RESTART)
        pair.start(plot.dies)


def _write_claim(pair: Pair, claim: Claim) -> None:
    new = pair.folder / "claim.new"
    new.write_text(to_text(claim) + "\n")
    new.rename(pair.folder / "claim")


def _wait_for_phases(pair: Pair, phases: tuple[str, ...]) -> None:
    def found() -> tuple[str, ...]:
        return tuple(pair.phase(node) for node, _ in zip(NODES, phases, strict=False))

    until(lambda: found() == phases, within=15, what=lambda: f"{phases}, but {found()}")
    time.sleep(1.0)  # Each has seen that the other is there.


def _wait_for_end(plot: Plot, pair: Pair, names: bind.Pair, watching: Watch) -> None:
    wanted = End(
        serves=plot.serves,
        phases=plot.phases,
        claim=plot.claim,
        announced="",
        name=f"{plot.name_leads_to}.{ZONE}",
    )

    def found() -> End:
        claim = from_text((pair.folder / "claim").read_text().strip())
        return End(
            serves=watching.answering,
            phases=tuple(pair.phase(node) for node in plot.agents),
            claim=(claim.node, claim.epoch, claim.how, claim.served),
            announced=claim.announced,
            name=leads_to(names.primary.port, pair.service),
        )

    until(
        lambda: watching.answering == plot.serves and found() == wanted,
        within=WITHIN,
        what=lambda: f"{wanted}\nbut {found()}",
    )
    time.sleep(1.5)  # A round that must change nothing.
    # What has changed stays changed (the epoch grows); an answer that was late comes again.
    until(lambda: found() == wanted, within=5, what=lambda: f"it does not stay so: {found()}")
