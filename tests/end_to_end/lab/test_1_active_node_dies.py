"""The active node dies, in every way that it can: the other one serves, the name points there, the mail says so."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from lab import machines, network

from end_to_end.lab.stage import Stage

# Neither systemd nor the agent beside it gets it back.
KEPT_DOWN = r"[Service]\nRestart=no\nExecStart=\nExecStart=/bin/false\n"


def keep_down(stage: Stage) -> None:
    folder = "/run/systemd/system/asterisk.service.d"
    script = (
        f"mkdir -p {folder} && printf '{KEPT_DOWN}' >{folder}/zz.conf && systemctl daemon-reload"
    )
    stage.run("pbx01", "sh", "-ec", script)


def kill_asterisk(stage: Stage) -> None:
    keep_down(stage)
    stage.run("pbx01", "systemctl", "kill", "--signal=KILL", "asterisk")


def deadlock_asterisk(stage: Stage) -> None:
    """Its process lives, and does nothing; the agent beside it is well, and gets no other one to run."""
    keep_down(stage)
    stage.run("pbx01", "systemctl", "kill", "--signal=STOP", "asterisk")


def power_off(stage: Stage) -> None:
    del stage
    machines.power_cut(["pbx01"])


def cut_off(stage: Stage) -> None:
    del stage
    network.cut("pbx01", "all")


def hang(stage: Stage) -> None:
    """Its kernel still answers pings and takes connections."""
    del stage
    machines.freeze(["pbx01"])


def cut_off_site(stage: Stage) -> None:
    """Its own site still reaches it."""
    del stage
    network.cut("siteA", "siteB")
    network.cut("siteA", "inet")


@dataclass(frozen=True, slots=True)
class Death:
    fault: Callable[[Stage], None]
    mail: tuple[str, ...]  # Words of the mail that must come.
    overlap: float = 0.0  # Seconds for which two may serve.
    sentence: str = ""  # Of the manual, where that is more than 0.


DEATHS = {
    "killed": Death(kill_asterisk, ("pbx02", "active")),
    "deadlocked": Death(deadlock_asterisk, ("pbx02", "active")),
    "powered-off": Death(power_off, ("pbx02", "active")),
    "cut-from-everybody": Death(cut_off, ("pbx02", "active")),
    "frozen": Death(hang, ("pbx02", "active")),
    "site-cut-off": Death(cut_off_site, ("pbx02", "active")),
}


@pytest.mark.parametrize("name", DEATHS)
def test_the_other_node_serves(stage: Stage, name: str) -> None:
    death = DEATHS[name]
    if death.overlap:
        stage.allow_overlap(death.overlap, death.sentence)
    death.fault(stage)
    stage.wait_for_failover()
    stage.wait_for_mail(*death.mail)
    assert stage.phase("pbx02") == "active"


@pytest.mark.isolation("keep")
def test_with_keep_a_site_that_is_cut_off_goes_on_telephoning(stage: Stage) -> None:
    """Two serve, as the manual says: each those who reach it."""
    stage.allow_overlap(300.0, 'under `isolation = "keep"`')
    cut_off_site(stage)
    stage.wait_for_failover()
    assert stage.watch.serving(site="siteA") == ("pbx01",), stage.said()
