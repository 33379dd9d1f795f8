"""Stands before a name server, lets questions through and keeps updates back: a slow network."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


async def _message(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
