"""Starts real BIND name servers for a test: a primary that takes updates, and its secondary.

Both listen on 127.0.0.1, each on a port of its own.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdatatype
import pytest

ZONE = "example.test"
ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
ZONE_TEXT = """$TTL 60
@ SOA ns1 hostmaster 1 3600 600 86400 60
@ NS ns1
@ NS ns2
ns1 A 127.0.0.1
ns2 A 127.0.0.1
pbx01 A 192.0.2.11
pbx02 A 198.51.100.12
"""
POLICY = f"grant strong zonesub ANY; grant weak name only.{ZONE}. CNAME;"


@dataclass
class Bind:
    """One running `named`, ended by its own pid."""

    directory: Path
    port: int
    address: str = "127.0.0.1"  # BIND listens only on addresses that an interface has.
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                ["named", "-g", "-n", "1", "-c", str(self.directory / "named.conf")],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while not serves(self.address, self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"named did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def freeze(self) -> None:
        """The kernel goes on taking calls for it; nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Pair:
    """A primary and its secondary, and the keys that they know."""

    primary: Bind
    secondary: Bind
    keys: Path  # The directory of the key files.

    def key(self, name: str = "strong") -> Path:
        return self.keys / f"{name}.key"

    def nsupdate(self, *lines: str) -> None:
        """Change the zone from outside, as an administrator would."""
        update_zone(self.primary.port, self.key(), *lines)

    def dig(self, server: Bind, *words: str) -> list[str]:
        command = ["dig", "+short", "+norecurse", "+time=2", "+tries=1", f"@{server.address}"]
        done = subprocess.run(
            [*command, "-p", str(server.port), *words], capture_output=True, timeout=10, check=True
        )
        return sorted(done.stdout.decode().split("\n")[:-1])


@contextmanager
def bind_pair(directory: Path, *, forwarding: bool = False) -> Iterator[Pair]:
    """A primary and a secondary of `example.test`.  With `forwarding` the secondary passes updates on."""
    need_programs("named", "tsig-keygen", "nsupdate", "dig")
    keys = directory / "keys"
    keys.mkdir()
    for name in ("strong", "weak", "unknown"):
        make_key(keys / f"{name}.key", name)
    for algorithm in ALGORITHMS:
        make_key(keys / f"{algorithm}.key", algorithm, algorithm)
    make_key(keys / "other-secret.key", "strong")
    here, there = free_port(), free_port()
    known = ("strong", "weak", *ALGORITHMS)
    primary = _configure(
        directory / "primary",
        here,
        [keys / f"{each}.key" for each in known],
        f'type primary; file "zone"; update-policy {{ {POLICY} }};'
        f" also-notify {{ 127.0.0.1 port {there}; }}; notify explicit; allow-transfer {{ any; }};",
    )
    (primary.directory / "zone").write_text(ZONE_TEXT)
    forward = "allow-update-forwarding { any; };" if forwarding else ""
    secondary = _configure(
        directory / "secondary",
        there,
        [keys / f"{each}.key" for each in known],
        f'type secondary; file "zone"; primaries {{ 127.0.0.1 port {here}; }};'
        f" min-refresh-time 1; min-retry-time 1; max-retry-time 1; {forward}",
    )
    try:
        primary.start()
        secondary.start()
        yield Pair(primary, secondary, keys)
    finally:
        secondary.stop()
        primary.stop()


@contextmanager
def demo_server(
    key: Path, *records: str, address: str = "127.0.0.1", port: int = 0
) -> Iterator[int]:
    """The shipped name server in a process of its own; its port."""
    port = port or free_port(address)
    command = [sys.executable, "-m", "understudy.demo.nameserver", "--zone", ZONE]
    command += ["--listen", f"{address}:{port}", "--key-file", str(key)]
    for each in records:
        command += ["--record", each]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 20
            while not serves(address, port):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("the demo name server did not start")
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait(20)


def update_zone(port: int, key: Path, *lines: str) -> None:
    """`nsupdate` at 127.0.0.1."""
    text = "\n".join([f"server 127.0.0.1 {port}", f"zone {ZONE}", *lines, "send", ""])
    subprocess.run(
        ["nsupdate", "-k", str(key)],
        input=text.encode(),
        check=True,
        timeout=10,
        capture_output=True,
    )


def serves(address: str, port: int) -> bool:
    """Does a server answer for the zone there, with authority?"""
    query = dns.message.make_query(ZONE, dns.rdatatype.SOA)
    try:
        answer = dns.query.udp(query, address, timeout=0.5, port=port)
    except (OSError, dns.exception.DNSException):
        return False
    return bool(answer.answer and answer.flags & dns.flags.AA)


def make_key(path: Path, name: str, algorithm: str = "hmac-sha256") -> Path:
    done = subprocess.run(
        ["tsig-keygen", "-a", algorithm, name], capture_output=True, check=True, timeout=10
    )
    path.write_bytes(done.stdout)
    path.chmod(0o600)
    return path


def need_programs(*names: str) -> None:
    """Skip loudly where a Debian package is missing; fail where that must not be."""
    missing = [
        each for each in names if shutil.which(each, path=f"{os.environ['PATH']}:/usr/sbin") is None
    ]
    if missing:
        reason = f"NOT TESTED: {', '.join(missing)} missing: apt-get install bind9 bind9-dnsutils"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def free_port(address: str = "127.0.0.1") -> int:
    """A port that is free for TCP and UDP at this moment."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((address, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((address, port))
            except OSError:
                continue
            return port


def _configure(directory: Path, port: int, keys: list[Path], zone: str) -> Bind:
    directory.mkdir()
    includes = "\n".join(f'include "{each}";' for each in keys)
    (directory / "named.conf").write_text(
        f"""{includes}
options {{
    directory "{directory}"; pid-file none; session-keyfile "{directory}/session.key";
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; notify-delay 0; startup-notify-rate 1000;
    serial-query-rate 1000; notify-rate 1000; tcp-idle-timeout 100;
}};
controls {{ }};
zone "{ZONE}" {{ {zone} }};
"""
    )
    return Bind(directory, port)
