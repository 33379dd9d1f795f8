"""A caller's side of SIP over UDP, as small as the instruments need: RFC 3261, with its retransmission.

Nothing here waits: a Call is told what came and when, and says what to send.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

T1 = 0.5  # Seconds.  RFC 3261, section 17.1.1.2: timer A begins here and doubles.
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    call: str  # Call-ID.
    method: str  # Of CSeq.
    text: str

    def header(self, name: str) -> list[str]:
        found = re.findall(
            rf"^{name}[ \t]*:[ \t]*(.*?)\r?$", self.text, re.MULTILINE | re.IGNORECASE
        )
        return [str(each) for each in found]


def read_reply(data: bytes) -> Reply | None:
    """None for what is no reply of SIP."""
    text = data.decode(errors="replace")
    code = re.match(r"SIP/2\.0 (\d{3})", text)
    call = re.search(r"^(?:Call-ID|i)[ \t]*:[ \t]*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    sequence = re.search(r"^CSeq[ \t]*:[ \t]*\d+[ \t]+(\w+)", text, re.MULTILINE | re.IGNORECASE)
    if not (code and call and sequence):
        return None
    return Reply(int(code[1]), call[1], sequence[1].upper(), text)


def read_request(data: bytes) -> str:
    """Its method; empty for a reply."""
    word = data.split(b" ", 1)[0].decode(errors="replace")
    return word if word.isalpha() and word.isupper() else ""


def answer_200(request: bytes) -> bytes:
    """For a BYE: RFC 3261, section 8.2.6."""
    kept = ("via", "from", "to", "call-id", "cseq", "v", "f", "t", "i", "record-route")
    lines = request.decode(errors="replace").split("\r\n\r\n", 1)[0].split("\r\n")[1:]
    lines = [line for line in lines if line.partition(":")[0].strip().lower() in kept]
    return "\r\n".join(["SIP/2.0 200 OK", *lines, "Content-Length: 0", "", ""]).encode()


@dataclass(slots=True)
class Call:
    """One INVITE and what belongs to it: ACK for whatever ends it, BYE after a 200."""

    us: tuple[str, int]
    them: tuple[str, int]
    number: str
    caller: str = "lab"
    id: str = field(default_factory=lambda: os.urandom(8).hex())
    final: int = 0

    def invite(self) -> bytes:
        body = _SDP.format(host=self.us[0])
        uri = f"sip:{self.number}@{self.them[0]}:{self.them[1]}"
        more = [f"Contact: <sip:{self.caller}@{_at(self.us)}>", "Content-Type: application/sdp"]
        return self._request("INVITE", 1, uri, f"<{uri}>", f"z9hG4bK{self.id}", more, body)

    def cancel(self) -> bytes:
        uri = f"sip:{self.number}@{self.them[0]}:{self.them[1]}"
        return self._request("CANCEL", 1, uri, f"<{uri}>", f"z9hG4bK{self.id}")

    def take(self, reply: Reply) -> Iterable[bytes]:
        """What to send now.  `final` is the status code, once there is one."""
        if reply.method != "INVITE" or reply.code < 200:
            return ()
        first, self.final = not self.final, self.final or reply.code
        to = (reply.header("To") or reply.header("t"))[0]
        if reply.code >= 300:
            uri = f"sip:{self.number}@{self.them[0]}:{self.them[1]}"
            return (self._request("ACK", 1, uri, to, f"z9hG4bK{self.id}"),)
        contact = re.search(r"<([^>]+)>", (reply.header("Contact") or reply.header("m"))[0])
        uri = contact[1] if contact else f"sip:{_at(self.them)}"
        routes = [f"Route: {route}" for route in reversed(reply.header("Record-Route"))]
        ack = self._request("ACK", 1, uri, to, f"z9hG4bK{self.id}a", routes)
        bye = self._request("BYE", 2, uri, to, f"z9hG4bK{self.id}b", routes)
        return (ack, bye) if first else (ack,)

    def _request(
        self,
        method: str,
        number: int,
        uri: str,
        to: str,
        branch: str,
        more: Iterable[str] = (),
        body: str = "",
    ) -> bytes:
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {_at(self.us)};branch={branch};rport",
            f"From: <sip:{self.caller}@{_at(self.us)}>;tag={self.id[:8]}",
            f"To: {to}",
            f"Call-ID: {self.id}",
            f"CSeq: {number} {method}",
            "Max-Forwards: 70",
            *more,
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def _at(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
