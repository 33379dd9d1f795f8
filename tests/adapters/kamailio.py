"""A real Kamailio on loopback that answers each of its ports in its own way, and TLS before it."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

WAYS: Mapping[str, str] = {  # By name, the reply, and headers below it; "" for none.
    "ready": "200 OK",
    "stranger": "401 Unauthorized",
    "forbidden": "403 Forbidden",
    "missing": "404 Not Found",
    "draining": "503 Service Unavailable",
    "trying": "100 Trying",
    "elsewhere": "200 OK\nContact: <sip:pbx@192.0.2.11:5060;transport=udp>",
    "mute": "",
}
START = 10.0  # Seconds that it may take to start, on a busy machine.


@dataclass(frozen=True, slots=True, kw_only=True)
class Kamailio:
    ports: Mapping[str, int]  # By way, UDP and TCP.
    host: str
    pid: int

    def port(self, way: str) -> int:
        return self.ports[way]


@contextlib.contextmanager
def kamailio(host: str = "127.0.0.1", ways: Mapping[str, str] = WAYS) -> Iterator[Kamailio]:
    """Started on free ports, ended by its own pid.  Skips (in CI: fails) where it is not installed."""
    program = need("kamailio")
    with tempfile.TemporaryDirectory(prefix="kamailio-") as home:
        process, ports = _start(program, Path(home), host, ways)
        try:
            yield Kamailio(ports=ports, host=host, pid=process.pid)
        finally:
            process.send_signal(signal.SIGTERM)  # The main process takes its children with it.
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # A session of its own: nothing else in it.
                process.wait(timeout=10)


def need(program: str, package: str = "") -> str:
    """Its path.  Skips, in CI fails, where it is not installed."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found:
        return found
    why = f"{program} is not installed: apt-get install {package or program}"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def _start(
    program: str, home: Path, host: str, ways: Mapping[str, str]
) -> "tuple[subprocess.Popen[bytes], dict[str, int]]":
    log = home / "log"
    for _ in range(3):  # Somebody else may take a port between our look and its start.
        ports = dict(zip(ways, free_ports(len(ways), host), strict=True))
        config = home / "kamailio.cfg"
        config.write_text(_config(host, ways, ports))
        command = [program, "-f", str(config), "-DD", "-E", "-m", "16", "-M", "4"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "-Y", str(home), "-P", str(home / "pid")],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if _answers(process, host, next(iter(ports.values()))):
            return process, ports
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
    pytest.fail(f"kamailio did not start:\n{log.read_text(errors='replace')}")


def _config(host: str, ways: Mapping[str, str], ports: Mapping[str, int]) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    lines = ["#!KAMAILIO", "debug=0", "log_stderror=yes", "children=1", "tcp_children=1"]
    lines += ["auto_aliases=no", "dns=no", "rev_dns=no"]
    lines += [
        'loadmodule "tm.so"',
        'loadmodule "sl.so"',
        'loadmodule "pv.so"',
        'loadmodule "textops.so"',
    ]
    for port in ports.values():
        lines += [f"listen={protocol}:{bracketed}:{port}" for protocol in ("udp", "tcp")]
    lines.append("request_route {")
    for way, reply in ways.items():
        line, *headers = reply.split("\n")
        code, _, reason = line.partition(" ")
        if code:
            act = "".join(f'append_to_reply("{each}\\r\\n"); ' for each in headers)
            act += f'sl_send_reply("{code}", "{reason}"); '
            lines.append(f"  if ($Rp == {ports[way]}) {{ {act}exit; }}")
    return "\n".join([*lines, "  exit;", "}", ""])


def _answers(process: "subprocess.Popen[bytes]", host: str, port: int) -> bool:
    """Without any code of ours: what is tested must not decide when the test begins."""
    deadline = time.monotonic() + START
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(0.1)
        us = sock.getsockname()[1]
        sent_by = f"[{host}]:{us}" if ":" in host else f"{host}:{us}"
        while time.monotonic() < deadline and process.poll() is None:
            request = (
                f"OPTIONS sip:{sent_by} SIP/2.0\r\nVia: SIP/2.0/UDP {sent_by};branch=z9hG4bKx\r\n"
                f"From: <sip:test@localhost>;tag=x\r\nTo: <sip:test@localhost>\r\n"
                "Call-ID: x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
            )
            with contextlib.suppress(OSError):
                sock.sendto(request.encode(), (host, port))
                if sock.recv(4096).startswith(b"SIP/2.0"):
                    return True
            time.sleep(0.02)
    return False


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that are free for UDP and for TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            udp = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            udp.bind((host, 0))
            port = udp.getsockname()[1]
            tcp = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            with contextlib.suppress(OSError):
                tcp.bind((host, port))
                found.append(port)
        return found


@contextlib.contextmanager
def tls_before(server: Kamailio, way: str, certificate: Path) -> Iterator[int]:
    """A port that speaks TLS and hands everything on to Kamailio over TCP.

    Debian's kamailio package has no TLS module: the TLS here is Python's, the SIP is Kamailio's.
    `certificate`: PEM, with its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server((server.host, 0))
    listener.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                plain, _ = listener.accept()
                plain.settimeout(3)
                with (
                    plain,
                    context.wrap_socket(plain, server_side=True) as secured,
                    socket.create_connection((server.host, server.port(way)), 3) as behind,
                ):
                    behind.sendall(secured.recv(65536))
                    secured.sendall(behind.recv(65536))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        thread.join()
        listener.close()


def certificate(home: Path, address: str = "127.0.0.1") -> Path:
    """A PEM file with key and certificate, its own authority."""
    openssl = need("openssl")
    key, paper, both = home / "key.pem", home / "certificate.pem", home / "both.pem"
    # fmt: off
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=pbx", "-addext", f"subjectAltName=IP:{address}",
            "-keyout", str(key), "-out", str(paper),
        ],
        check=True, capture_output=True, timeout=30,
    )
    # fmt: on
    both.write_text(key.read_text() + paper.read_text())
    return both
