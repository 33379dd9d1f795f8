"""A pair of nodes on loopback as real processes: agents, PBXs, doors.

What they ask (check points, claim, name server) is written by who makes the pair.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters.kamailio import free_ports, need
from understudy import wiring
from understudy.core.claim import Claim, How, first
from understudy.core.model import State
from understudy.errors import JournalError
from understudy.ports import ClaimStore
from understudy.runtime.daemon import Node
from understudy.runtime.journal import SqliteJournal

NODES = ("pbx01", "pbx02")
ZONE = "example.test"
LITTLE = Path(__file__).with_name("little_pbx.py")
_START = """\
    #!/bin/sh
    {folder}/status && exit 0
    test -e {folder}/broken && echo "the PBX is broken" && exit 1
    setsid {pbx} >{folder}/pbx.log 2>&1 &
    echo $! > {folder}/pid
"""
_STOP = """\
    #!/bin/sh
    test -e {folder}/pid || exit 0
    kill "$(cat {folder}/pid)" 2>/dev/null
    while {folder}/status; do sleep 0.05; done
    rm -f {folder}/pid
"""
_STATUS = """\
    #!/bin/sh
    test -e {folder}/pid || exit 3
    read -r line < /proc/"$(cat {folder}/pid)"/stat 2>/dev/null || exit 1
    case "$line" in *") Z "*) exit 1 ;; esac
"""
_CONFIG = """\
    [pair]
    name = "acme"
    service = "{service}"
    preferred = "pbx01"

    {nodes}

    [detection]
    {detection}

    {rest}

    [service]
    kind = "command"
    start = ["{home}/start"]
    stop = ["{home}/stop"]
    status = ["{home}/status"]
    pid_file = "{home}/pid"
    stop_within = "1500ms"
    start_within = "8s"
    sip = "{address}:{port}"
    sip_timeout = "500ms"

    [journal]
    path = "{home}/journal/journal.sqlite3"
"""
_KAMAILIO = """\
    #!KAMAILIO
    debug=0
    log_stderror=yes
    children=1
    disable_tcp=yes
    auto_aliases=no
    dns=no
    rev_dns=no
    loadmodule "sl.so"
    listen=udp:{address}:{port}
    request_route {{
      sl_send_reply("200", "OK");
      exit;
    }}
