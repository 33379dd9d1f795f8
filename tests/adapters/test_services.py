"""A PBX is started, watched, stopped and shut off: with a real systemd, real processes, a real nft."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from adapters.kamailio import kamailio
from adapters.systemd_host import SystemdHost, booted, in_network, require_root
from understudy.adapters.processes import run
from understudy.adapters.services import SERVICES
from understudy.adapters.services.command import CommandService
from understudy.adapters.services.command import Settings as CommandSettings
from understudy.adapters.services.shutoff import TABLE, ShutOff
from understudy.adapters.services.sip_here import SipHere
from understudy.adapters.services.systemd import Settings, Systemd
from understudy.config.settings import Command, HostPort, Port, Seconds
from understudy.core.observations import Pbx
from understudy.errors import Denied, NotStopped, Unreachable

SOURCE = Path(__file__).parents[2] / "src"
PBX = f"{sys.executable} -m understudy.demo.sip_pbx --name pbx01 --listen"

SETTINGS = Settings(
    unit="pbx",
    stop_within=Seconds(4.0),
    start_within=Seconds(8.0),
    sip_timeout=Seconds(0.5),
)


@pytest.mark.parametrize("kind", SERVICES)
def test_every_setting_is_explained(kind: str) -> None:
    for each in fields(SERVICES[kind].settings):
        assert each.metadata["doc"].endswith("."), f"{kind}.{each.name}"


# systemd


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdHost]:
    with booted(tmp_path_factory.mktemp("systemd")) as host:
        yield host


@pytest.fixture
def pbx(host: SystemdHost) -> Iterator[Systemd]:
    """A unit that answers SIP.  It is not started."""
    install(host)
    yield Systemd(SETTINGS, prefix=host.prefix, root=host.root)
    host.run("systemctl", "kill", "--signal=KILL", "pbx.service", check=False)
    host.run("systemctl", "stop", "pbx.service", check=False)
    host.run("systemctl", "reset-failed", "pbx.service", check=False)


def install(host: SystemdHost, *, command: str = f"{PBX} 127.0.0.1:5060", more: str = "") -> None:
    host.unit(
        "pbx.service",
        f"[Service]\nEnvironment=PYTHONPATH={SOURCE}\nExecStart={command}\n{more}\n",
    )


async def serve(pbx: Systemd) -> None:
    await pbx.start()
    await pbx.prove()


@pytest.mark.real
def test_a_unit_is_started_proved_and_stopped(host: SystemdHost, pbx: Systemd) -> None:
    async def story() -> list[Pbx]:
        seen = [await pbx.look()]
        await serve(pbx)
        seen.append(await pbx.look())
        await pbx.start()  # Safe to repeat.
        await pbx.stop()
        seen.append(await pbx.look())
        await pbx.stop()
        return seen

    assert host.inside(story) == [Pbx.STOPPED, Pbx.ANSWERING, Pbx.STOPPED]


@pytest.mark.real
def test_who_ignores_sigterm_is_killed_and_proved_gone(host: SystemdHost, pbx: Systemd) -> None:
    stubborn = """/bin/sh -c 'trap "" TERM; sleep 1000 & while :; do sleep 1; done'"""
    install(host, command=stubborn, more="Restart=on-failure\nRestartSec=0\nTimeoutStopSec=90")
    host.run("systemctl", "start", "pbx")

    async def story() -> tuple[float, Pbx]:
        started = time.monotonic()
        await pbx.stop()
        return time.monotonic() - started, await pbx.look()

    took, seen = host.inside(story)
    assert SETTINGS.stop_within * 0.6 < took < SETTINGS.stop_within
    # It had to be killed, which is failure to systemd; it went because we wanted it.
    assert seen is Pbx.STOPPED
    assert processes(host) == []


@pytest.mark.real
def test_what_outlives_the_stop_of_its_unit_is_killed_too(host: SystemdHost, pbx: Systemd) -> None:
    install(host, command="/bin/sh -c 'sleep 1000 & exec sleep 1000'", more="KillMode=process")
    host.run("systemctl", "start", "pbx")
    group = host.run("systemctl", "show", "-P", "ControlGroup", "pbx").strip()
    host.run("systemctl", "stop", "pbx")
    assert host.state("pbx") == "inactive"
    assert processes(host, group) != []
    host.run("systemctl", "start", "pbx")
    host.inside(pbx.stop)
    assert processes(host, group) == []


@pytest.mark.real
def test_who_cannot_be_killed_is_named(host: SystemdHost, pbx: Systemd) -> None:
    # Nothing survives SIGKILL here but PID 1: so systemctl is kept from doing it.
    (host.root / "usr/local/bin/systemctl").write_text(
        '#!/bin/sh\ncase "$*" in *kill*|*stop*) exit 1;; esac\nexec /usr/bin/systemctl "$@"\n'
    )
    (host.root / "usr/local/bin/systemctl").chmod(0o755)
    try:
        host.run("/usr/bin/systemctl", "start", "pbx")
        with pytest.raises(
            NotStopped, match=r"within 4 s: it is active \(running\), processes \d+"
        ):
            host.inside(pbx.stop)
    finally:
        (host.root / "usr/local/bin/systemctl").unlink()


@pytest.mark.real
def test_an_answer_with_the_other_nodes_address_is_reported() -> None:
    """Its configuration was copied, with what is the other node's alone."""
    others, said = {"192.0.2.11": "pbx01"}, list[str]()
    with kamailio() as pbx:
        for way in ("ready", "elsewhere"):
            where = HostPort(f"127.0.0.1:{pbx.port(way)}")
            here = SipHere(where, SETTINGS.sip_transport, 2.0, others=others, report=said.append)
            asyncio.run(here.prove(10, lambda: asyncio.sleep(0, "by hand")))
    (sentence,) = said
    assert sentence.startswith(
        "the PBX here tells callers to reach it at 192.0.2.11, which is pbx01"
    )
    assert "node_values" in sentence


