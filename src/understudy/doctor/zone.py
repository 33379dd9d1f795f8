"""The zone of the service name and of the claim: who serves it, and what our key may change there.

Whether the key may change something is asked by an UPDATE that deletes one record that is not there: where it is
allowed nothing changes, not even the serial (RFC 2136, 3.4.2.4), and where it is not it is REFUSED (3.3).
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update

from understudy.adapters import dnswire
from understudy.adapters.names import rfc2136
from understudy.adapters.tsigkey import load_key
from understudy.config.values import is_ip
from understudy.errors import AdapterError, Denied
from understudy.wiring import claim_place

from . import catalogue as c
from .finding import PAIR, Finding, Level
from .here import Here

CNAME, A, AAAA = dns.rdatatype.CNAME, dns.rdatatype.A, dns.rdatatype.AAAA
SRV, TXT, SOA = dns.rdatatype.SRV, dns.rdatatype.TXT, dns.rdatatype.SOA
STRANGE = "_understudy-doctor-probe"  # A name that our key must not change.
NOT_THERE = {
    CNAME: "understudy-doctor.invalid.",
    A: "0.0.0.0",  # noqa: S104
    AAAA: "::",
    SRV: "0 0 9 understudy-doctor.invalid.",
    TXT: '"understudy doctor"',
}
LAG = 2.0  # Seconds that a secondary may take to follow.

Slot = tuple[dns.name.Name, dns.rdatatype.RdataType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One zone that we change, at one server, with one key."""

    server: dnswire.Server
    zone: dns.name.Name
    key: dns.tsig.Key
    timeout: float  # Seconds.
    slots: tuple[Slot, ...]  # What we change there.
    tops: tuple[dns.name.Name, ...]  # Below these as well as below the zone, nothing else is ours.

    @property
    def policy(self) -> str:
        """What named.conf should say."""
        return " ".join(
            f"grant {_plain(self.key.name)} name {_plain(name)} {_kinds(self.slots, name)};"
            for name in dict.fromkeys(name for name, _ in self.slots)
        )


def places(here: Here) -> list[Place]:
    """Raises ConfigError when a key cannot be read."""
    service = dns.name.from_text(here.config.pair.service)
    found = [
        Place(
            server=dnswire.Server(each.server, each.port),
            zone=dns.name.from_text(each.zone),
            key=load_key(each.key_file, each.key_name),
            timeout=each.timeout,
            slots=_slots(each, service),
            tops=(service,),
        )
        for each in _names(here)
    ]
    claim = claim_place(here.config)
    if claim is not None:
        found.append(
            Place(
                server=claim.server,
                zone=claim.zone,
                key=claim.key,
                timeout=claim.timeout,
                slots=((claim.record, TXT),),
                tops=(),
            )
        )
    return _merged(found)


async def rights(here: Here) -> list[Finding]:
    """May the key change what it must, and nothing else?"""
    found = await asyncio.gather(*(_rights(place) for place in places(here)))
    return [finding for each in found for finding in each]


async def _rights(place: Place) -> list[Finding]:
    key = _plain(place.key.name)
    async with dnswire.dial(place.server, place.key, timeout=place.timeout) as line:
        missing = [slot for slot in place.slots if not await line.permits(_harmless(place, slot))]
        wide = [
            name
            for name in (dns.name.from_text(STRANGE, top) for top in (place.zone, *place.tops))
            if await line.permits(_harmless(place, (name, TXT)))
        ]
    zone, server = _plain(place.zone), place.server
    found = [
        c.TSIG_MAY.bad(
            PAIR,
            f"{place.server} does not let the key {key} change {_kinds(missing, name)} at {_plain(name)}",
            right=f"name {_plain(name)} {_kinds(place.slots, name)}",
            zone=zone,
            server=server,
            key=key,
        )
        for name in dict.fromkeys(name for name, _ in missing)
    ] or [c.TSIG_MAY.well(PAIR, f"the key {key} may change what it must at {place.server}")]
    if wide:
        said = (
            f"the key {key} may change more than it must at {place.server}: {_plain(wide[0])} too"
        )
        return [
            *found,
            c.TSIG_NARROW.bad(PAIR, said, policy=place.policy, zone=zone, server=server),
        ]
    return [*found, c.TSIG_NARROW.well(PAIR, f"the key {key} may change nothing else")]


def _harmless(place: Place, slot: Slot) -> dns.update.UpdateMessage:
    """It deletes a record that is not there.

    BIND lets everybody delete an SRV record that is not there, so one is added first: within one message, which is
    carried out as a whole (RFC 2136, 3.7), so that nobody ever sees it.
    """
    name, kind = slot
    update = dns.update.UpdateMessage(place.zone)
    data = dns.rdata.from_text(dns.rdataclass.IN, kind, NOT_THERE[kind])
    if kind == SRV:
        update.add(name, 0, data)
    update.delete(name, data)
    return update


