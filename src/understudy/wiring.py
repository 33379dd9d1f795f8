"""The composition root: the only module that names concrete classes.

From a configuration file to one node: its policy, and every adapter that the agent and the commands
beside it use.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

from understudy.adapters import dnswire
from understudy.adapters.claims import CLAIMS
from understudy.adapters.claims.dns import Place, resolve
from understudy.adapters.copies import COPIES
from understudy.adapters.copies.settings import CopySettings, OnStale
from understudy.adapters.copies.watch import Watcher
from understudy.adapters.kind import Kind
from understudy.adapters.names import NAMES, SeveralNames, Target
from understudy.adapters.notify import NOTIFIERS
from understudy.adapters.peers.courier import Courier
from understudy.adapters.peers.door import Door, Timeouts
from understudy.adapters.peers.greeting import greets
from understudy.adapters.peers.ssh import over_ssh
from understudy.adapters.probes import PROBES
from understudy.adapters.services import SERVICES
from understudy.config import load, schema
from understudy.config.schema import Chosen, Config
from understudy.config.values import is_ip
from understudy.core.claim import Claim
from understudy.core.observations import Order, PeerAnswer
from understudy.core.policy import Policy
from understudy.errors import ConfigError, Unreachable
from understudy.ports import ClaimStore, Clock, Copy, Database, Moment, Notifier, Probe, ServiceName
from understudy.runtime import copy_state
from understudy.runtime.companions import Companion
from understudy.runtime.copier import Copier, Managed
from understudy.runtime.copies import Copies as CopierOrders
from understudy.runtime.copy_state import ClassState
from understudy.runtime.daemon import Node, Reports, Way
from understudy.runtime.watch import Watch

CONFIG = Path("/etc/understudy/understudy.toml")
NODE_FILE = Path("/etc/understudy/node")
GLASS = "break-glass"  # Beside the configuration file.

FAMILIES: Mapping[str, Mapping[str, Kind[Any, Any]]] = {
    "checkpoints": PROBES,
    "claim": CLAIMS,
    "name": NAMES,
    "service": SERVICES,
    "copies": COPIES,
    "notify": NOTIFIERS,
}
CATALOGUES: load.Catalogues = {
    family: {kind: member.settings for kind, member in kinds.items()}
    for family, kinds in FAMILIES.items()
}


def load_config(path: Path, *, check_files: bool = True) -> Config:
    """Raises ConfigError with all findings.

    With `check_files` a program or file that it names and that is not on this machine is one.
    """
    return load.load(path, CATALOGUES, check_files=check_files)


def node_name(config: Config, given: str = "", *, node_file: Path = NODE_FILE) -> str:
    """Which node this is: as given, else as the node file says, else by the host name.

    Raises ConfigError, listing the nodes.
    """
    nodes = " or ".join(config.nodes)
    if given:
        if given not in config.nodes:
            raise ConfigError([f"{given} is no node of {config.path}.  Use --node {nodes}."])
        return given
    written = _first_word(node_file)
    if written:
        if written not in config.nodes:
            raise ConfigError([f"{node_file} says {written}, which is no node.  Write {nodes}."])
        return written
    host = socket.gethostname()
    for name, node in config.nodes.items():
        if host in (name, node.host) or host.partition(".")[0] == name:
            return name
    raise ConfigError(
        [
            f"which node is this?  The host name {host} is none.  Write {nodes} into {node_file}, or use --node."
        ]
    )


def policy_of(config: Config, node: str) -> Policy:
    """What `node` runs with."""
    (peer,) = (name for name in config.nodes if name != node)
    d = config.detection
    return Policy(
        me=node,
        peer=peer,
        isolation=config.nodes[node].isolation,
        checkpoints=len(config.checkpoints),
        agreement=d.agreement,
        interval=d.interval,
        patience=d.patience,
        announce=d.announce,
        claim_stale=d.claim_stale,
        checkpoints_stale=d.checkpoints_stale,
        question=schema.question(config),
        claim_reading=schema.claim_reading(config),
        stop_within=schema.stop_within(config),
        restart_grace=d.restart_grace,
        settle_down=d.settle_down,
        first_proof=d.first_proof,
        digest=config.digest,
    )


def build(config: Config, node: str, *, lenient: bool = False) -> Node:
    """Everything that `node` needs to look at the world and to change it.  Raises ConfigError.

    The probes keep sessions: keep them for the life of the process.  `lenient`: where a key file cannot be read,
    whoever uses the claim or the name is told so, and the rest works: a PBX can be stopped without a key.
    """
    clock, reports = SystemClock(), Reports()
    policy = policy_of(config, node)
    peer = way_to(config, policy.peer, clock)
    journal = config.journal.path
    boot_id = _first_word(Path("/proc/sys/kernel/random/boot_id"))
    copies = _copies(config, policy, boot_id, clock, peer, reports)
    glass = config.path.absolute().parent / GLASS
    return Node(
        policy=policy,
        clock=clock,
        boot_id=boot_id,
        store=_claim_store(config) if lenient else claim_store(config),
        name=_service_name(config) if lenient else service_name(config),
        service=SERVICES[config.service.kind].build(
            config.service.settings, report=reports, others=_others(config, policy.peer)
        ),
        peer=peer,
        copies=copies or NoCopies(),
        probes=tuple(_probes(config)),
        journal_path=journal,
        journal_days=config.journal.keep / 86_400.0,
        glass=glass,
        start_within=float(getattr(config.service.settings, "start_within", 60.0)),
        reports=reports,
        copies_file=_copies_file(config),
        companions=lambda: (
            *((copies,) if copies is not None else ()),
            _watch(peer, glass, _copies_file(config)),
            *_telling(config, node, glass),
        ),
    )


def _others(config: Config, peer: str) -> dict[str, str]:
    """The other node by its host name and address, unless both nodes have the same (a pair behind one NAT)."""
    node = config.nodes[peer]
    ours = {each.address.lower() for name, each in config.nodes.items() if name != peer}
    return dict.fromkeys({node.host.lower(), node.address.lower()} - ours, peer)


def _copies(
    config: Config, policy: Policy, boot_id: str, clock: Clock, peer: Way, report: Reports
) -> CopierOrders | None:
    """The agent's part of copying; nothing where something else copies the data."""
    if not config.copies:
        return None
    return CopierOrders(
        journal=config.journal.path,
        boot_id=boot_id,
        peer=policy.peer,
        clock=clock,
        refuses=any(_settings(each).on_stale is OnStale.REFUSE for each in config.copies.values()),
        fetch=peer.fetch,
        report=report,
        databases=_databases(config, policy.me, report),
        strict=[
            name
            for name, chosen in config.copies.items()
            if _settings(chosen).on_stale is OnStale.REFUSE
        ],
    )


