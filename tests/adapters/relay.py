"""Stands before a name server: a network that is slow, loses, or lies."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import dns.opcode


class Relay:
    """Speaks DNS over TCP at `port` of 127.0.0.1 (RFC 1035, 4.2.2)."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._update = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = await _message(reader)
                if message[2] >> 3 & 15 == dns.opcode.UPDATE:
                    self._update = message
                else:
                    answer = await self._ask(message)
                    writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    async def let_go(self) -> int:
        """Deliver what was kept back; the rcode of the answer."""
        assert self._update, "no update came"
        return (await self._ask(self._update))[3] & 15

    async def _ask(self, message: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target)
        writer.write(len(message).to_bytes(2, "big") + message)
        answer = await _message(reader)
        writer.close()
        await writer.wait_closed()
        return answer


@asynccontextmanager
async def holding_back_updates(target: int) -> AsyncIterator[Relay]:
    """`target` is the port of the name server on 127.0.0.1."""
    relay = Relay(target)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        relay.port = server.sockets[0].getsockname()[1]
        yield relay


class Datagrams(asyncio.DatagramProtocol):
    """Between an asker and the name server on `target`: `lose` says of the nth datagram (0, 1, ...) from the asker
    whether it gets lost, and `answer` may put another answer in the place of the true one."""

    def __init__(
        self,
        target: int,
        lose: Callable[[int], bool] = lambda _: False,
        answer: Callable[[bytes], bytes] = lambda true: true,
    ) -> None:
        self.seen = 0
        self._target, self._lose, self._answer = target, lose, answer
        self._out: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._out = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        number, self.seen = self.seen, self.seen + 1
        if not self._lose(number):
            task = asyncio.create_task(self._pass_on(data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, data: bytes, asker: Any) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self._target))
            await loop.sock_sendall(sock, data)
            true = await loop.sock_recv(sock, 65535)
        assert self._out is not None
        self._out.sendto(self._answer(true), asker)


@asynccontextmanager
async def datagrams(*arguments: Any, **named: Any) -> AsyncIterator[tuple[int, Datagrams]]:
    """The port, and what stands there.  Nothing listens there over TCP."""
    loop = asyncio.get_running_loop()
    transport, relay = await loop.create_datagram_endpoint(
        lambda: Datagrams(*arguments, **named), ("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1], relay
    finally:
        transport.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
