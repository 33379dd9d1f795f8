"""Name servers and the mail server die: what works goes on, what does not is said, and what was late comes after."""

import time

from lab import machines, watch

from end_to_end.lab.stage import Stage, until

TOLD_WITHIN = 60.0  # Seconds.


def test_primary_name_server_is_down_at_the_end_of_patience(stage: Stage) -> None:
    """No claim: pbx02 stays stopped, and the mail names dns1 and the manual way out.  Back: a failover."""
    machines.power_cut(["dns1"])
    # pbx01 serves on, on the word of the check points.
    stage.expect_no_failover(during=6.0)
    machines.power_cut(["pbx01"])
    until(lambda: not stage.watch.serving(), within=10, what=lambda: f"nobody serves{stage.said()}")
    ends = time.time() + stage.no_failover_for
    while time.time() < ends:
        assert not stage.watch.serving(), stage.said()
        time.sleep(0.5)
    stage.wait_for_mail("does not take over", "203.0.113.53", "break-glass", within=TOLD_WITHIN)
    machines.start(["dns1"])
    # The announcement stands for its time first: that is no round, it is the protocol's own.
    within = stage.seconds("announce") + 2 * stage.seconds("interval") + 10.0
    stage.wait_for_service("pbx02", within=within)
    stage.wait_for_names("pbx02")


def test_secondary_name_server_is_down(stage: Stage) -> None:
    machines.power_cut(["dns2"])
    machines.power_cut(["pbx01"])
    stage.wait_for_service("pbx02", within=stage.failover_within)
    stage.wait_for_names("pbx02", servers=("dns1",))
    stage.wait_for_mail("203.0.113.54", within=60)
    machines.start(["dns2"])
    stage.wait_for_names("pbx02", within=30)


def test_mail_server_is_down(stage: Stage) -> None:
    """The mail arrives later; the failover does not wait for it."""
    stage.run("prov", "systemctl", "stop", "mail")
    try:
        before = len(stage.mails())
        machines.power_cut(["pbx01"])
        stage.wait_for_failover()
        assert len(stage.mails()) == before
    finally:
        stage.run("prov", "systemctl", "start", "mail")
    stage.wait_for_mail("pbx02", "active", within=120)
    assert watch.times(stage.watch.samples(stage.began), "pbx02")
