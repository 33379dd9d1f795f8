#!/usr/bin/env python3
"""Who serves?  From each site an INVITE to both PBXs, ten times a second: watch.py FILE.

FILE gets one JSON line per question when it is over: from which site, to which node, sent and answered at (seconds
of the wall clock) and the reply's code; `answered` is null where nothing came.  `times` makes times of serving of it.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # `import lab` means the folder.

from lab import network, sip
from lab.hosts import HOSTS, NODES, PROBES

EVERY = 0.1  # Seconds from one INVITE to the next.
GIVE_UP = 1.5  # Seconds after which an INVITE counts as unanswered.
NUMBER = "serving"  # conf/pbx: the dialplan answers it with 486, and no media flow.
JOIN = 0.45  # Seconds.  Two answers that are no further apart are one time of serving.
GAP = 1.5  # Seconds.
DECLINES = 503  # "I am alive, and take no calls": not serving.


@dataclass(frozen=True, slots=True)
class Sample:
    site: str
    node: str
    sent: float
    answered: float | None
    code: int = 0

    @property
    def serves(self) -> bool:
        return self.answered is not None and self.code != DECLINES


class Sampler:
    """One for each site, in its network namespace."""

    def __init__(self, probe: str, out: TextIO) -> None:
        self._host, self._out = HOSTS[probe], out
        self._sock = network.udp_socket(probe)
        self._open: dict[str, tuple[sip.Call, str, float]] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock, self._read)
        beat = loop.time()
        while True:
            self._ask()
            self._give_up()
            self._out.flush()
            beat += EVERY
            await asyncio.sleep(max(0.0, beat - loop.time()))
            beat = max(beat, loop.time() - EVERY)  # After a pause of the machine: no burst.

    def _ask(self) -> None:
        for node in NODES:
            them = (HOSTS[node].address, 5060)
            call = sip.Call(self._sock.getsockname(), them, NUMBER)
            self._open[call.id] = (call, node, time.time())
            self._send(call.invite(), them)

    def _read(self) -> None:
        for data, origin in network.received(self._sock):
            reply = sip.read_reply(data)
            known = self._open.get(reply.call) if reply else None
            if reply is None or known is None:
                continue
            call, node, sent = known
            for packet in call.take(reply):
                self._send(packet, origin)
            if call.final:
                del self._open[call.id]
                self._write(Sample(self._host.site, node, sent, time.time(), call.final))

    def _give_up(self) -> None:
        now = time.time()
        for call, node, sent in list(self._open.values()):
            if now - sent > GIVE_UP:
                del self._open[call.id]
                self._write(Sample(self._host.site, node, sent, None))

    def _write(self, sample: Sample) -> None:
        self._out.write(
            json.dumps([sample.site, sample.node, sample.sent, sample.answered, sample.code]) + "\n"
        )

    def _send(self, packet: bytes, to: Any) -> None:
        try:
            self._sock.sendto(packet, to)
        except OSError:
            return  # Told by ICMP about an earlier one, or no way there: the sample says it.


def read(path: Path) -> list[Sample]:
    """All that are complete by now."""
    lines = path.read_text().splitlines(keepends=True)
    return [Sample(*json.loads(line)) for line in lines if line.endswith("\n")]


def times(samples: Iterable[Sample], node: str, *, site: str = "") -> list[tuple[float, float]]:
    """When it served, as seen from that site, or from any."""
    moments = sorted(
        sample.answered
        for sample in samples
        if sample.answered is not None
        and sample.serves
        and sample.node == node
        and site in ("", sample.site)
    )
    found: list[tuple[float, float]] = []
    for at in moments:
        if found and at - found[-1][1] <= JOIN:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return found


def overlaps(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """When both served, whoever saw it."""
    first, second = (times(samples, node) for node in NODES)
    return [
        (max(a[0], b[0]), min(a[1], b[1]))
        for a in first
        for b in second
        if max(a[0], b[0]) <= min(a[1], b[1])
    ]


def gaps(
    samples: Sequence[Sample], since: float, until: float, *, site: str = ""
) -> list[tuple[float, float]]:
    """When neither served, between those two moments; as long as a machine in a hurry needs does not count."""
    served = sorted(
        span
        for node in NODES
        for span in times(samples, node, site=site)
        if span[1] >= since and span[0] <= until
    )
    found, at = [], since
    for begin, end in served:
        if begin - at > GAP:
            found.append((at, begin))
        at = max(at, end)
    if until - at > GAP:
        found.append((at, until))
    return found


async def _main(path: Path) -> None:
    with path.open("w", buffering=1 << 16) as out:
        async with asyncio.TaskGroup() as group:
            for probe in PROBES:
                group.create_task(Sampler(probe, out).run())


if __name__ == "__main__":
    try:
        asyncio.run(_main(Path(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(0)
