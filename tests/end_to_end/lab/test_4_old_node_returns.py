"""pbx01 comes back after a failover: it stays silent, whoever tries to start its PBX, and pbx02 goes on."""

import time

from lab import machines, network, watch

from end_to_end.lab.stage import Stage

RETURNED = ("outdated", "silent", "standby")
BACK_WITHIN = 40.0  # Seconds from the return until its agent knows its place.
LOOK_FOR = 8.0  # Seconds for which pbx02 must go on serving after that.


def stays_silent(stage: Stage, since: float) -> None:
    stage.wait_for_phase("pbx01", *RETURNED, within=BACK_WITHIN)
    time.sleep(LOOK_FOR)
    samples = stage.watch.samples(since)
    assert not watch.times(samples, "pbx01"), f"pbx01 has served{stage.said()}"
    assert stage.watch.serving() == ("pbx02",), stage.said()
    assert not watch.gaps(samples, since, time.time() - 2.0, site="inet"), stage.said()
    assert set(stage.names().values()) == {"pbx02"}, stage.said()


def test_by_power(stage: Stage) -> None:
    machines.power_cut(["pbx01"])
    stage.wait_for_failover()
    since = time.time()
    machines.start(["pbx01"])
    stays_silent(stage, since)
    stage.wait_for_mail("pbx01", "silent")


def test_by_a_healed_network(stage: Stage) -> None:
    network.cut("pbx01", "all")
    stage.wait_for_failover()
    since = time.time()
    network.heal_all()
    stays_silent(stage, since)


def test_twelve_seconds_after_the_take_over(stage: Stage) -> None:
    """The article's script stops the new PBX then, and leaves the name where it is: callers by name have nobody."""
    network.cut("pbx01", "all")
    stage.wait_for_failover()
    time.sleep(12)
    since = time.time()
    network.heal_all()
    stays_silent(stage, since)


def test_from_a_freeze(stage: Stage) -> None:
    """What lay in its sockets is answered before its agent has had a turn."""
    stage.allow_overlap(
        6.0, "while a machine is paused, and just after: until it has read the claim"
    )
    machines.freeze(["pbx01"])
    stage.wait_for_failover()
    machines.thaw(["pbx01"])
    stage.wait_for_phase("pbx01", *RETURNED, within=BACK_WITHIN)
    since = time.time() + 1.0
    stays_silent(stage, since)


def test_an_administrator_starts_it(stage: Stage) -> None:
    """Refused, with the reason on his terminal."""
    machines.power_cut(["pbx01"])
    stage.wait_for_failover()
    machines.start(["pbx01"])
    since = time.time()
    stage.wait_for_phase("pbx01", *RETURNED, within=BACK_WITHIN)
    # A terminal of his own, as util-linux's script makes it: what stands on it is what he sees.
    said = stage.run(
        "pbx01", "script", "-qec", "systemctl start asterisk", "/dev/null", check=False
    )
    assert "the claim names pbx02" in said, said
    stays_silent(stage, since)
