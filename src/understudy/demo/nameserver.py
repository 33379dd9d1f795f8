"""A small authoritative name server: one zone, in memory, changed by signed updates.

For the demo and for tests on one machine.  It speaks what the claim and the service name need:
queries (RFC 1035) over UDP and TCP, updates with prerequisites (RFC 2136), TSIG (RFC 8945).  No
zone transfers, no recursion, no DNSSEC; any key of its key file may change anything but the SOA and
the zone's own NS records.
"""

import argparse
import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.SOA
import dns.rrset
import dns.tsig
import dns.update

from understudy.adapters.tsigkey import load_key
from understudy.errors import ConfigError

_ANY = dns.rdatatype.ANY
_CNAME = dns.rdatatype.CNAME
_NS = dns.rdatatype.NS
_SOA = dns.rdatatype.SOA
_IDLE = 30.0  # Seconds after which a silent TCP connection is closed.
_TTL = 60  # Seconds, of the records that we make ourselves.
_LONGEST_CHAIN = 8

Slot = tuple[dns.name.Name, dns.rdatatype.RdataType]


class Held(NamedTuple):
    """The records of one name and type."""

    ttl: int
    data: frozenset[dns.rdata.Rdata]


class Zone:
    """The records of one zone, and what may be asked and changed."""

    def __init__(self, name: str, records: Iterable[str] = ()) -> None:
        """`records` are `NAME TTL TYPE VALUE`, names absolute or below the zone.  Raises
        ConfigError.
        """
        self.name = dns.name.from_text(name)
        self._records: dict[Slot, Held] = {}
        primary = dns.name.from_text("ns", self.name)
        self._put(
            self.name,
            _TTL,
            dns.rdata.from_text(
                "IN", "SOA", f"{primary} hostmaster.{self.name} 1 3600 600 86400 {_TTL}"
            ),
        )
        self._put(self.name, _TTL, dns.rdata.from_text("IN", "NS", primary.to_text()))
        for text in records:
            self._put(*_record(text, self.name))

    @property
    def serial(self) -> int:
        return self._soa().serial

    def answer(self, response: dns.message.Message) -> None:
        """Fill in what the zone says about the question in `response`."""
        question = response.question[0]
        name, kind = question.name, question.rdtype
        if not name.is_subdomain(self.name) or question.rdclass != dns.rdataclass.IN:
            response.set_rcode(dns.rcode.REFUSED)
            return
        if kind in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
            response.set_rcode(dns.rcode.NOTIMP)
            return
        response.flags |= dns.flags.AA
        for _ in range(_LONGEST_CHAIN):
            held = self._at(name, kind)
            response.answer += [_rrset(name, each) for each in held]
            if held or (name, _CNAME) not in self._records:
                break
            alias = self._records[name, _CNAME]
            response.answer.append(_rrset(name, alias))
            (data,) = alias.data
            assert isinstance(data, dns.rdtypes.ANY.CNAME.CNAME)
            name = data.target
            if not name.is_subdomain(self.name):
                return
        if not self._exists(name):
            response.set_rcode(dns.rcode.NXDOMAIN)
        if not response.answer or response.rcode() == dns.rcode.NXDOMAIN:
            response.authority.append(_rrset(self.name, self._records[self.name, _SOA]))

    def update(self, update: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        """All of it or nothing (RFC 2136, 3)."""
        if len(update.zone) != 1 or update.zone[0].rdtype != _SOA:
            return dns.rcode.FORMERR
        if update.zone[0].name != self.name or update.zone[0].rdclass != dns.rdataclass.IN:
            return dns.rcode.NOTAUTH
        rcode = self._unmet(update.prerequisite)
        if rcode != dns.rcode.NOERROR:
            return rcode
        if not all(each.name.is_subdomain(self.name) for each in update.update):
            return dns.rcode.NOTZONE
        before = self._records
        self._records = dict(before)
        for each in update.update:
            self._change(each)
        if self._records != before:
            self._bump()
        return dns.rcode.NOERROR

    def _unmet(self, prerequisites: Iterable[dns.rrset.RRset]) -> dns.rcode.Rcode:
        """RFC 2136, 3.2."""
        wanted: dict[Slot, set[dns.rdata.Rdata]] = {}
        for each in prerequisites:
            if not each.name.is_subdomain(self.name):
                return dns.rcode.NOTZONE
            here = (
                self._exists(each.name)
                if each.rdtype == _ANY
                else bool(self._data((each.name, each.rdtype)))
            )
            match each.deleting:
                case dns.rdataclass.ANY if not here:
                    return dns.rcode.NXDOMAIN if each.rdtype == _ANY else dns.rcode.NXRRSET
                case dns.rdataclass.NONE if here:
                    return dns.rcode.YXDOMAIN if each.rdtype == _ANY else dns.rcode.YXRRSET
                case None:
                    if each.ttl != 0:
                        return dns.rcode.FORMERR
                    wanted.setdefault((each.name, each.rdtype), set()).update(each)
        for slot, values in wanted.items():
            if self._data(slot) != values:
                return dns.rcode.NXRRSET
        return dns.rcode.NOERROR

    def _change(self, change: dns.rrset.RRset) -> None:
        """RFC 2136, 3.4.2."""
        name, kind = change.name, change.rdtype
        if kind == _SOA or (name == self.name and kind == _NS):
            return
        match change.deleting:
            case dns.rdataclass.ANY if kind == _ANY:
                for slot in [each for each in self._records if each[0] == name]:
                    if slot not in ((self.name, _SOA), (self.name, _NS)):
                        del self._records[slot]
            case dns.rdataclass.ANY:
                self._records.pop((name, kind), None)
            case dns.rdataclass.NONE:
                if left := self._data((name, kind)).difference(change):
                    self._records[name, kind] = Held(self._records[name, kind].ttl, left)
                else:
                    self._records.pop((name, kind), None)
            case _:
                for data in change:
                    self._put(name, change.ttl, data)

    def _put(self, name: dns.name.Name, ttl: int, data: dns.rdata.Rdata) -> None:
        # A CNAME and other data cannot be at one name: the later one is ignored (RFC 2136,
        # 3.4.2.2).
        kinds = {kind for each, kind in self._records if each == name}
        if (data.rdtype == _CNAME) != (_CNAME in kinds) and kinds:
            return
        slot = (name, data.rdtype)
        others = frozenset() if data.rdtype in (_CNAME, _SOA) else self._data(slot)
        self._records[slot] = Held(ttl, others | {data})

    def _bump(self) -> None:
        soa = self._soa()
        serial = (soa.serial + 1) % 2**32 or 1  # RFC 1982: it goes round, and 0 is avoided.
        self._put(self.name, _TTL, soa.replace(serial=serial))

    def _at(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[Held]:
        return [
            held
            for (owner, each), held in self._records.items()
            if owner == name and kind in (each, _ANY)
        ]

    def _data(self, slot: Slot) -> frozenset[dns.rdata.Rdata]:
        held = self._records.get(slot)
        return frozenset() if held is None else held.data

    def _soa(self) -> dns.rdtypes.ANY.SOA.SOA:
        (soa,) = self._data((self.name, _SOA))
        assert isinstance(soa, dns.rdtypes.ANY.SOA.SOA)
        return soa

    def _exists(self, name: dns.name.Name) -> bool:
        # A name without data exists when there is one below it (RFC 4592, 2.2.2).
        return any(each.is_subdomain(name) for each, _ in self._records)


class NameServer:
    """Serves one zone on one address, UDP and TCP."""

    def __init__(self, zone: Zone, keys: Iterable[dns.tsig.Key]) -> None:
        self.zone = zone
        self._keys: Mapping[dns.name.Name, dns.tsig.Key] = {each.name: each for each in keys}
        self._tcp: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which `port` 0 leaves to the kernel.  Raises OSError."""
        self._tcp = await asyncio.start_server(self._converse, host, port)
        port = self._tcp.sockets[0].getsockname()[1]
        try:
            self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Datagrams(self), (host, port)
            )
        except OSError:
            await self.stop()
            raise
        return port

    async def stop(self) -> None:
        if self._udp is not None:
            self._udp.close()
        for each in self._callers:
            each.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()
        self._tcp = self._udp = None

    def respond(self, wire: bytes, *, room: int | None = None) -> bytes | None:
        """The answer to one message, cut to what the caller has `room` for in UDP (octets)."""
        try:
            query = dns.message.from_wire(wire, keyring=dict(self._keys))
        except dns.message.UnknownTSIGKey:
            return _distrust(wire, dns.rcode.BADKEY)
        except (dns.tsig.BadKey, dns.tsig.BadAlgorithm):
            return _distrust(wire, dns.rcode.BADKEY)
        except dns.tsig.BadSignature:
            return _distrust(wire, dns.rcode.BADSIG)
        except dns.tsig.BadTime:
            return self._late(wire)
        except (dns.exception.DNSException, NotImplementedError):
            return _malformed(wire)
        if query.flags & dns.flags.QR:
            return None  # An answer, which must not be answered.
        response = dns.message.make_response(query)
        match query.opcode():
            case dns.opcode.QUERY if len(query.question) == 1:
                self.zone.answer(response)
            case dns.opcode.UPDATE if isinstance(query, dns.update.UpdateMessage):
                signed = query.had_tsig
                response.set_rcode(self.zone.update(query) if signed else dns.rcode.REFUSED)
            case dns.opcode.QUERY:
                response.set_rcode(dns.rcode.FORMERR)
            case _:
                response.set_rcode(dns.rcode.NOTIMP)
        if room is None:
            return _cut(response, 65535)
        return _cut(response, max(512, min(query.payload or 512, room)))

    def _late(self, wire: bytes) -> bytes:
        """RFC 8945, 5.2.3: signed, with our time."""
        query = dns.message.from_wire(wire, keyring=False)
        assert query.tsig is not None
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NOTAUTH)
        response.use_tsig(
            self._keys[query.tsig.name],
            fudge=query.tsig[0].fudge,
            tsig_error=dns.rcode.BADTIME,
            other_data=int(time.time()).to_bytes(6, "big"),
        )
        response.request_mac = query.tsig[0].mac
        return response.to_wire()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        try:
            while True:
                async with asyncio.timeout(_IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    response = self.respond(await reader.readexactly(size))
                    if response is not None:
                        writer.write(len(response).to_bytes(2, "big") + response)
                        await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass  # The caller has left, or sleeps, or we stop.
        finally:
            self._callers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.respond(data, room=1232)
        if response is not None:
            self._transport.sendto(response, addr)


def _rrset(name: dns.name.Name, held: Held) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(name, held.ttl, held.data)


def _cut(response: dns.message.Message, room: int) -> bytes:
    try:
        return response.to_wire(max_size=room)
    except dns.exception.TooBig:
        response.flags |= dns.flags.TC  # The caller comes again over TCP.
        response.answer.clear()
        response.authority.clear()
        return response.to_wire()


def _distrust(wire: bytes, error: dns.rcode.Rcode) -> bytes | None:
    """RFC 8945, 5.2: NOTAUTH, with a TSIG record that says why and is not signed."""
    try:
        query = dns.message.from_wire(wire, keyring=False)
    except dns.exception.DNSException:
        return _malformed(wire)
    if query.tsig is None or query.flags & dns.flags.QR:
        return None
    theirs = query.tsig[0]
    response = dns.message.make_response(query)
    response.tsig = None
    response.set_rcode(dns.rcode.NOTAUTH)
    body = bytearray(response.to_wire())
    tsig = theirs.replace(mac=b"", original_id=query.id, error=error, other=b"")
    tail = BytesIO()
    dns.rrset.from_rdata(query.tsig.name, 0, tsig).to_wire(tail)
    body[10:12] = (int.from_bytes(body[10:12], "big") + 1).to_bytes(2, "big")
    return bytes(body) + tail.getvalue()


def _malformed(wire: bytes) -> bytes | None:
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    return wire[:2] + bytes([0x80 | wire[2] & 0x78, int(dns.rcode.FORMERR)]) + bytes(8)


def _record(text: str, origin: dns.name.Name) -> tuple[dns.name.Name, int, dns.rdata.Rdata]:
    try:
        name, ttl, kind, value = text.split(maxsplit=3)
        data = dns.rdata.from_text("IN", kind, value, origin=origin, relativize=False)
        owner = dns.name.from_text(name, origin)
        seconds = int(ttl)
    except (ValueError, dns.exception.DNSException):
        raise ConfigError(
            [f'"{text}" should look like "sip 30 CNAME pbx01.example.test."']
        ) from None
    if not owner.is_subdomain(origin):
        raise ConfigError([f'"{text}" is not in the zone {origin}'])
    return owner, seconds, data


def main(arguments: list[str] | None = None) -> None:
    """`python -m understudy.demo.nameserver`: serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="understudy.demo.nameserver", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:5353", metavar="ADDRESS:PORT")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--record", action="append", default=[], metavar="'NAME TTL TYPE VALUE'")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    try:
        server = NameServer(Zone(given.zone, given.record), [load_key(given.key_file)])
        asyncio.run(_serve(server, host.strip("[]"), int(port)))
    except (ConfigError, ValueError, OSError) as error:
        parser.error(str(error))


async def _serve(server: NameServer, host: str, port: int) -> None:
    done = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, done.set)
    await server.start(host, port)
    try:
        await done.wait()
    finally:
        await server.stop()


if __name__ == "__main__":
    main()
