"""The servers around a pair: three NRPE daemons, BIND with its secondary, Kamailio on each node."""

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adapters import bind, nrpe_daemon
from end_to_end.network import Network, network
from end_to_end.outside import Watch, leads_to, until, watch
from end_to_end.pair import NODES, ZONE, Pair, name_section, python
from understudy.core.claim import Claim
from understudy.plugins import check_sip

CHECKPOINTS = ("cp1", "cp2", "cp3")
CHECKS = {  # Mode: the daemon's options, its certificate's name, what nrpe.cfg has beside that.
    "anonymous": ((), "", ()),
    "verified": ((), "server", ()),
    "mutual": ((), "server", ("ssl_client_certs=2",)),
    "off": (("-n",), "", ()),
}
INTERVAL, PATIENCE, ANNOUNCE = 2.0, 11.0, 4.0  # Seconds.
# The least that `config check` takes for this interval.
DETECTION = {
    "interval": "2s",
    "patience": "11s",
    "announce": "4s",
    "claim_stale": "2s",
    "checkpoints_stale": "4s",
    "restart_grace": "4s",
    "settle_down": "1s",
    "first_proof": "3s",
}
_CHECK = """\
#!/bin/sh
# check NODE CHECKPOINT
test -e {folder}/$2.lies && echo "SIP OK - a lie" && exit 0
test -e {folder}/$1.unseen && echo "SIP CRITICAL - no answer" && exit 2
case $1 in {cases} esac
exec {python} -I -S {folder}/check_sip.pyc -H $address -p {port} -t 1
"""


@dataclass(kw_only=True)
class CheckPoints:
    """Three real daemons, each of which can be stopped, started again, and made to lie."""

    folder: Path  # That nagios may read.
    mode: str
    papers: nrpe_daemon.Papers
    ports: dict[str, int] = field(default_factory=dict)
    _stacks: dict[str, ExitStack] = field(default_factory=dict)

    def start(self, name: str) -> None:
        options, certificate, more = CHECKS[self.mode]
        paper = self.papers.daemon(certificate, *more) if certificate else ()
        checks = tuple(f"command[check_{node}]={self.folder}/check {node} {name}" for node in NODES)
        stack = self._stacks[name] = ExitStack()
        there = stack.enter_context(
            nrpe_daemon.daemon(*options, config=(*paper, *checks), port=self.ports.get(name, 0))
        )
        self.ports[name] = there.port

    def stop(self, *names: str) -> None:
        for each in names:
            self._stacks.pop(each).close()

    def lie(self, name: str, *, lies: bool = True) -> None:
        """It says that both nodes are up."""
        self._mark(f"{name}.lies", lies)

    def lose_sight(self, node: str, *, lost: bool = True) -> None:
        """None of them reaches the node any more."""
        self._mark(f"{node}.unseen", lost)

    def end(self) -> None:
        self.stop(*self._stacks)

    def section(self, name: str, port: int) -> str:
        """The check point, asked at `port`."""
        tls = "verified" if self.mode == "mutual" else self.mode
        lines = [f"[checkpoints.{name}]", 'kind = "nrpe"', 'address = "127.0.0.1"']
        lines += [f"port = {port}", f'tls = "{tls}"', 'timeout = "1500ms"']
        if tls == "verified":
            lines.append(f'ca_file = "{self.papers.ca}"')
        if self.mode == "mutual":
            lines.append(f'cert_file = "{self.papers.path("client.pem")}"')
            lines.append(f'key_file = "{self.papers.path("client.key")}"')
        return "\n".join(lines) + "\n"

    def _mark(self, name: str, there: bool) -> None:
        path = self.folder / name
        path.touch() if there else path.unlink()


