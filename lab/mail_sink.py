#!/usr/bin/env python3
"""A mail server that keeps what it gets: mail_sink.py FOLDER [PORT].  One file per mail, named by time.

RFC 5321, as much of it as a client needs that sends mail; nothing is relayed.
"""

import asyncio
import sys
import time
from pathlib import Path

LONGEST = 10 * 1024 * 1024  # Bytes of one mail.


class Sink:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    async def serve(self, port: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        server = await asyncio.start_server(self._session, "", port, limit=LONGEST)
        async with server:
            await server.serve_forever()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.test ready\r\n")
        try:
            while line := await reader.readline():
                verb = line.strip().upper()
                if verb.startswith(b"EHLO"):
                    writer.write(b"250-mail.example.test\r\n250 8BITMIME\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go on\r\n")
                    self._keep(await self._mail(reader))
                    writer.write(b"250 kept\r\n")
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    writer.write(b"250 well\r\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # The client has gone, or sends what is no mail.
        finally:
            writer.close()

    async def _mail(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while (line := await reader.readline()) not in (b".\r\n", b".\n"):
            if not line:
                raise ConnectionError
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _keep(self, mail: bytes) -> None:
        self._number += 1
        path = self._folder / f"{time.time():.3f}-{self._number:04}.eml"
        path.with_suffix(".part").write_bytes(mail)
        path.with_suffix(".part").rename(path)


if __name__ == "__main__":
    asyncio.run(Sink(Path(sys.argv[1])).serve(int(sys.argv[2]) if len(sys.argv) > 2 else 25))
