"""Does an SSH server live there?  A server speaks first: its identification string (RFC 4253 section 4.2).

ssh(1) waits for a dead host by whole seconds, and a living one that is far away or busy may need them.  So who is in a
hurry looks for the greeting first, and starts ssh only where there is one.
"""

import asyncio
from contextlib import closing

from understudy.adapters.processes import run
from understudy.errors import AdapterError, Unreachable

WITHIN = 0.5  # Seconds: two ways there and back between continents, the socket's and the server's.
FIRST = b"SSH-"


async def greets(prefix: tuple[str, ...], *, within: float = WITHIN) -> None:
    """Return when the server that `prefix` (`ssh ... -- target`) leads to has greeted, or cannot be looked at directly.

    Raises Unreachable when it has not greeted `within` seconds.
    """
    try:
        async with asyncio.timeout(within):
            where = await _address(prefix)
            if where is not None:
                await _greeting(*where)
    except TimeoutError:
        raise Unreachable(f"no SSH server has greeted within {within:g} s") from None
    except OSError as error:
        raise Unreachable(f"no SSH server there: {error.strerror or error}") from None


async def _address(prefix: tuple[str, ...]) -> tuple[str, int] | None:
    """What ssh_config(5) makes of the target; None where the way leads over another host, or ssh does not say."""
    try:
        done = await run((prefix[0], "-G", *prefix[1:]), within=WITHIN)
    except AdapterError:
        return None
    words = dict(line.split(" ", 1) for line in done.out.splitlines() if " " in line)
    indirect = {words.get("proxyjump", "none"), words.get("proxycommand", "none")} != {"none"}
    if done.code != 0 or indirect or not words.get("port", "").isdigit():
        return None
    return words["hostname"], int(words["port"])


async def _greeting(host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    with closing(writer):
        if await reader.read(len(FIRST)) != FIRST:
            raise Unreachable(f"{host}:{port} does not greet as an SSH server")
