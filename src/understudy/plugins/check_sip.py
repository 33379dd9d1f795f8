#!/usr/bin/env python3
"""Monitoring plugin: does this SIP server answer?

Sends one SIP OPTIONS (RFC 3261 section 11) over UDP, TCP or TLS and judges the final reply.  One
file, nothing but Python 3.9 or later: copy it to a check point and name it in nrpe.cfg.  Exit
codes, options and the one line of output follow the monitoring plugins' development guidelines.

The messages, the retransmission and the judgement are used by understudy's own probe as well; that
is why they wait for nothing themselves (`UdpExchange`, `take_message`).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import ssl  # Loaded where it is needed: a check point starts this file some thousand times an hour.

VERSION = "0.1.0"

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

T1 = 0.5  # Seconds.  RFC 3261 section 17.1.1.1: the estimate of a round trip.
T2 = 4.0  # Seconds.  The longest interval between two retransmissions.
LARGEST = 65536  # Bytes.  No datagram is longer; on a stream nobody may make us remember more.
STRANGER = (401, 403, 407)  # Answers to somebody whom the server does not know.

HELP = """
Sends SIP OPTIONS and says whether the server answers.

  OK        a final reply that counts as up (default: any; see --expect)
  WARNING   the same, but slower than -w
  CRITICAL  no reply until the deadline, a refused port, a closed connection, a reply that does not
            count as up, or a reply slower than -c
  UNKNOWN   could not ask, or could not tell: the name does not resolve, this host has no route, the
            TLS certificate is not accepted, wrong usage; or --neutral shows that it is us
"""

NOTES = """
What no answer means.  Silence, and "unreachable" said by a router on the way, are CRITICAL once the
deadline has passed: this plugin cannot tell a dead server from a dead network.  Those who ask
several check points can, and --neutral lets this one notice that its own network is down.  A
refused port (ICMP port unreachable, TCP reset) is CRITICAL at once: something there is alive and
says that nothing listens (a firewall that rejects looks the same).

--neutral names a host that has nothing to do with the server, for example the telephony provider.
It is asked when half of the timeout has passed without an answer: by TCP connect, or by SIP OPTIONS
over UDP if it begins with "sip:"; a refusal counts as reached.  If none of the neutral hosts can be
reached, the result is UNKNOWN.

A TLS certificate that is not accepted is UNKNOWN: something answers, but we cannot tell who.

A 401, 403 or 407 is an answer, so it is OK; but servers that do not know a host tend to ban it
(fail2ban).  Let the server know the check points.  A 503 is an answer too: the server is alive and
declines new work.  To have it CRITICAL: --expect 2xx,401.

-c is dangerous where a failover depends on the result: a slow answer is proof of life.

