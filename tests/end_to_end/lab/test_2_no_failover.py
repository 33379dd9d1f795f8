"""What looks like a death and is none: pbx01 goes on serving, and `why` says why nothing was done."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from lab import machines, network

from end_to_end.lab.stage import Stage

PLUGIN = "/usr/lib/nagios/plugins/check_sip"
RUNTIME = "/run/lab-plugin"


def cut_nodes_apart(stage: Stage) -> None:
    del stage
    network.cut("pbx01", "pbx02")


def cut_one_check_point(stage: Stage) -> None:
    del stage
    network.cut("cp3", "all")


def lie(stage: Stage, verdict: str, status: int) -> None:
    """The plugin of cp3 says the same about everybody."""
    script = f"#!/bin/sh\\necho 'SIP {verdict} - a lie'\\nexit {status}\\n"
    stage.run(
        "cp3",
        "sh",
        "-ec",
        f'printf "{script}" >{RUNTIME}; chmod 755 {RUNTIME}; mount --bind {RUNTIME} {PLUGIN}',
    )


def lie_down(stage: Stage) -> None:
    lie(stage, "CRITICAL", 2)


def lie_up(stage: Stage) -> None:
    lie(stage, "OK", 0)


def slow_down_check_point(stage: Stage) -> None:
    """It answers, later than anybody waits."""
    del stage
    network.delay("cp3", "pbx01", 1500)
    network.delay("cp3", "pbx02", 1500)


def restart_nrpe(stage: Stage) -> None:
    stage.run("cp3", "systemctl", "restart", "nagios-nrpe-server")


def cut_standby_from_check_points(stage: Stage) -> None:
    del stage
    for name in ("cp1", "cp2", "cp3"):
        network.cut("pbx02", name)


def cut_standby_from_everything(stage: Stage) -> None:
    del stage
    network.cut("pbx02", "all")


def ban_check_point(stage: Stage) -> None:
    """As fail2ban does: pbx01 drops whatever comes from cp3."""
    ban(stage, "203.0.113.23")


def ban(stage: Stage, *addresses: str) -> None:
    rules = f"""
table inet ban {{
  chain input {{
    type filter hook input priority filter - 1;
    ip saddr {{ {", ".join(addresses)} }} drop
  }}
}}
"""
    stage.run("pbx01", "nft", rules)


@dataclass(frozen=True, slots=True)
class Trouble:
    fault: Callable[[Stage], None]
    why: tuple[str, ...] = ()  # What `why` on pbx02 must say, any of these words, while it lasts.
    more: tuple[str, ...] = ()  # Hosts to set up anew afterwards.


TROUBLES = {
    "nodes-cut-apart": Trouble(cut_nodes_apart, ("pbx01: up",)),
    "one-check-point-cut": Trouble(cut_one_check_point, ("cp3 about pbx01: unknown",)),
    "one-check-point-lies-down": Trouble(lie_down, ("cp3 about pbx01: down",), ("cp3",)),
    "one-check-point-lies-up": Trouble(lie_up, ("cp3 about pbx01: up",), ("cp3",)),
    "one-check-point-slow": Trouble(slow_down_check_point, ("cp3 about pbx01: unknown",)),
    "nrpe-restarted": Trouble(restart_nrpe),
    "standby-cut-from-check-points": Trouble(
        cut_standby_from_check_points, ("about pbx01: unknown",)
    ),
    "standby-cut-from-everything": Trouble(cut_standby_from_everything, ("about pbx01: unknown",)),
    "one-check-point-banned": Trouble(ban_check_point, ("cp3 about pbx01: down",)),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_no_failover(stage: Stage, name: str, request: pytest.FixtureRequest) -> None:
    trouble = TROUBLES[name]
    for host in trouble.more:
        request.addfinalizer(partial(anew, host))
    trouble.fault(stage)
    stage.expect_no_failover()
    if trouble.why:
        said = stage.why("pbx02")
        assert any(words in said for words in trouble.why), said
    stage.run("pbx01", "nft", "delete", "table", "inet", "ban", check=False)
    stage.leave_whole()


def test_all_check_points_banned(stage: Stage) -> None:
    """pbx01 lives and no check point sees it: the manual says that pbx02 takes over, and pbx01 yields to its claim."""
    ban(stage, "192.0.2.21", "198.51.100.22", "203.0.113.23")
    stage.wait_for_failover()
    stage.wait_for_phase("pbx01", "outdated", "silent", "standby", within=30)


def anew(host: str) -> None:
    machines.execute(host, "umount", PLUGIN)
