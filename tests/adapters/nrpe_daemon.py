"""Starts Debian's real nrpe on loopback, and makes the certificates it may want."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.certificates import authority, sign

NRPE = "/usr/sbin/nrpe"
CHECK_NRPE = "/usr/lib/nagios/plugins/check_nrpe"
LONG = 20000  # Bytes that check_long prints.

COMMANDS = {
    "check_up": "echo 'SIP OK - answers in 3 ms|time=0.003s'",
    "check_slow": "echo 'SIP WARNING - answers in 2500 ms'; exit 1",
    "check_down": "echo 'SIP CRITICAL - no answer'; exit 2",
    "check_odd": "echo 'SIP UNKNOWN - no such host'; exit 3",
    "check_code9": "echo 'Traceback'; exit 9",
    "check_mute": "exit 0",
    "check_late": "sleep 5; echo OK",
    "check_pause": "sleep 0.3; echo OK",
    "check_lines": "echo first; echo second",
    "check_long": f"head -c {LONG} /dev/zero | tr '\\\\0' x",
}


def need(program: str) -> str:
    """The program's path.  Without it the test is skipped; in CI it fails."""
    found = shutil.which(program)
    if found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"NOT TESTED: {program} is not installed")


@dataclass(frozen=True, kw_only=True)
class Daemon:
    address: str
    port: int
    log: Path


@contextmanager
def daemon(
    *options: str,
    config: tuple[str, ...] = (),
    port: int = 0,
    allowed: str = "127.0.0.0/8",
    timeout: int = 60,
) -> Iterator[Daemon]:
    """A running nrpe.  It refuses to be root, and so cannot read pytest's own directories."""
    need(NRPE)
    with _home() as home:
        port = port or free_port()
        user = _user()
        log = home / "nrpe.log"
        path = home / "nrpe.cfg"
        lines = [
            "server_address=127.0.0.1",
            f"server_port={port}",
            f"nrpe_user={user}",
            "nrpe_group=" + _group(user),
            f"allowed_hosts={allowed}",
            f"pid_file={home}/nrpe.pid",
            f"log_file={log}",
            f"command_timeout={timeout}",
            *config,
            *(f'command[{name}]=/bin/sh -c "{line}"' for name, line in COMMANDS.items()),
        ]
        path.write_text("\n".join(lines) + "\n")
        own(home)
        process = subprocess.Popen(
            [NRPE, "-f", "-c", str(path), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_for(port, process, log)
            yield Daemon(address="127.0.0.1", port=port, log=log)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def own(path: Path) -> None:
    """Let the daemon's user read it."""
    entry = pwd.getpwnam(_user())
    if os.getuid() == 0:
        for each in (path, *path.rglob("*")):
            os.chown(each, entry.pw_uid, entry.pw_gid)


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="understudy-nrpe-") as name:
        yield Path(name)


def _user() -> str:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "nagios" if "nagios" in names else "nobody"


def _group(user: str) -> str:
    return str(pwd.getpwnam(user).pw_gid)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Without connecting, which nrpe would log as an error and fork for."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if _listens(port):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    said = log.read_text() if log.exists() else ""
    pytest.fail(f"nrpe does not start: {said}")


def _listens(port: int) -> bool:
    wanted = f"0100007F:{port:04X}"
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[1] == wanted and row.split()[3] == "0A" for row in rows)


@dataclass(frozen=True, kw_only=True)
class Papers:
    """A CA, and what it (or another) has signed."""

    home: Path
    ca: Path

    def path(self, name: str) -> Path:
        return self.home / name

    def daemon(self, name: str, *more: str) -> tuple[str, ...]:
        """nrpe.cfg with a certificate and without anonymous suites."""
        return (
            f"ssl_cert_file={self.home}/{name}.pem",
            f"ssl_privatekey_file={self.home}/{name}.key",
            f"ssl_cacert_file={self.ca}",
            "ssl_cipher_list=ALL:!aNULL:!eNULL",
            *more,
        )


@contextmanager
def papers() -> Iterator[Papers]:
    """server (for 127.0.0.1, cp1.example.com), expired, elsewhere, client; stranger: another CA."""
    need("openssl")
    with _home() as home:
        authority(home, "ca")
        authority(home, "other")
        good = "subjectAltName=IP:127.0.0.1,DNS:cp1.example.com"
        sign(home, "server", "ca", good)
        sign(home, "expired", "ca", good, days=-1)
        sign(home, "elsewhere", "ca", "subjectAltName=DNS:cp9.example.com")
        sign(home, "client", "ca", "extendedKeyUsage=clientAuth")
        sign(home, "stranger", "other", good)
        own(home)
        yield Papers(home=home, ca=home / "ca.pem")
