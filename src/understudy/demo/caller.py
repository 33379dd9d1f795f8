"""Somebody who telephones all the time, by name: what a failover costs, seen by a caller.

Several times a second the service name is looked up as a phone would (CNAME, A or SRV, the answer
kept for its TTL) and a whole call is made over UDP: INVITE, 200, ACK, BYE, with the retransmissions
of RFC 3261 section 17.1.1 and a limit of two seconds.
"""

import asyncio
import contextlib
import math
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode

from understudy.plugins.check_sip import (
    LARGEST,
    STATUS_LINE,
    T1,
    T2,
    Message,
    join,
    parse_message,
)

HOPS = 8  # CNAMEs followed, at most.


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call.  Times in seconds; `started` and `ended` by the monotonic clock, `at` by the wall's."""

    number: int
    at: float
    started: float
    ended: float  # When it was answered, or given up.
    node: str = ""  # Who answered, as its `Server` says; "" when nobody did.
    where: str = ""  # The address that was called.
    why: str = ""  # Why it was lost.

    @property
    def answered(self) -> bool:
        return self.node != ""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the caller went through, in calls and in seconds."""

    answered: int
    lost: int
    by_node: dict[str, int]
    # From the start of the last answered call before lost ones to the start of the first after.
    longest_outage: float
    # Between two answers, lost calls or not: retransmission hides short outages from the above.
    longest_silence: float
    out_for: float  # Nobody has answered since then, and calls were lost; 0 when all is well.


class Lost(Exception):
    """Why nobody answered."""


class Caller:
    """Calls `name`, asking the name server at `server`, `rate` times a second.

    `srv`: look up `_sip._udp.NAME`; else CNAME and A, with `port`.  `ttl_cap`: keep an answer no
    longer than this many seconds, as some resolvers do.  `on_attempt` is called with each attempt as
    it ends.
    """

    def __init__(
        self,
        name: str,
        server: tuple[str, int],
        *,
        rate: float = 5.0,
        port: int = 5060,
        srv: bool = False,
        ttl_cap: float | None = None,
        limit: float = 2.0,
        on_attempt: Callable[[Attempt], None] | None = None,
    ) -> None:
        self.results: list[Attempt] = []  # In the order in which they ended.
        self._name = name
        self._directory = Directory(server, port=port, srv=srv, ttl_cap=ttl_cap)
        self._interval = 1 / rate
        self._limit = limit
        self._on_attempt = on_attempt
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Call until stop(), whatever happens to the calls; then wait for those under way."""
        loop = asyncio.get_running_loop()
        begun, number = loop.time(), 0
        async with asyncio.TaskGroup() as calls:
            while not self._stopped.is_set():
                number += 1
                calls.create_task(self._attempt(number))
                # By the plan, not by the last call: a late turn does not change the rate.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(begun + number * self._interval):
                        await self._stopped.wait()

    async def stop(self) -> None:
        """No further calls.  run() returns within two limits."""
        self._stopped.set()
        await asyncio.sleep(0)

    def summary(self) -> Summary:
        return summarize(self.results)

    async def _attempt(self, number: int) -> None:
        at, started = time.time(), time.monotonic()
        node = where = why = ""
        ended = 0.0
        try:
            async with asyncio.timeout(self._limit):
                host, port = await self._directory.look(self._name)
                where = join(host, port)
                call = Call(self._name, host, port)
                try:
                    node = await call.invite()
                    ended = time.monotonic()
                except BaseException:
                    call.close()
                    raise
        except TimeoutError:
            why = f"no answer from {where}" if where else "the name server does not answer"
        except (Lost, OSError) as error:
            why = str(error)
        self._note(
            Attempt(
                number=number,
                at=at,
                started=started,
                ended=ended or time.monotonic(),
                node=node,
                where=where,
                why=why,
            )
        )
        if node:
            await call.hang_up(self._limit)

    def _note(self, attempt: Attempt) -> None:
        self.results.append(attempt)
        if self._on_attempt:
            self._on_attempt(attempt)


