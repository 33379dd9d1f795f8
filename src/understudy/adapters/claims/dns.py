"""Keeps the claim in a TXT record beside the service name; the primary name server decides.

PROTOCOL.md C2, C3.  Compare-and-set is an update with the whole old record as its prerequisite (RFC
2136, 2.4.2), and a proof is such an update without a change.  A secondary refuses updates, or hands
them to the primary and its answer back; so whatever has passed that door was said by the primary.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
import dns.tsig
import dns.update

from understudy.adapters import dnswire
from understudy.adapters.claims import record
from understudy.adapters.tsigkey import load_key
from understudy.config.settings import DnsName, Host, Port, Seconds, SecretFile, setting
from understudy.core.claim import Claim
from understudy.errors import ClaimMissing, ConfigError, Denied, Unreachable

_READINGS = 3  # The other node may write between our question and its proof; hardly three times.


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    server: Host | None = setting(
        "The primary name server of the zone, one machine; without it the one in [name].",
        default=None,
        example="203.0.113.53",
    )
    port: Port | None = setting(
        "Its port; without it the one in [name], or 53.", default=None, example=53
    )
    zone: DnsName | None = setting(
        "The zone that holds the record; without it the one in [name].",
        default=None,
        example="example.com",
    )
    record: DnsName | None = setting(
        "The name of the TXT record; without it `_understudy.` and the service name.",
        default=None,
        example="_understudy.sip.example.com",
    )
    ttl: Seconds = setting(
        "How long resolvers may keep the record, for people who look; we never ask a resolver.",
        default=Seconds(0.0),
        example="0s",
    )
    key_file: SecretFile | None = setting(
        "The TSIG key, as tsig-keygen writes it; without it the one in [name].",
        default=None,
        example="/etc/understudy/tsig.key",
    )
    key_name: str | None = setting(
        "Which key of that file; without it the first.", default=None, example="understudy"
    )
    timeout: Seconds = setting(
        "How long one reading or one writing may take.", default=Seconds(3.0), example="3s"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the claim is, with nothing left open."""

    server: dnswire.Server
    zone: dns.name.Name
    record: dns.name.Name
    ttl: int  # seconds
    key: dns.tsig.Key
    timeout: float  # seconds


def build(
    settings: Settings,
    *,
    service: str,
    server: Host | None = None,
    port: Port | None = None,
    zone: DnsName | None = None,
    key_file: SecretFile | None = None,
    key_name: str | None = None,
) -> "DnsClaims":
    """The claim of the pair behind `service`; the rest is what [name] has.  Raises ConfigError."""
    return DnsClaims(
        resolve(
            settings,
            service=service,
            server=server,
            port=port,
            zone=zone,
            key_file=key_file,
            key_name=key_name,
        )
    )


def resolve(
    settings: Settings,
    *,
    service: str,
    server: Host | None = None,
    port: Port | None = None,
    zone: DnsName | None = None,
    key_file: SecretFile | None = None,
    key_name: str | None = None,
) -> Place:
    """Fill what [claim] leaves open with what [name] says (the arguments), and read the key.

    Raises ConfigError.  The port belongs to the server and the key's name to its file: they are inherited together or
    not at all.
    """
    if settings.server is not None:
        server, port = settings.server, None
    if settings.key_file is not None:
        key_file, key_name = settings.key_file, None
    zone = settings.zone or zone
    findings = [
        f'[claim] {each} is missing, and [name] has none.  Write: {each} = "{sample}"'
        for each, value, sample in (
            ("server", server, "203.0.113.53"),
            ("zone", zone, "example.com"),
            ("key_file", key_file, "/etc/understudy/tsig.key"),
        )
        if value is None
    ]
    if server is None or zone is None or key_file is None:
        raise ConfigError(findings)
    place = Place(
        server=dnswire.Server(server, settings.port or port or 53),
        zone=dns.name.from_text(zone),
        record=dns.name.from_text(settings.record or f"_understudy.{service}"),
        ttl=int(settings.ttl),
        key=load_key(key_file, settings.key_name or key_name),
        timeout=settings.timeout,
    )
    if not place.record.is_subdomain(place.zone):
        raise ConfigError(
            [
                f"[claim] record {_plain(place.record)} is not in the zone {zone}.  Mend one of the two."
            ]
        )
    return place


