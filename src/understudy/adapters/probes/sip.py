"""Asks a node directly by SIP OPTIONS, from the machine that we run on.

The messages, the retransmission and the judgement are those of the plugin that check points run,
so that a check point and a node mean the same by "it answers".
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from understudy.config.settings import InputFile, Port, Seconds, setting
from understudy.core.observations import Health, Report
from understudy.errors import Unreachable
from understudy.plugins import check_sip
from understudy.plugins.check_sip import Reply, Target, UdpExchange


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    transport: Transport = setting(
        "How to reach the PBX: udp, tcp or tls.", default=Transport.UDP, example="udp"
    )
    port: Port = setting("The PBX's SIP port; with TLS usually 5061.", default=Port(5060))
    timeout: Seconds = setting(
        "How long to wait for an answer, with retransmissions by RFC 3261 over UDP.",
        default=Seconds(5.0),
        example="5s",
    )
    expect: tuple[str, ...] = setting(
        "Replies that count as up, such as 200 or 2xx.  Empty: any final reply,"
        " 401 and 503 included, because only a live PBX sends one.",
        default=(),
        example=["2xx", "401"],
    )
    ca_file: InputFile | None = setting(
        "The authority that signed the PBX's certificate, for TLS.  Without it: the system's.",
        default=None,
        example="/etc/understudy/pbx-ca.pem",
    )

    def __post_init__(self) -> None:
        if self.expect:
            check_sip.read_expect(",".join(self.expect))  # Raises ValueError with a sentence.


class NoAnswer(Unreachable):
    """We asked, and no reply came: silence, a refused port, a closed connection."""


class SipProbe:
    """Silence is DOWN; what could not be asked (no route, no name, bad certificate) is UNKNOWN.

    `addresses`: by node, a host name or an IP address without a port.
    """

    def __init__(self, name: str, settings: Settings, addresses: Mapping[str, str]) -> None:
        self._name = name
        self._settings = settings
        self._addresses = addresses

    async def ask(self, node: str) -> Report:
        started = time.monotonic()
        health, text = await self._look(node)
        return Report(self._name, health, text, time.monotonic() - started)

    async def _look(self, node: str) -> tuple[Health, str]:
        if node not in self._addresses:
            return Health.UNKNOWN, f"no address is configured for {node}"
        to = self._settings
        try:
            reply = await options(
                self._addresses[node], to.port, to.transport, to.timeout, ca_file=to.ca_file
            )
        except NoAnswer as error:
            return Health.DOWN, str(error)
        except (Unreachable, OSError) as error:  # OSError: no file descriptors left, and such.
            return Health.UNKNOWN, str(error)
        up, note = check_sip.judge(reply, to.expect)
        return (Health.UP if up else Health.DOWN), f"{reply} ({note})" if note else str(reply)


async def options(
    host: str,
    port: int,
    transport: Transport = Transport.UDP,
    timeout: float = 5.0,
    *,
    ca_file: Path | None = None,
) -> Reply:
    """The final reply to one SIP OPTIONS (RFC 3261 section 11), whatever its code.

    `timeout` in seconds, for everything.  Raises NoAnswer when none came, and another Unreachable
    when the question could not be put.
    """
    target = Target(host, port, transport.value)
    deadline = time.monotonic() + timeout
    try:
        return await _ask(target, deadline, ca_file)
    except check_sip.NoAnswer as error:
        raise NoAnswer(str(error)) from None
    except check_sip.NotAsked as error:
        raise Unreachable(str(error)) from None


async def _ask(target: Target, deadline: float, ca_file: Path | None) -> Reply:
    trouble = check_sip.NotAsked(f"{target.host} has no address")
    tls = check_sip.client_tls(ca_file) if target.transport == "tls" else None
    for family, address in await _resolve(target, deadline):
        try:
            if target.transport == "udp":
                return await _over_udp(target, family, address, deadline)
            return await _over_stream(target, family, address, deadline, tls)
        except check_sip.NotAsked as error:  # The next address may have a route.
            trouble = error
    raise trouble


async def _resolve(target: Target, deadline: float) -> list[tuple[int, Any]]:
    """An address needs no thread: those are few, and probes must not wait for one another."""
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        return await asyncio.to_thread(check_sip.resolve, target, deadline)
    return check_sip.resolve(target, deadline)


async def _over_udp(target: Target, family: int, address: Any, deadline: float) -> Reply:
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    with contextlib.closing(UdpExchange(target, family, address)) as exchange:
        readable = asyncio.Event()
        loop.add_reader(exchange.socket, readable.set)
        try:
            while (now := time.monotonic()) < deadline:
                due = exchange.advance(now)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(due, deadline) - now)):
                        await readable.wait()
                    readable.clear()  # Set again by the loop if there is more to read.
                    if reply := exchange.receive():
                        return reply
        finally:
            loop.remove_reader(exchange.socket)
        raise exchange.silence(time.monotonic() - started)


async def _over_stream(
    target: Target, family: int, address: Any, deadline: float, tls: ssl.SSLContext | None
) -> Reply:
    where = f"{check_sip.join(address[0], address[1])}/{target.transport}"
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            sock = await _connect(family, address)
            return await _converse(sock, target, deadline, tls)
    except (TimeoutError, ConnectionAbortedError):  # The latter from a TLS handshake.
        raise check_sip.NoAnswer(f"no answer from {where} in time") from None
    except (ssl.SSLEOFError, ConnectionError, EOFError) as error:
        why = "closed the connection without an answer"
        if isinstance(error, ConnectionRefusedError):
            why = "refuses the connection: nothing listens there"
        raise check_sip.NoAnswer(f"{where} {why}") from None
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or str(error)
        raise check_sip.NotAsked(f"no TLS with {where}: {why}") from None
    except ValueError as error:
        raise check_sip.NoAnswer(f"{where} answers, but not in SIP: {error}") from None
    except OSError as error:
        if error.errno == errno.EHOSTUNREACH:  # A router, or nobody who has the address, said so.
            raise check_sip.NoAnswer(f"{where} cannot be reached: {error.strerror}") from None
        raise check_sip.NotAsked(f"cannot ask {where} from here: {error.strerror}") from None


async def _connect(family: int, address: Any) -> socket.socket:
    """The socket becomes the stream's; until then it is ours to close."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _converse(
    sock: socket.socket, target: Target, deadline: float, tls: ssl.SSLContext | None
) -> Reply:
    # Shorter than the deadline, so that asyncio itself clears a handshake away that hangs.
    patience = max(0.01, 0.95 * (deadline - time.monotonic()))
    reader, writer = await asyncio.open_connection(
        sock=sock,
        ssl=tls,
        server_hostname=target.host if tls else None,
        ssl_handshake_timeout=patience if tls else None,
        ssl_shutdown_timeout=0.5 if tls else None,
    )
    try:
        question = check_sip.ask_options(target, sock.getsockname())
        writer.write(question.data)
        waiting = b""
        while True:
            message, waiting = check_sip.take_message(waiting)
            if message is None:
                received = await reader.read(check_sip.LARGEST)
                if not received:
                    raise EOFError
                waiting += received
                continue
            reply = check_sip.read_reply(message, question)
            if reply and reply.is_final:
                return reply
    finally:
        writer.transport.abort()  # A hung peer must not hold us.