Examples:
  check_sip.py -H pbx01.example.com
  check_sip.py -H 192.0.2.11 --transport tls --ca-file /etc/ssl/pbx.pem -t 8 -w 0.5
  check_sip.py -H 192.0.2.11 --neutral sip:sip.provider.example:5060 --neutral 203.0.113.53:53
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask once, print one line, return the exit code 0 to 3.  Never a traceback."""
    try:
        result = check(read_options(arguments))
    except KeyboardInterrupt:
        result = Result(UNKNOWN, "interrupted")
    except Exception as error:  # A monitoring system must get a line and a 3, not a traceback.
        result = Result(UNKNOWN, f"this plugin failed: {type(error).__name__}: {error}")
    say(result)
    return result.status


def check(options: argparse.Namespace) -> Result:
    """Ask the server and judge what came."""
    deadline = time.monotonic() + options.timeout
    target = Target(
        host=options.hostname,
        port=options.port or default_port(options.transport),
        transport=options.transport,
        user=options.user,
        uri=options.uri or "",
        family=options.family,
    )
    with Neutrals(options.neutral, deadline, options.timeout / 2) as neutrals:
        try:
            answer = ask(target, deadline, tls_context(options))
        except NotAsked as trouble:
            return Result(UNKNOWN, str(trouble))
        except NoAnswer as trouble:
            if not trouble.reached and neutrals.all_lost():
                names = ", ".join(options.neutral)
                return Result(
                    UNKNOWN,
                    f"our own network is down: neither {target} nor {names} can be reached",
                )
            return Result(CRITICAL, str(trouble))
    return _rate(answer, options)


def _rate(answer: Answer, options: argparse.Namespace) -> Result:
    reply = answer.reply
    up, note = judge(reply, options.expect)
    text = f"{reply} from {answer.where} in {answer.took:.3f} s"
    if answer.sent > 1:
        text += f", asked {answer.sent} times"
    if note:
        text += f" ({note})"
    status = OK if up else CRITICAL
    if up and options.critical is not None and answer.took > options.critical:
        status, text = CRITICAL, f"{text}, slower than {options.critical:g} s"
    elif up and options.warning is not None and answer.took > options.warning:
        status, text = WARNING, f"{text}, slower than {options.warning:g} s"
    limits = ";".join(_plain(each) for each in (options.warning, options.critical))
    return Result(
        status,
        text,
        performance=f"time={answer.took:.4f}s;{limits};0;{_plain(options.timeout)}",
        details=(f"server: {reply.server or 'does not say'}", f"asked: {answer.question}"),
        verbose=options.verbose,
    )


def _plain(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:g}"


@dataclass(frozen=True)
class Result:
    """What the plugin says."""

    status: int
    text: str
    performance: str = ""
    details: tuple[str, ...] = ()
    verbose: int = 0


def say(result: Result) -> None:
    line = f"SIP {WORDS[result.status]} - {clean(result.text)}"
    if result.performance:
        line += f" | {result.performance}"
    lines = [line, *(clean(each) for each in result.details)] if result.verbose else [line]
    # Bytes, because NRPE runs us with LANG=C and a reason phrase may be in any language.
    with contextlib.suppress(OSError):
        sys.stdout.buffer.write(("\n".join(lines) + "\n").encode("utf-8", "replace"))
        sys.stdout.buffer.flush()


def clean(text: str, limit: int = 600) -> str:
    """Text from the network, made safe for one line of plugin output.

    `|` would begin performance data, `<` and `>` would reach the monitoring system's web pages.
    """
    safe = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(safe.translate({ord("|"): "/", ord("<"): "(", ord(">"): ")"}).split())[:limit]


# --- asking, and waiting for it -------------------------------------------------------------------


class Trouble(Exception):
    """Why there is no reply."""


class NotAsked(Trouble):
    """The question could not be put, or the answer could not be trusted: proves nothing."""


class NoAnswer(Trouble):
    """We asked and no reply came.

    `reached`: something there did react, so the network is not to blame.
    """

    def __init__(self, text: str, *, reached: bool = False) -> None:
        super().__init__(text)
        self.reached = reached


@dataclass(frozen=True)
class Target:
    """Whom to ask, and how."""

    host: str
    port: int
    transport: str = "udp"  # or "tcp", "tls"
    user: str = "check_sip"  # Asterisk takes an endpoint's name here as identification.
    uri: str = ""  # Default: the server itself, without a user part (a user may not exist there).
    family: int = socket.AF_UNSPEC

    def __str__(self) -> str:
        return f"{join(self.host, self.port)}/{self.transport}"


@dataclass(frozen=True)
class Answer:
    """A final reply and how we came by it."""

    reply: Reply
    where: str
    took: float  # Seconds since the question was first sent, or the connection begun.
    sent: int = 1  # Datagrams.
    question: str = ""


def ask(target: Target, deadline: float, tls: ssl.SSLContext | None = None) -> Answer:
    """The final reply of `target`, at `deadline` (monotonic seconds) at the latest.

    Raises NotAsked, NoAnswer.
    """
    over = _ask_udp if target.transport == "udp" else _ask_stream
    trouble: Trouble = NotAsked(f"{target.host} has no address")
    for family, address in resolve(target, deadline):
        try:
            return over(target, family, address, deadline, tls)
        except NotAsked as error:  # The next address may have a route: a host without IPv6, mostly.
            trouble = error
    raise trouble


def resolve(target: Target, deadline: float) -> list[tuple[int, Any]]:
    """The addresses of the target.  In a thread, because getaddrinfo has no deadline of its own."""
    found: list[tuple[int, Any]] = []
    trouble: list[str] = []

    def look() -> None:
        kind = socket.SOCK_DGRAM if target.transport == "udp" else socket.SOCK_STREAM
        try:
            rows = socket.getaddrinfo(target.host, target.port, target.family, kind)
        except (OSError, UnicodeError) as error:
            trouble.append(getattr(error, "strerror", None) or str(error))
        else:
            found.extend((int(row[0]), row[4]) for row in rows)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if trouble:
        raise NotAsked(f"{target.host} cannot be resolved: {trouble[0]}")
    if not found:
        raise NotAsked(f"{target.host} could not be resolved in time")
    return found


def _ask_udp(
    target: Target, family: int, address: Any, deadline: float, _: ssl.SSLContext | None
) -> Answer:
    started = time.monotonic()
    with contextlib.closing(UdpExchange(target, family, address)) as exchange:
        while time.monotonic() < deadline:
            due = exchange.advance(time.monotonic())
            if _wait(exchange.socket, min(due, deadline)):
                reply = exchange.receive()
                if reply:
                    took = time.monotonic() - started
                    question = exchange.question.data.decode()
                    return Answer(reply, exchange.where, took, exchange.sent, question)
        raise exchange.silence(time.monotonic() - started)


def _ask_stream(
    target: Target, family: int, address: Any, deadline: float, tls: ssl.SSLContext | None
) -> Answer:
    """Over TCP or TLS nothing is retransmitted (RFC 3261 section 17.1.2)."""
    import ssl

    started = time.monotonic()
    where = f"{join(address[0], address[1])}/{target.transport}"
    with contextlib.ExitStack() as stack:
        sock: socket.socket | ssl.SSLSocket = stack.enter_context(
            contextlib.closing(_connect(family, address, where, deadline))
        )
        try:
            if target.transport == "tls":
                sock = stack.enter_context(
                    contextlib.closing(_start_tls(sock, target, tls, deadline))
                )
            question = ask_options(target, sock.getsockname())
            _patiently(sock, deadline, lambda: sock.sendall(question.data))
            reply = _read_stream(sock, question, deadline)
        except _TooLate:
            seconds = time.monotonic() - started
            raise NoAnswer(
                f"no answer from {where} within {seconds:.1f} s (it accepted the connection)"
            ) from None
        except (ssl.SSLEOFError, ConnectionError, EOFError):
            raise NoAnswer(
                f"{where} closed the connection without an answer", reached=True
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise NotAsked(
                f"the certificate of {where} is not accepted: {error.verify_message};"
                " give its CA with --ca-file, or --insecure"
            ) from None
        except ssl.SSLError as error:
            raise NotAsked(f"no TLS with {where}: {error.reason or error}") from None
        except ValueError as error:
            raise NoAnswer(f"{where} answers, but not in SIP: {error}", reached=True) from None
        except OSError as error:
            raise NoAnswer(f"lost the connection to {where}: {error.strerror}") from None
    return Answer(reply, where, time.monotonic() - started, question=question.data.decode())


class _TooLate(Exception):
    pass


def _connect(family: int, address: Any, where: str, deadline: float) -> socket.socket:
    """A connected TCP socket.

    What routers say about the way is no proof, so it is tried again until the deadline.
    """
    said = ""
    while True:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        trouble = sock.connect_ex(address)
        if trouble not in (0, errno.EINPROGRESS, errno.ECONNREFUSED, errno.ECONNRESET):
            sock.close()  # The kernel did not even try: no route, no permission, no such family.
            raise NotAsked(f"cannot ask {where} from here: {os.strerror(trouble)}")
        if trouble == errno.EINPROGRESS:
            trouble = errno.ETIMEDOUT
            if _wait(sock, deadline, write=True):
                trouble = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if trouble == 0:
            return sock
        sock.close()
        if trouble in (errno.ECONNREFUSED, errno.ECONNRESET):
            raise NoAnswer(f"{where} refuses the connection: nothing listens there", reached=True)
        if trouble != errno.ETIMEDOUT:
            said = f" (the network says: {os.strerror(trouble)})"
        if time.monotonic() + T1 >= deadline:
            raise NoAnswer(f"{where} does not answer the connection{said}")
        time.sleep(T1)


def _start_tls(
    sock: socket.socket, target: Target, tls: ssl.SSLContext | None, deadline: float
) -> ssl.SSLSocket:
    import ssl

    context = tls or ssl.create_default_context()
    secured = context.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
    try:
        _patiently(secured, deadline, secured.do_handshake)
    except BaseException:
        secured.close()
        raise
    return secured


def _read_stream(sock: socket.socket | ssl.SSLSocket, question: Question, deadline: float) -> Reply:
    waiting = b""
    while True:
        message, waiting = take_message(waiting)
        if message is None:
            received = _patiently(sock, deadline, lambda: sock.recv(LARGEST))
            if not received:
                raise EOFError
            waiting += received
            continue
        reply = read_reply(message, question)
        if reply and reply.is_final:
            return reply


def _patiently(sock: socket.socket | ssl.SSLSocket, deadline: float, action: Any) -> Any:
    """Do `action` on a socket that never blocks, as soon as it can be done.  Raises _TooLate."""
    import ssl

    write = False
    while time.monotonic() < deadline:
        try:
            return action()
        except ssl.SSLWantWriteError:
            write = True
        except (ssl.SSLWantReadError, BlockingIOError):
            write = False
        _wait(sock, deadline, write=write)
    raise _TooLate


def _wait(sock: socket.socket, until: float, *, write: bool = False) -> bool:
    left = max(0.0, until - time.monotonic())
    ready = select.select([] if write else [sock], [sock] if write else [], [], left)
    return bool(ready[0] or ready[1])


class Neutrals:
    """Hosts that have nothing to do with the server.

    They are asked beside it when it has been silent for `patience` seconds, and cost none of its
    time.
    """

    def __init__(self, names: Sequence[str], deadline: float, patience: float) -> None:
        self._deadline = deadline
        self._patience = patience
        self._enough = threading.Event()
        self._reached = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(name,), daemon=True) for name in names
        ]

    def __enter__(self) -> Neutrals:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()

    def all_lost(self) -> bool:
        """Were there any, and could none be reached?  Waits for the deadline, if need be."""
        for thread in self._threads:
            # A little longer than the deadline that they keep themselves.
            thread.join(max(0.0, self._deadline - time.monotonic()) + 0.2)
        return bool(self._threads) and not self._reached.is_set()

    def _ask(self, name: str) -> None:
        if self._enough.wait(self._patience):
            return
        with contextlib.suppress(OSError):
            if reaches(name, self._deadline):
                self._reached.set()


def reaches(name: str, deadline: float) -> bool:
    """Does anything react at "HOST:PORT" (TCP), "sip:HOST:PORT" (SIP, UDP)?  A refusal does."""
    sip = name.startswith("sip:")
    host, port = split_address(name[4:] if sip else name)
    target = Target(host, port, "udp" if sip else "tcp")
    try:
        if sip:
            ask(target, deadline)
            return True
        for family, address in resolve(target, deadline):
            _connect(family, address, str(target), deadline).close()
            return True
    except NoAnswer as trouble:
        return trouble.reached
    except NotAsked:
        pass
    return False


# --- UDP: retransmission and recognition, without waiting -----------------------------------------


class UdpExchange:
    """One question over UDP: RFC 3261 section 17.1.2, the client's side.

    Waits for nothing; whoever drives it calls `advance` when something is due and `receive` when
    the socket is readable.  The socket is connected, so that the kernel tells us of a refused port
    and drops what others send.  Raises NotAsked where the kernel has no way to the address, NoAnswer
    when the port is refused.
    """

    def __init__(self, target: Target, family: int, address: Any) -> None:
        self.where = f"{join(address[0], address[1])}/udp"
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            self.socket.connect(address)
            self.question = ask_options(target, self.socket.getsockname())
        except OSError as error:
            self.socket.close()
            raise NotAsked(f"cannot ask {self.where} from here: {error.strerror}") from None
        self.sent = 0
        self._interval = T1
        self._due = 0.0
        self._trying = False  # A 1xx came.
        self._strange = 0  # Datagrams that were no answer to this question.
        self._said = ""  # What the network said.

    def close(self) -> None:
        self.socket.close()

    def advance(self, now: float) -> float:
        """Send what is due at `now`, in seconds of any steady clock; return when to call again."""
        if self.sent == 0 and self._due == 0.0:
            self._due = now
        if now >= self._due:
            self._send()
            self._due = now + self._interval
            self._interval = T2 if self._trying else min(2 * self._interval, T2)
        return self._due

    def receive(self) -> Reply | None:
        """Read one datagram; the final reply, if it is that."""
        try:
            datagram = self.socket.recv(LARGEST)
        except OSError as error:
            self._take(error)
            return None
        reply = read_reply(datagram, self.question)
        if reply is None:
            self._strange += 1
        elif not reply.is_final:
            self._trying = True
            self._interval = T2  # Timer E in the state "proceeding".
        elif reply.is_final:
            return reply
        return None

    def silence(self, seconds: float) -> Trouble:
        """What to raise when the deadline has passed."""
        if self.sent == 0:
            return NotAsked(f"cannot ask {self.where} from here: {self._said or 'not sent'}")
        text = f"no answer from {self.where} within {seconds:.1f} s, asked {self.sent} times"
        if self._trying:
            text = f"no final answer from {self.where} within {seconds:.1f} s, only a 1xx"
        if self._strange:
            text += f"; {self._strange} datagrams that were no answer to us"
        if self._said:
            text += f" (the network says: {self._said})"
        return NoAnswer(text, reached=self._trying or self._strange > 0)

    def _send(self) -> None:
        # Twice, because an error of an earlier datagram is reported in place of sending the next.
        for _ in range(2):
            try:
                self.socket.send(self.question.data)
            except OSError as error:
                self._take(error)
            else:
                self.sent += 1
                return

    def _take(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):
            return
        if isinstance(error, ConnectionRefusedError):
            raise NoAnswer(
                f"{self.where} refuses: nothing listens there (ICMP port unreachable)",
                reached=True,
            ) from None
        if isinstance(error, PermissionError):
            raise NotAsked(
                f"cannot ask {self.where} from here: {error.strerror} (a local firewall?)"
            ) from None
        self._said = error.strerror or str(error)


# --- messages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A request as sent, and what its reply is recognised by."""

    data: bytes
    branch: str
    method: str = "OPTIONS"