@pytest.mark.real
def test_a_pbx_outside_the_unit_is_no_stopped_pbx(host: SystemdHost, pbx: Systemd) -> None:
    command = (
        f"PYTHONPATH={SOURCE} setsid {PBX} 127.0.0.1:5060 </dev/null >/dev/null 2>&1 & echo $!"
    )
    by_hand = host.run("sh", "-c", command).strip()
    sip = SipHere(SETTINGS.sip, SETTINGS.sip_transport, 0.5)

    async def story() -> None:
        await sip.prove(5, lambda: asyncio.sleep(0, "by hand"))
        await pbx.stop()

    try:
        with pytest.raises(NotStopped, match=r"something else answers SIP at 127\.0\.0\.1:5060"):
            host.inside(story)
    finally:
        host.run("kill", "-9", by_hand)


@pytest.mark.real
def test_systemd_is_told_the_same_through_sudo(host: SystemdHost, pbx: Systemd) -> None:
    require_root("sudo")
    service = Systemd(replace(SETTINGS, use_sudo=True), prefix=host.prefix, root=host.root)

    async def story() -> list[Pbx]:
        await serve(service)
        seen = [await service.look()]
        await service.stop()
        return [*seen, await service.look()]

    assert host.inside(story) == [Pbx.ANSWERING, Pbx.STOPPED]


@pytest.mark.real
def test_a_crash_is_death(host: SystemdHost, pbx: Systemd) -> None:
    async def story() -> Pbx:
        await serve(pbx)
        host.run("kill", "-9", host.main_pid("pbx"))
        return await becomes(pbx, Pbx.DEAD)

    assert host.inside(story) is Pbx.DEAD


