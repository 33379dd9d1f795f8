"""The DNS as the claim and the name use it: one server, signed, with deadlines.

What matters here is to know, after a failure, whether the server may have acted (PROTOCOL.md C2):
Unreachable = it certainly did not; Unanswered = it may have; Denied = it said no.
RFC 2136 (dynamic updates; section 6: how they travel), RFC 8945 (TSIG), RFC 7766 (TCP).
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

from understudy.errors import AdapterError, Denied, Unanswered, Unreachable

# A verdict on the prerequisites (RFC 2136, 3.2): the server read them and changed nothing, or
# obeyed.
VERDICTS = frozenset(
    {
        dns.rcode.NOERROR,
        dns.rcode.NXDOMAIN,
        dns.rcode.NXRRSET,
        dns.rcode.YXDOMAIN,
        dns.rcode.YXRRSET,
    }
)


RESEND = 0.15  # Seconds from one datagram to the next.


@dataclass(frozen=True, slots=True)
class Server:
    """One name server, by name or address."""

    host: str
    port: int = 53

    def __str__(self) -> str:
        if self.port == 53:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@asynccontextmanager
async def dial(
    server: Server, key: dns.tsig.Key, *, timeout: float, spent: float = 0.0
) -> "AsyncIterator[Line]":
    """A TCP connection to `server`; all that is asked over it must be over in `timeout` seconds (`spent` are gone).

    Raises Unreachable.
    """
    deadline = asyncio.get_running_loop().time() + timeout - spent
    try:
        async with asyncio.timeout_at(deadline):
            connection = await _connect(server)
    except TimeoutError:
        raise Unreachable(f"{server} did not take the call within {timeout:g} s (TCP)") from None
    try:
        yield Line(server, key, connection, deadline, timeout)
    finally:
        connection.close()


class Line:
    """An open connection: what we send and what we accept is signed with our key."""

    def __init__(
        self,
        server: Server,
        key: dns.tsig.Key,
        connection: socket.socket,
        deadline: float,
        timeout: float,
    ) -> None:
        self.server = server
        self._key = key
        self._connection = connection
        self._deadline = deadline
        self._timeout = timeout

    async def look_up(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.rrset.RRset | None:
        """The records of this type at this very name, with authority.  Raises Unreachable, Denied."""
        query = dns.message.make_query(name, kind)
        query.flags &= ~dns.flags.RD
        try:
            answer = await self._exchange(query)
        except Unanswered as error:
            raise Unreachable(str(error), hint=error.hint) from error  # It was only a question.
        return authoritative(answer, name, kind, str(self.server))

    async def test(self, update: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        """Do these prerequisites hold?  One of VERDICTS; changes nothing.

        Raises Unreachable, Denied.
        """
        assert not update.update, "a test has prerequisites only"
        try:
            return await self.update(update, right="")
        except Unanswered as error:
            raise Unreachable(str(error), hint=error.hint) from error

    async def update(self, update: dns.update.UpdateMessage, *, right: str) -> dns.rcode.Rcode:
        """Ask for a change; one of VERDICTS.

        `right` is what the key must be allowed, as update-policy says it: "name sip.example.com A".
        Raises Unreachable (not made), Unanswered (may have been made), Denied (refused).
        """
        zone = _plain(update.zone[0].name)
        rcode = (await self._exchange(update)).rcode()
        if rcode in VERDICTS:
            return rcode
        raise _refusal(rcode, self.server, self._key, zone, right)

    async def permits(self, update: dns.update.UpdateMessage) -> bool:
        """May our key ask for this?  Whatever it asks for is done if it may.

        Raises Unreachable, Unanswered, Denied (refused for another reason).
        """
        rcode = (await self._exchange(update)).rcode()
        if rcode == dns.rcode.REFUSED:
            return False
        if rcode in VERDICTS:
            return True
        raise _refusal(rcode, self.server, self._key, _plain(update.zone[0].name), "")

    async def _exchange(self, message: dns.message.Message) -> dns.message.Message:
        message.use_tsig(self._key)
        wire = message.to_wire()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self._deadline):
                try:
                    await loop.sock_sendall(self._connection, len(wire).to_bytes(2, "big") + wire)
                except OSError as error:
                    # The kernel has not taken all of it, so the server cannot have all of it.
                    raise Unreachable(f"{self.server} hung up: {_why(error)}") from error
                size = int.from_bytes(await self._receive(2), "big")
                answer = await self._receive(size)
        except TimeoutError:
            raise Unanswered(
                f"{self.server} took the question and did not answer within {self._timeout:g} s"
            ) from None
        except OSError as error:
            raise Unanswered(f"{self.server} hung up without an answer: {_why(error)}") from error
        return _trusted(answer, message, self.server, self._key)

    async def _receive(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        got = bytearray()
        while len(got) < size:
            piece = await loop.sock_recv(self._connection, size - len(got))
            if not piece:
                raise ConnectionResetError("the connection was closed")
            got += piece
        return bytes(got)


async def test(
    server: Server,
    key: dns.tsig.Key,
    make: Callable[[], dns.update.UpdateMessage],
    *,
    timeout: float,
) -> dns.rcode.Rcode:
    """Do the prerequisites of what `make` makes hold?  One of VERDICTS; changes nothing.

    Asked in datagrams, and again until one gets through: over TCP a lost first packet costs a second.  Where none is
    answered in a third of the time, over TCP as well: a firewall may want that, and it is TCP that names the trouble.
    Raises Unreachable, Denied.
    """
    alone = timeout / 3
    verdict = await _test_by_datagrams(server, key, make(), within=alone)
    if verdict is not None:
        return verdict

    async def by_tcp() -> dns.rcode.Rcode:
        async with dial(server, key, timeout=timeout, spent=alone) as line:
            return await line.test(make())

    tcp = asyncio.create_task(by_tcp())
    datagrams = asyncio.create_task(_test_by_datagrams(server, key, make(), within=timeout - alone))
    try:
        await asyncio.wait({tcp, datagrams}, return_when=asyncio.FIRST_COMPLETED)
        if tcp.done() and tcp.exception() is None:
            return tcp.result()
        verdict = await datagrams
        return verdict if verdict is not None else await tcp
    finally:
        for task in (tcp, datagrams):
            task.cancel()
        await asyncio.gather(tcp, datagrams, return_exceptions=True)


async def _test_by_datagrams(
    server: Server, key: dns.tsig.Key, update: dns.update.UpdateMessage, *, within: float
) -> dns.rcode.Rcode | None:
    """None when no answer came that we can trust, or one that is no verdict: TCP will tell why."""
    assert not update.update, "a test has prerequisites only"
    update.use_tsig(key)
    wire = update.to_wire()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            address, *_ = await addresses(server.host, timeout=within)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
                datagrams.setblocking(False)
                datagrams.connect((address, server.port))
                while True:
                    datagrams.send(wire)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RESEND):
                            answer = await _answer_to(update, datagrams, loop)
                            rcode = _trusted(answer, update, server, key).rcode()
                            return rcode if rcode in VERDICTS else None
    except (TimeoutError, OSError, AdapterError):
        return None


async def _answer_to(
    asked: dns.message.Message, datagrams: socket.socket, loop: asyncio.AbstractEventLoop
) -> bytes:
    while True:
        wire = await loop.sock_recv(datagrams, 65535)
        if wire[:2] == asked.id.to_bytes(2, "big"):
            return wire


async def ask(
    server: Server,
    name: dns.name.Name,
    kind: dns.rdatatype.RdataType,
    *,
    timeout: float,
    key: dns.tsig.Key | None = None,
) -> dns.rrset.RRset | None:
    """What a caller's resolver would get from `server`, an address (UDP; TCP when it does not fit).

    Raises Unreachable, Denied (also when the server has no authority).
    """
    query = dns.message.make_query(name, kind)
    query.flags &= ~dns.flags.RD
    if key is not None:
        query.use_tsig(key)
    try:
        async with asyncio.timeout(timeout):
            answer, _ = await dns.asyncquery.udp_with_fallback(
                query, server.host, port=server.port, ignore_unexpected=True, ignore_errors=True
            )
    except TimeoutError:
        raise Unreachable(f"{server} does not answer within {timeout:g} s") from None
    except dns.exception.DNSException as error:
        raise Denied(f"{server} gave an answer that we cannot use: {error}") from error
    except (OSError, EOFError) as error:
        raise Unreachable(f"{server} cannot be asked: {_why(error)}") from error
    return authoritative(answer, name, kind, str(server))


def authoritative(
    answer: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType, server: str
) -> dns.rrset.RRset | None:
    """The records that `answer` holds, None for none.  Raises Unreachable, Denied (no authority)."""
    where = _plain(name)
    match answer.rcode():
        case dns.rcode.NOERROR | dns.rcode.NXDOMAIN:
            pass
        case dns.rcode.SERVFAIL:
            raise Unreachable(
                f"{server} fails to answer for {where} (SERVFAIL)",
                hint=f"The zone is not loaded or has expired there: see the log of {server}.",
            )
        case dns.rcode.REFUSED:
            raise Denied(
                f"{server} refuses to answer for {where} (REFUSED)",
                hint=f"Either {server} does not have this zone, or its allow-query leaves us out.",
            )
        case other:
            raise Denied(f"{server} answers {dns.rcode.to_text(other)} for {where}")
    if not answer.flags & dns.flags.AA:
        raise Denied(
            f"{server} has no authority for {where}: its answer proves nothing",
            hint="Name an authoritative server of the zone here, not a resolver.",
        )
    return answer.get_rrset(answer.answer, name, dns.rdataclass.IN, kind)


async def addresses(host: str, *, timeout: float) -> tuple[str, ...]:
    """The addresses of a host; an address is its own.  Raises Unreachable."""
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise Unreachable(f"the address of {host} was not found within {timeout:g} s") from None
    except OSError as error:
        raise Unreachable(
            f"the address of {host} cannot be found: {_why(error)}",
            hint="Give the address itself: then this does not depend on a resolver.",
        ) from error
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


async def _connect(server: Server) -> socket.socket:
    # Several addresses are IPv6 and IPv4 of one server: the first that takes the call will do.
    failures = []
    for address in await addresses(server.host, timeout=3600.0):  # dial's deadline counts.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failures.append(f"{address}: {_why(error)}")
            continue
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(connection, (address, server.port))
        except OSError as error:
            connection.close()
            failures.append(_why(error) if address == server.host else f"{address}: {_why(error)}")
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise Unreachable(f"{server} cannot be reached over TCP: {'; '.join(failures)}")


def _trusted(
    wire: bytes, asked: dns.message.Message, server: Server, key: dns.tsig.Key
) -> dns.message.Message:
    """The answer, if it is signed.  Raises Denied if our signature was refused, else Unanswered."""
    try:
        answer = dns.message.from_wire(wire, keyring=key, request_mac=asked.mac)
    except dns.tsig.PeerError as error:
        # Such a refusal cannot be signed (RFC 8945, 5.3.2).  The server checks the signature before
        # all else.
        raise _stranger(error, wire, asked, server, key) from error
    except dns.tsig.BadTime as error:
        raise Unanswered(
            f"the answer of {server} bears a time that is more than 300 s from ours",
            hint=_CLOCKS,
        ) from error
    except dns.exception.DNSException as error:
        raise Unanswered(
            f"{server} answered {_rcode_of(wire)} without a signature that we can trust",
            hint=f"Does {server} hold the key {_plain(key.name)}, and is it the primary itself?",
        ) from error
    if not answer.had_tsig or answer.id != asked.id or not answer.flags & dns.flags.QR:
        raise Unanswered(f"{server} answered {_rcode_of(wire)} without a signature")
    return answer


_CLOCKS = (
    "Set the clocks of this machine and of the name server by NTP (chrony, systemd-timesyncd)."
)


def _stranger(
    error: dns.tsig.PeerError,
    wire: bytes,
    asked: dns.message.Message,
    server: Server,
    key: dns.tsig.Key,
) -> AdapterError:
    name = _plain(key.name)
    match error:
        case dns.tsig.PeerBadKey():
            return Denied(
                f"{server} does not know the key {name} with this algorithm (BADKEY)",
                hint=f"Include our key file in the configuration of {server}, and reload it.",
            )
        case dns.tsig.PeerBadSignature():
            return Denied(
                f"{server} has another secret for the key {name} (BADSIG)",
                hint=f"Copy the key file anew, from {server} to here.",
            )
        case dns.tsig.PeerBadTime():
            return Denied(
                f"the clock of this machine is {_skew(wire, asked)} that of {server} (BADTIME)",
                hint=_CLOCKS,
            )
        case _:
            return Denied(f"{server} refuses our signature with the key {name}: {error}")


def _skew(wire: bytes, asked: dns.message.Message) -> str:
    """How far our clock is from the server's, which is in the refusal (RFC 8945, 5.2.3)."""
    try:
        tsig = dns.message.from_wire(wire, keyring=False).tsig
        assert tsig is not None
        assert asked.tsig is not None
        theirs = int.from_bytes(tsig[0].other, "big")
        ahead = asked.tsig[0].time_signed - theirs
    except (dns.exception.DNSException, AssertionError):
        return "far from"
    if not theirs:
        return "far from"
    return f"{abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'}"


