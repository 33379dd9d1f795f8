"""A PBX that answers and does nothing else, over UDP: for the demo and for tests.

    python -m understudy.demo.sip_pbx --listen 127.0.0.11:5060 --name pbx01 [--record FILE] [--data FOLDER]

It answers OPTIONS and REGISTER, takes every call at once (100, 200 with a description of the audio
that nobody sends), and lets the caller hang up.  Every answer names the node in `Server`, so that a
caller can tell who served it.  `--record` keeps one JSON line for each request; with `--data` callers
leave messages and agents log in (demo.data).
"""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from understudy.demo.data import Recorder
from understudy.plugins.check_sip import T1, T2, Message, join, parse_message, split_address

METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER")
# Other methods that have an RFC: known, and not for us.
REFUSED = ("INFO", "MESSAGE", "NOTIFY", "PRACK", "PUBLISH", "REFER", "SUBSCRIBE", "UPDATE")
LIFETIME = 64 * T1  # Seconds.  RFC 3261: how long a transaction is remembered.
REASONS = {
    100: "Trying",
    200: "OK",
    400: "Bad Request",
    405: "Method Not Allowed",
    481: "Call/Transaction Does Not Exist",
    501: "Not Implemented",
}


class SipPbx:
    """Use as `async with SipPbx("pbx01", "127.0.0.11", 5060) as pbx`, or start() and stop()."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int = 0,
        *,
        record: Path | None = None,
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port  # The real one after start(), where it was 0.
        self.answered: list[str] = []  # Call-IDs of the calls that were taken, in their order.
        self._record, self._on_call = record, on_call
        self._transport: asyncio.DatagramTransport | None = None
        self._done: dict[str, bytes] = {}  # The last answer, by transaction.
        self._calls: dict[str, asyncio.TimerHandle | None] = {}  # By Call-ID; a timer until ACK.

    async def __aenter__(self) -> "SipPbx":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen.  Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(self.host, self.port)
        )
        self.port = self._transport.get_extra_info("sockname")[1]

    async def stop(self) -> None:
        """At once: calls in progress are lost, as they are when a PBX dies."""
        for timer in self._calls.values():
            if timer:
                timer.cancel()
        self._calls.clear()
        self._done.clear()
        if self._transport:
            self._transport.abort()
            self._transport = None
            await asyncio.sleep(0)  # The loop closes the socket in its next turn.

    def take(self, data: bytes, source: Any) -> None:
        """A datagram came.  What is no request, or has nothing to answer to, is dropped."""
        request = parse_message(data)
        if request is None or request.start.upper().startswith("SIP/") or not request.branch:
            return
        method = request.start.partition(" ")[0]
        self._write_down(method, request, source)
        if method == "ACK":
            self._acknowledge(request)
            return
        transaction = f"{method} {request.branch}"
        if transaction in self._done:  # Our answer was lost: the same again (section 17.2.2).
            self._send(self._done[transaction], source)
            return
        self._answer(method, request, source, transaction)

    def _answer(self, method: str, request: Message, source: Any, transaction: str) -> None:
        call = request.first("call-id")
        code = 200
        if request.method != method or not call:
            code = 400
        elif method not in METHODS:
            code = 405 if method in REFUSED else 501
        elif method == "INVITE":
            self._send(_response(request, 100, self, source), source)
            self.answered.append(call)
            self._on_call()
        elif (method == "BYE" and call not in self._calls) or (
            method == "CANCEL" and f"INVITE {request.branch}" not in self._done
        ):
            code = 481
        elif method == "BYE":
            self._forget(call)
        response = _response(request, code, self, source)
        self._done[transaction] = response
        asyncio.get_running_loop().call_later(LIFETIME, self._done.pop, transaction, None)
        self._send(response, source)
        if method == "INVITE" and code == 200:
            self._repeat(call, response, source, T1)

    def _repeat(self, call: str, response: bytes, source: Any, after: float) -> None:
        """Section 13.3.1.4: a 200 to INVITE is repeated until the ACK comes."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + LIFETIME

        def again(interval: float) -> None:
            if loop.time() >= ends:
                self._calls.pop(call, None)
                return
            self._send(response, source)
            self._calls[call] = loop.call_later(interval, again, min(2 * interval, T2))

        self._calls[call] = loop.call_later(after, again, 2 * after)

    def _acknowledge(self, request: Message) -> None:
        call = request.first("call-id")
        timer = self._calls.get(call)
        if timer:
            timer.cancel()
            self._calls[call] = None

    def _forget(self, call: str) -> None:
        timer = self._calls.pop(call, None)
        if timer:
            timer.cancel()

    def _send(self, data: bytes, source: Any) -> None:
        if self._transport:
            self._transport.sendto(data, source)

    def _write_down(self, method: str, request: Message, source: Any) -> None:
        if self._record is None:
            return
        line = {
            "at": round(time.time(), 3),
            "node": self.name,
            "method": method,
            "call": request.first("call-id"),
            "from": join(source[0], source[1]),
        }
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, pbx: SipPbx) -> None:
        self._pbx = pbx

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._pbx.take(data, addr)