@dataclass(kw_only=True)
class Site:
    """All of it."""

    pair: Pair
    checkpoints: CheckPoints
    dns: bind.Pair
    network: Network
    watch: Watch

    def begin(self) -> None:
        """As after a year: pbx01 has served, and the name leads there."""
        claim = self.pair.old_claim()
        assert asyncio.run(self.pair.store().create(claim))

    @property
    def claim(self) -> Claim:
        return asyncio.run(self.pair.store().read())

    def names(self) -> list[str]:
        """Where primary and secondary send callers."""
        servers = (self.dns.primary, self.dns.secondary)
        return [leads_to(each.port, self.pair.service) for each in servers]

    def start_both(self) -> None:
        """Both agents; returns when pbx01 serves and pbx02 is standby."""
        for node in NODES:
            self.pair.start(node)
        self.wait_for("pbx01", "active", within=12)
        self.wait_for("pbx02", "standby", within=12)

    def wait_for_proof(self) -> None:
        """The check points have proved pbx01 up: it has both its proofs now (S1)."""
        until(self._is_proved, within=12, what="the check points have proved pbx01 up")

    def wait_for(self, node: str, phase: str, *, within: float) -> float:
        return until(
            lambda: self.pair.phase(node) == phase,
            within=within,
            what=lambda: (
                f"{node} is {phase}: it is {self.pair.phase(node)}\n{self.pair.said(node)}"
            ),
        )

    def _is_proved(self) -> bool:
        state = self.pair.state("pbx01")
        return state is not None and state.evidence.up_at > state.since and state.pointed > 0


@contextmanager
def site(folder: Path, mode: str = "anonymous", *, key: str = "strong") -> Iterator[Site]:
    """Servers run, agents and PBXs do not.  `key` signs the updates."""
    for each in ("nrpe", "kamailio", "named"):
        nrpe_daemon.need(f"/usr/sbin/{each}")
    with ExitStack() as stack:
        open_to_all = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-")))
        open_to_all.chmod(0o755)
        papers = stack.enter_context(nrpe_daemon.papers())
        there = CheckPoints(folder=open_to_all, mode=mode, papers=papers)
        stack.callback(there.end)
        (folder / "dns").mkdir()
        dns = stack.enter_context(bind.bind_pair(folder / "dns"))
        pair = Pair(folder=folder / "pair", detection=DETECTION, rest="", with_kamailio=True)
        lines = stack.enter_context(network(pair.pids))
        _write_check(open_to_all, pair.addresses, pair.port)
        for each in CHECKPOINTS:
            there.start(each)
            pair.rest += there.section(each, lines.relay(there.ports[each]))
        pair.rest += '[claim]\nkind = "dns"\ntimeout = "500ms"\n'
        port = lines.relay(dns.primary.port)
        pair.rest += name_section(dns.key(key), port, dns.primary.port, dns.secondary.port)
        pair.write()
        stack.callback(pair.end)
        _fill_zone(dns, pair)
        watching = stack.enter_context(watch(pair.addresses, pair.port))
        yield Site(pair=pair, checkpoints=there, dns=dns, network=lines, watch=watching)


def _write_check(folder: Path, addresses: Mapping[str, str], port: int) -> None:
    """Readable for the daemons' user: they run the shipped plugin."""
    plugin = folder / "check_sip.pyc"  # Compiled: it runs some hundred times.
    compiling = "import py_compile, sys; py_compile.compile(*sys.argv[1:], doraise=True)"
    subprocess.run([python(), "-c", compiling, check_sip.__file__, str(plugin)], check=True)
    plugin.chmod(0o644)
    cases = " ".join(f"{node}) address={address} ;;" for node, address in addresses.items())
    check = folder / "check"
    check.write_text(_CHECK.format(folder=folder, cases=cases, python=python(), port=port))
    check.chmod(0o755)


def _fill_zone(dns: bind.Pair, pair: Pair) -> None:
    hosts = [
        line
        for node, address in pair.addresses.items()
        for line in (f"update delete {node}.{ZONE} A", f"update add {node}.{ZONE} 60 A {address}")
    ]
    dns.nsupdate(*hosts, f"update add {pair.service} 1 CNAME pbx01.{ZONE}")