class DnsClaims:
    """ports.ClaimStore.  Every call takes `timeout` seconds at most; a cancelled write may stand."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.where = f"the claim at {place.server} ({_plain(place.record)})"

    async def read(self) -> Claim:
        async with self._dial() as line:
            for _ in range(_READINGS):
                found = await line.look_up(self._place.record, dns.rdatatype.TXT)
                if await line.test(self._exactly(found)) == dns.rcode.NOERROR:
                    return self._claim(found)
        raise Unreachable(
            f"{self.where} was another at each of {_READINGS} readings: what {self._place.server} serves"
            " is not what it holds",
            hint="Name the primary itself as server: not a secondary, not an anycast address.",
        )

    async def confirm(self, claim: Claim) -> bool:
        place = self._place
        make = partial(self._only_if, claim)
        verdict = await dnswire.test(place.server, place.key, make, timeout=place.timeout)
        return verdict == dns.rcode.NOERROR

    async def swap(self, old: Claim, new: Claim) -> bool:
        update = self._only_if(old)
        update.replace(self._place.record, self._place.ttl, txt(new))
        return await self._write(update)

    async def create(self, claim: Claim) -> bool:
        update = self._exactly(None)
        update.add(self._place.record, self._place.ttl, txt(claim))
        return await self._write(update)

    async def _write(self, update: dns.update.UpdateMessage) -> bool:
        async with self._dial() as line:
            right = f"name {_plain(self._place.record)} TXT"
            return await line.update(update, right=right) == dns.rcode.NOERROR

    def _dial(self) -> AbstractAsyncContextManager[dnswire.Line]:
        return dnswire.dial(self._place.server, self._place.key, timeout=self._place.timeout)

    def _only_if(self, claim: Claim) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(self._place.zone)
        update.present(self._place.record, txt(claim))
        return update

    def _exactly(self, found: dns.rrset.RRset | None) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(self._place.zone)
        if found is None:
            update.absent(self._place.record, dns.rdatatype.TXT)
        else:
            update.present(self._place.record, *found)
        return update

    def _claim(self, found: dns.rrset.RRset | None) -> Claim:
        if found is None:
            raise ClaimMissing(
                f"there is no claim at {self._place.server} ({_plain(self._place.record)})",
                hint="Say who is active: understudy set-active NODE",
            )
        if len(found) != 1:
            raise Denied(
                f"{self.where} is {len(found)} TXT records, and must be one",
                hint=f"Delete what is not ours at {_plain(self._place.record)}.",
            )
        (data,) = found
        try:
            claim = _from_txt(data)
        except ValueError as error:
            raise Denied(
                f"{self.where} cannot be read: {error}",
                hint="Somebody else wrote it.  Say who is active: understudy set-active NODE",
            ) from error
        return claim


def txt(claim: Claim) -> dns.rdata.Rdata:
    """The claim as TXT data: one string, more only beyond 255 octets (RFC 1035, 3.3.14)."""
    octets = record.to_text(claim).encode("ascii")
    strings = [octets[at : at + 255] for at in range(0, len(octets), 255)]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, strings)


def _from_txt(data: dns.rdata.Rdata) -> Claim:
    assert isinstance(data, dns.rdtypes.ANY.TXT.TXT)
    claim = record.from_text(b"".join(data.strings).decode("ascii"))
    if txt(claim) != data:
        # We could read it, and no prerequisite of ours would ever match it.
        raise ValueError("it is cut into strings in another way than ours")
    return claim


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
