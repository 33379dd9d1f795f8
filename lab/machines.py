"""The hosts: containers of systemd-nspawn that boot a real systemd each, from an overlay over the one image.

Every host has a control group of its own in the unified hierarchy.  Without it all containers would share one, and
`systemctl stop` in one of them would act on the processes of another.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

from . import network
from .hosts import HERE, HOSTS, IMAGE, MACHINES, Host, LabError, find

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_WITHIN = 60.0  # Seconds.
GONE_WITHIN = 30.0
CAPABILITIES = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_NICE,CAP_IPC_LOCK,CAP_SYS_RESOURCE"
# Written as root, read or changed by others.
OWNERS = {"var/lib/bind": "bind", "etc/asterisk": "asterisk"}
SHARES = 16384  # Of cgroup v1; a process outside has 1024.
_POWER_OFF = 38  # SIGRTMIN+4, systemd(1).
# The container is nobody's child here, and is born into its own control groups.
_BOOT = """
mkdir -p $GROUPS_OF_HOST
setsid sh -c 'for group in $GROUPS_OF_HOST; do echo $$ >$group/cgroup.procs; done; exec "$@"' sh "$@" \
    >>"$CONSOLE" 2>&1 </dev/null &
echo $!
"""


def make(name: str, *, layers: Sequence[Path] = ()) -> Path:
    """A host as from the factory: the image, `layers` above it, and its role's configuration.  Its root."""
    host = find(name)
    forget(name)
    for part in ("up", "work", "root"):
        (host.folder / part).mkdir(parents=True, exist_ok=True)
    lower = ":".join(str(layer) for layer in (*layers, IMAGE))
    options = f"lowerdir={lower},upperdir={host.folder}/up,workdir={host.folder}/work"
    root = host.folder / "root"
    _run("mount", "-t", "overlay", f"lab-{name}", "-o", options, str(root))
    if not (root / "etc/machine-id").exists():  # In a layer it has been done already.
        _render(host, root)
        _run("systemctl", f"--root={root}", "enable", "-q", *host.units)
    return root


def start(names: Iterable[str], *, wait: bool = True) -> None:
    """Switch on; returns when they have booted.  Who runs already goes on."""
    chosen = [find(name) for name in names]
    for host in chosen:
        if not is_on(host.name):
            network.light(host)
            _boot(host)
    for host in chosen if wait else ():
        _booted_up(host)


def power_off(names: Iterable[str]) -> None:
    """An orderly shutdown."""
    chosen = [find(name) for name in names]
    for host in chosen:
        pid = init_pid(host.name)
        if pid:
            os.kill(pid, _POWER_OFF)
    for host in chosen:
        _gone(host)
        network.darken(host)


def power_cut(names: Iterable[str]) -> None:
    """As if the plug were pulled."""
    chosen = [find(name) for name in names]
    for host in chosen:
        network.darken(host)
        _write_group(host, "cgroup.kill", "1")
    for host in chosen:
        _gone(host)


def freeze(names: Iterable[str]) -> None:
    """The host hangs: its kernel still answers pings and takes connections, and no process does anything."""
    for name in names:
        _write_group(find(name), "cgroup.freeze", "1")


def thaw(names: Iterable[str]) -> None:
    for name in names:
        _write_group(find(name), "cgroup.freeze", "0")


def forget(name: str) -> None:
    """Whatever the host was: off, and all that it wrote is gone."""
    host = find(name)
    if is_on(name):
        power_cut([name])
    unmount(host)
    shutil.rmtree(host.folder, ignore_errors=True)


def remove_all() -> None:
    """Also what a crashed laboratory has left."""
    on = [name for name in MACHINES if is_on(name)]
    for name in on:
        _write_group(find(name), "cgroup.kill", "1")
    for name in on:
        _gone(find(name))
    for name in MACHINES:
        unmount(find(name))
        shutil.rmtree(find(name).folder, ignore_errors=True)
    for top in (*_groups(""), Path("/sys/fs/cgroup/cpu/lab")):
        _remove_group(top)


def unmount(host: Host) -> None:
    root = host.folder / "root"
    while os.path.ismount(root):
        _run("umount", "--lazy", str(root))


def is_on(name: str) -> bool:
    try:
        return "populated 1" in (_groups(name)[0] / "cgroup.events").read_text()
    except OSError:
        return False


def init_pid(name: str) -> int:
    """PID 1 of the container as seen from here; 0 if there is none."""
    with suppress(OSError, ValueError, IndexError):
        supervisor = (find(name).folder / "pid").read_text().strip()
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text()
        return int(children.split()[0])
    return 0


