"""A restart or a stop by a person is no death: nothing moves, and a mail says it where it lasts."""

import time

import pytest

from end_to_end.lab.stage import Stage, until

RESTARTS = {
    "systemctl-restart": ("systemctl", "restart", "asterisk"),
    "core-restart-now": ("asterisk", "-rx", "core restart now"),
    # What the package's own scripts do in an upgrade: stop in prerm, start in postinst.
    "upgrade": (
        "sh", "-ec",
        "deb-systemd-invoke stop asterisk.service; sleep 2; systemctl daemon-reload; "
        "deb-systemd-invoke start asterisk.service",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESTARTS)
def test_a_restart_moves_nothing(stage: Stage, name: str) -> None:
    stage.run("pbx01", *RESTARTS[name], check=False)
    stage.wait_for_service("pbx01", within=15)
    stage.expect_no_failover()
    assert stage.phase("pbx01") in ("active", "doubted"), stage.said()
    stage.leave_whole()


def test_a_stop_by_a_person_moves_nothing_and_is_told(stage: Stage) -> None:
    stage.run("pbx01", "systemctl", "stop", "asterisk")
    until(lambda: not stage.watch.serving(), within=10, what=lambda: f"nobody serves{stage.said()}")
    ends = time.time() + stage.no_failover_for
    while time.time() < ends:
        assert stage.watch.serving() == (), stage.said()
        assert stage.phase("pbx02") in ("standby", "suspecting"), stage.said()
        time.sleep(1.0)
    stage.wait_for_mail("pbx01", "stopped")
    stage.run("pbx01", "systemctl", "start", "asterisk")
    stage.wait_for_service("pbx01", within=15)
