"""A restart or a stop by a person is no death: nothing moves, and a mail says it where it lasts."""

import time

import pytest

from end_to_end.lab.stage import Stage, until

KEPT = "/var/cache/lab"
RESTARTS = {
    "systemctl-restart": ("systemctl", "restart", "asterisk"),
    "core-restart-now": ("asterisk", "-rx", "core restart now"),
    # The packages as the image keeps them: dpkg and their scripts do what they do with a newer version.
    "upgrade": ("sh", "-ec", f"dpkg -i {KEPT}/asterisk_*.deb {KEPT}/asterisk-modules_*.deb"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESTARTS)
def test_a_restart_moves_nothing(stage: Stage, name: str) -> None:
    said = stage.run("pbx01", *RESTARTS[name], check=False, timeout=120)
    assert name != "upgrade" or "Setting up asterisk (" in said, said
    stage.wait_for_service("pbx01", within=15)
    stage.expect_no_failover(restarts_in=6.0)  # Asterisk obeys some time after it has been told.
    assert stage.phase("pbx01") in ("active", "doubted"), stage.said()
    assert "disabled" in stage.run("pbx01", "systemctl", "is-enabled", "asterisk", check=False)
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