@pytest.mark.real
def test_a_crash_that_systemd_answers_is_a_start(host: SystemdHost, pbx: Systemd) -> None:
    install(host, more="Restart=on-failure\nRestartSec=1")

    async def story() -> list[Pbx]:
        await serve(pbx)
        host.run("kill", "-9", host.main_pid("pbx"))
        return [await becomes(pbx, Pbx.STARTING), await becomes(pbx, Pbx.ANSWERING)]

    assert host.inside(story) == [Pbx.STARTING, Pbx.ANSWERING]


@pytest.mark.real
def test_a_stop_by_a_person_is_no_death(host: SystemdHost, pbx: Systemd) -> None:
    async def story() -> Pbx:
        await serve(pbx)
        host.run("systemctl", "stop", "pbx")
        return await pbx.look()

    assert host.inside(story) is Pbx.STOPPED


@pytest.mark.real
def test_a_pbx_that_hangs_is_deaf_and_can_be_stopped(host: SystemdHost, pbx: Systemd) -> None:
    async def story() -> list[Pbx]:
        await serve(pbx)
        host.run("kill", "-STOP", host.main_pid("pbx"))
        seen = [await pbx.look()]
        await pbx.stop()
        return [*seen, await pbx.look()]

    assert host.inside(story) == [Pbx.DEAF, Pbx.STOPPED]


@pytest.mark.real
def test_a_unit_that_is_not_there_is_unknown_and_nothing_proves_it_stopped(
    host: SystemdHost,
) -> None:
    service = Systemd(replace(SETTINGS, unit="nosuch"), prefix=host.prefix, root=host.root)
    assert host.inside(service.look) is Pbx.UNKNOWN
    with pytest.raises(Denied, match=r"Unit nosuch\.service not found"):
        host.inside(service.start)
    with pytest.raises(NotStopped, match=r"there is no unit nosuch\.service"):
        host.inside(service.stop)


def test_without_systemd_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    (tmp_path / "systemctl").chmod(0o755)
    service = Systemd(
        replace(SETTINGS, stop_within=Seconds(1.0)), prefix=("env", f"PATH={tmp_path}")
    )
    assert asyncio.run(service.look()) is Pbx.UNKNOWN
    with pytest.raises(NotStopped, match=r"cannot tell what is left: .*no bus"):
        asyncio.run(service.stop())


def test_a_systemctl_that_hangs_does_not_stretch_the_stop(tmp_path: Path) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tmp_path / "systemctl").chmod(0o755)
    service = Systemd(
        replace(SETTINGS, stop_within=Seconds(2.0)), prefix=("env", f"PATH={tmp_path}")
    )
    started = time.monotonic()
    with pytest.raises(NotStopped):
        asyncio.run(service.stop())
    assert time.monotonic() - started < 5


@pytest.mark.real
@pytest.mark.parametrize("more", ["", "Restart=on-failure\nRestartSec=1"])
def test_a_start_that_is_refused_says_who_refused(
    host: SystemdHost, pbx: Systemd, more: str
) -> None:
    install(host, more=f"ExecStartPre=/bin/sh -c 'exit 3'\n{more}")
    started = time.monotonic()
    with pytest.raises(Denied, match=r"ExecStartPre=/bin/sh refused with exit status 3") as caught:
        host.inside(lambda: serve(pbx))
    assert caught.value.hint == "See: systemctl status pbx.service"
    assert time.monotonic() - started < 4


@pytest.mark.real
def test_a_crash_at_the_start_is_told_at_once(host: SystemdHost, pbx: Systemd) -> None:
    install(host, command="/bin/sh -c 'exit 7'")
    with pytest.raises(Denied, match=r"pbx\.service failed: exit-code, status 7"):
        host.inside(lambda: serve(pbx))


@pytest.mark.real
def test_earlier_failures_do_not_refuse_a_start(host: SystemdHost, pbx: Systemd) -> None:
    install(host, command="/bin/false")
    tries = [host.run("sh", "-c", "systemctl start pbx 2>&1; sleep 0.05") for _ in range(7)]
    assert "failed" in tries[-1], "StartLimitBurst= refuses the sixth in ten seconds"
    install(host)
    host.inside(lambda: serve(pbx))