def summarize(attempts: list[Attempt]) -> Summary:
    """Attempts in any order; the outage is measured from start to start, in the order of calling."""
    outage = silence = out_for = 0.0
    by_node: dict[str, int] = {}
    last: Attempt | None = None
    losing: Attempt | None = None  # The first lost call since the last answered one.
    ordered = sorted(attempts, key=lambda each: each.started)
    for each in ordered:
        if not each.answered:
            losing = losing or each
            continue
        by_node[each.node] = by_node.get(each.node, 0) + 1
        if losing:
            outage = max(outage, each.started - (last or losing).started)
        last, losing = each, None
    answers = sorted(each.ended for each in attempts if each.answered)
    for before, after in pairwise(answers):
        silence = max(silence, after - before)
    if losing:
        out_for = max(each.ended for each in ordered) - (last or losing).started
    return Summary(
        answered=len(answers),
        lost=len(attempts) - len(answers),
        by_node=by_node,
        longest_outage=max(outage, out_for),
        longest_silence=silence,
        out_for=out_for,
    )


# --- the name -----------------------------------------------------------------------------------


class Directory:
    """What a phone knows of the DNS: one name server, asked again when the TTL is over."""

    def __init__(
        self,
        server: tuple[str, int],
        *,
        port: int = 5060,
        srv: bool = False,
        ttl_cap: float | None = None,
    ) -> None:
        self._server = server
        self._port = port
        self._srv = srv
        self._ttl_cap = ttl_cap
        self._known: tuple[tuple[str, int], float] | None = None  # The answer, and until when.
        self._asking = asyncio.Lock()

    async def look(self, name: str) -> tuple[str, int]:
        """Address and port to call now.  Raises Lost."""
        async with self._asking:  # One question for all calls that wait for it.
            if self._known is None or time.monotonic() >= self._known[1]:
                self._known = None
                where, ttl = await self._ask(name)
                if self._ttl_cap is not None:
                    ttl = min(ttl, self._ttl_cap)
                self._known = where, time.monotonic() + ttl
            return self._known[0]

    async def _ask(self, name: str) -> tuple[tuple[str, int], float]:
        port, ttl = self._port, math.inf
        if self._srv:
            found = await self._query(f"_sip._udp.{name}", "SRV")
            if found.answer is None:
                raise Lost(f"_sip._udp.{name} has no SRV record")
            # Lowest priority first (RFC 2782).  Weights are for many servers; a pair has none.
            first = min(found.answer, key=lambda each: int(each.priority))
            name, port, ttl = first.target.to_text(), first.port, _ttl(found)
        for _ in range(HOPS):
            found = await self._query(name, "A")
            ttl = min(ttl, _ttl(found))
            if found.answer is not None:
                return (found.answer[0].address, port), ttl
            if not found.cnames:
                raise Lost(f"{name} has no A record")
            name = found.canonical_name.to_text()  # It leads out of what this answer holds.
        raise Lost(f"{name} leads nowhere in {HOPS} steps")

    async def _query(self, name: str, kind: str) -> dns.message.ChainingResult:
        question = dns.message.make_query(name, kind)
        while True:
            try:
                reply, _ = await dns.asyncquery.udp_with_fallback(
                    question, self._server[0], timeout=T1, port=self._server[1]
                )
                if reply.rcode() != dns.rcode.NOERROR:
                    raise Lost(f"{name}: {dns.rcode.to_text(reply.rcode())}")
                assert isinstance(reply, dns.message.QueryMessage)
                return reply.resolve_chaining()
            except dns.exception.Timeout:
                continue  # The call's own limit ends this.
            except (OSError, dns.exception.DNSException) as error:
                raise Lost(f"no use in what the name server says of {name}: {error}") from None


def _ttl(found: dns.message.ChainingResult) -> float:
    """Seconds.  Not `minimum_ttl`, which counts the absence of the target in as well."""
    rrsets = [*found.cnames, *([found.answer] if found.answer is not None else [])]
    return min((float(each.ttl) for each in rrsets), default=0.0)


# --- the call -----------------------------------------------------------------------------------