def _response(request: Message, code: int, pbx: SipPbx, source: Any) -> bytes:
    """Section 8.2.6: Via, From, To, Call-ID and CSeq as they came; a tag of ours in To."""
    top, *others = request.all("via")
    top = top.replace(";rport", f";received={source[0]};rport={source[1]}", 1)
    to = request.first("to")
    if code > 100 and ";tag=" not in to:
        to += f";tag={secrets.token_hex(4)}"
    method = request.method
    body = _audio(pbx.host) if code == 200 and method == "INVITE" else ""
    lines = [
        f"SIP/2.0 {code} {REASONS[code]}",
        *(f"Via: {each}" for each in (top, *others)),
        *(f"Record-Route: {each}" for each in request.all("record-route")),
        f"From: {request.first('from')}",
        f"To: {to}",
        f"Call-ID: {request.first('call-id')}",
        f"CSeq: {request.first('cseq')}",
        f"Server: {pbx.name}",
    ]
    if code == 200 and method == "REGISTER":
        lines += [f"Contact: {each};expires=60" for each in request.all("contact")]
    elif code == 200:
        lines.append(f"Contact: <sip:{pbx.name}@{join(pbx.host, pbx.port)}>")
    if code != 100:
        lines.append(f"Allow: {', '.join(METHODS)}")
    if body:
        lines.append("Content-Type: application/sdp")
    lines += [f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


def _audio(host: str) -> str:
    """RFC 4566, RFC 3264: audio to the port of nobody."""
    version = "IP6" if ":" in host else "IP4"
    return (
        f"v=0\r\no=- 1 1 IN {version} {host}\r\ns=-\r\nc=IN {version} {host}\r\nt=0 0\r\n"
        "m=audio 9 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until SIGTERM or SIGINT; then end at once."""
    parser = argparse.ArgumentParser(prog="sip_pbx", description="A PBX for demonstrations.")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--name", required=True, help="the node's name, for the header Server")
    parser.add_argument("--record", type=Path, metavar="FILE", help="one JSON line per request")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where it records what callers leave"
    )
    options = parser.parse_args(arguments)
    try:
        host, port = split_address(options.listen)
    except ValueError as error:
        parser.error(str(error))
    data = Recorder(options.data, options.name).call if options.data is not None else lambda: None
    pbx = SipPbx(options.name, host, port, record=options.record, on_call=data)
    try:
        asyncio.run(_serve(pbx))
    except OSError as error:
        parser.exit(1, f"sip_pbx: cannot listen on {options.listen}: {error.strerror}\n")
    return 0


async def _serve(pbx: SipPbx) -> None:
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    async with pbx:
        await ended.wait()


if __name__ == "__main__":
    sys.exit(main())
