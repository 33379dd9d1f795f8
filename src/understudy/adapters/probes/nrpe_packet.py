"""NRPE packets as bytes: questions and answers of packet versions 2, 3 and 4.

Layout: common.h of the NRPE sources (structs v2_packet, v3_packet and v4_packet); all integers
big-endian.  Which daemon takes which: 2.x takes 2; 3.x takes 2 and 3; 4.x takes 2 and 4.  Nothing
here does I/O, and nothing is allocated because a peer announced it: a Decoder holds at most what
one packet may hold.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

MAX_BUFFER = 65536  # What a daemon may announce, bytes.
V2_BUFFER = 1024  # With the NUL that ends the text.


class PacketError(ValueError):
    """These bytes are no NRPE packet, or a damaged one; or this text fits in none."""


class Version(IntEnum):
    V2 = 2
    V3 = 3
    V4 = 4


class Role(IntEnum):
    QUESTION = 1
    ANSWER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    version: Version
    role: Role
    code: int = (
        0  # An answer's: 0 to 3 as a plugin's exit code; anything else is the daemon's mistake.
    )
    text: bytes = b""  # Without the NUL and what follows it.


def encode(packet: Packet) -> bytes:
    """The bytes on the wire.  Raises PacketError if the text has a NUL, or is too long."""
    if b"\0" in packet.text:
        raise PacketError("an NRPE packet cannot carry a NUL byte in its text")
    body = _body_2(packet.text) if packet.version is Version.V2 else _body_3_4(packet)
    head = _HEAD.pack(packet.version, packet.role, 0, packet.code)
    checked = head + body + _unsent(packet.version)
    return _HEAD.pack(packet.version, packet.role, crc32(checked), packet.code) + body


class Decoder:
    """Puts together the one packet of a connection, from pieces of any size.

    Bytes after the packet are ignored: 3.x daemons send three bytes of struct padding, which nobody
    waits for.
    """

    def __init__(self, role: Role) -> None:
        self._starts = _STARTS[role]
        self._bytes = bytearray()

    @property
    def received(self) -> int:
        """How many bytes of the packet are here."""
        return len(self._bytes)

    def feed(self, piece: bytes) -> Packet | None:
        """The packet, once it is whole.  Raises PacketError as soon as it cannot become one."""
        for wanted in (self._fixed, self._whole):
            size = wanted()
            missing = max(0, size - len(self._bytes))
            self._bytes += piece[:missing]
            piece = piece[missing:]
            if len(self._bytes) < size:
                self._check_start()
                return None
        return self._decode()

    def _fixed(self) -> int:
        return _LONG.size

    def _whole(self) -> int:
        self._check_start()
        version, _, _, _, _, length = _LONG.unpack_from(self._bytes)
        if version == Version.V2:
            return _V2_SIZE
        if length > MAX_BUFFER:
            raise PacketError(f"an answer of {length} bytes is announced; NRPE allows {MAX_BUFFER}")
        return _LONG.size + int(length)

    def _check_start(self) -> None:
        """Refuse what is not NRPE with its first bytes, not after a wait for the rest."""
        start = bytes(self._bytes[:4])
        if not any(good.startswith(start) for good in self._starts):
            raise PacketError(f"this is not NRPE: it begins with {bytes(self._bytes[:12])!r}")

    def _decode(self) -> Packet:
        version, role, told, code = _HEAD.unpack_from(self._bytes)
        zeroed = bytearray(self._bytes)
        zeroed[_CRC] = bytes(4)
        text = zeroed[_HEAD.size :]
        if version != Version.V2:
            zeroed[_ALIGNMENT] = bytes(2)
            text = zeroed[_LONG.size :]
        if crc32(zeroed + _unsent(version)) != told:
            raise PacketError("the packet is damaged: its CRC is wrong")
        return Packet(
            version=Version(version),
            role=Role(role),
            code=code,
            text=bytes(text[:V2_BUFFER] if version == Version.V2 else text).split(b"\0", 1)[0],
        )


_STARTS = {role: tuple(struct.pack(">HH", version, role) for version in Version) for role in Role}
_HEAD = struct.Struct(">HHIh")  # Version, role, CRC-32, result code.
_LONG = struct.Struct(">HHIhHI")  # The same, alignment, length of the buffer: versions 3 and 4.
_CRC = slice(4, 8)
_ALIGNMENT = slice(10, 12)
_V2_PADDING = 2  # Of the C struct; on the wire and in the CRC.
_V2_SIZE = _HEAD.size + V2_BUFFER + _V2_PADDING


def _body_2(text: bytes) -> bytes:
    if len(text) >= V2_BUFFER:
        raise PacketError(
            f"{len(text)} bytes of text; packet version 2 carries {V2_BUFFER - 1} at most"
        )
    return text.ljust(V2_BUFFER + _V2_PADDING, b"\0")


def _body_3_4(packet: Packet) -> bytes:
    if len(packet.text) >= MAX_BUFFER:
        raise PacketError(
            f"{len(packet.text)} bytes of text; an NRPE packet carries {MAX_BUFFER - 1} at most"
        )
    buffer = packet.text + b"\0"
    if packet.role is Role.QUESTION:
        # As check_nrpe does: a 2.x daemon, which reads 1036 bytes before it looks at the version,
        # then closes at once.
        buffer = buffer.ljust(_V2_SIZE - _LONG.size - len(_unsent(packet.version)), b"\0")
    return struct.pack(">HI", 0, len(buffer)) + buffer


def _unsent(version: int) -> bytes:
    """Version 3 ends in three bytes of struct padding that count in the CRC.

    We neither send them (a 3.x daemon leaves them unread, and its close then resets the connection
    before the answer is read) nor wait for them.
    """
    return bytes(3) if version == Version.V3 else b""
