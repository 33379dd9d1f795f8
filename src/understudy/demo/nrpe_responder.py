"""An NRPE daemon in one class, for the demo and for benchmarks: what a check point answers, without
a check point.

Speaks packet versions 2, 3 and 4, plain or with anonymous TLS.  It has no allowed_hosts: bind it to
loopback, never to a network.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from understudy.adapters.probes.nrpe_packet import (
    Decoder,
    Packet,
    PacketError,
    Role,
    Version,
    encode,
)

Check = Callable[[], Awaitable[tuple[int, str]]]  # Exit code and output, as a plugin's.

_PATIENCE = 5.0  # Seconds for a client to send its question, and to take the answer.
_LONGEST_2 = 1023  # Bytes of text that packet version 2 carries; nrpe cuts the rest off as well.


def anonymous_tls() -> ssl.SSLContext:
    """TLS as a stock nrpe speaks it: without a certificate, so TLS 1.2, as 1.3 has no such thing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    # The kind with elliptic curves, which, unlike ADH, needs no file of parameters.
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context


class NrpeResponder:
    """Answers each of `checks` by name; `_NRPE_CHECK` with its own name, as the daemon does."""

    def __init__(self, checks: Mapping[str, Check], *, tls: ssl.SSLContext | None = None) -> None:
        self._checks = checks
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, and return the port (a free one for 0).  Raises OSError."""
        self._server = await asyncio.start_server(
            self._serve, host, port, ssl=self._tls, backlog=128
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close at once, unanswered questions too.  Safe to repeat."""
        if self._server is None:
            return
        self._server.close()
        serving = tuple(self._serving)
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            # Whoever sends no NRPE gets what nrpe gives: a closed connection, without a word.
            with suppress(OSError, PacketError):
                await self._answer(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # stop(); nobody awaits this task, so it ends here.
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_PATIENCE):
            question = await _question(reader)
        if question is None:
            return
        code, output = await self._check(question.text.decode(errors="replace"))
        text = output.encode().split(b"\0", 1)[0]
        if question.version is Version.V2:
            text = text[:_LONGEST_2]
        writer.write(
            encode(Packet(version=question.version, role=Role.ANSWER, code=code, text=text))
        )
        if question.version is Version.V3:
            writer.write(bytes(3))  # The struct's padding: other clients may wait for it.
        async with asyncio.timeout(_PATIENCE):
            await writer.drain()

    async def _check(self, name: str) -> tuple[int, str]:
        if name == "_NRPE_CHECK":
            return 0, "NRPE responder of Understudy"
        if name not in self._checks:
            return 3, f"NRPE: Command '{name}' not defined"
        return await self._checks[name]()


async def _question(reader: asyncio.StreamReader) -> Packet | None:
    decoder = Decoder(Role.QUESTION)
    while piece := await reader.read(4096):
        if packet := decoder.feed(piece):
            return packet
    return None