def _databases(config: Config, node: str, report: Reports) -> dict[str, Database]:
    """The classes of data that a server of their own copies."""
    build: Callable[..., Any] = COPIES["mariadb"].build  # A ports.Copy, and this as well.
    return {
        name: build(name, chosen.settings, **_copies_place(config, node, name), report=report)
        for name, chosen in config.copies.items()
        if chosen.kind == "mariadb"
    }


def _copies_place(config: Config, node: str, name: str) -> dict[str, Any]:
    """What every kind is given."""
    return {
        "node": node,
        "folder": copy_state.store_place(config.journal.path) / name,
        "addresses": {each: settings.address for each, settings in config.nodes.items()},
    }


def _settings(chosen: Chosen) -> CopySettings:
    settings: CopySettings = chosen.settings
    return settings


def copies_of(config: Config, node: str) -> dict[str, Copy]:
    """Every class of data, at either end, by its name."""
    return {
        name: COPIES[chosen.kind].build(name, chosen.settings, **_copies_place(config, node, name))
        for name, chosen in config.copies.items()
    }


def copier_of(config: Config, node: Node, say: Callable[[str], None]) -> Copier:
    """The process that pulls.  Raises ConfigError where there is nothing to copy, or no way to copy it."""
    me, peer = node.policy.me, node.policy.peer
    if not config.copies:
        raise ConfigError(
            [f"{config.path}: there is no [copies.NAME] table, so nothing is copied."]
        )
    reach = way_prefix(config, peer)
    if not reach:
        raise ConfigError(
            [f"{config.path}: nodes.{peer} has no ssh, so nothing can be copied from it."]
        )
    return Copier(
        [
            Managed(
                copy,
                _first_state(name, config.copies[name]),
                on_change=_settings(config.copies[name]).on_change,
            )
            for name, copy in copies_of(config, me).items()
        ],
        journal=config.journal.path,
        boot_id=node.boot_id,
        reach=reach,
        courier=Courier(),
        watcher=Watcher(),
        node=me,
        service=node.service,
        clock=node.clock,
        say=say,
    )