@dataclass(frozen=True)
class Reply:
    """A reply to our question."""

    code: int
    reason: str
    server: str = ""  # What it says it is: Server, else User-Agent.
    retry_after: str = ""
    names: tuple[str, ...] = ()  # Hosts that it wants to be reached at: Contact, SDP's c= lines.

    @property
    def is_final(self) -> bool:
        return self.code >= 200

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()


@dataclass(frozen=True)
class Message:
    """A SIP message.  Headers in their order, by their long names in lower case."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)

    def first(self, name: str) -> str:
        """The value of the first header of this name, or ""."""
        return next((value for key, value in self.headers if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def branch(self) -> str:
        """Of the topmost Via, whatever the order of its parameters."""
        return parameter(self.first("via").partition(",")[0], "branch")

    @property
    def method(self) -> str:
        """As the CSeq has it."""
        return (self.first("cseq").split() or ["", ""])[-1]


SHORT_NAMES = {
    "c": "content-type",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "s": "subject",
    "t": "to",
    "v": "via",
}

STATUS_LINE = re.compile(r"SIP/2\.0 +([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE | re.DOTALL)


def ask_options(target: Target, local: Any) -> Question:
    """An OPTIONS request sent from the socket address `local`.

    RFC 3261 sections 8.1.1 and 11; rport: RFC 3581.
    """
    branch = "z9hG4bK" + os.urandom(12).hex()
    us = join(local[0], local[1])
    server = join(target.host, target.port)
    suffix = "" if target.transport == "udp" else f";transport={target.transport}"
    uri = target.uri or f"sip:{server}{suffix}"
    lines = (
        f"OPTIONS {uri} SIP/2.0",
        f"Via: SIP/2.0/{target.transport.upper()} {us};branch={branch};rport",
        "Max-Forwards: 70",
        f"From: <sip:{target.user}@{us}>;tag={os.urandom(6).hex()}",
        f"To: <{uri}>",
        f"Call-ID: {os.urandom(12).hex()}",
        "CSeq: 1 OPTIONS",
        f"Contact: <sip:{target.user}@{us}{suffix}>",
        "Accept: application/sdp",
        f"User-Agent: check_sip/{VERSION} (understudy)",
        "Content-Length: 0",
        "",
        "",
    )
    return Question("\r\n".join(lines).encode(), branch)


def read_reply(data: bytes, question: Question) -> Reply | None:
    """The reply, if `data` is one to `question`; else None.

    Recognised by the branch of the topmost Via and the method in the CSeq, and by nothing else
    (RFC 3261 section 17.1.3): servers reorder parameters and drop ports.
    """
    message = parse_message(data)
    found = STATUS_LINE.fullmatch(message.start) if message else None
    if message is None or found is None:
        return None
    if message.branch != question.branch or message.method != question.method:
        return None
    return Reply(
        code=int(found[1]),
        reason=clean(found[2] or "", 80),
        server=clean(message.first("server") or message.first("user-agent"), 80),
        retry_after=clean(message.first("retry-after"), 20),
        names=tuple(_hosts(message)),
    )


def _hosts(message: Message) -> Iterator[str]:
    """RFC 3261 section 20.10 (Contact), RFC 8866 section 5.7 (c=)."""
    for contact in message.all("contact"):
        found = re.search(r"sips?:(?:[^@<>;,]*@)?(\[[0-9a-fA-F:.]+\]|[^:;>,?\s]+)", contact)
        if found:
            yield found[1].strip("[]").lower()
    for address in re.findall(rb"(?m)^c=IN IP[46] ([^/\s]+)", message.body):
        yield address.decode("ascii", "replace").lower()


def parse_message(data: bytes) -> Message | None:
    """A request or a reply as it came, read leniently; None for what cannot be one."""
    head, body = _split_head(data.lstrip(b"\r\n"))
    lines: list[str] = []
    for line in head.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line[:1] in (" ", "\t") and lines:
            lines[-1] += " " + line.strip()  # A folded header (RFC 3261 section 7.3.1).
        else:
            lines.append(line)
    if "SIP/2.0" not in lines[0].upper():
        return None
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            headers.append((SHORT_NAMES.get(key, key), value.strip()))
    return Message(lines[0].strip(), tuple(headers), body)


def take_message(waiting: bytes) -> tuple[bytes | None, bytes]:
    """The first whole message of what came over a stream, and the rest.

    Raises ValueError if it cannot be SIP.
    """
    waiting = waiting.lstrip(b"\r\n")  # Keep-alives (RFC 5626 section 3.5.1).
    line, end, _ = waiting.partition(b"\n")
    if (end or len(line) > 1024) and b"SIP/2.0" not in line.upper():
        raise ValueError(clean(line[:60].decode("utf-8", "replace")) or "an empty line")
    head, body = _split_head(waiting)
    if len(head) == len(waiting):  # The empty line has not come yet.
        if len(waiting) > LARGEST:
            raise ValueError("a header without an end")
        return None, waiting
    message = parse_message(head + b"\r\n\r\n")
    length = (message.first("content-length") if message else "") or "0"
    # Not isdecimal(), which accepts the digits of every script.
    if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > LARGEST:
        raise ValueError("a Content-Length that cannot be")
    whole = len(waiting) - len(body) + int(length)
    if len(waiting) < whole:
        return None, waiting
    return waiting[:whole], waiting[whole:]


def _split_head(data: bytes) -> tuple[bytes, bytes]:
    """Headers and body: at the first empty line, ended by CR LF or LF."""
    found = re.search(rb"\r?\n\r?\n", data)
    return (data[: found.start()], data[found.end() :]) if found else (data, b"")


def parameter(value: str, name: str) -> str:
    """`;name=...` of a header, or ""."""
    for each in value.split(";")[1:]:
        key, _, found = each.partition("=")
        if key.strip().lower() == name:
            return found.strip()
    return ""


# --- judging --------------------------------------------------------------------------------------


def judge(reply: Reply, expect: Sequence[str] = ()) -> tuple[bool, str]:
    """Does this final reply count as up, and what is there to say about it?

    `expect` as `read_expect` gives it.
    """
    code = str(reply.code)
    if expect and not any(each in (code, code[0] + "xx") for each in expect):
        return False, f"only {','.join(expect)} counts as up"
    if reply.code in STRANGER:
        return True, ("warning: the server does not know this check point: fail2ban may ban it")
    if reply.code == 503:
        later = f", retry after {reply.retry_after}" if reply.retry_after else ""
        return True, f"the server is alive but declines new work{later}"
    if reply.code >= 500:
        return True, "the server answers, but with an error"
    return True, ""


def read_expect(text: str) -> tuple[str, ...]:
    """ "2xx,401" as a tuple; () for "any".  Raises ValueError."""
    if text.strip().lower() == "any":
        return ()
    codes = tuple(each.strip().lower() for each in text.split(","))
    for each in codes:
        if not re.fullmatch(r"[2-6](xx|[0-9]{2})", each):
            raise ValueError(f"{each!r} is no final reply: write 200, or 2xx, or any")
    return codes


# --- options --------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(Result(UNKNOWN, f"wrong usage: {message} (check_sip.py --help explains)"))
        sys.exit(UNKNOWN)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """--help and --version end with 3 too, as every plugin's do: nothing was checked."""
        if message:
            sys.stdout.write(message)
        sys.exit(UNKNOWN)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line.  Ends the program with 3 where it is wrong."""
    parser = _Parser(
        prog="check_sip.py",
        description=HELP,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-V", "--version", action="version", version=f"check_sip {VERSION} (understudy)")
    add("-v", "--verbose", action="count", default=0, help="more lines: the server, the question")
    add("-H", "--hostname", required=True, type=_host, metavar="HOST", help="name or address")
    add("-p", "--port", type=_port, help="default 5060, with TLS 5061")
    add("--transport", choices=("udp", "tcp", "tls"), default="udp", help="default udp")
    add(
        "-t",
        "--timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="for everything together, name resolution too; default 5",
    )
    add("-w", "--warning", type=_seconds, metavar="SECONDS", help="slower: WARNING")
    add("-c", "--critical", type=_seconds, metavar="SECONDS", help="slower: CRITICAL; see below")
    add(
        "--expect",
        type=_expect,
        default=(),
        metavar="CODES",
        help="replies that count as up, such as 2xx,401; default any final reply",
    )
    add(
        "--neutral",
        action="append",
        type=_neutral,
        default=[],
        metavar="[sip:]HOST:PORT",
        help="asked when the server is silent; may be repeated; see below",
    )
    add("--from", dest="user", type=_user, default="check_sip", metavar="USER", help="From user")
    add("--uri", type=_uri, help="Request-URI; default sip:HOST:PORT")
    add("--ca-file", type=Path, metavar="FILE", help="CA of the server's certificate (PEM)")
    add("--insecure", action="store_true", help="accept any certificate")
    add("-4", dest="family", action="store_const", const=socket.AF_INET, help="IPv4 only")
    add("-6", dest="family", action="store_const", const=socket.AF_INET6, help="IPv6 only")
    parser.set_defaults(family=socket.AF_UNSPEC)
    options = parser.parse_args(arguments)
    if None not in (options.warning, options.critical) and options.warning > options.critical:
        parser.error("-w must not be above -c")
    if options.transport != "tls" and (options.ca_file or options.insecure):
        parser.error("--ca-file and --insecure are for --transport tls")
    return options


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Raises NotAsked when the CA file cannot be used."""
    if options.transport != "tls":
        return None
    return client_tls(options.ca_file, verify=not options.insecure)


