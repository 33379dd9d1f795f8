"""The units, as a real systemd has them."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.systemd_host import SystemdHost, booted, require_root
from cli.pair import CliPair
from doctor.world import claim, here, levels, only, run
from understudy.doctor import machine, units
from understudy.doctor.finding import Finding, Level
from understudy.doctor.here import Here

OK, NOTE, WARNING, CRITICAL, UNKNOWN = (
    Level.OK,
    Level.NOTE,
    Level.WARNING,
    Level.CRITICAL,
    Level.UNKNOWN,
)
GUARDED = "ExecStartPre=+/bin/echo may-start --unit %n\n"
GOOD = f"{GUARDED}Restart=on-failure\nRestartSec=100ms\nTimeoutStopSec=1\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    with booted(tmp_path_factory.mktemp("systemd")) as host:
        yield host


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    """restart_grace is 2 s, and stop_within 2 s, of which the PBX has 1.4 s."""
    made = CliPair(tmp_path)
    path = made.config("pbx01")
    before, _, _ = path.read_text().partition("[service]")
    path.write_text(
        f'{before}[service]\nkind = "systemd"\nunit = "pbx"\nactive_only = ["report.timer"]\n'
        f'stop_within = "2s"\nstart_within = "8s"\n[journal]\npath = "{tmp_path}/pbx01/journal"\n'
    )
    return made


@pytest.fixture
def place(host: SystemdHost, pair: CliPair) -> Here:
    unit(host, GOOD)
    timer(host)
    return replace(here(pair, claim=claim("pbx01")), prefix=host.prefix)


def unit(host: SystemdHost, more: str, *, install: str = "") -> None:
    host.unit("pbx.service", f"[Service]\nExecStart=/bin/sleep 1000\n{more}\n{install}")


def timer(host: SystemdHost) -> None:
    host.unit("report.service", "[Service]\nExecStart=/bin/true\n")
    host.unit("report.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")


def bad(found: list[Finding]) -> set[tuple[str, Level]]:
    return {(each.check, each.level) for each in found if each.level is not OK}


@pytest.mark.real
def test_units_as_they_should_be_are_well(place: Here) -> None:
    found = run(units.pbx, place)
    assert bad(found) == set()
    assert {each.check for each in found} == {
        "unit",
        "unit-disabled",
        "unit-guarded",
        "unit-restart",
        "unit-stop",
        "unit-place",
    }


@pytest.mark.real
def test_a_pbx_that_starts_at_boot_is_told(host: SystemdHost, place: Here) -> None:
    unit(host, GOOD, install="[Install]\nWantedBy=multi-user.target\n")
    assert bad(run(units.pbx, place)) == set()
    host.run("systemctl", "enable", "pbx")
    try:
        found = run(units.pbx, place)
    finally:
        host.run("systemctl", "disable", "pbx")
    assert bad(found) == {("unit-disabled", WARNING)}
    (one,) = [each for each in found if each.level is WARNING]
    assert one.mend == "systemctl disable pbx.service"


@pytest.mark.real
def test_a_pbx_that_another_unit_starts_is_told(host: SystemdHost, place: Here) -> None:
    host.unit("pbx.socket", "[Socket]\nListenStream=127.0.0.1:9\n")
    host.run("systemctl", "start", "pbx.socket")
    try:
        (one,) = [each for each in run(units.pbx, place) if each.level is not OK]
    finally:
        host.run("systemctl", "stop", "pbx.socket")
        (host.root / "etc/systemd/system/pbx.socket").unlink()
        host.run("systemctl", "daemon-reload")
    assert (one.check, one.level) == ("unit-disabled", WARNING)
    assert one.what == "pbx.service is started by pbx.socket"


@pytest.mark.real
@pytest.mark.parametrize("guard", ["", "ExecStartPre=-/bin/echo may-start\n"])
def test_a_pbx_without_a_guard_is_critical(host: SystemdHost, place: Here, guard: str) -> None:
    unit(host, GOOD.replace(GUARDED, guard))
    assert bad(run(units.pbx, place)) == {("unit-guarded", CRITICAL)}


@pytest.mark.real
@pytest.mark.parametrize(
    ("more", "level", "said"),
    [
        (
            "RestartSec=30",
            WARNING,
            "waits 30s before it restarts, and the node hands over after 2s",
        ),
        ("Restart=no", NOTE, "systemd does not restart pbx.service after a crash"),
    ],
)
def test_a_restart_that_comes_too_late_is_told(
    host: SystemdHost, place: Here, more: str, level: Level, said: str
) -> None:
    unit(host, f"{GOOD}{more}\n")
    found = run(units.pbx, place)
    assert bad(found) == {("unit-restart", level)}
    assert said in only(found, "unit-restart").what


@pytest.mark.real
@pytest.mark.parametrize(("time", "said"), [("90", "1m30s"), ("infinity", "any time")])
def test_a_unit_that_may_stop_for_longer_than_we_wait_is_noted(
    host: SystemdHost, place: Here, time: str, said: str
) -> None:
    unit(host, f"{GOOD}TimeoutStopSec={time}\n")
    found = run(units.pbx, place)
    assert bad(found) == {("unit-stop", NOTE)}
    assert f"may take {said} to stop, and is killed after 1s400ms" in only(found, "unit-stop").what


@pytest.mark.real
def test_a_unit_that_is_not_there_or_masked_is_critical(host: SystemdHost, place: Here) -> None:
    file = host.root / "etc/systemd/system/pbx.service"
    file.unlink()
    host.run("systemctl", "daemon-reload")
    found = run(units.pbx, place)
    assert bad(found) == {("unit", CRITICAL)}
    host.run("systemctl", "mask", "pbx")
    try:
        masked = [each for each in run(units.pbx, place) if each.level is not OK]
    finally:
        host.run("systemctl", "unmask", "pbx")
    assert [each.mend for each in masked] == ["systemctl unmask pbx.service"]


@pytest.mark.real
def test_a_unit_for_the_active_node_alone_is_there_alone(host: SystemdHost, place: Here) -> None:
    host.run("systemctl", "start", "report.timer")
    try:
        assert bad(run(units.pbx, place)) == set()
        found = run(units.pbx, replace(place, claim=claim("pbx02")))
    finally:
        host.run("systemctl", "stop", "report.timer")
    assert bad(found) == {("unit-place", WARNING)}
    assert only(found, "unit-place").mend == "systemctl stop report.timer"


@pytest.mark.real
def test_our_own_units_start_at_boot(host: SystemdHost, place: Here) -> None:
    folder = host.root / "etc/systemd/system"
    missing = run(units.ours, place)
    assert bad(missing) == {("agent-at-boot", WARNING), ("guard", WARNING)}
    for name in ("understudy", "understudy-guard"):
        host.unit(
            f"{name}.service",
            "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n",
        )
    try:
        assert bad(run(units.ours, place)) == {("agent-at-boot", CRITICAL), ("guard", WARNING)}
        host.run("systemctl", "enable", "--now", "understudy", "understudy-guard")
        assert bad(run(units.ours, place)) == set()
        host.run("systemctl", "disable", "understudy-guard")
        (one,) = [each for each in run(units.ours, place) if each.level is not OK]
        assert one.what == "understudy-guard.service runs, and does not start at boot"
    finally:
        for name in ("understudy", "understudy-guard"):
            host.run("systemctl", "disable", "--now", name, check=False)
            (folder / f"{name}.service").unlink()
        host.run("systemctl", "daemon-reload")


@pytest.mark.real
def test_the_timer_will_do_for_the_agent(host: SystemdHost, place: Here) -> None:
    host.unit("understudy-tick.service", "[Service]\nExecStart=/bin/true\n")
    host.unit(
        "understudy-tick.timer", "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n"
    )
    host.run("systemctl", "enable", "understudy-tick.timer")
    found = only(run(units.ours, place), "agent-at-boot")
    host.run("systemctl", "disable", "understudy-tick.timer")
    assert found.level is OK


@pytest.mark.real
def test_root_can_shut_sip_off_and_a_stranger_needs_the_units_right(
    host: SystemdHost, place: Here
) -> None:
    require_root("nft", "setpriv")
    assert only(run(units.last_resort, place), "last-resort").level is OK
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    stranger = replace(place, prefix=(*host.prefix, *nobody), is_root=False)
    found = only(run(units.last_resort, stranger), "last-resort")
    assert (found.level, found.mend) == (UNKNOWN, "run as root: sudo understudy doctor")
    host.unit(
        "understudy.service", "[Service]\nExecStart=/bin/true\nAmbientCapabilities=CAP_NET_ADMIN\n"
    )
    try:
        assert only(run(units.last_resort, stranger), "last-resort").level is OK
    finally:
        (host.root / "etc/systemd/system/understudy.service").unlink()
        host.run("systemctl", "daemon-reload")


def test_without_nft_there_is_no_last_resort(pair: CliPair, tmp_path: Path) -> None:
    env = shutil.which("env")
    assert env is not None
    place = replace(here(pair), prefix=(env, f"PATH={tmp_path}"))
    found = only(run(units.last_resort, place), "last-resort")
    assert found.level is WARNING
    assert "apt install nftables" in found.mend


def test_a_pbx_that_systemd_does_not_run_has_no_units(tmp_path: Path) -> None:
    assert run(units.pbx, here(CliPair(tmp_path))) == []


def test_where_systemd_does_not_answer_nothing_can_be_told(pair: CliPair, tmp_path: Path) -> None:
    place = replace(here(pair), prefix=("env", f"PATH={tmp_path}"))
    assert levels(run(units.pbx, place), "unit") == [UNKNOWN]
    assert run(units.ours, place) == []


@pytest.mark.real
def test_a_clock_that_nobody_keeps_is_noted_by_systemd_too(place: Here) -> None:
    (found,) = run(machine.ntp, place)
    assert found.check == "ntp"
    assert found.level in (OK, NOTE)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 30s", 90.0), ("100ms", 0.1), ("2h 1us", 7200.000001), ("infinity", None), ("", None)],
)
def test_time_spans_are_read_as_systemctl_prints_them(text: str, seconds: float | None) -> None:
    assert units.seconds(text) == seconds