def class_states(config: Config) -> tuple[ClassState, ...]:
    """Every class of data as configured; nothing of it is copied yet."""
    return tuple(_first_state(name, chosen) for name, chosen in config.copies.items())


def _first_state(name: str, chosen: Chosen) -> ClassState:
    settings = _settings(chosen)
    return ClassState(
        name=name,
        kind=chosen.kind,
        every=settings.every,
        max_age=settings.max_age,
        refuses=settings.on_stale is OnStale.REFUSE,
    )


def _watch(peer: Way, glass: Path, copies_file: Path | None) -> Watch:
    return Watch(
        peer=peer,
        version=lambda: version("understudy"),
        glass=glass.exists,
        copies_file=copies_file,
    )


def _copies_file(config: Config) -> Path | None:
    return copy_state.place(config.journal.path) if config.copies else None


def notifiers(config: Config, node: str) -> tuple[Notifier, ...]:
    """Every way to people that `node` has."""
    host = config.nodes[node].host
    return tuple(
        notifier
        for name, chosen in config.notify.items()
        for notifier in NOTIFIERS[chosen.kind].build(name, chosen.settings, host=host)
    )


def _telling(config: Config, node: str, glass: Path) -> Iterator[Companion]:
    """Nothing of it is imported where nobody is told."""
    if config.notify:
        from understudy.runtime.telling import About, Telling

        about = About(pair=config.pair.name, service=config.pair.service, glass=str(glass))
        yield Telling(about, notifiers(config, node))


def claim_store(config: Config) -> ClaimStore:
    """Raises ConfigError."""
    store: ClaimStore = CLAIMS[config.claim.kind].build(
        config.claim.settings, service=config.pair.service, **_given_by_name(config)
    )
    return store


def claim_place(config: Config) -> Place | None:
    """Where in the DNS the claim is, if it is there.  Raises ConfigError."""
    if config.claim.kind != "dns":
        return None
    return resolve(config.claim.settings, service=config.pair.service, **_given_by_name(config))


def service_name(config: Config) -> ServiceName:
    """Raises ConfigError."""
    targets = {
        name: Target(host=node.host, addresses=(node.address,) if is_ip(node.address) else ())
        for name, node in config.nodes.items()
    }
    names: list[ServiceName] = [
        NAMES[chosen.kind].build(
            chosen.settings,
            service=config.pair.service,
            nodes=targets,
            claim_record=_claim_record(config, chosen.settings),
        )
        for chosen in config.names
    ]
    return names[0] if len(names) == 1 else SeveralNames(names)


def way_prefix(config: Config, node: str) -> tuple[str, ...]:
    """The command that reaches the agent of `node`; empty where no way is configured."""
    settings = config.nodes[node]
    if settings.door is not None:
        return tuple(settings.door)
    return over_ssh(settings.ssh) if settings.ssh is not None else ()


def way_to(config: Config, node: str, clock: Clock) -> Way:
    """The way to the agent of `node`."""
    prefix = way_prefix(config, node)
    if not prefix:
        return NoPeer(node)
    fence = schema.stop_within(config) + 15.0
    by_ssh = config.nodes[node].door is None
    return Door(
        node,
        prefix,
        Timeouts(fence=fence),
        clock=lambda: clock.now().boot,
        greets=partial(greets, prefix) if by_ssh else None,
    )


class SystemClock:
    """ports.Clock: clock_gettime(2)."""

    def now(self) -> Moment:
        return Moment(
            boot=time.clock_gettime(time.CLOCK_BOOTTIME),
            wall=time.time(),
            monotonic=time.clock_gettime(time.CLOCK_MONOTONIC),
        )