def client_tls(ca_file: Path | None, *, verify: bool = True) -> ssl.SSLContext:
    """How to trust a server.  Raises NotAsked when the CA file cannot be used."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise NotAsked(f"the CA file {ca_file} cannot be used: {why}") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def default_port(transport: str) -> int:
    return 5061 if transport == "tls" else 5060


def join(host: str, port: int) -> str:
    """HOST:PORT; IPv6 in brackets and without its zone, which means nothing elsewhere."""
    bare = host.partition("%")[0]
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """HOST and PORT of "HOST:PORT" or "[IPV6]:PORT".  Raises ValueError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]\s]+)):([0-9]{1,5})", text)
    if not found or not 0 < int(found[3]) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return found[1] or found[2], int(found[3])


def _host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not re.fullmatch(r"[\w.:%-]{1,255}", bare, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a host name nor an address")
    return bare


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 < float(text) <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, up to 3600")
    return float(text)


def _expect(text: str) -> tuple[str, ...]:
    try:
        return read_expect(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _neutral(text: str) -> str:
    try:
        split_address(text[4:] if text.startswith("sip:") else text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not [sip:]HOST:PORT") from None
    return text


def _user(text: str) -> str:
    if not re.fullmatch(r"[\w.!~*'()&=+$,?/-]{1,64}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the user of a SIP address")
    return text


def _uri(text: str) -> str:
    if not re.fullmatch(r"(sips?|tel):[!-;=?-~]{1,255}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no SIP address such as sip:100@example.com")
    return text


if __name__ == "__main__":
    sys.exit(main())
