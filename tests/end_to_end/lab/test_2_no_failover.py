"""What looks like a death and is none: pbx01 goes on serving, and `why` says why nothing was done."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from lab import machines, network, pair
from lab.hosts import HOSTS, NODES

from adapters import certificates
from end_to_end.lab.stage import Stage, until

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


def test_nrpe_certificate_expired(
    stage: Stage, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The pair verifies cp3, and one day its certificate has run out: no evidence of death, and `why` names it."""
    request.addfinalizer(partial(pair.reset, ["cp3"]))
    certificates.authority(tmp_path, "ca")
    for name, days in (("good", 30), ("expired", -1)):
        certificates.sign(
            tmp_path, name, "ca", f"subjectAltName=IP:{HOSTS['cp3'].address}", days=days
        )
    show_certificate(tmp_path, "good")
    verify_cp3(stage, (tmp_path / "ca.pem").read_text())
    until(
        lambda: "cp3 about pbx01: up" in stage.why("pbx02"), within=30,
        what=lambda: f"cp3 is believed: {stage.why('pbx02')}",
    )  # fmt: skip
    show_certificate(tmp_path, "expired")
    stage.expect_no_failover()
    said = stage.why("pbx02")
    assert "cp3 about pbx01: unknown" in said, said
    assert "expired" in said, said


def show_certificate(folder: Path, name: str) -> None:
    """To whoever asks NRPE on cp3."""
    for suffix in ("pem", "key"):
        text = (folder / f"{name}.{suffix}").read_text()
        machines.execute(
            "cp3", "install", "-m640", "-gnagios", "/dev/stdin", f"/etc/nagios/lab.{suffix}",
            stdin=text, check=True,
        )  # fmt: skip
    lines = (
        "ssl_cert_file=/etc/nagios/lab.pem\nssl_privatekey_file=/etc/nagios/lab.key\n"
        "ssl_cipher_list=ALL:!aNULL:!eNULL\n"
    )
    machines.execute("cp3", "tee", "/etc/nagios/nrpe.d/lab-tls.cfg", stdin=lines, check=True)
    machines.execute("cp3", "systemctl", "restart", "nagios-nrpe-server", check=True)


def verify_cp3(stage: Stage, authority: str) -> None:
    """On both nodes, the active one first: it says which configuration holds."""
    lines = r'tls = "verified"\nca_file = "/etc/understudy/nrpe-ca.pem"'
    for node in NODES:
        ca = ("install", "-m644", "/dev/stdin", "/etc/understudy/nrpe-ca.pem")
        machines.execute(node, *ca, stdin=authority, check=True)
        edit = rf"/^\[checkpoints\.cp3\]/a {lines}"
        stage.run(node, "sed", "-i", edit, "/etc/understudy/understudy.toml")
        stage.run(node, "systemctl", "restart", "understudy")
    stage.wait_until_settled()


def test_all_check_points_banned(stage: Stage) -> None:
    """pbx01 lives and no check point sees it: the manual says that pbx02 takes over, and pbx01 yields to its claim.

    Before that, doctor warns twice: when the PBX does not know the check points, and when the first one is banned.
    """
    stage.run(
        "pbx01", "sh", "-ec", ": >/etc/asterisk/understudy-checks.conf; asterisk -rx 'pjsip reload'"
    )
    stage.wait_for_doctor("pbx01 does not know cp1", "401")
    ban(stage, "203.0.113.23")
    stage.wait_for_doctor("is cp3 banned, or cut off?")
    ban(stage, "192.0.2.21", "198.51.100.22")
    stage.wait_for_failover()
    stage.wait_for_phase("pbx01", "outdated", "silent", "standby", within=30)


def anew(host: str) -> None:
    machines.execute(host, "umount", PLUGIN)