async def name(here: Here) -> list[Finding]:
    """What callers are told, wherever they ask."""
    said = await here.node.name.look()
    found = [_leads(here, server, text) for server, text in said.items()]
    return [
        *found,
        *await _same_zone(here, [server for server, text in said.items() if text[:1] != "?"]),
    ]


def _leads(here: Here, server: str, text: str) -> Finding:
    service = here.config.pair.service
    if text.startswith("?"):
        if here.hidden:
            return c.NAME_SERVERS.unknown(here.me, text[2:], mend=c.AS_ROOT)
        return c.NAME_SERVERS.bad(here.me, text[2:], server=server, zone=service)
    if here.claim is None:
        return c.NAME.unknown(PAIR, f"{server} leads {service} to {text}; the claim is unknown")
    if text != here.claim.node:
        wrong = f"{server} leads {service} to {text}, and {here.claim.node} is active"
        return c.NAME.bad(PAIR, wrong, server=server, name=service)
    return c.NAME.well(PAIR, f"{server} leads {service} to {text}")


async def _same_zone(here: Here, servers: Sequence[str]) -> list[Finding]:
    """A secondary that is behind gets a moment to follow."""
    names = _names(here)
    if len(names) != 1 or not servers:
        return []  # Which server is asked for which zone is then not to be told from its name.
    zone = dns.name.from_text(names[0].zone)
    serials = await _serials(zone, servers, names[0].timeout)
    if len(set(serials.values())) > 1:
        await asyncio.sleep(LAG)
        serials = await _serials(zone, servers, names[0].timeout)
    if len(set(serials.values())) > 1:
        newest = max(serials.values())
        behind = [server for server, serial in serials.items() if serial != newest]
        said = f"{', '.join(behind)} still has an older {_plain(zone)} (serial {serials[behind[0]]}, not {newest})"
        return [c.NAME_SERVERS.bad(PAIR, said, server=behind[0], zone=_plain(zone))]
    return [c.NAME_SERVERS.well(PAIR, f"{', '.join(serials)}: the same {_plain(zone)}")]


async def _serials(zone: dns.name.Name, servers: Sequence[str], timeout: float) -> dict[str, int]:
    found = await asyncio.gather(
        *(dnswire.ask(_server(each), zone, SOA, timeout=timeout) for each in servers)
    )
    return {
        server: next(iter(rrset)).serial
        for server, rrset in zip(servers, found, strict=True)
        if rrset is not None
    }


async def ttl(here: Here) -> list[Finding]:
    found = []
    for each in _names(here):
        allowed = int(each.ttl)
        service = dns.name.from_text(here.config.pair.service)
        server = await _reached(each.server, each.port, each.timeout)
        key = load_key(each.key_file, each.key_name)
        for slot in _slots(each, service):
            rrset = await dnswire.ask(server, *slot, key=key, timeout=each.timeout)
            if rrset is not None:
                found.append(_ttl(slot, rrset.ttl, allowed))
    return found


def _ttl(slot: Slot, held: int, allowed: int) -> Finding:
    what = f"{_plain(slot[0])} {dns.rdatatype.to_text(slot[1])}"
    if held > allowed:
        said = f"{what} has a TTL of {held} s, and {allowed} s is configured"
        return c.NAME_TTL.bad(PAIR, said, name=what, ttl=allowed)
    return c.NAME_TTL.well(PAIR, f"{what} has a TTL of {held} s")


async def primary(here: Here) -> list[Finding]:
    """Is it one machine, the right one, and in a third place?"""
    found = await asyncio.gather(*(_primary(here, place) for place in _one_each(places(here))))
    return [finding for each in found for finding in each]


async def _primary(here: Here, place: Place) -> list[Finding]:
    host = place.server.host
    at = await dnswire.addresses(host, timeout=place.timeout)
    found = [_by_address(host, at), await _site(here, place, at)]
    if any(len([one for one in at if (":" in one) is six]) > 1 for six in (False, True)):
        said = f"{host} has several addresses ({', '.join(at)}): one name server, or several?"
        return [*found, c.PRIMARY.bad(PAIR, said)]
    server = dnswire.Server(at[0], place.server.port)
    try:
        soa = await dnswire.ask(server, place.zone, SOA, timeout=place.timeout)
    except Denied as error:
        return [*found, c.PRIMARY.bad(PAIR, str(error), mend=error.hint)]
    if soa is None:
        said = f"{server} has no zone {_plain(place.zone)}"
        return [*found, c.PRIMARY.bad(PAIR, said)]
    named = next(iter(soa)).mname
    theirs = await _addresses_of(named, server, place)
    if theirs and not set(theirs) & set(at):
        said = (
            f"the SOA of {_plain(place.zone)} names {_plain(named)} ({', '.join(theirs)}) as its primary, "
            f"and we ask {place.server}"
        )
        return [*found, c.PRIMARY.bad(PAIR, said, level=Level.NOTE)]
    return [*found, c.PRIMARY.well(PAIR, f"{place.server} serves {_plain(place.zone)}")]