@pytest.mark.real
def test_who_never_answers_is_told_at_the_deadline(host: SystemdHost, pbx: Systemd) -> None:
    install(host, command="/bin/sleep 1000")
    service = Systemd(
        replace(SETTINGS, start_within=Seconds(1.0)), prefix=host.prefix, root=host.root
    )
    with pytest.raises(Unreachable, match=r"within 1 s: .*pbx\.service is active \(running\)"):
        host.inside(lambda: serve(service))


@pytest.mark.real
def test_units_for_the_active_node_alone_follow_the_pbx(host: SystemdHost, pbx: Systemd) -> None:
    host.unit("panel.service", "[Service]\nExecStart=/bin/sleep 1000\n")
    host.unit("backup.timer", "[Timer]\nOnActiveSec=1h\nUnit=panel.service\n")
    reports: list[str] = []
    service = Systemd(
        replace(SETTINGS, active_only=("panel", "backup.timer", "nosuch.timer")),
        report=reports.append,
        prefix=host.prefix,
        root=host.root,
    )

    async def story() -> list[str]:
        await service.start()
        seen = [host.state("panel")]
        await service.prove()
        seen += [host.state("panel"), host.state("backup.timer")]
        await service.stop()
        return [*seen, host.state("panel"), host.state("backup.timer")]

    assert host.inside(story) == ["inactive", "active", "active", "inactive", "inactive"]
    assert [re.sub(r":.*", "", report) for report in reports] == [
        "not all of panel.service, backup.timer, nosuch.timer could be started",
        "not all of panel.service, backup.timer, nosuch.timer could be stopped",
    ]


@pytest.mark.real
def test_a_pbx_that_is_shut_off_is_deaf_until_it_is_started(
    host: SystemdHost, pbx: Systemd
) -> None:
    require_root("nft")

    async def story() -> list[Pbx]:
        await serve(pbx)
        await pbx.shut_off()
        await pbx.shut_off()
        seen = [await pbx.look()]
        await serve(pbx)
        return [*seen, await pbx.look()]

    assert host.inside(story) == [Pbx.DEAF, Pbx.ANSWERING]
    assert "understudy" not in host.run("nft", "list", "ruleset")


def processes(host: SystemdHost, group: str = "/system.slice/pbx.service") -> list[str]:
    return host.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs", check=False).split()


async def becomes(service: Systemd | CommandService, wanted: Pbx, within: float = 6.0) -> Pbx:
    give_up = time.monotonic() + within
    while (seen := await service.look()) is not wanted and time.monotonic() < give_up:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return seen


# The packet filter


@pytest.fixture
def network() -> Iterator[int]:
    """A network of its own with nothing but loopback: the process that holds it."""
    require_root("unshare", "ip", "nft")
    script = "ip link set lo up && echo ready && exec sleep 300"
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"ready\n":
            pytest.skip("SKIPPED: this kernel gives us no network of our own")
        yield holder.pid
    finally:
        holder.kill()
        holder.wait(timeout=10)
        holder.stdout.close()


@pytest.mark.real
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_no_sip_passes_while_it_is_shut_and_all_does_after(
    network: int, kind: socket.SocketKind
) -> None:
    shut_off = ShutOff((5060, 5061, 5080))

    async def story() -> list[tuple[bool, set[int]]]:
        seen = []
        for change in (shut_off.open, shut_off.shut, shut_off.shut, shut_off.open, shut_off.open):
            await change()
            seen.append((await shut_off.is_shut(), {p for p in PORTS if passes(kind, p)}))
        return seen

    shut, opened = (True, {5062}), (False, PORTS)
    assert in_network(network, story) == [opened, shut, shut, opened, opened]