def execute(
    name: str,
    *argv: str,
    stdin: str = "",
    timeout: float = 30.0,
    check: bool = False,
) -> "CompletedProcess[str]":
    """Run a command as root in all namespaces of a host.  Raises LabError, with `check` also when it fails."""
    try:
        done = subprocess.run(
            entering(name, *argv),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{name}: {' '.join(argv)} took longer than {timeout:g} s") from None
    if check and done.returncode:
        raise LabError(f"{name}: {' '.join(argv)} failed: {done.stdout}{done.stderr}")
    return done


def entering(name: str, *argv: str) -> tuple[str, ...]:
    """The command that runs `argv` there.  Raises LabError if the host is off."""
    pid = init_pid(name)
    if not pid:
        raise LabError(f"{name} is off")
    spaces = ("-m", "-u", "-i", "-n", "-p", "-C")
    clean = ("env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb")
    return ("nsenter", "-t", str(pid), *spaces, "--", *clean, *argv)


def put(root: Path, path: str, text: str, *, mode: int = 0o644, owner: str = "") -> None:
    """A file in a root file system, through its overlay: folders above it keep their owners."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    target.write_text(text, encoding="utf-8")
    target.chmod(mode)
    if owner:
        os.chown(target, *account(root, owner))


def account(root: Path, name: str) -> tuple[int, int]:
    """uid and gid of a user of that root file system."""
    for line in (root / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3])
    raise LabError(f"{root} has no user {name}")


def render(source: Path, host: Host, root: Path) -> None:
    """The files below `source`, with every @TOKEN@ filled in, in a root file system."""
    tokens = _tokens(host)
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        for token, value in tokens.items():
            text = text.replace(f"@{token}@", value)
        where = str(path.relative_to(source))
        owner = next((who for top, who in OWNERS.items() if where.startswith(top)), "")
        put(root, where, text, mode=path.stat().st_mode & 0o777, owner=owner)


def until(holds: Callable[[], object], *, within: float, what: str) -> None:
    ends = time.monotonic() + within
    while not holds():
        if time.monotonic() > ends:
            raise LabError(f"not within {within:g} s: {what}")
        time.sleep(0.05)


def _boot(host: Host) -> None:
    groups = [str(group) for group in _groups(host.name) if group.parent.parent.is_dir()]
    groups += [str(group) for group in (_first_in_line(),) if group is not None]
    argv = [
        "systemd-nspawn", "--quiet", "--boot", f"--directory={host.folder}/root",
        f"--machine={host.name}", f"--hostname={host.name}", "--register=no", "--keep-unit",
        f"--network-namespace-path={network.file_of_namespace(host)}", "--resolv-conf=off",
        "--timezone=off", "--link-journal=no", "--console=pipe", f"--capability={CAPABILITIES}",
    ]  # fmt: skip
    environment = {
        **os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0", "LC_ALL": "C",
        "GROUPS_OF_HOST": " ".join(groups), "CONSOLE": str(host.folder / "console.log"),
    }  # fmt: skip
    started = subprocess.run(
        ["sh", "-c", _BOOT, "sh", *argv],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    (host.folder / "pid").write_text(started.stdout)
    until(lambda: is_on(host.name), within=5.0, what=f"{host.name} is in its control group")


def _booted_up(host: Host) -> None:
    """degraded counts: which of its units failed is a question for the tests."""
    ends = time.monotonic() + BOOT_WITHIN
    while time.monotonic() < ends:
        with suppress(LabError):
            said = execute(
                host.name, "systemctl", "is-system-running", "--wait", timeout=BOOT_WITHIN
            )
            if said.stdout.strip() in ("running", "degraded"):
                return
        if not is_on(host.name):
            break
        time.sleep(0.1)
    raise LabError(f"{host.name} did not boot: see {host.folder / 'console.log'}")


def _gone(host: Host) -> None:
    until(lambda: not is_on(host.name), within=GONE_WITHIN, what=f"{host.name} is off")
    (host.folder / "pid").unlink(missing_ok=True)
    # The kernel would kill what is born into a group that was killed once.
    for group in _groups(host.name):
        _remove_group(group)


def _groups(name: str) -> tuple[Path, Path]:
    """The control group of a host in the unified hierarchy, and in systemd's own one of old."""
    top = Path("/sys/fs/cgroup")
    unified = top / "unified" if (top / "unified/cgroup.procs").exists() else top
    return unified / "lab" / name, top / "systemd/lab" / name


def _remove_group(top: Path) -> None:
    folders = [path for path in top.rglob("*") if path.is_dir()] if top.is_dir() else []
    for each in (*sorted(folders, reverse=True), top):
        with suppress(OSError):  # Nobody is in it; if somebody is, it stays.
            each.rmdir()


def _first_in_line() -> Path | None:
    """The hosts' processors are this machine's: other work on it must not look like a slow network."""
    top = Path("/sys/fs/cgroup/cpu")
    if not (top / "cpu.shares").exists():
        return None
    group = top / "lab"
    group.mkdir(exist_ok=True)
    (group / "cpu.shares").write_text(str(SHARES))
    return group


def _write_group(host: Host, file: str, text: str) -> None:
    with suppress(FileNotFoundError):
        (_groups(host.name)[0] / file).write_text(text)


def _render(host: Host, root: Path) -> None:
    """conf/common and the role's tree."""
    for source in (HERE / "conf/common", HERE / "conf" / host.role):
        render(source, host, root)
    if host.role == "prov":
        put(root, "opt/mail/mail_sink.py", (HERE / "mail_sink.py").read_text(encoding="utf-8"))
    put(root, "etc/hostname", f"{host.name}\n")
    # Without it this would be a first boot, which enables all that is installed.
    put(root, "etc/machine-id", hashlib.md5(host.name.encode()).hexdigest() + "\n")
    own = f"{host.address} {host.name}.example.test {host.name}"
    put(root, "etc/hosts", f"127.0.0.1 localhost\n{own}\n")


def _tokens(host: Host) -> dict[str, str]:
    # Phones ask a caching resolver, as phones do; servers the authoritative ones.
    first = "prov" if host.name == "phones" else "dns1"
    records = "\n".join(f"{each.name} IN A {each.address}" for each in HOSTS.values())
    return {
        "HOST": host.name,
        "IP": host.address,
        "HOSTRECORDS": records,
        "RESOLVER1": HOSTS[first].address,
        "RESOLVER2": HOSTS["dns2"].address,
        "SERVERID": "1" if host.name == "pbx01" else "2",
        **{f"IP_{each.name}": each.address for each in HOSTS.values()},
    }


def _run(*argv: str) -> None:
    done = subprocess.run(argv, text=True, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise LabError(f"{' '.join(argv[:4])} failed: {done.stderr.strip()}")
