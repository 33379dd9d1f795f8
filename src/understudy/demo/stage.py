"""Everything that the demo's story needs, on loopback and without root, and the end of all of it.

In this process: the name server, three NRPE daemons.  As processes of their own: each node's agent,
and the PBX that the agent starts.  `power_off` kills both at once, as a power cut does.
"""

import asyncio
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from understudy import wiring
from understudy.adapters.tsigkey import load_key
from understudy.config.schema import Config
from understudy.core.claim import first
from understudy.errors import JournalError, Refused
from understudy.plugins import check_sip
from understudy.runtime import copy_state, readings
from understudy.runtime.daemon import Node
from understudy.runtime.journal_rows import Event
from understudy.runtime.status import Status

from . import data
from .nameserver import NameServer, Zone
from .nrpe_responder import Check, NrpeResponder

ADDRESSES = {"pbx01": "127.0.0.11", "pbx02": "127.0.0.12"}
CHECKPOINTS = {"cp1": "127.0.0.21", "cp2": "127.0.0.22", "cp3": "127.0.0.23"}
NAME_SERVER = "127.0.0.53"
ZONE = "example.test"
SERVICE = f"sip.{ZONE}"
PORTS = range(20_000, 32_000)  # Below those that the kernel gives away (ip(7)): nobody's by chance.
CHECK_WITHIN = 0.6  # Seconds for a check point's question; below the agents' own 900 ms.
SHELL = "/bin/sh"  # Named, for machines on which nothing in /tmp may be executed.
JOURNAL = "journal.sqlite3"
NO_POWER = "no-power"  # A file: this node can be reached by nobody.
END_WITHIN = 3.0  # Seconds for an agent to end when it is asked to.
ROUNDS = 5  # Of looking for what is left.
ORDER_WITHIN = 40.0  # Seconds for a person's command.