@pytest.mark.real
def test_shutting_off_leaves_the_machines_own_firewall_alone(network: int) -> None:
    async def story() -> str:
        rules = b"add table inet filter\nadd chain inet filter input\n"
        assert (await run(("nft", "-f", "-"), within=5, stdin=rules)).code == 0
        await ShutOff().shut()
        both = (await run(("nft", "list", "tables"), within=5)).out
        await ShutOff().open()
        return both + (await run(("nft", "list", "tables"), within=5)).out

    tables = in_network(network, story).splitlines()
    assert sorted(tables) == ["table inet filter", "table inet filter", f"table {TABLE}"]


def test_a_machine_without_nft_cannot_shut_sip_off_and_says_so(tmp_path: Path) -> None:
    shut_off = ShutOff(prefix=(str(tmp_path / "none"),))
    with pytest.raises(NotStopped, match="SIP could not be shut off: cannot run"):
        asyncio.run(shut_off.shut())
    asyncio.run(shut_off.open())  # What cannot be shut is open.


PORTS = {5060, 5061, 5062, 5080}


def passes(kind: socket.SocketKind, port: int) -> bool:
    with (
        socket.socket(socket.AF_INET, kind) as server,
        socket.socket(socket.AF_INET, kind) as phone,
    ):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        phone.settimeout(0.2)
        try:
            if kind is socket.SOCK_STREAM:
                server.listen()
                phone.connect(("127.0.0.1", port))
                return True
            server.settimeout(0.2)
            phone.sendto(b"OPTIONS", ("127.0.0.1", port))
            return server.recv(100) == b"OPTIONS"
        except OSError:
            return False


# Commands


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Path]:
    """An init script as the LSB describes it, for a PBX on a free port."""
    port = free_port()
    path = tmp_path / "pbx"
    path.write_text(INIT.format(source=SOURCE, pbx=f"{PBX} 127.0.0.1:{port}", port=port))
    path.chmod(0o755)
    yield path
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((tmp_path / "pbx.pid").read_text()), signal.SIGKILL)


INIT = """#!/bin/sh
# port {port}
cd "$(dirname "$0")"
alive() {{ [ -e pbx.pid ] && grep -q "^State:[^Z]*$" "/proc/$(cat pbx.pid)/status" 2>/dev/null; }}
case "$1" in
start)
    if [ -e refuse ]; then echo "no licence" >&2; exit 1; fi
    alive && exit 0
    PYTHONPATH={source} setsid {pbx} & echo $! >pbx.pid ;;
stop)
    if [ -e stubborn ]; then exit 0; fi
    if [ -e broken ]; then echo "no such thing" >&2; exit 1; fi
    alive && kill "$(cat pbx.pid)"
    while alive; do sleep 0.05; done
    rm -f pbx.pid ;;
status)
    if [ -e confused ]; then echo "cannot tell" >&2; exit 4; fi
    alive && exit 0
    [ -e pbx.pid ] && exit 1
    exit 3 ;;
esac
"""


def service(script: Path, **changes: object) -> CommandService:
    port = re.search(r"# port (\d+)", script.read_text())
    assert port is not None
    settings = CommandSettings(
        start=Command((str(script), "start")),
        stop=Command((str(script), "stop")),
        status=Command((str(script), "status")),
        pid_file=script.with_suffix(".pid"),
        stop_within=Seconds(3.0),
        start_within=Seconds(8.0),
        sip=HostPort(f"127.0.0.1:{port[1]}"),
        sip_timeout=Seconds(0.5),
        sip_ports=(Port(5060),),
    )
    return CommandService(replace(settings, **changes))  # type: ignore[arg-type]


def test_a_command_starts_proves_and_stops(script: Path) -> None:
    async def story() -> list[Pbx]:
        pbx = service(script)
        seen = [await pbx.look()]
        await pbx.start()
        await pbx.prove()
        await pbx.start()
        seen.append(await pbx.look())
        await pbx.stop()
        return [*seen, await pbx.look()]

    assert asyncio.run(story()) == [Pbx.STOPPED, Pbx.ANSWERING, Pbx.STOPPED]


