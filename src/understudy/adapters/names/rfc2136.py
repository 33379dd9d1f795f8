"""Moves the service name on one's own name server by a signed dynamic update (RFC 2136, RFC 8945).

When the claim is in the same zone, the update carries it as a prerequisite: the name server itself
refuses a node whose claim has been taken over in the meantime, however late its update arrives.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.update

from understudy.adapters import dnswire
from understudy.adapters.claims.dns import txt
from understudy.adapters.names.target import Target
from understudy.adapters.tsigkey import load_key
from understudy.config.settings import (
    DnsName,
    Host,
    HostPort,
    Port,
    Seconds,
    SecretFile,
    setting,
)
from understudy.core.claim import Claim
from understudy.errors import AdapterError, ConfigError, Denied, Unanswered, Unreachable

_A = dns.rdatatype.A
_AAAA = dns.rdatatype.AAAA
_CNAME = dns.rdatatype.CNAME
_NS = dns.rdatatype.NS
_SRV = dns.rdatatype.SRV

_FIRST_PAUSE = 0.05  # Seconds; secondaries on NOTIFY follow within tens of milliseconds.
_LONGEST_PAUSE = 1.0


class Record(StrEnum):
    """What the service name is made of."""

    CNAME = "CNAME"  # The name of the node's host.
    A = "A"  # The node's addresses: A and AAAA.
    SRV = "SRV"  # The node's host and port, for each service.


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    server: Host = setting("The primary name server of the zone.", example="203.0.113.53")
    port: Port = setting(
        "Its port, and that of the servers that are found by the zone's NS records.",
        default=Port(53),
        example=53,
    )
    zone: DnsName = setting("The zone that holds the service name.", example="example.com")
    record: Record = setting(
        "What the name is made of: CNAME, A (the nodes' addresses, IPv6 too) or SRV.",
        default=Record.CNAME,
        example="CNAME",
    )
    srv: tuple[str, ...] = setting(
        "With SRV: the services and their ports.",
        default=("_sip._udp:5060", "_sip._tcp:5060"),
        example=["_sip._udp:5060", "_sip._tcp:5060", "_sips._tcp:5061"],
    )
    ttl: Seconds = setting(
        "How long resolvers may go on sending callers to the old node.",
        default=Seconds(30.0),
        example="30s",
    )
    key_file: SecretFile = setting(
        "The TSIG key, as tsig-keygen writes it.", example="/etc/understudy/tsig.key"
    )
    key_name: str | None = setting(
        "Which key of that file; without it the first.", default=None, example="understudy"
    )
    timeout: Seconds = setting(
        "How long one question or one update may take.", default=Seconds(3.0), example="3s"
    )
    verify_within: Seconds = setting(
        "How long the other name servers may take to follow the primary.",
        default=Seconds(30.0),
        example="30s",
    )
    servers: tuple[HostPort, ...] = setting(
        "All servers that callers ask; without it those of the zone's NS records.",
        default=(),
        example=["203.0.113.53:53", "203.0.113.54:53"],
    )


def build(
    settings: Settings,
    *,
    service: str,
    nodes: Mapping[str, Target],
    claim_record: str | None = None,
) -> "Rfc2136Name":
    """Raises ConfigError."""
    return Rfc2136Name(settings, service=service, nodes=nodes, claim_record=claim_record)


# What must be at each name and type; an empty set: nothing.
Slot = tuple[dns.name.Name, dns.rdatatype.RdataType]
Truth = dict[Slot, frozenset[dns.rdata.Rdata]]
Found = dict[Slot, dns.rrset.RRset | None]


class Rfc2136Name:
    """ports.ServiceName on a primary that takes updates, and the secondaries that follow it."""

    def __init__(
        self,
        settings: Settings,
        *,
        service: str,
        nodes: Mapping[str, Target],
        claim_record: str | None = None,
    ) -> None:
        self._settings = settings
        self._service = dns.name.from_text(service)
        self._zone = dns.name.from_text(settings.zone)
        self._claim = None if claim_record is None else dns.name.from_text(claim_record)
        self._ttl = int(settings.ttl)
        self._key = load_key(settings.key_file, settings.key_name)
        self._truths = {
            node: _truth(settings, self._service, target) for node, target in nodes.items()
        }
        self._primary = dnswire.Server(settings.server, settings.port)
        self._others = tuple(_server(each) for each in settings.servers)
        self._known: tuple[dnswire.Server, ...] = ()  # Found before; used when the primary is dead.
        self.where = f"{_plain(self._service)} at {self._primary}"
        self._refuse_strangers()

    async def point(self, node: str, claim: Claim) -> None:
        """Safe to repeat.  Raises Unreachable, Unanswered, Denied (the claim has moved on, too)."""
        truth = self._truths[node]
        async with self._dial() as line:
            before = await self._held(line, truth)
            rcode = await line.update(self._move(before, truth, claim), right=self._right())
            if rcode != dns.rcode.NOERROR:
                raise self._overtaken(node)
            # A record that cannot stand beside another is ignored, with NOERROR: RFC 2136, 3.4.2.2.
            try:
                after = await self._held(line, truth)
            except Unreachable as error:
                raise Unanswered(f"{error}, after it took the update", hint=error.hint) from error
        if not self._is(after, truth):
            raise Denied(
                f"{self._primary} took the update, but {_plain(self._service)} still"
                f" says {self._say(after)} there",
                hint=f"Delete whatever else stands at {_plain(self._service)}: no other record can be"
                " beside a CNAME.",
            )

    async def verify(self, node: str) -> None:
        """Takes `verify_within` seconds at most; then each server that does not follow is named.

        Raises Denied, Unreachable.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.verify_within
        servers = await self._servers()
        results = await asyncio.gather(*(self._follow(each, node, deadline) for each in servers))
        complaints = [each for each in results if each is not None]
        if complaints:
            denied = any(isinstance(each, Denied) for each in complaints)
            raise (Denied if denied else Unreachable)(
                "; ".join(str(each) for each in complaints),
                hint="Callers who ask there do not reach "
                f"{node}.  Does the primary notify it (also-notify, notify-delay 0), may it transfer"
                " the zone, and does it run?",
            )

    async def look(self) -> dict[str, str]:
        try:
            servers = await self._servers()
        except AdapterError as error:
            if not self._known:
                return {str(self._primary): f"? {error}"}
            servers = self._known
        said = await asyncio.gather(*(self._hear(each) for each in servers))
        return {str(server): text for server, text in zip(servers, said, strict=True)}

    # The update

    async def _held(self, line: dnswire.Line, truth: Truth) -> Found:
        return {slot: await line.look_up(*slot) for slot in truth}

    def _move(self, before: Found, truth: Truth, claim: Claim) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(self._zone)
        if self._claim is not None:
            update.present(self._claim, txt(claim))
        for (name, kind), held in before.items():
            if self._claim is None:
                # All we can ask then is that nobody has moved the name since we looked.
                if held is None:
                    update.absent(name, kind)
                else:
                    update.present(name, *held)
        # Away with the old before the new comes: a CNAME cannot be added beside an A that is still
        # there. What is not there is not deleted: the key may have no right to that type.
        changes = [slot for slot in truth if not self._stands(before[slot], truth[slot])]
        for name, kind in changes:
            if before[name, kind] is not None:
                update.delete(name, kind)
        for name, kind in changes:
            if truth[name, kind]:
                update.add(name, self._ttl, *truth[name, kind])
        return update

    def _overtaken(self, node: str) -> Denied:
        name = _plain(self._service)
        if self._claim is not None:
            return Denied(
                f"{self._primary} refuses to let {name} lead to {node}: the claim has moved on",
                hint="The other node was faster, or a person decided otherwise: see understudy status.",
            )
        return Denied(
            f"{name} was changed by somebody else at {self._primary} at the same moment",
            hint="Only the two nodes should have a key that may change it.",
        )

    def _right(self) -> str:
        match self._settings.record:
            case Record.CNAME:
                return f"name {_plain(self._service)} CNAME A AAAA"
            case Record.A:
                return f"name {_plain(self._service)} A AAAA CNAME"
            case Record.SRV:
                return f"subdomain {_plain(self._service)} SRV"

    def _is(self, found: Found, truth: Truth) -> bool:
        return all(self._stands(found[slot], truth[slot]) for slot in truth)

    def _stands(self, held: dns.rrset.RRset | None, wanted: frozenset[dns.rdata.Rdata]) -> bool:
        return frozenset(held or ()) == wanted and (held is None or held.ttl <= self._ttl)

    def _dial(self) -> AbstractAsyncContextManager[dnswire.Line]:
        return dnswire.dial(self._primary, self._key, timeout=self._settings.timeout)

    # The servers that callers ask

    async def _servers(self) -> tuple[dnswire.Server, ...]:
        """By address, the primary first.  Raises Unreachable, Denied."""
        first = await self._by_address(self._primary)
        others = [await self._by_address(each) for each in self._others]
        if not others:
            others = [[each] for each in await self._by_ns()]
        found = [server for group in [first, *others] for server in group]
        self._known = tuple(dict.fromkeys(found))
        return self._known

    async def _by_address(self, server: dnswire.Server) -> list[dnswire.Server]:
        found = await dnswire.addresses(server.host, timeout=self._settings.timeout)
        return [dnswire.Server(each, server.port) for each in _usable(found)]

    async def _by_ns(self) -> list[dnswire.Server]:
        async with self._dial() as line:
            names = await line.look_up(self._zone, _NS)
            if names is None:
                raise Denied(
                    f"{self._primary} has no NS records for {_plain(self._zone)}",
                    hint="Mend zone: it is the zone as the name server has it.",
                )
            hosts = {each.target: await self._glue(line, each.target) for each in names}
        found = []
        for host, known in hosts.items():
            # A name server in another zone: its address is not for our primary to say.
            at = known or await dnswire.addresses(_plain(host), timeout=self._settings.timeout)
            found += [dnswire.Server(each, self._settings.port) for each in _usable(at)]
        return found

    async def _glue(self, line: dnswire.Line, host: dns.name.Name) -> tuple[str, ...]:
        if not host.is_subdomain(self._zone):
            return ()
        try:
            found = [await line.look_up(host, kind) for kind in (_A, _AAAA)]
        except Denied:  # In a zone below ours: delegated, so without authority.
            return ()
        return tuple(each.address for rrset in found for each in rrset or ())

    # Asking one of them

    async def _follow(
        self, server: dnswire.Server, node: str, deadline: float
    ) -> Denied | Unreachable | None:
        """What is wrong with this server at the deadline; None as soon as nothing is."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            left = max(deadline - loop.time(), _FIRST_PAUSE)
            wrong = await self._wrong(server, node, min(left, self._settings.timeout))
            if wrong is None:
                return None
            if loop.time() + pause >= deadline:
                return wrong
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _wrong(
        self, server: dnswire.Server, node: str, timeout: float
    ) -> Denied | Unreachable | None:
        truth = self._truths[node]
        try:
            found = await self._asked(server, timeout)
        except (Denied, Unreachable) as error:
            return error
        if self._is(found, truth):
            return None
        if all(frozenset(found[slot] or ()) == truth[slot] for slot in truth):
            ttl = max(held.ttl for held in found.values() if held is not None)
            return Denied(f"{server} serves {node} with a TTL of {ttl} s, not {self._ttl} s")
        return Denied(f"{server} still serves {self._say(found)}")

    async def _hear(self, server: dnswire.Server) -> str:
        try:
            found = await self._asked(server, self._settings.timeout)
        except AdapterError as error:
            return f"? {error}"
        for node, truth in self._truths.items():
            if all(frozenset(found[slot] or ()) == truth[slot] for slot in truth):
                return node
        return self._say(found)

    async def _asked(self, server: dnswire.Server, timeout: float) -> Found:
        # Our key may lead us to another view than callers get; only the primary needs it.
        key = self._key if server == self._known[0] else None
        slots = tuple(next(iter(self._truths.values())))
        return {slot: await dnswire.ask(server, *slot, key=key, timeout=timeout) for slot in slots}

    def _say(self, found: Found) -> str:
        words = [
            _word(name, each, named=name != self._service)
            for (name, _), held in found.items()
            for each in sorted(held or (), key=str)
        ]
        return ", ".join(words) or "nothing"

    def _refuse_strangers(self) -> None:
        findings = [
            f"[name] {_plain(each)} is not in the zone {self._settings.zone}.  Mend one of the two."
            for each in (self._service, self._claim)
            if each is not None and not each.is_subdomain(self._zone)
        ]
        if self._settings.record is Record.CNAME and self._service == self._zone:
            findings.append(
                f'[name] a CNAME cannot stand at the top of a zone ({self._settings.zone}).  Write: record = "A"'
            )
        if findings:
            raise ConfigError(findings)


def _truth(settings: Settings, service: dns.name.Name, target: Target) -> Truth:
    match settings.record:
        case Record.CNAME:
            return {
                (service, _CNAME): frozenset({_data(_CNAME, _dotted(target.host))}),
                (service, _A): frozenset(),
                (service, _AAAA): frozenset(),
            }
        case Record.A:
            if not target.addresses:
                raise ConfigError([f"{target.host} has no address, and [name] record is A."])
            return {
                (service, _CNAME): frozenset(),
                (service, _A): frozenset(
                    _data(_A, each) for each in target.addresses if ":" not in each
                ),
                (service, _AAAA): frozenset(
                    _data(_AAAA, each) for each in target.addresses if ":" in each
                ),
            }
        case Record.SRV:
            # Only the active node: a caller must never try the other one, whatever the priorities.
            return {
                (dns.name.from_text(label, origin=service), _SRV): frozenset(
                    {_data(_SRV, f"10 0 {port} {_dotted(target.host)}")}
                )
                for label, port in (_srv(each) for each in settings.srv)
            }


def _srv(text: str) -> tuple[str, int]:
    label, _, port = text.rpartition(":")
    if not label.startswith("_") or not port.isascii() or not port.isdigit():
        raise ConfigError([f'[name] srv: "{text}" should look like "_sip._udp:5060".'])
    return label, int(port)


def _data(kind: dns.rdatatype.RdataType, text: str) -> dns.rdata.Rdata:
    try:
        return dns.rdata.from_text(dns.rdataclass.IN, kind, text)
    except dns.exception.DNSException:
        what = dns.rdatatype.to_text(kind)
        raise ConfigError([f'[nodes] "{text}" cannot be the value of a record {what}.']) from None


def _dotted(host: str) -> str:
    return host.rstrip(".") + "."


def _server(text: str) -> dnswire.Server:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return dnswire.Server(text.strip("[]"))
    return dnswire.Server(host.strip("[]"), int(port))


def _usable(found: tuple[str, ...]) -> tuple[str, ...]:
    """Those that this machine has a route for (no IPv6 here, often); all if it has none for any."""
    return tuple(each for each in found if _has_route(each)) or found


def _has_route(address: str) -> bool:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))  # Sends nothing.
    except OSError:
        return False
    return True


def _word(name: dns.name.Name, data: dns.rdata.Rdata, *, named: bool) -> str:
    text = data.to_text().rstrip(".")
    return f"{_plain(name)} {text}" if named else text


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
