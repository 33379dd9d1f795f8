#!/usr/bin/env python3
"""Delay and jitter for the router, where the kernel has no netem: delayd.py TABLE DEVICE.

nft marks the packets of delayed pairs, a routing rule sends them into a TUN device, and this program keeps each for its
pair's delay and writes it back, whence the kernel routes it on.  TABLE, read anew when it changes: `SRC DST MS JITTER`.
"""

import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x0001 | 0x1000
LOOK = 0.2  # Seconds between two looks at the table.


def tun(device: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", device.encode(), TUN_WITHOUT_HEADER))
    subprocess.run(
        f"ip link set {device} up mtu 1500; ip rule add fwmark 1 lookup 100;"
        f"ip route replace default dev {device} table 100;"
        f"echo 0 >/proc/sys/net/ipv4/conf/{device}/rp_filter",
        shell=True, check=True,
    )  # fmt: skip
    return fd


class Table:
    def __init__(self, path: Path) -> None:
        self._path, self._changed, self._looked = path, 0, 0.0
        self._delays: dict[bytes, tuple[float, float]] = {}

    def refresh(self, now: float) -> None:
        if now - self._looked < LOOK:
            return
        self._looked = now
        try:
            changed = self._path.stat().st_mtime_ns
            text = self._path.read_text() if changed != self._changed else ""
        except OSError:
            return
        if changed != self._changed:
            self._changed = changed
            rows = [line.split() for line in text.splitlines()]
            self._delays = {
                socket.inet_aton(a) + socket.inet_aton(b): (float(ms) / 1e3, float(jitter) / 1e3)
                for a, b, ms, jitter in rows
            }

    def delay(self, packet: bytes) -> float:
        """Seconds for this packet: source and destination are bytes 12 to 20 of an IPv4 header."""
        least, jitter = self._delays.get(packet[12:20], (0.0, 0.0))
        return least + random.random() * jitter


def forward(fd: int, table: Table) -> None:
    waiting: list[tuple[float, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        table.refresh(now)
        while waiting and waiting[0][0] <= now:
            packet = heapq.heappop(waiting)[2]
            try:
                os.write(fd, packet)
            except OSError:
                continue  # Its destination has gone.
        left = max(0.0, waiting[0][0] - now) if waiting else LOOK
        if not select.select([fd], [], [], min(LOOK, left))[0]:
            continue
        for _ in range(256):
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                break
            number += 1
            heapq.heappush(waiting, (time.monotonic() + table.delay(packet), number, packet))


if __name__ == "__main__":
    forward(tun(sys.argv[2]), Table(Path(sys.argv[1])))