"""


@dataclass(kw_only=True)
class Pair:
    """Files in `folder`, one folder in it per node.  End it with `end`."""

    folder: Path
    detection: Mapping[str, str]
    rest: str  # The sections check points, claim and name, the same for both nodes.
    service: str = f"sip.{ZONE}"
    with_kamailio: bool = False
    addresses: dict[str, str] = field(init=False)
    port: int = field(init=False)
    running: dict[str, list["subprocess.Popen[str]"]] = field(init=False)
    _nodes: dict[str, Node] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
        self.addresses = {node: f"{net}.{number}" for number, node in enumerate(NODES, 11)}
        (self.port,) = free_ports(1, self.addresses[NODES[0]])
        self.running = {node: [] for node in NODES}

    def write(self) -> None:
        """Configurations and the PBXs' scripts."""
        for node in NODES:
            self.home(node).mkdir(parents=True)
            (self.home(node) / "journal").mkdir()
            self._write_scripts(node)
            self._write_config(node)

    def home(self, node: str) -> Path:
        return self.folder / node

    def config(self, node: str) -> Path:
        return self.folder / f"{node}.toml"

    def edit(self, node: str, old: str, new: str) -> None:
        """Change the configuration of that node."""
        text = self.config(node).read_text()
        assert old in text, f"no {old} in the configuration"
        self.config(node).write_text(text.replace(old, new))

    def pids(self, node: str) -> list[int]:
        """Of what runs there in our name: agents and commands."""
        return [each.pid for each in self.running[node] if each.poll() is None]

    # Agents and commands

    def argv(self, node: str, *words: str) -> list[str]:
        where = ["--config", str(self.config(node)), "--node", node]
        return [sys.executable, "-m", "understudy", *where, *words]

    def start(
        self, node: str, *words: str, argv: list[str] | None = None
    ) -> "subprocess.Popen[str]":
        """In the background; what it says goes to NODE/said."""
        with (self.home(node) / "said").open("a") as said:
            process = subprocess.Popen(
                argv or self.argv(node, *(words or ("run",))),
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self.running[node].append(process)
        return process

    def run(self, node: str, *words: str, within: float = 40) -> "subprocess.CompletedProcess[str]":
        """`understudy WORDS` there."""
        process = subprocess.Popen(
            self.argv(node, *words),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.running[node].append(process)
        out, err = process.communicate(timeout=within)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, node: str, *words: str) -> dict[str, Any]:
        done = self.run(node, *words, "--json")
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def said(self, node: str) -> str:
        path = self.home(node) / "said"
        return path.read_text() if path.exists() else ""

    # What is so, from the files

    def node(self, name: str) -> Node:
        if name not in self._nodes:
            self._nodes[name] = wiring.build(wiring.load_config(self.config(name)), name)
        return self._nodes[name]

    def store(self) -> ClaimStore:
        return wiring.claim_store(wiring.load_config(self.config("pbx01")))

    def journal(self, node: str) -> SqliteJournal:
        return self.node(node).journal()

    def state(self, node: str) -> State | None:
        """As journalled; None where no agent has written anything yet."""
        try:
            journal = self.node(node).journal()
        except JournalError:
            return None
        with closing(journal):
            return journal.state

    def phase(self, node: str) -> str:
        state = self.state(node)
        return "" if state is None else str(state.phase)

    def old_claim(self, node: str = "pbx01", **changes: Any) -> Claim:
        """As after a year: `node` is active, and has served."""
        digest = wiring.load_config(self.config(node)).digest
        claim = replace(first(node, digest=digest), served=True, how=How.SET)
        return replace(claim, **changes)

    # PBXs

    def pbx_pid(self, node: str) -> int:
        """0 if it does not run."""
        status = subprocess.run([self.home(node) / "status"], check=False)
        return int((self.home(node) / "pid").read_text()) if status.returncode == 0 else 0

    def start_pbx(self, node: str) -> None:
        """By hand, without asking anybody."""
        subprocess.run([self.home(node) / "start"], check=True)

    def kill_pbx(self, node: str) -> None:
        pid = self.pbx_pid(node)
        assert pid, f"no PBX runs on {node}"
        os.killpg(pid, signal.SIGKILL)

    def kill_host(self, node: str) -> None:
        """As by a power failure: first whoever could still write, then the PBX."""
        for process in self.running[node]:
            if process.poll() is None:
                process.kill()
                process.wait(10)
        self.kill_pbx(node)

    def end(self) -> None:
        everything = [each for processes in self.running.values() for each in processes]
        for process in everything:
            if process.poll() is None:
                process.terminate()
        for process in everything:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        for node in NODES:
            with suppress(OSError, ValueError):
                os.killpg(int((self.home(node) / "pid").read_text()), signal.SIGKILL)

    def _write_scripts(self, node: str) -> None:
        home = self.home(node)
        facts = {"address": self.addresses[node], "port": self.port}
        if self.with_kamailio:
            program, config = need("kamailio"), home / "kamailio.cfg"
            config.write_text(textwrap.dedent(_KAMAILIO).format(**facts))
            pbx = f"{program} -DD -E -f {config} -m 16 -M 4 -Y {home}"
        else:
            pbx = f"{python()} -I -S {LITTLE} {self.addresses[node]} {self.port}"
        for name, text in (("start", _START), ("stop", _STOP), ("status", _STATUS)):
            script = home / name
            script.write_text(textwrap.dedent(text).format(folder=home, pbx=pbx))
            script.chmod(0o755)

    def _write_config(self, node: str) -> None:
        text = textwrap.dedent(_CONFIG).format(
            service=self.service,
            nodes="\n".join(self._node(each) for each in NODES),
            detection="\n".join(f'{key} = "{value}"' for key, value in self.detection.items()),
            rest=self.rest,
            home=self.home(node),
            address=self.addresses[node],
            port=self.port,
        )
        self.config(node).write_text(text)

    def _node(self, name: str) -> str:
        door = json.dumps(self.argv(name, "answer"))
        return (
            f'[nodes.{name}]\nhost = "{name}.{ZONE}"\naddress = "{self.addresses[name]}"\n'
            f'isolation = "stop"\ndoor = {door}'
        )


def name_section(key: Path, port: int, *servers: int) -> str:
    """The service name at the primary on `port` of 127.0.0.1; callers ask `servers`."""
    asked = json.dumps([f"127.0.0.1:{each}" for each in servers])
    return f"""
[name]
kind = "rfc2136"
server = "127.0.0.1"
port = {port}
zone = "{ZONE}"
key_file = "{key}"
servers = {asked}
timeout = "1s"
verify_within = "3s"
"""


def python() -> str:
    """One that every user of this machine may run."""
    return shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable


@contextmanager
def quick_pair(
    folder: Path, detection: Mapping[str, str], rest: Callable[[int], str], service: str
) -> Iterator[Pair]:
    """With little PBXs and the claim in a file.  `rest` is given the PBXs' port."""
    made = Pair(folder=folder, detection=detection, rest="", service=service)
    claim = f'[claim]\nkind = "file"\npath = "{folder}/claim"\ntimeout = "500ms"\n'
    made.rest = rest(made.port) + claim
    made.write()
    try:
        yield made
    finally:
        made.end()


def sleep_until(wall: float) -> None:
    time.sleep(max(0.0, wall - time.time()))
