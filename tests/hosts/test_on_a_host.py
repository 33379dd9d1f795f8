"""A host on which `init` has been: a real systemd, polkit, BIND, NRPE and sshd read what it wrote.

All addresses are on the loopback of that one host: it is pbx01, and the check point, and the name server.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.bind import need_programs
from adapters.nrpe_daemon import CHECK_NRPE, NRPE
from adapters.systemd_host import SystemdHost, booted, require_root
from understudy.hosts import ssh
from understudy.hosts.piece import Keys

PROGRAM = Path(__file__).parents[2] / ".venv/bin/understudy"
SOURCE = Path(__file__).parents[2] / "src"
ANSWERS = """
pair = "acme"
service = "sip.example.test"
pbx = "asterisk"
unit = "pbx"
active_only = ["backup.timer"]
patience = "25s"
stop_within = "5s"
server = "127.0.0.53"
[nodes.pbx01]
address = "127.0.0.11"
isolation = "stop"
[nodes.pbx02]
address = "127.0.0.12"
isolation = "stop"
[checkpoints]
cp1 = "127.0.0.21"
cp2 = "127.0.0.22"
cp3 = "127.0.0.23"
"""
PBX = """
[Service]
ExecStart={python} -m understudy.demo.sip_pbx --name pbx01 --listen 127.0.0.11:5060
Environment=PYTHONPATH={source}
StandardOutput=null
Restart=on-failure
RestartSec=200ms
[Install]
WantedBy=multi-user.target
"""
NAMED = """
include "/etc/bind/understudy.key";
options {{ directory "/var/cache/bind"; listen-on {{ 127.0.0.53; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; pid-file none; session-keyfile none; }};
controls {{ }};
zone "example.test" {{ type primary; file "/var/cache/bind/zone"; {include} }};
"""
ZONE = """$TTL 60
@ SOA ns1 hostmaster 1 3600 600 86400 60
@ NS ns1
ns1 A 127.0.0.53
pbx01 A 127.0.0.11
pbx02 A 127.0.0.12
"""
SSHD = """ListenAddress 127.0.0.11:22
HostKey /etc/ssh/ssh_host_ed25519_key
PidFile none
UsePAM yes
PasswordAuthentication no
PermitRootLogin no
Subsystem sftp internal-sftp
"""


class Pbx01:
    """The host."""

    def __init__(self, host: SystemdHost) -> None:
        self.host = host

    def run(self, *argv: str, within: float = 60) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.host.prefix, *argv],
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def sh(self, line: str) -> str:
        done = self.run("sh", "-c", line)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    def init(self, *words: str) -> str:
        done = self.run("understudy", "init", *words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def file(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.host.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def claim(self, node: str) -> None:
        said = self.run("understudy", "set-active", node, "--yes", "--accept-two-active")
        assert said.returncode == 0, said.stderr

    def agent(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """As the user that the agent is."""
        return self.run("runuser", "-u", "understudy", "--", *words)


@pytest.fixture(scope="module")
def pbx01(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pbx01]:
    require_root("ssh", "ssh-keygen", "sshd", "pkaction", "runuser", NRPE)
    need_programs("named", "named-checkconf")
    if not PROGRAM.exists():
        pytest.skip(f"SKIPPED: {PROGRAM} is not there (make check)")
    with booted(tmp_path_factory.mktemp("host")) as host:
        made = Pbx01(host)
        _prepare(made)
        yield made


def _prepare(pbx01: Pbx01) -> None:
    pbx01.file("/usr/bin/understudy", f'#!/bin/sh\nexec {PROGRAM} "$@"\n', 0o755)
    # Where this machine's Python is below a home that only root may enter.
    pbx01.sh("chmod 755 /root; install -d -m 755 /var/cache/bind /run/sshd")
    pbx01.sh("useradd --system --home-dir /var/lib/understudy --shell /bin/sh understudy")
    pbx01.sh("getent group bind >/dev/null || groupadd --system bind")
    pbx01.sh("install -d -o understudy -g understudy /var/lib/understudy")
    pbx01.sh("install -d -o root -g understudy -m 0750 /etc/understudy")
    pbx01.sh("mkdir -p /etc/ssh; rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -A")
    python = PROGRAM.with_name("python")
    pbx01.file("/etc/systemd/system/pbx.service", PBX.format(python=python, source=SOURCE))
    pbx01.file("/etc/systemd/system/backup.service", "[Service]\nExecStart=/bin/true\n")
    pbx01.file("/etc/systemd/system/backup.timer", "[Timer]\nOnCalendar=yearly\n")
    pbx01.file("/root/answers.toml", ANSWERS)
    pbx01.file("/etc/hosts", "127.0.0.1 localhost\n127.0.0.11 pbx01.example.test pbx01\n")
    pbx01.sh("systemctl daemon-reload; systemctl enable -q pbx; systemctl start dbus polkit")
    pbx01.init("--answers", "/root/answers.toml")
    pbx01.sh("understudy --node pbx01 init --install")
    _name_server(pbx01)
    pbx01.claim("pbx02")


def _name_server(pbx01: Pbx01) -> None:
    pbx01.init("--output", "/root/hosts")
    pbx01.sh("mkdir -p /etc/bind && sh /root/hosts/nameserver/install.sh")
    include = 'include "/etc/bind/understudy-policy.example.test";'
    pbx01.file("/etc/bind/named.conf", NAMED.format(include=include))
    pbx01.file("/var/cache/bind/zone", ZONE)
    pbx01.sh("named-checkconf /etc/bind/named.conf")
    pbx01.sh("ip address add 127.0.0.53/32 dev lo")  # BIND listens where an interface is.
    pbx01.sh("systemd-run -q --unit=named-test named -f -c /etc/bind/named.conf")
    _until(lambda: "127.0.0.53:53 " in pbx01.sh("ss -Hltn"), "named does not listen")


def _until(holds: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.1)


# Who may start the PBX


@pytest.mark.real
def test_a_refused_start_says_why_on_the_terminal(pbx01: Pbx01) -> None:
    ours, theirs = os.openpty()
    starting = subprocess.Popen(
        [*pbx01.host.prefix, "systemctl", "start", "pbx"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 4096):
            said += chunk
    except OSError:  # EIO: nobody has the other end any more.
        pass
    finally:
        os.close(ours)
    assert starting.wait(30) == 1
    assert b"understudy: the PBX may not start here: the claim names pbx02, epoch 1" in said
    assert b"understudy switchover" in said


@pytest.mark.real
def test_a_refused_start_says_why_to_a_script_and_in_the_units_log(pbx01: Pbx01) -> None:
    done = pbx01.run("systemctl", "start", "pbx")
    assert done.returncode == 1
    assert "the PBX may not start here: the claim names pbx02" in done.stderr
    status = pbx01.run("systemctl", "status", "--no-pager", "pbx").stdout
    # Though its standard error goes nowhere (StandardOutput=null).
    assert "understudy[" in status
    assert "the PBX may not start here: the claim names pbx02" in status


@pytest.mark.real
def test_a_refused_start_is_not_tried_for_ever(pbx01: Pbx01) -> None:
    assert pbx01.run("systemctl", "start", "pbx").returncode == 1
    _until(lambda: pbx01.host.state("pbx") in ("failed", "inactive"), "it is tried on and on")
    tried = pbx01.host.run("systemctl", "show", "-P", "NRestarts", "pbx").strip()
    assert tried in ("0", "1")
    # And every one is refused by us: systemd does not get tired of it (StartLimitBurst=5).
    for _ in range(5):
        said = pbx01.run("systemctl", "start", "pbx").stderr
        assert "the PBX may not start here" in said
    _until(lambda: pbx01.host.state("pbx") in ("failed", "inactive"), "it is tried on and on")


@pytest.mark.real
def test_a_timer_of_the_active_node_does_not_start_either(pbx01: Pbx01) -> None:
    done = pbx01.run("systemctl", "start", "backup.timer")
    assert done.returncode == 1
    assert pbx01.host.state("backup.timer") == "inactive"
    log = pbx01.run("systemctl", "status", "--no-pager", "understudy-may-start").stdout
    assert "the claim names pbx02" in log


@pytest.mark.real
def test_nothing_starts_it_at_boot_and_systemd_finds_no_fault(pbx01: Pbx01) -> None:
    assert pbx01.run("systemctl", "is-enabled", "pbx").stdout.strip() == "disabled"
    done = pbx01.run("systemd-analyze", "verify", "pbx.service", "backup.timer")
    assert "understudy" not in done.stderr, done.stderr


@pytest.mark.real
def test_where_the_claim_says_so_it_starts(pbx01: Pbx01) -> None:
    pbx01.claim("pbx01")
    try:
        done = pbx01.run("systemctl", "start", "pbx")
        assert done.returncode == 0, done.stderr
        assert pbx01.host.state("pbx") == "active"
    finally:
        pbx01.run("systemctl", "stop", "pbx")
        pbx01.claim("pbx02")


# What the agent may do


@pytest.mark.real
def test_the_agent_may_drive_its_units_and_no_others(pbx01: Pbx01) -> None:
    systemctl = ("systemctl", "--no-pager", "--no-ask-password")
    for words in (
        ("start", "--no-block", "--", "pbx.service"),
        ("reset-failed", "--", "pbx.service"),
        ("stop", "--", "pbx.service"),
        ("start", "--no-block", "--", "backup.timer"),
        ("stop", "--no-block", "--", "backup.timer"),
    ):
        done = pbx01.agent(*systemctl, *words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    for line in (
        "stop dbus.service",
        "disable pbx.service",
        "mask pbx.service",
        "kill backup.timer",
        "daemon-reload",
        "set-property pbx.service CPUWeight=1",
        "poweroff",
    ):
        assert pbx01.agent(*systemctl, *line.split()).returncode != 0, line


@pytest.mark.real
def test_the_agent_may_kill_what_lingers(pbx01: Pbx01) -> None:
    pbx01.claim("pbx01")
    try:
        pbx01.sh("systemctl start pbx")
        done = pbx01.agent("systemctl", "--no-ask-password", "kill", "--signal=KILL", "--", "pbx")
        assert done.returncode == 0, done.stderr
    finally:
        pbx01.run("systemctl", "stop", "pbx")
        pbx01.claim("pbx02")


@pytest.mark.real
def test_the_agent_reads_its_configuration_and_key_and_cannot_change_them(pbx01: Pbx01) -> None:
    for path in ("/etc/understudy/understudy.toml", "/etc/understudy/tsig.key"):
        assert pbx01.agent("test", "-r", path).returncode == 0, path
        assert pbx01.agent("test", "-w", path).returncode != 0, path
        assert pbx01.run("runuser", "-u", "nobody", "--", "test", "-r", path).returncode != 0


# The name server


@pytest.mark.real
@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("update add sip.example.test. 30 CNAME pbx01.example.test.", True),
        ("update delete sip.example.test. CNAME", True),
        ("update add sip.example.test. 30 A 192.0.2.99", False),
        ("update add pbx01.example.test. 30 A 192.0.2.99", False),
        ("update add _understudy.sip.example.test. 0 CNAME x.example.test.", False),
        ("update add www.example.test. 30 TXT x", False),
    ],
)
def test_the_key_changes_the_name_and_the_claim_and_nothing_else(
    pbx01: Pbx01, line: str, allowed: bool
) -> None:
    text = f"server 127.0.0.53\\nzone example.test\\n{line}\\nsend\\n"
    done = pbx01.run("sh", "-c", f"printf '{text}' | nsupdate -k /etc/understudy/tsig.key")
    assert (done.returncode == 0) is allowed, done.stderr


# The other node's way in


@pytest.fixture(scope="module")
def other(pbx01: Pbx01, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The key of pbx02 is known here, and an SSH server runs: what pbx02 would begin a command with."""
    pbx01.sh("ssh-keygen -q -t ed25519 -N '' -f /root/pbx02")
    agent = " ".join(pbx01.sh("cat /root/pbx02.pub").split()[:2])
    line = Keys(agent=agent, host="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5").line("pbx02")
    told = pbx01.init("--install", "--peer-keys", line)
    assert (
        "On pbx02, so that it knows pbx01:\n  understudy init --install --peer-keys 'pbx01 ssh-"
        in told
    )
    pbx01.file("/etc/ssh/sshd_test", SSHD)
    pbx01.sh("systemd-run -q --unit=sshd-test /usr/sbin/sshd -D -f /etc/ssh/sshd_test")
    _until(lambda: "127.0.0.11:22 " in pbx01.sh("ss -Hltn"), "sshd does not listen")
    own = pbx01.init("--keys").split()
    pbx01.file("/root/known_hosts", f"127.0.0.11 {own[3]} {own[4]}\n")
    options = ("BatchMode=yes", "IdentityFile=/root/pbx02", "UserKnownHostsFile=/root/known_hosts")
    return (
        *("ssh", "-b", "127.0.0.12", "-F", "none"),
        *(word for each in options for word in ("-o", each)),
    )


ME = "understudy@127.0.0.11"


@pytest.mark.real
def test_the_other_node_may_ask(pbx01: Pbx01, other: tuple[str, ...]) -> None:
    done = pbx01.run(*other, ME, "ask 1")
    assert json.loads(done.stdout) == {"ok": False, "why": "no agent runs on pbx01"}
    assert json.loads(pbx01.run(*other, ME, "wake").stdout) == {"ok": True}
    assert json.loads(pbx01.run(*other, ME, "status").stdout)["ok"] is True


@pytest.mark.real
def test_the_other_node_may_fence(pbx01: Pbx01, other: tuple[str, ...]) -> None:
    pbx01.claim("pbx01")
    try:
        pbx01.sh("systemctl start pbx")
        pbx01.claim("pbx02")
        done = pbx01.run(*other, ME, "fence pbx01 9")
        assert json.loads(done.stdout) == {"ok": True, "stopped": True}, done
        assert pbx01.host.state("pbx") == "inactive"
    finally:
        pbx01.run("systemctl", "stop", "pbx")


@pytest.mark.real
@pytest.mark.parametrize(
    "asked", ["bash -i", "id", "", "ask 1; id", "internal-sftp", "cat /etc/passwd"]
)
def test_the_other_node_gets_no_shell_and_no_other_command(
    pbx01: Pbx01, other: tuple[str, ...], asked: str
) -> None:
    done = pbx01.run(*other, "-T", ME, *([asked] if asked else []))
    assert done.returncode != 0
    assert json.loads(done.stdout)["why"].startswith("not a")
    at_a_terminal = pbx01.run(*other, "-tt", ME, *([asked] if asked else []))
    assert "PTY allocation request failed" in at_a_terminal.stderr
    assert not at_a_terminal.stdout


@pytest.mark.real
def test_the_other_node_gets_no_files_and_no_tunnel(pbx01: Pbx01, other: tuple[str, ...]) -> None:
    copied = pbx01.run("sftp", "-b", "/dev/null", *other[1:3], *other[5:], ME)
    assert copied.returncode != 0
    for tunnel in (("-W", "127.0.0.11:22"), ("-N", "-R", "127.0.0.11:2222:127.0.0.11:22")):
        done = pbx01.run(*other, "-o", "ExitOnForwardFailure=yes", *tunnel, ME)
        assert done.returncode != 0, tunnel
        assert "SSH-2.0" not in done.stdout


@pytest.mark.real
def test_the_key_is_of_no_use_elsewhere(pbx01: Pbx01, other: tuple[str, ...]) -> None:
    elsewhere = [word if word != "127.0.0.12" else "127.0.0.66" for word in other]
    done = pbx01.run(*elsewhere, ME, "ask 1")
    assert "Permission denied" in done.stderr


@pytest.mark.real
def test_our_own_way_out_uses_our_own_key(pbx01: Pbx01, other: tuple[str, ...]) -> None:
    for path, mode in ((ssh.IDENTITY, "600 understudy"), (ssh.KNOWN_HOSTS, "640 root")):
        assert pbx01.sh(f"stat -c '%a %U' {path}").strip() == mode
    assert pbx01.agent("ssh-keygen", "-y", "-P", "", "-f", ssh.IDENTITY).returncode == 0


# The check point


@pytest.mark.real
def test_nrpe_answers_both_nodes_and_those_that_it_knew(pbx01: Pbx01) -> None:
    # As its own tmpfiles.d has it; this host has booted without.
    pbx01.sh("install -d -o nagios -g nagios /run/nagios")
    pbx01.sh("sh /root/hosts/cp1/install.sh")
    _until(lambda: "5666" in pbx01.sh("ss -Hltn"), "nrpe does not listen")
    for source in ("127.0.0.11", "127.0.0.12", "127.0.0.1"):
        asked = (CHECK_NRPE, "-H", "127.0.0.1", "-b", source, "-c", "check_pbx01")
        done = pbx01.run(*asked)
        assert done.stdout.startswith("SIP CRITICAL"), f"{source}: {done.stdout}{done.stderr}"
    stranger = pbx01.run(CHECK_NRPE, "-H", "127.0.0.1", "-b", "127.0.0.66", "-c", "check_pbx01")
    assert "SIP" not in stranger.stdout


# And away again


@pytest.mark.real
def test_after_uninstall_the_pbx_is_started_by_hand_and_all_can_begin_anew(pbx01: Pbx01) -> None:
    pbx01.init("--uninstall")
    assert pbx01.run("systemctl", "start", "pbx").returncode == 0
    assert pbx01.run("systemctl", "start", "backup.timer").returncode == 0
    left = pbx01.sh("ls /etc/polkit-1/rules.d /etc/systemd/system")
    assert "understudy" not in left.replace("understudy.conf.old", "")
    assert pbx01.run("test", "-e", "/etc/understudy/understudy.toml").returncode == 0
    _begin_anew_and_measure_the_stop(pbx01)


def _begin_anew_and_measure_the_stop(pbx01: Pbx01) -> None:
    """The PBX serves, and nobody guards it any more."""
    pbx01.sh(
        "systemctl is-active pbx && sed -i '/^stop_within/d; /^active_only/d' /root/answers.toml"
    )
    ours, theirs = os.openpty()
    asking = subprocess.Popen(
        [
            *pbx01.host.prefix,
            *(
                "understudy",
                "--config",
                "/root/new.toml",
                "init",
                "--answers",
                "/root/answers.toml",
            ),
            *("--answer", "key_file=/root/new.key"),
        ],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        # Both host names, measure it, what was measured, zone, record, no mail.
        os.write(ours, b"\n\ny\n\n\n\n\n")
        _, said = asking.communicate(timeout=60)
    finally:
        asking.kill()
        os.close(ours)
    assert asking.returncode == 0, said
    assert "all calls are dropped" in said
    assert "The stop took 0." in said
    assert 'stop_within = "5s"' in pbx01.sh("cat /root/new.toml")
    assert pbx01.host.state("pbx") == "active"
