"""A network that loses and delays, on every link: no failover; and a real death is still answered."""

import os
import time

import pytest
from lab import machines, network

from end_to_end.lab.stage import Stage

LOSS_FOR = float(os.environ.get("LAB_LOSS_SECONDS", "300"))
SITES = (
    ("siteA", "siteB"),
    ("siteA", "inet"),
    ("siteB", "inet"),
    ("siteA", "siteA"),
    ("siteB", "siteB"),
    ("inet", "inet"),
)


def on_every_link(change: object, *words: float) -> None:
    for first, second in SITES:
        change(first, second, *words)  # type: ignore[operator]


@pytest.mark.timeout(LOSS_FOR + 180)
def test_thirty_percent_loss(stage: Stage) -> None:
    on_every_link(network.lose, 30.0)
    ends = time.time() + LOSS_FOR
    while time.time() < ends:
        assert stage.phase("pbx02") not in ("taking-over", "active"), stage.said()
        time.sleep(2.0)
    network.heal_all()
    stage.wait_for_service("pbx01", within=10)
    stage.leave_whole()


def test_delay_and_a_power_cut(stage: Stage) -> None:
    """A packet and its answer take 150 ms, give or take 50."""
    on_every_link(network.delay, 50.0, 50.0)
    stage.expect_no_failover()
    machines.power_cut(["pbx01"])
    stage.wait_for_service("pbx02", within=stage.failover_within + 10.0)
    stage.wait_for_names("pbx02", within=20)
