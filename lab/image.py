"""The root file system that all hosts share: Debian sid with the real servers.  Built once."""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from .hosts import IMAGE, LabError

SUITE = "sid"
PACKAGES = (
    "systemd-sysv dbus polkitd libpam-systemd sudo iproute2 iputils-ping procps nftables tcpdump less vim-tiny "
    "bsdutils python3 python3-venv python3-dnspython python3-pymysql sqlite3 rsync libfaketime "
    "openssh-server openssh-client asterisk mariadb-server bind9 bind9-dnsutils "
    "unixodbc odbc-mariadb inotify-tools "
    "nagios-nrpe-server nagios-nrpe-plugin monitoring-plugins-basic etcd-server etcd-client "
    "kamailio kamailio-extra-modules sip-tester baresip-core sipsak ncat openssl"
)
KEPT = "/var/cache/lab"  # Packages to install once more, as an upgrade does.
SERVICES = "asterisk mariadb named kamailio etcd nagios-nrpe-server ssh ssh.socket"
# What a container cannot use, and what would only disturb.
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer "
    "console-getty.service getty@tty1.service named-resolvconf.service systemd-networkd.service "
    "systemd-networkd.socket systemd-networkd-wait-online.service systemd-resolved.service "
    "systemd-timesyncd.service dev-hugepages.mount sys-fs-fuse-connections.mount"
)
_DPKG = """\
force-unsafe-io
force-confold
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/locale/*
"""
_APT = 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n'
RECIPE = "etc/lab-image"  # What the image was made by.
# In a mount namespace of its own, so that /proc and /dev vanish with it, however it ends.
_CHROOT = """
set -e
mount --make-rprivate /
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
exec chroot "$ROOT" sh -ec "$INSIDE"
"""


def build(*, anew: bool = False) -> None:
    """Make the image if it is not there.  What was interrupted is begun again.  Raises LabError."""
    if ready() and not anew:
        return
    part = IMAGE.with_name("image.part")
    _remove(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    _run(
        "debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(part), mirror()
    )
    _write(part / "etc/dpkg/dpkg.cfg.d/lab", _DPKG)
    _write(part / "etc/apt/apt.conf.d/90lab", _APT)
    _write(part / "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)
    # The mirror may be a frozen one, whose lists have expired.
    inside(
        part,
        "export DEBIAN_FRONTEND=noninteractive\n"
        "apt-get -q -o Acquire::Check-Valid-Until=false update\n"
        f"apt-get -qy install {PACKAGES}\n"
        f"mkdir -p {KEPT} && cd {KEPT} && apt-get -q download asterisk asterisk-modules\n"
        "apt-get clean\n",
    )
    (part / "usr/sbin/policy-rc.d").unlink()
    _settle(part)
    _remove(IMAGE)
    _write(part / RECIPE, _recipe())
    part.rename(IMAGE)


def ready() -> bool:
    """It is there, whole, and as this file says."""
    path = IMAGE / RECIPE
    return path.exists() and path.read_text(encoding="utf-8") == _recipe()


def _recipe() -> str:
    return hashlib.blake2b(Path(__file__).read_bytes()).hexdigest()


def need() -> None:
    if not ready():
        raise LabError("there is no image yet.  Build it: lab/lab.py image")


def inside(root: Path, script: str) -> None:
    """Run a shell script in a root file system.  Raises LabError with the end of what it said."""
    environment = {**os.environ, "ROOT": str(root), "INSIDE": script, "LC_ALL": "C.UTF-8"}
    _run("unshare", "--mount", "sh", "-c", _CHROOT, environment=environment)


def mirror() -> str:
    """The one that this machine's own apt uses.  Raises LabError."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found = re.search(r"^(?:URIs:|deb(?: +\[[^]]*\])?) +(\S+)", text, re.MULTILINE)
        if found:
            return found[1]
    raise LabError("apt here names no mirror of Debian: see /etc/apt/sources.list")


def _settle(root: Path) -> None:
    """Nothing starts by itself: each host enables the units of its role."""
    inside(root, f"systemctl disable -q {SERVICES} 2>/dev/null || true")
    for unit in MASKED.split():
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    # A small redo log: less to copy for each host.
    _write(root / "etc/mysql/mariadb.conf.d/80-lab.cnf", "[mariadbd]\ninnodb_log_file_size=16M\n")
    inside(
        root,
        "d=$(mariadbd --verbose --help 2>/dev/null | awk '$1 == \"datadir\" {print $2}')\n"
        'rm -rf "$d"/*\n'
        'mariadb-install-db --user=mysql --datadir="$d" >/dev/null\n'
        "mkdir -p /var/log/journal /root/.ssh && chmod 700 /root/.ssh\n"
        "test -e /root/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519\n"
        "cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys\n",
    )
    (root / "etc/machine-id").unlink(missing_ok=True)


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _remove(root: Path) -> None:
    if root.exists():
        shutil.rmtree(root)


def _run(*argv: str, environment: dict[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            argv, env=environment, text=True, stdin=subprocess.DEVNULL, timeout=900,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is missing.  As root: script/packages lab") from None
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise LabError(f"{argv[0]} failed with {done.returncode}:\n{tail}")