def _rcode_of(wire: bytes) -> str:
    try:
        return dns.rcode.to_text(dns.message.from_wire(wire, keyring=False).rcode())
    except dns.exception.DNSException:
        return "nonsense"


def _refusal(
    rcode: dns.rcode.Rcode, server: Server, key: dns.tsig.Key, zone: str, right: str
) -> AdapterError:
    """What a refused update means, and the cure."""
    name = _plain(key.name)
    match rcode:
        case dns.rcode.REFUSED if right:
            return Denied(
                f"{server} refuses the update: the key {name} may not change this (REFUSED)",
                hint=f'In the zone "{zone}" on {server}: update-policy {{ grant {name} {right}; }};'
                " If it has that, it is a secondary: name the primary.",
            )
        case dns.rcode.REFUSED:
            return Denied(
                f"{server} refuses updates of {zone} (REFUSED): what it says proves nothing",
                hint="It is a secondary, or the zone has no update-policy: name the primary.",
            )
        case dns.rcode.NOTAUTH:
            return Denied(
                f"{server} is not the primary of {zone} (NOTAUTH)",
                hint=f"Name the primary of {zone} as server, or mend zone.",
            )
        case dns.rcode.NOTZONE:
            return Denied(
                f"{server} says that the name is not within {zone} (NOTZONE)",
                hint="Mend zone: it is the zone as the name server has it.",
            )
        case dns.rcode.FORMERR | dns.rcode.NOTIMP:
            return Denied(
                f"{server} does not understand dynamic updates ({dns.rcode.to_text(rcode)})",
                hint="The zone needs a primary that takes RFC 2136 updates (BIND, Knot, PowerDNS).",
            )
        case _:
            # SERVFAIL is also what a server says that has passed the update on and lost sight of
            # it.
            return Unanswered(
                f"{server} failed at the update ({dns.rcode.to_text(rcode)})",
                hint=f"See its log; often it cannot write beside the file of the zone {zone}.",
            )


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


def _why(error: BaseException) -> str:
    # asyncio puts words of its own in the place of the system's.
    code = error.errno if isinstance(error, OSError) else None
    return os.strerror(code) if code is not None and code > 0 else str(error)
