"""Boots a real systemd, as PID 1 of a host of its own, in about a second; for tests of what asks it.

The host has its own processes, mounts, control groups and network (loopback only), and this
machine's files beneath a layer of its own: nothing that happens in it leaves a trace outside.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")

SYSTEMD = Path("/lib/systemd/systemd")
BOOT_WITHIN = 20.0  # Seconds.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Where Python and this program are: an overlay does not show what is mounted below its lower layer.
_FOLDERS = (sys.base_prefix, sys.prefix, str(Path(__file__).parents[2]))

# A tmpfs holds the upper layer: an overlay over / cannot keep it in / itself.
BOOT = """
set -eu
echo $$ >"$1/cgroup.procs"
shift
exec unshare -C -m -p -f -u -i -n --kill-child --propagation private sh -euc '
host=$1 path=$2 lower=$3
shift 3
mount -t tmpfs tmpfs "$host"
cd "$host"
mkdir up work root
mount -t overlay overlay -o lowerdir="$lower",upperdir="$host/up",workdir="$host/work" root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in null zero full random urandom tty; do
    : >dev/$node
    mount --bind /dev/$node dev/$node
done
for folder; do
    if [ "$(stat -c %d "$folder")" != "$(stat -c %d /)" ]; then
        mkdir -p "./$folder"
        mount --rbind "$folder" "./$folder"
    fi
done
: >etc/machine-id
rm -rf etc/systemd/system/*
# The checkout may be below /tmp, which a boot empties.
for unit in tmp.mount systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer; do
    ln -s /dev/null etc/systemd/system/$unit
done
hostname understudy-test
ip link set lo up
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=understudy PATH="$path" /lib/systemd/systemd --unit=basic.target \
    --show-status=no --log-target=console --log-level=notice
' sh "$@"
"""


class SystemdHost:
    """One host that runs.  `prefix` runs a program in it; `root` shows its files."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.prefix = (
            *("nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "--"),
            *("env", "-i", f"PATH={PATH}", "LC_ALL=C"),
        )
        self.root = Path(f"/proc/{pid}/root")

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self.prefix, *argv], capture_output=True, text=True, timeout=30, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv}: {done.stdout}{done.stderr}")
        return done.stdout

    def unit(self, name: str, text: str) -> None:
        """Install a unit file."""
        (self.root / "etc/systemd/system" / name).write_text(text)
        self.run("systemctl", "daemon-reload")

    def state(self, unit: str) -> str:
        return self.run("systemctl", "is-active", unit, check=False).strip()

    def main_pid(self, unit: str) -> str:
        return self.run("systemctl", "show", "-P", "MainPID", unit).strip()

    def inside(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Run `work()` in an event loop whose sockets are in the host's network."""
        return in_network(self.pid, work)


def in_network(pid: int, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run `work()` in a thread of its own that has entered the network of process `pid`."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def thread() -> None:
        try:
            _enter_network(pid)
            results.append(asyncio.run(work()))
        except BaseException as error:  # It is the test's own thread that fails.
            errors.append(error)

    runner = threading.Thread(target=thread, daemon=True)
    runner.start()
    runner.join(timeout=120)
    assert not runner.is_alive(), "still running after 120 s"
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def booted(tmp_path: Path, lower: Path = Path("/")) -> Iterator[SystemdHost]:
    """A host for as long as the context lasts.  Skips, loudly, where the kernel does not let us.

    `lower` is the root file system beneath its own layer; what is not this machine's has nothing of us.
    """
    _require()
    group = _control_group()
    mount = tmp_path / "host"
    mount.mkdir()
    log = tmp_path / "console.log"
    folders = _FOLDERS if lower == Path("/") else ()
    with log.open("wb") as console:
        process = subprocess.Popen(
            ["sh", "-c", BOOT, "sh", str(group), str(mount), PATH, str(lower), *folders],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    try:
        yield _wait_for(process, log)
    finally:
        for pid in _children(process.pid):
            os.kill(pid, signal.SIGKILL)  # Its PID 1: the kernel ends the rest.
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)
        _remove(group)


def require_root(*programs: str) -> None:
    """Skip with a reason; under CI=true a missing program is a failure."""
    if os.geteuid() != 0:
        pytest.skip("SKIPPED FOR WANT OF ROOT: this test needs namespaces of its own")
    require_program(*programs)


def require_program(*programs: str) -> None:
    """As require_root, without root."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        _miss(f"needs {', '.join(missing)}")


def _require() -> None:
    if sys.platform != "linux":
        pytest.skip("SKIPPED: systemd needs Linux")
    require_root("unshare", "nsenter", "ip", "pivot_root", "systemctl")
    if not SYSTEMD.exists():
        _miss("needs systemd (apt install systemd)")


def _miss(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(f"SKIPPED: {reason}")


def _control_group() -> Path:
    for top in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (top / "cgroup.controllers").exists():
            group = top / f"understudy-test-{os.getpid()}-{time.monotonic_ns()}"
            try:
                group.mkdir()
            except OSError as error:
                pytest.skip(f"SKIPPED: this kernel gives us no control group: {error}")
            return group
    pytest.skip("SKIPPED: no cgroup2 hierarchy is mounted here")


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> SystemdHost:
    give_up = time.monotonic() + BOOT_WITHIN
    while time.monotonic() < give_up:
        if process.poll() is not None:
            # All that can fail before systemd runs is a namespace, a mount, a control group.
            pytest.skip(f"SKIPPED: this kernel boots no systemd for us: {log.read_text()[-400:]}")
        for pid in _children(process.pid):
            host = SystemdHost(pid)
            if Path(f"/proc/{pid}/comm").read_text().strip() != "systemd":
                continue
            state = host.run("systemctl", "is-system-running", check=False).strip()
            if state in ("running", "degraded"):
                return host
        time.sleep(0.05)
    raise AssertionError(f"systemd did not boot within {BOOT_WITHIN} s: {log.read_text()[-2000:]}")


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _remove(group: Path) -> None:
    """The groups go when their processes have: that takes the kernel a moment."""
    give_up = time.monotonic() + 5
    while group.exists() and time.monotonic() < give_up:
        for each in [*sorted(group.rglob("*/"), reverse=True), group]:
            try:
                each.rmdir()
            except OSError:
                time.sleep(0.01)


def _enter_network(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"cannot enter the network of process {pid}")
    finally:
        os.close(descriptor)
