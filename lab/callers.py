"""Callers of every kind, who go on calling whatever happens: a full call each time, and a stamp for each attempt.

SIP callers begin a call at a steady rate and retransmit as RFC 3261 says; a call counts as answered when its 200 comes
within the kind's limit.  Phones are real ones (baresip): a call at a time, begun once a second.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.message
import dns.rdatatype

from lab import network, sip
from lab.hosts import HOSTS
from lab.profile import SERVICE

RATE = 4.0  # Calls a second, of each SIP caller.
PHONE_RATE = 1.0
LIMITS = {
    "dispatcher": 5.0,
    "registrar": 5.0,
    "name": 2.0,
    "name0": 2.0,
    "phones": 5.0,
    "pstn": 5.0,
}
KINDS = {
    "dispatcher": "the provider that tries pbx01, then pbx02",
    "registrar": "the provider that the PBX registers to",
    "name": "a caller by name, through a caching resolver (TTL 30 s)",
    "name0": "a caller by name, who asks the authoritative server each time",
    "phones": "a phone calls a phone",
    "pstn": "a phone calls the public network",
}
_PSTN_PORT = 5080  # From where Kamailio takes calls of the public network.
_CONTROL = {"6001": 4441, "6002": 4442}  # ctrl_tcp of the phones.


@dataclass(slots=True)
class Attempt:
    begun: float  # Wall clock, as the others.
    answered: float | None = None
    why: str = ""  # Of one that failed.
    counts: bool = True  # False: lost to a crash of the phone itself.


Attempts = dict[str, list[Attempt]]


class Line:
    """One UDP socket of a host, and the calls that go through it."""

    def __init__(self, host: str, port: int = 0) -> None:
        self._sock = network.udp_socket(host, port)
        self.us: tuple[str, int] = self._sock.getsockname()
        self._calls: dict[str, tuple[sip.Call, asyncio.Future[int], asyncio.Event]] = {}
        asyncio.get_running_loop().add_reader(self._sock, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def call(self, number: str, them: tuple[str, int], limit: float) -> int:
        """The final code; 0 when there was none in time."""
        call = sip.Call(self.us, them, number)
        final: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heard = asyncio.Event()  # A provisional reply ends the retransmission.
        self._calls[call.id] = (call, final, heard)
        resend = asyncio.create_task(self._send_again_and_again(call, them, heard))
        try:
            return await asyncio.wait_for(asyncio.shield(final), limit)
        except TimeoutError:
            self._send(call.cancel(), them)
            return 0
        finally:
            resend.cancel()
            # Late replies are still acknowledged, or the far side repeats them for half a minute.
            asyncio.get_running_loop().call_later(35, self._calls.pop, call.id, None)

    async def insist(self, number: str, them: tuple[str, int], limit: float) -> tuple[float, int]:
        """A call to somebody who is about to come: an INVITE ten times a second until he says something.

        When he did (wall clock; 0 for never), and the final code (0: none in time).
        """
        call = sip.Call(self.us, them, number)
        final: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heard = asyncio.Event()
        self._calls[call.id] = (call, final, heard)
        said = 0.0
        try:
            async with asyncio.timeout(limit):
                await self._send_again_and_again(call, them, heard, first=0.1, grows=1)
                said = time.time()
                return said, await asyncio.shield(final)
        except TimeoutError:
            self._send(call.cancel(), them)
            return said, 0
        finally:
            asyncio.get_running_loop().call_later(35, self._calls.pop, call.id, None)

    async def _send_again_and_again(
        self,
        call: sip.Call,
        them: tuple[str, int],
        heard: asyncio.Event,
        first: float = sip.T1,
        grows: int = 2,
    ) -> None:
        wait = first
        while not heard.is_set():
            self._send(call.invite(), them)
            with suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), wait)
            wait *= grows

    def _read(self) -> None:
        for data, origin in network.received(self._sock):
            method = sip.read_request(data)
            if method and method != "ACK":
                self._send(sip.answer_200(data), origin)
            reply = sip.read_reply(data)
            if reply is not None and reply.call in self._calls:
                self._reply(reply, origin)

    def _reply(self, reply: sip.Reply, origin: Any) -> None:
        call, final, heard = self._calls[reply.call]
        if reply.method == "INVITE":
            heard.set()
        for packet in call.take(reply):
            self._send(packet, origin)
        if call.final and not final.done():
            final.set_result(call.final)

    def _send(self, packet: bytes, to: Any) -> None:
        with suppress(OSError):
            self._sock.sendto(packet, to)


class Resolver:
    """Asks one name server where the service name leads.  Caches nothing: that is the server's part."""

    def __init__(self, host: str, server: str) -> None:
        self._host, self._server = host, HOSTS[server].address

    async def address(self, within: float) -> str:
        """Empty when no address came in time."""
        question = dns.message.make_query(SERVICE, dns.rdatatype.A)
        sock = network.udp_socket(self._host)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within):
                while True:
                    await loop.sock_sendto(sock, question.to_wire(), (self._server, 53))
                    with suppress(TimeoutError, dns.exception.DNSException):
                        data = await asyncio.wait_for(loop.sock_recv(sock, 4096), 0.7)
                        found = dns.message.from_wire(data)
                        rows = [r for r in found.answer if r.rdtype == dns.rdatatype.A]
                        return str(rows[0][0]) if rows else ""
        except (TimeoutError, OSError):
            return ""
        finally:
            sock.close()