_CONFIG = """\
# {node}'s configuration.  On two machines both nodes have one and the same file; here one machine plays two, so
# the places of the PBX and of the journal differ.
[pair]
name = "demo"
service = "{service}"
preferred = "pbx01"

{nodes}
[detection]                # A fast pair: with the defaults an interval is 60s and patience 5m.
interval = "1s"
patience = "9s"
announce = "4500ms"
claim_stale = "2s"
checkpoints_stale = "3s"
restart_grace = "4s"
first_proof = "4s"

{checkpoints}
[claim]
kind = "dns"               # Beside the name, in the same zone: a TXT record, changed by compare-and-set.
timeout = "500ms"

[name]
kind = "rfc2136"
server = "{name_server}"
port = {dns_port}
zone = "{zone}"
record = "CNAME"
ttl = "1s"
key_file = {key_file}
servers = ["{name_server}:{dns_port}"]
verify_within = "3s"

[service]
kind = "command"
start = ["/bin/sh", {start}]
stop = ["/bin/sh", {stop}]
status = ["/bin/sh", {status}]
pid_file = {pid_file}
stop_within = "2s"
start_within = "8s"
sip = "{address}:{sip_port}"
sip_timeout = "500ms"

{copies}
[journal]
path = {journal}
"""
_VOICEMAIL = """\
[copies.voicemail]
kind = "rsync"
paths = [{path}]
merge = "files"            # What pbx01 recorded in its last moment comes to pbx02 when pbx01 is back.
every = "1s"
"""
_AGENTS = """\
[copies.agents]            # Asterisk keeps agents that are logged in to a queue in a database of this kind.
kind = "sqlite"
path = {path}
every = "1s"
"""
_NODE = """\
[nodes.{name}]
host = "{name}.{zone}"
address = "{address}"
isolation = "stop"
# On two machines: ssh = "understudy@{name}.{zone}"
door = ["/bin/sh", {door}]
"""
_CHECKPOINT = """\
[checkpoints.{name}]
kind = "nrpe"
address = "{address}"
port = {port}
tls = "off"
command = "check_{{node}}"
timeout = "900ms"
"""
_TOOL = """\
#!/bin/sh
# `understudy`, as a person on {node} types it.
exec {python} -m understudy --config {config} --node {node} "$@"
"""
_DOOR = """\
#!/bin/sh
# The other node's way to {node}, as ssh would be it.
cd {folder} || exit 1
if test -e no-power; then
    echo "ssh: connect to host {address} port 22: No route to host" >&2
    exit 255
fi
exec sh ./understudy answer "$@"
"""
_START = """\
#!/bin/sh
# In a session of its own: the PBX outlives the agent that started it.
cd {folder} || exit 1
sh ./status && exit 0
setsid {python} -m understudy.demo.sip_pbx --listen {address}:{sip_port} --name {node} --record {record} \\
    --data {folder} >>pbx.log 2>&1 </dev/null &
echo $! >pid
"""
_STOP = """\
#!/bin/sh
cd {folder} || exit 1
test -e pid || exit 0
kill "$(cat pid)" 2>/dev/null
rm -f pid
"""
_STATUS = """\
#!/bin/sh
# As the Linux Standard Base has it: 0 runs, 1 dead with a pid file, 3 stopped.
cd {folder} || exit 4
test -e pid || exit 3
grep -q '^State:.[^ZX]' "/proc/$(cat pid)/status" 2>/dev/null || exit 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One node's part of this machine."""

    name: str
    address: str
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "understudy.toml"

    @property
    def tool(self) -> Path:
        return self.folder / "understudy"

    @property
    def record(self) -> Path:
        """One JSON line for each request that its PBX answered."""
        return self.folder / "answered.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"

    @property
    def store(self) -> Path:
        """What its copier keeps."""
        return copy_state.store_place(self.folder / JOURNAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a person's command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """What a person reads at the end of it: the answer, or the complaint and its hint."""
        lines = self.out.splitlines() if self.code == 0 else self.err.splitlines()[-2:]
        return lines or [f"exit code {self.code}"]


class Stage:
    """Use as `async with Stage() as stage`: all that it started ends with it; its files stay."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-demo-"))
        self.hosts = {
            name: Host(name=name, address=address, folder=self.folder / name)
            for name, address in ADDRESSES.items()
        }
        self.nodes: dict[str, Node] = {}
        self.config: Config | None = None
        self.copies_files = shutil.which("rsync") is not None
        self._agents: dict[str, asyncio.subprocess.Process] = {}
        self._copiers: dict[str, asyncio.subprocess.Process] = {}
        self._doors: dict[str, asyncio.subprocess.Process] = {}
        self._nrpe: list[NrpeResponder] = []
        self._dns: NameServer | None = None
        # Each question blocks a thread: two agents ask three check points about two nodes.
        self._threads = ThreadPoolExecutor(12, thread_name_prefix="check")

    async def __aenter__(self) -> "Stage":
        try:
            await self._set_up()
        except OSError as error:
            await self._strike()
            raise Refused(
                f"the demo cannot use 127.0.0.0/8 here: {error}",
                hint="It needs Linux, where every address of the loopback network is there.",
            ) from error
        except BaseException:
            await self._strike()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._strike()

    async def power_on(self, name: str) -> None:
        """The machine is back: its agent starts, its PBX does not (nothing starts a PBX but agents)."""
        host = self.hosts[name]
        (host.folder / NO_POWER).unlink(missing_ok=True)
        (host.folder / "pid").unlink(missing_ok=True)  # /run is empty after a boot.
        self._agents[name] = await self._start(host, "run")
        self._copiers[name] = await self._start(host, "copies", "run")
        self._doors[name] = await self._start(host, "door")

    async def _start(self, host: Host, *words: str) -> asyncio.subprocess.Process:
        with host.log.open("a") as log:
            return await asyncio.create_subprocess_exec(
                SHELL,
                host.tool,
                *words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end it.
            )

    async def power_off(self, name: str) -> None:
        """A last message is left; then SIGKILL for the agent, the copier and the PBX."""
        (self.hosts[name].folder / NO_POWER).touch()
        await asyncio.to_thread(data.leave_last, self.hosts[name].folder, name)
        for processes in (self._agents, self._copiers, self._doors):
            process = processes.pop(name, None)
            if process is not None:
                _kill(process.pid)
                await process.wait()
        with suppress(OSError, ValueError):
            _kill(int((self.hosts[name].folder / "pid").read_text()))

    def is_on(self, name: str) -> bool:
        agent = self._agents.get(name)
        return agent is not None and agent.returncode is None

    def agent_pids(self) -> dict[str, int]:
        """The process of each node's command that runs."""
        return {name: agent.pid for name, agent in self._agents.items() if agent.returncode is None}

    def ended_by_itself(self) -> str:
        """A node whose agent has ended though nobody asked it to; or ""."""
        return next(
            (name for name, agent in self._agents.items() if agent.returncode is not None), ""
        )

    def status(self, name: str) -> Status | None:
        """How that node's own journal says it stands; None before it has one.  Blocks for some ms."""
        node = self.nodes[name]
        try:
            journal = node.journal()
        except JournalError:
            return None
        try:
            return readings.status_of(
                journal, node.policy, node.clock.now(), boot_id=node.boot_id, events=0
            )
        except JournalError:
            return None
        finally:
            journal.close()

    def is_copied(self, name: str) -> bool:
        """Has that node a copy of every class of data?"""
        try:
            state = copy_state.read(copy_state.place(self.hosts[name].folder / JOURNAL))
        except JournalError:
            return False
        return state is not None and all(each.as_of for each in state.classes)

    def events(self, name: str, since: float) -> list[Event]:
        """Its journal's, from the wall clock second `since` on.  Blocks for some ms."""
        node = self.nodes[name]
        try:
            journal = node.journal()
        except JournalError:
            return []
        try:
            return journal.events(since=since, limit=100)
        except JournalError:
            return []
        finally:
            journal.close()

    async def leads_to(self) -> str:
        """The node to which the service name leads."""
        found = await self.nodes["pbx01"].name.look()
        return " / ".join(dict.fromkeys(found.values()))

    async def person(self, name: str, *words: str) -> Done:
        """Run `understudy WORDS` as a person on that node."""
        process = await asyncio.create_subprocess_exec(
            SHELL,
            self.hosts[name].tool,
            *words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(ORDER_WITHIN):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                _kill(process.pid)
                await process.wait()
        return Done(code=process.returncode or 0, out=out.decode(), err=err.decode())

    @property
    def name_server(self) -> tuple[str, int]:
        return NAME_SERVER, self._dns_port

    @property
    def sip_port(self) -> int:
        return self._sip_port

    async def _set_up(self) -> None:
        self._sip_port = free_port([*ADDRESSES.values()])
        self._dns_port = free_port([NAME_SERVER])
        self._nrpe_port = free_port([*CHECKPOINTS.values()])
        key = self.folder / "tsig.key"
        _write_key(key)
        for host in self.hosts.values():
            self._write(host)
        await self._start_name_server(key)
        await self._start_check_points()
        for name, host in self.hosts.items():
            self.config = wiring.load_config(host.config)
            self.nodes[name] = wiring.build(self.config, name)
        # As after a year: pbx01 has been active all the time.
        node = self.nodes["pbx01"]
        await node.store.create(replace(first("pbx01", digest=node.policy.digest), served=True))

    def _write(self, host: Host) -> None:
        host.folder.mkdir()
        data.Recorder(host.folder, host.name)  # Both PBXs are installed; nobody has called yet.
        (host.folder / NO_POWER).touch()
        facts = {
            "node": host.name,
            "folder": shlex.quote(str(host.folder)),
            "python": shlex.quote(sys.executable),
            "config": shlex.quote(str(host.config)),
            "record": shlex.quote(str(host.record)),
            "address": host.address,
            "sip_port": str(self._sip_port),
        }
        scripts = {
            "understudy": _TOOL,
            "door": _DOOR,
            "start": _START,
            "stop": _STOP,
            "status": _STATUS,
        }
        for name, text in scripts.items():
            script = host.folder / name
            script.write_text(text.format(**facts))
            script.chmod(0o755)
        host.config.write_text(
            _CONFIG.format(
                node=host.name,
                service=SERVICE,
                zone=ZONE,
                nodes="\n".join(map(self._node, self.hosts.values())),
                checkpoints="\n".join(
                    _CHECKPOINT.format(name=name, address=address, port=self._nrpe_port)
                    for name, address in CHECKPOINTS.items()
                ),
                name_server=NAME_SERVER,
                dns_port=self._dns_port,
                key_file=_quoted(self.folder / "tsig.key"),
                start=_quoted(host.folder / "start"),
                stop=_quoted(host.folder / "stop"),
                status=_quoted(host.folder / "status"),
                pid_file=_quoted(host.folder / "pid"),
                address=host.address,
                sip_port=self._sip_port,
                copies=self._copies(host),
                journal=_quoted(host.folder / JOURNAL),
            )
        )

    def _copies(self, host: Host) -> str:
        agents = _AGENTS.format(path=_quoted(data.database(host.folder)))
        files = _VOICEMAIL.format(path=_quoted(data.messages_folder(host.folder)))
        return f"{files}\n{agents}" if self.copies_files else agents

    def _node(self, host: Host) -> str:
        return _NODE.format(
            name=host.name, zone=ZONE, address=host.address, door=_quoted(host.folder / "door")
        )

    async def _start_name_server(self, key: Path) -> None:
        records = [f"{name} 60 A {address}" for name, address in ADDRESSES.items()]
        zone = Zone(ZONE, [*records, f"ns 60 A {NAME_SERVER}", f"sip 1 CNAME pbx01.{ZONE}."])
        self._dns = NameServer(zone, [load_key(key)])
        await self._dns.start(NAME_SERVER, self._dns_port)

    async def _start_check_points(self) -> None:
        checks = {f"check_{name}": self._check(address) for name, address in ADDRESSES.items()}
        for address in CHECKPOINTS.values():
            daemon = NrpeResponder(checks)
            await daemon.start(address, self._nrpe_port)
            self._nrpe.append(daemon)

    def _check(self, address: str) -> Check:
        """What nrpe.cfg would have: check_sip.py -H ADDRESS -p PORT -t SECONDS."""
        words = ["-H", address, "-p", str(self._sip_port), "-t", str(CHECK_WITHIN)]
        question = partial(check_sip.check, check_sip.read_options(words))

        async def ask() -> tuple[int, str]:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, question)
            return found.status, f"SIP {check_sip.WORDS[found.status]} - {found.text}"

        return ask

    async def _strike(self) -> None:
        """End everything.  Takes some seconds at most; safe to repeat."""
        started = (*self._agents.values(), *self._copiers.values(), *self._doors.values())
        agents = [each for each in started if each.returncode is None]
        for agent in agents:
            with suppress(ProcessLookupError):
                agent.terminate()
        await asyncio.gather(*map(_see_ended, agents))
        self._agents.clear()
        self._copiers.clear()
        self._doors.clear()
        for _ in range(ROUNDS):  # What is killed may just have started something.
            for pid in _ours(self.folder):
                _kill(pid)
            await asyncio.sleep(0.02)
        for daemon in self._nrpe:
            await daemon.stop()
        self._nrpe.clear()
        if self._dns is not None:
            await self._dns.stop()
            self._dns = None
        self._threads.shutdown(wait=True, cancel_futures=True)


def free_port(addresses: Sequence[str]) -> int:
    """A port that is free on each of them, for UDP and TCP.  Raises OSError."""
    trouble = OSError("no port is free")
    for _ in range(50):
        port = random.choice(PORTS)
        try:
            for address in addresses:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind((address, port))
        except OSError as error:
            trouble = error
            continue
        return port
    raise trouble


def _write_key(path: Path) -> None:
    """As tsig-keygen writes it, for this run alone."""
    secret = b64encode(secrets.token_bytes(32)).decode()
    path.touch(mode=0o600)
    path.write_text(
        textwrap.dedent(
            f"""\
            key "understudy-demo" {{
                    algorithm hmac-sha256;
                    secret "{secret}";
            }};
            """
        )
    )


def _quoted(path: Path) -> str:
    return json.dumps(str(path))


async def _see_ended(agent: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(END_WITHIN):
            await agent.wait()
    except TimeoutError:
        _kill(agent.pid)
        await agent.wait()


def _ours(folder: Path) -> list[int]:
    """What still runs for this demo: the PBXs, which outlive their agents, and a command half done.

    By /proc, not by the PID files: an agent may have been killed just before it wrote one.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            program = words[1:3] in (["-m", "understudy"], ["-m", "understudy.demo.sip_pbx"])
            if (program or words[0] in (SHELL, "sh", "rsync")) and any(
                each.startswith(f"{folder}/") for each in words
            ):
                found.append(int(entry.name))
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