def _by_address(host: str, at: Sequence[str]) -> Finding:
    if is_ip(host):
        return c.PRIMARY_ADDRESS.well(PAIR, f"the primary is given by its address, {host}")
    said = f"the primary is given by a name, {host}"
    return c.PRIMARY_ADDRESS.bad(PAIR, said, address=at[0])


async def _site(here: Here, place: Place, at: Sequence[str]) -> Finding:
    for name, node in here.config.nodes.items():
        for theirs in await dnswire.addresses(node.address, timeout=place.timeout):
            if near := [one for one in at if same_site(one, theirs)]:
                said = f"the primary {near[0]} is in the network of {name} ({theirs})"
                return c.PRIMARY_SITE.bad(PAIR, said)
    return c.PRIMARY_SITE.well(PAIR, f"the primary {place.server} is in no node's network")


def same_site(one: str, other: str) -> bool:
    """The same /24 or /48."""
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first.version != second.version:
        return False
    length = 24 if first.version == 4 else 48
    return second in ipaddress.ip_network(f"{first}/{length}", strict=False)


async def _addresses_of(
    host: dns.name.Name, server: dnswire.Server, place: Place
) -> tuple[str, ...]:
    """As the primary itself says, where that is in its zone.  Empty if nobody can say."""
    try:
        if not host.is_subdomain(place.zone):
            return await dnswire.addresses(_plain(host), timeout=place.timeout)
        found = [await dnswire.ask(server, host, kind, timeout=place.timeout) for kind in (A, AAAA)]
    except AdapterError:
        return ()
    return tuple(each.address for rrset in found for each in rrset or ())


async def identities(here: Here) -> dict[str, str]:
    """By server, which machine says that it answers there (hostname.bind, RFC 4892).  Most say nothing."""
    found = {}
    for place in _one_each(places(here)):
        query = dns.message.make_query("hostname.bind", TXT, dns.rdataclass.CH)
        try:
            server = await _reached(place.server.host, place.server.port, place.timeout)
            async with asyncio.timeout(place.timeout):
                answer = await dns.asyncquery.udp(query, server.host, port=server.port)
        except (TimeoutError, OSError, AdapterError, dns.exception.DNSException):
            continue
        texts = [data.to_text() for rrset in answer.answer for data in rrset]
        if texts:
            found[str(place.server)] = texts[0]
    return found


def _names(here: Here) -> list[rfc2136.Settings]:
    chosen = (each.settings for each in here.config.names)
    return [each for each in chosen if isinstance(each, rfc2136.Settings)]


def _slots(settings: rfc2136.Settings, service: dns.name.Name) -> tuple[Slot, ...]:
    """What `init` has the zone allow: another type that stands there is an administrator's to take away."""
    match settings.record:
        case rfc2136.Record.CNAME:
            return ((service, CNAME),)
        case rfc2136.Record.A:
            return ((service, A), (service, AAAA))
        case rfc2136.Record.SRV:
            labels = (each.rpartition(":")[0] for each in settings.srv)
            return tuple((dns.name.from_text(label, service), SRV) for label in labels)


def _merged(found: Sequence[Place]) -> list[Place]:
    """Those of the same zone, server and key as one."""
    merged: dict[tuple[object, ...], Place] = {}
    for each in found:
        where = (each.server, each.zone, each.key.name)
        held = merged.get(where)
        merged[where] = each if held is None else _both(held, each)
    return list(merged.values())


def _both(one: Place, other: Place) -> Place:
    return Place(
        server=one.server,
        zone=one.zone,
        key=one.key,
        timeout=max(one.timeout, other.timeout),
        slots=(*one.slots, *other.slots),
        tops=(*one.tops, *other.tops),
    )


def _one_each(found: Sequence[Place]) -> list[Place]:
    return list({(each.server, each.zone): each for each in found}.values())


async def _reached(host: str, port: int, timeout: float) -> dnswire.Server:
    return dnswire.Server((await dnswire.addresses(host, timeout=timeout))[0], port)


def _server(text: str) -> dnswire.Server:
    """As str(Server) writes it."""
    host, colon, port = text.rpartition(":")
    if not colon or is_ip(text):
        return dnswire.Server(text)
    return dnswire.Server(host.strip("[]"), int(port))


def _kinds(slots: Sequence[Slot], name: dns.name.Name) -> str:
    return " ".join(dns.rdatatype.to_text(kind) for each, kind in slots if each == name)


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
