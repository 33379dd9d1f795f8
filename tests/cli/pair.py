"""A pair on loopback: two PBXs, a name server, a claim in a file, doors that are commands."""

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from understudy.adapters.claims.record import from_text, to_text
from understudy.cli.main import main
from understudy.core.claim import Claim, first
from understudy.wiring import load_config

NODES = ("pbx01", "pbx02")
FAST = {
    "interval": "1s",
    "patience": "10s",
    "announce": "4s",
    "claim_stale": "1500ms",
    "checkpoints_stale": "3s",
    "restart_grace": "2s",
    "settle_down": "1s",
    "first_proof": "2s",
}
_KEY = 'key "understudy" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; };\n'
_START = """\
    #!/bin/sh
    {folder}/status && exit 0
    test -e {folder}/broken && exit 1
    setsid {python} -m understudy.demo.sip_pbx --listen {address}:{port} --name {node} >/dev/null 2>&1 &
    echo $! > {folder}/pid
"""
_STOP = """\
    #!/bin/sh
    test -e {folder}/pid || exit 0
    kill "$(cat {folder}/pid)" 2>/dev/null
    rm {folder}/pid
"""
_STATUS = """\
    #!/bin/sh
    test -e {folder}/pid || exit 3
    grep -q '^State:.[^Z]' /proc/"$(cat {folder}/pid)"/status 2>/dev/null || exit 1
"""
_CONFIG = """\
    [pair]
    name = "acme"
    service = "sip.example.test"
    preferred = "pbx01"

    {nodes}

    [detection]
    {detection}

    {checkpoints}

    [claim]
    kind = "file"
    path = "{folder}/claim"
    timeout = "500ms"

    [name]
    kind = "rfc2136"
    server = "{ns}"
    port = {ns_port}
    zone = "example.test"
    key_file = "{folder}/tsig.key"
    servers = ["{ns}:{ns_port}"]
    verify_within = "2s"

    [service]
    kind = "command"
    start = ["{folder}/{node}/start"]
    stop = ["{folder}/{node}/stop"]
    status = ["{folder}/{node}/status"]
    pid_file = "{folder}/{node}/pid"
    stop_within = "2s"
    start_within = "8s"
    sip = "{address}:{port}"
    sip_timeout = "500ms"

    [journal]
    path = "{folder}/{node}/journal.sqlite3"
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


class CliPair:
    """Files in `folder`; end it with `end`."""

    def __init__(self, folder: Path, **detection: str) -> None:
        self.folder = folder
        net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
        self.addresses = {node: f"{net}.{number}" for number, node in enumerate(NODES, 11)}
        self.port = free_port(net + ".11")
        self.ns, self.ns_port = f"{net}.53", free_port(f"{net}.53")
        self.running: list[subprocess.Popen[str]] = []
        key = folder / "tsig.key"
        key.write_text(_KEY)
        key.chmod(0o600)
        self.detection = {**FAST, **detection}
        for node in NODES:
            self._write(node)

    def config(self, node: str) -> Path:
        return self.folder / f"{node}.toml"

    def run(self, node: str, *words: str, within: float = 40) -> subprocess.CompletedProcess[str]:
        """`understudy WORDS` on that node."""
        return subprocess.run(
            self.argv(node, *words),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )

    def here(self, node: str, *words: str) -> Done:
        """The same in this process: quicker."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--config", str(self.config(node)), "--node", node, *words])
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, node: str, *words: str) -> dict[str, Any]:
        done = self.here(node, *words, "--json")
        try:
            found = json.loads(done.out)
        except ValueError:
            raise AssertionError(f"{words}: {done}") from None
        assert isinstance(found, dict)
        return found

    def argv(self, node: str, *words: str) -> list[str]:
        where = ["--config", str(self.config(node)), "--node", node]
        return [sys.executable, "-m", "understudy", *where, *words]

    def start(self, node: str, *words: str) -> subprocess.Popen[str]:
        """In the background; what it says goes to NODE/said."""
        with (self.folder / node / "said").open("a") as said:
            process = subprocess.Popen(
                self.argv(node, *words),
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=_environment(),
            )
        self.running.append(process)
        return process

    def start_name_server(self) -> None:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "understudy.demo.nameserver"),
                *("--listen", f"{self.ns}:{self.ns_port}", "--zone", "example.test"),
                *("--key-file", str(self.folder / "tsig.key")),
                *("--record", "sip 30 CNAME pbx01.example.test."),
            ],
            text=True,
            env=_environment(),
        )
        self.running.append(process)

    def said(self, node: str) -> str:
        return (self.folder / node / "said").read_text()

    def pbx_pid(self, node: str) -> int:
        """0 if it does not run."""
        status = subprocess.run([self.folder / node / "status"], check=False)
        return int((self.folder / node / "pid").read_text()) if status.returncode == 0 else 0

    def kill_pbx(self, node: str) -> None:
        pid = self.pbx_pid(node)
        assert pid, f"no PBX runs on {node}"
        os.kill(pid, signal.SIGKILL)

    @property
    def claim(self) -> Claim:
        return from_text((self.folder / "claim").read_text().strip())

    def begin(self, node: str = "pbx01", **changes: Any) -> None:
        """As after a year: `node` is active, and has served."""
        digest = load_config(self.config(node)).digest
        claim = replace(first(node, digest=digest), served=True, **changes)
        (self.folder / "claim").write_text(to_text(claim) + "\n")

    def phase(self, node: str) -> str:
        return str(self.json(node, "status")["phase"])

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        for node in NODES:
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / node / "pid").read_text()), signal.SIGKILL)

    def _write(self, node: str) -> None:
        place = self.folder / node
        place.mkdir()
        facts: dict[str, Any] = {
            "folder": place,
            "python": sys.executable,
            "node": node,
            "address": self.addresses[node],
            "port": self.port,
        }
        for name, text in (("start", _START), ("stop", _STOP), ("status", _STATUS)):
            script = place / name
            script.write_text(textwrap.dedent(text).format(**facts))
            script.chmod(0o755)
        facts.update(
            folder=self.folder,
            ns=self.ns,
            ns_port=self.ns_port,
            nodes="\n".join(self._node(each) for each in NODES),
            detection="\n".join(f'{key} = "{value}"' for key, value in self.detection.items()),
            checkpoints="\n".join(
                f'[checkpoints.cp{number}]\nkind = "sip"\nport = {self.port}\ntimeout = "500ms"'
                for number in (1, 2, 3)
            ),
        )
        self.config(node).write_text(textwrap.dedent(_CONFIG).format(**facts))

    def _node(self, name: str) -> str:
        door = json.dumps(self.argv(name, "answer"))
        return (
            f'[nodes.{name}]\nhost = "{name}.example.test"\naddress = "{self.addresses[name]}"\n'
            f'isolation = "stop"\ndoor = {door}'
        )


@contextmanager
def pair(folder: Path, **detection: str) -> Iterator[CliPair]:
    """Ready: the name server runs, nothing else."""
    made = CliPair(folder, **detection)
    made.start_name_server()
    try:
        yield made
    finally:
        made.end()


def until(holds: Callable[[], object], *, within: float, what: str) -> None:
    ends = time.monotonic() + within
    while not holds():
        assert time.monotonic() < ends, f"not within {within} s: {what}"
        time.sleep(0.1)


def free_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((address, 0))
        return int(udp.getsockname()[1])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