class Call:
    """One call over a socket of its own, connected, so that a refused port is seen at once."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self._socket = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
        )
        try:
            self._socket.setblocking(False)
            self._socket.connect((host, port))
        except OSError:
            self._socket.close()
            raise
        local = self._socket.getsockname()
        self._us = join(local[0], local[1])
        self._from = f"<sip:caller@{self._us}>;tag={secrets.token_hex(6)}"
        self._uri = f"sip:{name}"
        self._remote = self._uri  # The other side's Contact, once it has answered.
        self._to = f"<{self._uri}>"
        self._id = secrets.token_hex(12)
        self._ack = b""

    def close(self) -> None:
        self._socket.close()

    async def invite(self) -> str:
        """Until somebody answers: the name that the other side gives itself.  Raises Lost, OSError.

        RFC 3261 section 17.1.1.2: repeated at T1, doubling, until a first reply comes.
        """
        branch = _branch()
        request = self._request("INVITE", 1, branch, body=self._offer())
        interval = T1
        self._socket.send(request)
        while True:
            reply = await self._reply(branch, "INVITE", interval)
            if reply is None:
                if interval != math.inf:
                    self._socket.send(request)
                    interval *= 2
                continue
            code = _code(reply)
            if code < 200:
                interval = math.inf
                continue
            self._to = reply.first("to")
            if code >= 300:
                self._socket.send(self._request("ACK", 1, branch))
                raise Lost(f"the answer is {reply.start.partition(' ')[2]}")
            self._remote = _address(reply.first("contact")) or self._uri
            self._ack = self._request("ACK", 1, _branch())
            self._socket.send(self._ack)
            return reply.first("server") or self._socket.getpeername()[0]

    async def hang_up(self, limit: float) -> None:
        """BYE, for at most `limit` seconds; nobody is sad if it is not answered.  Then close."""
        branch = _branch()
        request = self._request("BYE", 2, branch)
        interval = T1
        try:
            async with asyncio.timeout(limit):
                self._socket.send(request)
                while True:
                    reply = await self._reply(branch, "BYE", interval)
                    if reply is not None and _code(reply) >= 200:
                        return
                    if reply is None:
                        self._socket.send(request)
                        interval = min(2 * interval, T2)
        except (TimeoutError, OSError):
            pass
        finally:
            self.close()

    async def _reply(self, branch: str, method: str, interval: float) -> Message | None:
        """The next reply to this request, or None when `interval` is over."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if interval == math.inf else interval):
                while True:
                    message = parse_message(await loop.sock_recv(self._socket, LARGEST))
                    if message is None or not STATUS_LINE.fullmatch(message.start):
                        continue
                    if message.branch == branch and message.method == method:
                        return message
                    if message.method == "INVITE" and self._ack:
                        self._socket.send(self._ack)  # Its 200 again: our ACK was lost.
        return None

    def _request(self, method: str, number: int, branch: str, *, body: str = "") -> bytes:
        lines = [
            f"{method} {self._remote} SIP/2.0",
            f"Via: SIP/2.0/UDP {self._us};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: {self._from}",
            f"To: {self._to}",
            f"Call-ID: {self._id}",
            f"CSeq: {number} {method}",
            f"Contact: <sip:caller@{self._us}>",
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines += [f"Content-Length: {len(body)}", "", body]
        return "\r\n".join(lines).encode()

    def _offer(self) -> str:
        host = self._socket.getsockname()[0]
        version = "IP6" if ":" in host else "IP4"
        return (
            f"v=0\r\no=- 1 1 IN {version} {host}\r\ns=-\r\nc=IN {version} {host}\r\nt=0 0\r\n"
            "m=audio 9 RTP/AVP 0\r\n"
        )


def _branch() -> str:
    return "z9hG4bK" + secrets.token_hex(12)


def _code(reply: Message) -> int:
    found = STATUS_LINE.fullmatch(reply.start)
    return int(found[1]) if found else 0


def _address(contact: str) -> str:
    """The URI in a Contact, with or without angle brackets."""
    if "<" in contact:
        return contact.partition("<")[2].partition(">")[0]
    return contact.partition(";")[0].strip()
