"""Whether an SSH server lives there: a real sshd, and what is none."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.bind import free_port
from adapters.sshd import daemon
from understudy.adapters.peers.door import Door
from understudy.adapters.peers.greeting import WITHIN, greets
from understudy.adapters.peers.ssh import over_ssh
from understudy.errors import Unreachable


def prefix(port: int) -> tuple[str, ...]:
    return over_ssh(f"ssh://nobody@127.0.0.1:{port}")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose kernel takes connections and whose process is frozen: nothing is ever said."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.mark.real
def test_an_sshd_greets(tmp_path: Path) -> None:
    with daemon(tmp_path / "ssh", root_login="no") as sshd:
        asyncio.run(greets(prefix(sshd.port), within=5.0))


def test_a_frozen_host_is_not_waited_for(silent: int) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"no SSH server has greeted within 0\.3 s"):
        asyncio.run(greets(prefix(silent), within=0.3))
    assert time.monotonic() - began < 5.0  # ssh(1) itself would wait for ever.


def test_a_closed_port_is_said() -> None:
    with pytest.raises(Unreachable, match="no SSH server there: Connect"):
        asyncio.run(greets(prefix(free_port()), within=5.0))


def test_another_server_is_no_ssh_server() -> None:
    async def story() -> None:
        async def other(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail\r\n")
            writer.close()

        server = await asyncio.start_server(other, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(Unreachable, match="does not greet as an SSH server"):
                await greets(prefix(port), within=5.0)

    asyncio.run(story())


def test_a_way_over_another_host_cannot_be_looked_at_and_is_tried(silent: int) -> None:
    over = prefix(silent)
    asyncio.run(greets((over[0], "-J", "gate.example.net", *over[1:]), within=5.0))


def test_who_is_in_a_hurry_does_not_start_ssh_where_nobody_greets(
    silent: int, tmp_path: Path
) -> None:
    """And who is not, does."""
    ran = tmp_path / "ran"

    async def story() -> None:
        async def nobody() -> None:
            await greets(prefix(silent), within=WITHIN)

        argv = ("sh", "-c", f'touch {ran}; echo \'{{"ok": true, "stopped": true}}\'')
        door = Door("pbx02", argv, clock=lambda: 0.0, greets=nobody)
        with pytest.raises(Unreachable, match="greeted"):
            await door.fence("pbx02", 7, hurry=True)
        assert not ran.exists()
        await door.fence("pbx02", 7, hurry=False)
        assert ran.exists()

    asyncio.run(story())