def test_dead_deaf_and_unknown_are_told_apart(script: Path) -> None:
    async def story() -> list[Pbx]:
        pbx = service(script)
        await pbx.start()
        await pbx.prove()
        (script.parent / "confused").touch()
        seen = [await pbx.look()]
        (script.parent / "confused").unlink()
        signal_pbx(script, signal.SIGSTOP)
        seen.append(await pbx.look())
        signal_pbx(script, signal.SIGKILL)
        return [*seen, await becomes(pbx, Pbx.DEAD)]

    assert asyncio.run(story()) == [Pbx.UNKNOWN, Pbx.DEAF, Pbx.DEAD]


def test_the_end_of_what_a_look_saw_is_known_at_once_and_once(script: Path) -> None:
    async def story() -> None:
        pbx = service(script)
        ended = asyncio.create_task(pbx.ended())
        await pbx.start()
        await pbx.prove()
        assert await pbx.look() is Pbx.ANSWERING
        assert not (await asyncio.wait([ended], timeout=0.3))[0]
        signal_pbx(script, signal.SIGKILL)
        await asyncio.wait_for(ended, 5)
        # Until a look has seen another one, there is nothing to tell.
        again = asyncio.create_task(pbx.ended())
        await pbx.look()
        assert not (await asyncio.wait([again], timeout=0.3))[0]
        await pbx.start()
        await pbx.prove()
        await pbx.look()
        signal_pbx(script, signal.SIGKILL)
        await asyncio.wait_for(again, 5)

    asyncio.run(story())


def test_without_a_pid_file_nothing_is_watched(script: Path) -> None:
    async def story() -> None:
        pbx = service(script, pid_file=None)
        await pbx.start()
        await pbx.prove()
        await pbx.look()
        ended = asyncio.create_task(pbx.ended())
        signal_pbx(script, signal.SIGKILL)
        assert not (await asyncio.wait([ended], timeout=0.3))[0]
        ended.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("trouble", ["stubborn", "broken"])
def test_a_pbx_that_its_stop_command_leaves_is_killed_by_its_pid_file(
    script: Path, trouble: str
) -> None:
    async def story() -> Pbx:
        pbx = service(script)
        await pbx.start()
        await pbx.prove()
        (script.parent / trouble).touch()
        await pbx.stop()
        return await pbx.look()

    assert asyncio.run(story()) is Pbx.DEAD


def test_a_kill_command_is_used_where_there_is_one(script: Path) -> None:
    async def story() -> None:
        pbx = service(
            script,
            pid_file=None,
            kill=("sh", "-c", f"kill -9 $(cat {script}.pid) && touch {script.parent}/killed"),
        )
        await pbx.start()
        await pbx.prove()
        (script.parent / "stubborn").touch()
        await pbx.stop()

    asyncio.run(story())
    assert (script.parent / "killed").exists()


def test_what_cannot_be_told_is_not_stopped(script: Path) -> None:
    (script.parent / "confused").touch()
    with pytest.raises(NotStopped, match=r"within 3 s: status says unknown \(cannot tell\)"):
        asyncio.run(service(script).stop())


def test_a_refused_start_gives_the_reason(script: Path) -> None:
    (script.parent / "refuse").touch()
    with pytest.raises(Denied, match=r"the PBX was not started: pbx: no licence"):
        asyncio.run(service(script).start())


def test_a_start_that_comes_to_nothing_ends_the_proof_early(script: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Denied, match=r"the PBX does not run: status says stopped"):
        asyncio.run(service(script).prove())
    assert time.monotonic() - started < 5


def test_a_status_command_that_is_not_there_is_unknown(script: Path) -> None:
    assert asyncio.run(service(script, status=("/no/such",)).look()) is Pbx.UNKNOWN


def signal_pbx(script: Path, number: signal.Signals) -> None:
    os.kill(int(script.with_suffix(".pid").read_text()), number)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