class Phone:
    """A baresip, driven through its ctrl_tcp."""

    def __init__(self, number: str) -> None:
        self._port = _CONTROL[number]
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._numbers = itertools.count(1)

    async def dial(self, number: str, limit: float, *, hold: float = 0.0) -> str:
        """Empty when the call was answered, else why not; for `hold` seconds it talks.

        Raises ConnectionError when the phone has crashed.
        """
        reader, writer = self._streams or await self._connect()
        try:
            await self._listen(reader, 0.05)  # What is left of the call before.
            await self._say(writer, "dial", number)
            try:
                async with asyncio.timeout(limit):
                    why = await self._outcome(reader)
                if not why:
                    await self._listen(reader, hold, until="CALL_CLOSED")
            except TimeoutError:
                return "no answer"
            else:
                return why
            finally:
                await self._say(writer, "hangup")
                await self._listen(reader, 0.5, until="CALL_CLOSED")
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise ConnectionError(str(error)) from error

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _outcome(self, reader: asyncio.StreamReader) -> str:
        ours = set()  # Ids of calls that began after we dialled.
        while True:
            event = await self._hear(reader)
            if event.get("response") and not event.get("ok"):
                return str(event.get("data")).strip()
            if event.get("direction") != "outgoing":
                continue
            if event.get("type") == "CALL_ESTABLISHED":
                return ""
            if event.get("type") != "CALL_CLOSED":
                ours.add(event.get("id"))
            elif event.get("id") in ours:
                return str(event.get("param"))

    async def _listen(
        self, reader: asyncio.StreamReader, seconds: float, until: str = "nothing"
    ) -> None:
        """To nothing in particular."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    if (await self._hear(reader)).get("type") == until:
                        return

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        import socket

        with network.inside("phones"):
            sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
            self._streams = await asyncio.open_connection(sock=sock)
        except OSError as error:
            sock.close()
            raise ConnectionError(str(error)) from error
        return self._streams

    async def _say(self, writer: asyncio.StreamWriter, command: str, words: str = "") -> None:
        body = json.dumps({"command": command, "params": words, "token": str(next(self._numbers))})
        writer.write(f"{len(body)}:{body},".encode())
        await writer.drain()

    async def _hear(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        """One netstring."""
        size = int((await reader.readuntil(b":"))[:-1])
        body = await reader.readexactly(size + 1)
        heard: dict[str, Any] = json.loads(body[:-1])
        return heard


@dataclass(slots=True)
class Callers:
    attempts: Attempts = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def answered_since(self, kind: str, at: float) -> bool:
        return any(a.answered and a.begun > at for a in self.attempts[kind])

    def recent(self, kind: str, seconds: float) -> list[Attempt]:
        since = time.time() - seconds
        return [attempt for attempt in self.attempts[kind] if attempt.begun > since]


@asynccontextmanager
async def calling() -> AsyncIterator[Callers]:
    """All kinds at once, until the end of the block."""
    callers = Callers()
    provider, outside = Line("prov", _PSTN_PORT), Line("probeI")
    kamailio = (HOSTS["prov"].address, 5060)
    caching, authoritative = Resolver("probeI", "prov"), Resolver("probeI", "dns1")
    first, second = Phone("6001"), Phone("6002")

    async def by_name(resolver: Resolver, limit: float) -> str:
        begun = time.monotonic()
        address = await resolver.address(limit)
        if not address:
            return "no address"
        left = limit - (time.monotonic() - begun)
        return _said(await outside.call("600", (address, 5060), max(0.1, left)))

    async def by_provider(number: str, limit: float) -> str:
        return _said(await provider.call(number, kamailio, limit))

    async def say(callers_of: str, make: Callable[[float], Awaitable[str]], rate: float) -> None:
        await _steadily(callers.attempts[callers_of], make, LIMITS[callers_of], rate)

    tasks = [
        asyncio.create_task(each)
        for each in (
            say("dispatcher", lambda limit: by_provider("5551", limit), RATE),
            say("registrar", lambda limit: by_provider("4551", limit), RATE),
            say("name", lambda limit: by_name(caching, limit), RATE),
            say("name0", lambda limit: by_name(authoritative, limit), RATE),
            _one_by_one(
                callers.attempts["phones"],
                lambda limit: second.dial("6001", limit),
                LIMITS["phones"],
            ),
            _one_by_one(
                callers.attempts["pstn"], lambda limit: first.dial("9123", limit), LIMITS["pstn"]
            ),
        )
    ]
    try:
        yield callers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        provider.close()
        outside.close()
        await first.close()
        await second.close()


def _said(code: int) -> str:
    return "" if code == 200 else f"SIP {code}" if code else "no answer"


async def _steadily(
    attempts: list[Attempt], make: Callable[[float], Awaitable[str]], limit: float, rate: float
) -> None:
    """A new one at each beat, whatever became of the earlier ones."""
    loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    beat = loop.time()
    try:
        while True:
            attempt = Attempt(time.time())
            attempts.append(attempt)
            task = asyncio.create_task(_try(attempt, make, limit))
            running.add(task)
            task.add_done_callback(running.discard)
            beat += 1.0 / rate
            await asyncio.sleep(max(0.0, beat - loop.time()))
    finally:
        for task in running:
            task.cancel()


async def _one_by_one(
    attempts: list[Attempt], make: Callable[[float], Awaitable[str]], limit: float
) -> None:
    while True:
        begun = time.time()
        attempt = Attempt(begun)
        attempts.append(attempt)
        try:
            await _try(attempt, make, limit)
        except ConnectionError as error:
            attempt.why, attempt.counts = f"the phone crashed: {error}", False
        await asyncio.sleep(max(0.1, 1.0 / PHONE_RATE - (time.time() - begun)))


async def _try(attempt: Attempt, make: Callable[[float], Awaitable[str]], limit: float) -> None:
    attempt.why = "not over"
    attempt.why = await make(limit)
    if not attempt.why:
        attempt.answered = time.time()
