"""One TCP connection on the event loop, for one question and one answer.

A bare socket: with asyncio's transports a question costs a quarter more (docs/benchmarks.md), and
its TLS has no parameter for a session.
"""

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable

PIECE = 17_408  # Bytes read at once: a TLS record and its frame fit (RFC 8446, 5.2).
HEAD_START = 0.25  # Seconds.  RFC 8305: a dead IPv6 route must not eat the whole deadline.

Dial = Callable[[], Awaitable["Wire"]]


def dialler(host: str, port: int) -> Dial:
    """How to connect to `host`.  A call raises OSError; ValueError for what can be no name."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return lambda: _dial_name(host, port)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return lambda: _dial_address(family, (host, port))


async def _dial_address(family: socket.AddressFamily, where: tuple[str, int]) -> "Wire":
    wire = Wire(socket.socket(family, socket.SOCK_STREAM))
    try:
        await wire.connect(where)
    except BaseException:
        wire.close()
        raise
    return wire


async def _dial_name(host: str, port: int) -> "Wire":
    """asyncio resolves the name and races its addresses; we go on with a copy of its socket."""
    transport, _ = await asyncio.get_running_loop().create_connection(
        asyncio.Protocol, host, port, happy_eyeballs_delay=HEAD_START
    )
    try:
        return Wire(transport.get_extra_info("socket").dup())
    finally:
        transport.abort()


class Wire:
    """Bytes, unprotected.  Whoever has one closes it."""

    def __init__(self, bare: socket.socket) -> None:
        self._socket = bare
        self._number = bare.fileno()  # A selector that is given the socket asks what it is called.
        self._loop = asyncio.get_running_loop()
        bare.setblocking(False)

    async def connect(self, where: tuple[str, int]) -> None:
        """Raises OSError."""
        code = self._socket.connect_ex(where)
        if code == errno.EINPROGRESS:
            await self._writable()
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    async def send(self, data: bytes) -> None:
        """Raises OSError."""
        while True:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            await self._writable()

    async def receive(self) -> bytes:
        """What comes next; nothing when the other side has closed.  Raises OSError."""
        come: asyncio.Future[bytes] = self._loop.create_future()
        self._loop.add_reader(self._number, self._read, come)
        try:
            return await come
        finally:
            self._loop.remove_reader(self._number)

    def set(self, option: int) -> None:
        """Switch on an option of tcp(7)."""
        self._socket.setsockopt(socket.IPPROTO_TCP, option, 1)

    def close(self) -> None:
        self._socket.close()

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._number, _wake, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._number)

    def _read(self, come: asyncio.Future[bytes]) -> None:
        """In the loop's own call: the task wakes up to bytes, not to a promise of some."""
        if come.done():
            return
        try:
            come.set_result(self._socket.recv(PIECE))
        except BlockingIOError:
            return
        except OSError as error:
            come.set_exception(error)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
