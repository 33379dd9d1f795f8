"""A network on loopback that can be cut for one node: relays that look who calls."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

Pids = Callable[[str], Collection[int]]


class Network:
    """Both nodes have one configuration, so they call the same relay; `cut` holds the nodes that
    nothing answers any more.  A node is known by its processes.
    """

    def __init__(self, pids: Pids) -> None:
        self.cut: set[str] = set()
        self._pids = pids
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever)

    def relay(self, target: int) -> int:
        """A port of 127.0.0.1 that leads to `target` there (TCP)."""
        starting = asyncio.run_coroutine_threadsafe(self._listen(target), self._loop)
        return starting.result(10)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self, target: int) -> int:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await self._carry(reader, writer, target)
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int
    ) -> None:
        if self._is_cut(writer.get_extra_info("peername")):
            while await reader.read(4096):  # Nothing comes back, as from a network that loses all.
                pass
            return
        there, to_there = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(_pipe(reader, to_there), _pipe(there, writer))

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _is_cut(self, caller: tuple[str, int]) -> bool:
        if not self.cut:
            return False
        inode = _inode(caller)
        return any(_holds(pid, inode) for node in self.cut for pid in self._pids(node))


@contextmanager
def network(pids: Pids) -> Iterator[Network]:
    made = Network(pids)
    made.start()
    try:
        yield made
    finally:
        made.end()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _inode(caller: tuple[str, int]) -> str:
    """Of the caller's socket: proc(5), /proc/net/tcp."""
    address = bytes(reversed([int(part) for part in caller[0].split(".")])).hex().upper()
    wanted = f"{address}:{caller[1]:04X}"
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = row.split()
        if words[1] == wanted:
            return words[9]
    return ""


def _holds(pid: int, inode: str) -> bool:
    with contextlib.suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(each.readlink()) == f"socket:[{inode}]":
                    return True
    return False
