"""What a caller finds: who answers SIP, and where the name leads.  Nothing of ours is asked."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dns.message
import dns.query
import dns.rdatatype

EVERY = 0.1  # Seconds between two questions to both PBXs.


class Watch:
    """Asks both PBXs ten times a second.  Times are wall clock seconds, as in the journals."""

    def __init__(self, addresses: Mapping[str, str], port: int) -> None:
        self.samples: list[tuple[float, frozenset[str]]] = []
        self._addresses, self._port = addresses, port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def answering(self) -> tuple[str, ...]:
        """Who has answered in the last half second."""
        since = time.time() - 0.5
        return tuple(sorted({node for at, who in self.samples[-6:] if at >= since for node in who}))

    @property
    def overlaps(self) -> list[float]:
        """When both answered."""
        return [at for at, who in list(self.samples) if len(who) > 1]

    def first(self, node: str, since: float) -> float:
        """When it answered for the first time after that."""
        return next(at for at, who in list(self.samples) if node in who and at >= since)

    def last(self, node: str) -> float:
        return max(at for at, who in list(self.samples) if node in who)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            number = 0
            while not self._ended.is_set():
                number += 1
                asked = time.time()
                self.samples.append((asked, frozenset(self._ask(sock, number))))
                self._ended.wait(max(0.0, asked + EVERY - time.time()))

    def _ask(self, sock: socket.socket, number: int) -> Iterator[str]:
        """Who answers this very question: Call-ID says which one it was."""
        missing = dict.fromkeys(self._addresses)
        for node, address in self._addresses.items():
            with contextlib.suppress(OSError):
                request = options(sock, f"{number}-{node}")
                sock.sendto(request, (address, self._port))
        until = time.monotonic() + 0.8 * EVERY
        while missing and (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            with contextlib.suppress(OSError):
                reply = sock.recv(4096).decode(errors="replace")
                for node in tuple(missing):
                    if reply.startswith("SIP/2.0") and f"{number}-{node}\r\n" in reply:
                        del missing[node]
                        yield node


@contextmanager
def watch(addresses: Mapping[str, str], port: int) -> Iterator[Watch]:
    """Through the whole of a scenario; at its end never two may have answered."""
    made = Watch(addresses, port)
    made.start()
    try:
        yield made
    finally:
        made.end()
    assert not made.overlaps, f"two PBXs answered at once: {made.overlaps}"


def options(sock: socket.socket, call: str) -> bytes:
    """RFC 3261, section 11.1."""
    us = "{}:{}".format(*sock.getsockname())
    return (
        f"OPTIONS sip:{us} SIP/2.0\r\nVia: SIP/2.0/UDP {us};branch=z9hG4bK{call}\r\n"
        f"From: <sip:caller@localhost>;tag=x\r\nTo: <sip:pbx@localhost>\r\n"
        f"Call-ID: {call}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def leads_to(port: int, name: str) -> str:
    """The target of the name's CNAME at the name server on that port of 127.0.0.1."""
    query = dns.message.make_query(name, dns.rdatatype.CNAME)
    answer = dns.query.udp(query, "127.0.0.1", timeout=2, port=port)
    return str(answer.answer[0][0]).rstrip(".") if answer.answer else ""


def until(holds: Callable[[], object], *, within: float, what: Callable[[], str] | str) -> float:
    """Wait for it; the wall clock when it held."""
    ends = time.monotonic() + within
    while not holds():
        said = what if isinstance(what, str) else what()
        assert time.monotonic() < ends, f"not within {within} s: {said}"
        time.sleep(0.1)
    return time.time()
