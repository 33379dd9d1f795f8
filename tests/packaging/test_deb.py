"""The package on hosts of each distribution: installed, upgraded, removed beside a PBX that goes on.

Minutes, and the mirror: only for the distributions that DEB_DISTS names, as `make deb-test` does.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.systemd_host import SystemdHost, booted, require_root
from cli.pair import FAST

HOUSE = Path(__file__).parents[2]
DISTS = os.environ.get("DEB_DISTS", "").split()
UNITS = (
    "understudy.service",
    "understudy-guard.service",
    "understudy-door.service",
    "understudy-copier.service",
    "understudy-tick.service",
)
PYTHON = "/usr/lib/understudy/bin/python3 -I"

PBX = """\
import socket
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("127.0.0.1", 5060))
while True:
    asked, caller = door.recvfrom(4096)
    kept = [line for line in asked.decode().split("\\r\\n")
            if line.partition(":")[0].lower() in ("via", "from", "to", "call-id", "cseq")]
    door.sendto("\\r\\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0", "", ""]).encode(), caller)
"""
DETECTION = "\n".join(f'{key} = "{value}"' for key, value in FAST.items())
CHECKPOINT = """\
[checkpoints.{}]
kind = "command"
command = ["/usr/local/bin/seen", "{{node}}"]
timeout = "500ms"
"""
CHECKPOINTS = "".join(CHECKPOINT.format(name) for name in ("cp1", "cp2", "cp3"))
CONFIG = f"""\
[pair]
name = "acme"
service = "sip.example.test"
preferred = "pbx01"
[nodes.pbx01]
host = "pbx01.example.test"
address = "127.0.0.1"
ssh = "understudy@127.0.0.1"
isolation = "stop"
[nodes.pbx02]
host = "pbx02.example.test"
address = "127.0.0.2"
isolation = "stop"
[detection]
{DETECTION}
{CHECKPOINTS}
[claim]
kind = "file"
path = "/var/lib/understudy/claim"
timeout = "500ms"
[name]
kind = "rfc2136"
server = "127.0.0.53"
port = 5353
zone = "example.test"
key_file = "tsig.key"
servers = ["127.0.0.53:5353"]
verify_within = "2s"
[service]
kind = "systemd"
unit = "asterisk"
stop_within = "2s"
sip_timeout = "500ms"
"""
FILES = {
    "root/pbx.py": PBX,
    "usr/local/bin/seen": '#!/bin/sh\necho "$1"\n[ "$1" = pbx01 ] || exit 2\n',
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/understudy/understudy.toml": CONFIG,
    "etc/understudy/node": "pbx01\n",
    "etc/understudy/tsig.key": (
        'key "understudy" { algorithm hmac-sha256; '
        'secret "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; };\n'
    ),
    "etc/polkit-1/rules.d/50-understudy.rules": (
        "polkit.addRule(function(action, subject) {\n"
        '  if (subject.user == "understudy" && action.lookup("unit") == "asterisk.service" &&\n'
        '      action.id == "org.freedesktop.systemd1.manage-units") return polkit.Result.YES;\n'
        "});\n"
    ),
    "etc/systemd/system/asterisk.service": (
        "[Service]\nExecStart=/usr/bin/python3 /root/pbx.py\nRestart=on-failure\n"
    ),
    "etc/systemd/system/asterisk.service.d/understudy.conf": (
        "[Service]\nExecStartPre=+/usr/bin/understudy may-start\n"
    ),
    "etc/systemd/system/nameserver.service": (
        f"[Service]\nExecStart={PYTHON} -m understudy.demo.nameserver --listen 127.0.0.53:5353"
        " --zone example.test --key-file /etc/understudy/tsig.key"
        " --record 'sip 30 CNAME pbx02.example.test.'\n"
    ),
    # What the agent runs, in the agent's own sandbox.
    "etc/systemd/system/understudy.service.d/try.conf": (
        "[Service]\n"
        "ExecStartPre=nft add table inet understudy_tried\n"
        "ExecStartPre=ssh -T -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
        " understudy@127.0.0.1 status\n"
    ),
}


@pytest.fixture(params=DISTS or ["none"], scope="module")
def dist(request: pytest.FixtureRequest) -> str:
    if request.param == "none":
        pytest.skip("SKIPPED: the package is built and installed by make deb-test")
    require_root("debootstrap")
    return str(request.param)


def script(*words: str) -> Path:
    """Run one of script/; its last line is a path."""
    done = subprocess.run(
        words, cwd=HOUSE, stdout=subprocess.PIPE, text=True, timeout=280, check=True
    )
    return HOUSE / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def package(dist: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = str(tmp_path_factory.mktemp("dist"))
    return script("script/build_deb", "--dist", dist, "--out", out)


@contextmanager
def host_of(dist: str, folder: Path) -> Iterator[SystemdHost]:
    with booted(folder, script("script/make_root", dist, "host")) as host:
        yield host


def newer(package: Path, folder: Path) -> Path:
    """The same with a higher version."""
    tree = folder / "newer"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True, timeout=60)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 99", control.read_text()))
    made = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-Zgzip", "-b", tree, made], check=True, timeout=60)
    return made


def dpkg(host: SystemdHost, package: Path) -> None:
    shutil.copy(package, host.root / "root/package.deb")
    host.run("dpkg", "-i", "/root/package.deb")


def configure(host: SystemdHost) -> None:
    """What `understudy init` does, as far as this needs it."""
    for name, text in FILES.items():
        path = host.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (host.root / "usr/local/bin/seen").chmod(0o755)
    host.run("chgrp", "-R", "understudy", "/etc/understudy")
    host.run("chmod", "640", "/etc/understudy/tsig.key")
    host.run("sh", "-ec", SSH)
    host.run("systemctl", "daemon-reload")


SSH = """
mkdir -p /run/sshd
ssh-keygen -A >/dev/null
systemctl start ssh
cd /var/lib/understudy
mkdir -m 700 .ssh
ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
echo "restrict,command=\\"/usr/bin/understudy answer\\" $(cat .ssh/id_ed25519.pub)" >.ssh/authorized_keys
chown -R understudy: .ssh
"""


def wait_for(what: Callable[[], bool], host: SystemdHost) -> None:
    give_up = time.monotonic() + 60
    while not what():
        if time.monotonic() > give_up:
            said = host.run("journalctl", "--no-pager", "-n", "60", check=False)
            raise AssertionError(f"has not come about in 60 s:\n{said}")
        time.sleep(0.2)


def is_active(host: SystemdHost) -> bool:
    return '"phase": "active"' in host.run("understudy", "status", "--json", check=False)


def test_install_upgrade_remove(dist: str, package: Path, tmp_path: Path) -> None:
    with host_of(dist, tmp_path) as host:
        dpkg(host, package)
        assert host.run("understudy", "--version").startswith("understudy ")
        assert "/bin/sh" in host.run("getent", "passwd", "understudy")
        for unit in UNITS:
            verified = host.run("systemd-analyze", "verify", "--man=no", unit, check=False)
            assert verified == ""
            print(
                dist, host.run("systemd-analyze", "--no-pager", "security", unit).splitlines()[-1]
            )
        host.run("systemctl", "start", "understudy", "understudy-guard")
        assert host.state("understudy") == "inactive"  # There is no configuration yet.

        configure(host)
        host.run(
            "systemctl", "start", "nameserver", "understudy", "understudy-guard", "understudy-door"
        )
        assert "understudy_tried" in host.run("nft", "list", "tables")
        host.run("understudy", "set-active", "pbx01", "--yes", "--accept-two-active")
        wait_for(lambda: is_active(host), host)
        assert host.state("asterisk") == "active"
        owners = host.run("find", "/var/lib/understudy", "!", "-user", "understudy")
        assert owners == ""

        # The PBX's own restart passes may-start, as root.
        host.run("systemctl", "restart", "asterisk")
        host.run("understudy", "pause", "--for", "1h")
        assert host.run("find", "/var/lib/understudy", "!", "-user", "understudy") == ""

        # A monitoring user of the agent's group sees how it is.
        host.run("useradd", "--groups", "understudy", "watcher")
        watcher = ("setpriv", "--reuid=watcher", "--regid=watcher", "--init-groups")
        assert "epoch=1;" in host.run(*watcher, "understudy", "check", check=False)

        # A round beside the daemon leaves everything to that.
        host.run("systemctl", "start", "understudy-tick.service")
        assert host.state("understudy") == "active"

        # With sudo instead of polkit.
        sandbox = host.root / "etc/systemd/system/understudy.service.d"
        shutil.copy(HOUSE / "src/understudy/hosts/files/sudo.conf", sandbox)
        (sandbox / "try.conf").write_text("[Service]\nExecStartPre=sudo -n nft list tables\n")
        (host.root / "etc/sudoers.d/understudy").write_text(
            "understudy ALL=(root) NOPASSWD: /usr/sbin/nft list tables\n"
        )
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", "understudy")
        shutil.rmtree(sandbox)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "restart", "understudy")
        wait_for(lambda: is_active(host), host)

        # Its hang is ended by the watchdog; meanwhile the guard stops the PBX, with nothing but its own means.
        agent = host.main_pid("understudy")
        host.run("kill", "-STOP", agent)
        wait_for(lambda: host.state("asterisk") == "inactive", host)
        assert "understudy-guard" in host.run("journalctl", "--no-pager", "-g", "it is stopped")
        wait_for(lambda: host.main_pid("understudy") not in (agent, "0"), host)
        wait_for(lambda: is_active(host) and host.state("asterisk") == "active", host)
        assert host.run("find", "/var/lib/understudy", "!", "-user", "understudy") == ""

        # The other node's requests: the doorkeeper has them answered, and without it they are answered as well.
        status = ("runuser", "-u", "understudy", "--", "understudy", "answer", "status")
        assert json.loads(host.run(*status))["phase"] == "active"
        host.run("systemctl", "stop", "understudy-door")
        assert json.loads(host.run(*status))["phase"] == "active"
        host.run("systemctl", "start", "understudy-door")

        pbx, agent, guard = (host.main_pid(u) for u in ("asterisk", *UNITS[:2]))
        dpkg(host, newer(package, tmp_path))
        assert host.state("understudy") == host.state("understudy-guard") == "active"
        assert host.main_pid(UNITS[0]) != agent
        assert host.main_pid(UNITS[1]) != guard
        wait_for(lambda: is_active(host), host)
        assert host.main_pid("asterisk") == pbx

        said = host.run("dpkg", "-r", "understudy")
        assert "did not work" not in said
        print(said)
        for unit in UNITS:
            assert host.state(unit) == "inactive"
        assert host.main_pid("asterisk") == pbx
        assert not (host.root / "etc/systemd/system/asterisk.service.d/understudy.conf").exists()
        host.run("systemctl", "restart", "asterisk")
        assert host.state("asterisk") == "active"
        assert (host.root / "etc/understudy/understudy.toml").exists()

        host.run("dpkg", "-P", "understudy")
        assert not (host.root / "etc/understudy").exists()
        # The claim in a file is none of the package's own.
        left = [path.name for path in (host.root / "var/lib/understudy").iterdir()]
        assert [name for name in left if not name.startswith("claim")] == []