class NoCopies:
    """ports.Copies where something else copies the data."""

    def stale_from(self, at: Moment) -> float:
        return inf

    async def promote(self) -> None:
        pass

    async def hand(self, epoch: int) -> None:
        pass

    async def demote(self) -> None:
        pass

    async def renew(self, epoch: int) -> None:
        pass


class NoPeer:
    """ports.Peer where no way to the other node is configured."""

    def __init__(self, node: str) -> None:
        self._why = f"no way to {node} is configured: set nodes.{node}.ssh"

    async def ask(self, epoch: int) -> PeerAnswer:
        raise Unreachable(self._why)

    async def fence(self, node: str, epoch: int, *, hurry: bool) -> None:
        raise Unreachable(self._why)

    async def order(self, order: Order) -> str:
        raise Unreachable(self._why)

    async def wake(self) -> None:
        pass

    async def fetch(self, epoch: int) -> None:
        raise Unreachable(self._why)

    async def status(self) -> dict[str, Any]:
        raise Unreachable(self._why)

    async def calls(self) -> int:
        raise Unreachable(self._why)

    async def compare(self, epoch: int) -> None:
        raise Unreachable(self._why)


class NoKey:
    """ports.ClaimStore and ports.ServiceName where a key file cannot be read."""

    def __init__(self, why: str, where: str) -> None:
        self._why, self.where = why, where

    async def read(self) -> Claim:
        raise Unreachable(self._why)

    async def confirm(self, claim: Claim) -> bool:
        raise Unreachable(self._why)

    async def swap(self, old: Claim, new: Claim) -> bool:
        raise Unreachable(self._why)

    async def create(self, claim: Claim) -> bool:
        raise Unreachable(self._why)

    async def point(self, node: str, claim: Claim) -> None:
        raise Unreachable(self._why)

    async def verify(self, node: str) -> None:
        raise Unreachable(self._why)

    async def look(self) -> dict[str, str]:
        return {self.where: f"? {self._why}"}


def _claim_store(config: Config) -> ClaimStore:
    try:
        return claim_store(config)
    except ConfigError as error:
        return _without_key(error, "the claim")


def _service_name(config: Config) -> ServiceName:
    try:
        return service_name(config)
    except ConfigError as error:
        return _without_key(error, config.pair.service)


def _without_key(error: ConfigError, where: str) -> NoKey:
    if not isinstance(error.__cause__, OSError):
        raise error
    return NoKey(str(error), where)


def _probes(config: Config) -> list[Probe]:
    addresses = {name: node.address for name, node in config.nodes.items()}
    return [
        _build_probe(PROBES[chosen.kind].build, chosen.kind, name, chosen.settings, addresses)
        for name, chosen in config.checkpoints.items()
    ]


def _build_probe(
    build: Callable[..., Probe], kind: str, name: str, settings: Any, addresses: Mapping[str, str]
) -> Probe:
    return build(name, settings, addresses) if kind == "sip" else build(name, settings)


def _given_by_name(config: Config) -> dict[str, Any]:
    """What [claim] takes from [name] where it says nothing itself: only where that is one place."""
    givers = [one.settings for one in config.names if getattr(one.settings, "server", None)]
    if len(givers) != 1:
        return {}
    keys = ("server", "port", "zone", "key_file", "key_name")
    return {key: getattr(givers[0], key) for key in keys}


def _claim_record(config: Config, name: Any) -> str | None:
    """The claim's TXT record, if an update of this name can have it as a prerequisite."""
    place = claim_place(config)
    if place is None:
        return None
    zone = place.zone.to_text(omit_final_dot=True).lower()
    same = place.server == dnswire.Server(name.server, name.port) and zone == name.zone
    return place.record.to_text(omit_final_dot=True) if same else None


def _first_word(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return ""
    return words[0] if words else ""


def config_path(given: str | os.PathLike[str] | None) -> Path:
    """--config, else UNDERSTUDY_CONFIG, else the usual place."""
    return Path(given or os.environ.get("UNDERSTUDY_CONFIG") or CONFIG)
