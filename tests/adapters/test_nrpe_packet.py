"""NRPE packets, byte for byte as the daemons and check_nrpe 4.1.0 make them."""

import random
from binascii import unhexlify
from contextlib import suppress
from zlib import crc32

import pytest

from understudy.adapters.probes.nrpe_packet import (
    MAX_BUFFER,
    Decoder,
    Packet,
    PacketError,
    Role,
    Version,
    encode,
)

ASKED = b"_NRPE_CHECK"
ASKED_HEX = "5f4e5250455f434845434b00"

QUESTIONS = {
    # By version: the first bytes of check_nrpe's own packet; zeros follow up to 1036 bytes.
    Version.V2: "00020001 d4673f00 0000" + ASKED_HEX,
    Version.V3: "00030001 10e75ae5 0000 0000 000003f9" + ASKED_HEX,
    Version.V4: "00040001 5bd51854 0000 0000 000003fc" + ASKED_HEX,
}
EXACT_QUESTIONS = {
    Version.V3: "00030001 cc1a3f23 0000 0000 0000000c" + ASKED_HEX + "000000",
    Version.V4: "00040001 4356e60b 0000 0000 0000000c" + ASKED_HEX,
}
ANSWERS = {
    Version.V3: ("00030002 f9800d98 0000 0000 0000000b 4e52504520 76332e322e3100 0000", "3.2.1"),
    Version.V4: ("00040002 0daad245 0000 0000 0000000c 4e52504520 76342e312e3000", "4.1.0"),
}


@pytest.mark.parametrize("version", QUESTIONS)
def test_a_question_is_check_nrpes_byte_for_byte(version: Version) -> None:
    question = encode(Packet(version=version, role=Role.QUESTION, text=ASKED))
    wanted = _bytes(QUESTIONS[version]).ljust(1036, b"\0")
    if version is Version.V3:
        wanted = wanted[:-3]  # The padding that a plain 3.x daemon would leave unread, and reset.
    assert question == wanted


@pytest.mark.parametrize("version", EXACT_QUESTIONS)
def test_a_question_without_filling_is_understood(version: Version) -> None:
    packet = Decoder(Role.QUESTION).feed(_bytes(EXACT_QUESTIONS[version]))
    assert packet == Packet(version=version, role=Role.QUESTION, text=ASKED)


@pytest.mark.parametrize("version", ANSWERS)
@pytest.mark.parametrize("piece", [1, 3, 10, 100])
def test_an_answer_is_understood_in_pieces_of_any_size(version: Version, piece: int) -> None:
    raw, name = ANSWERS[version]
    answer = _feed(_bytes(raw), piece)
    assert answer == Packet(version=version, role=Role.ANSWER, text=f"NRPE v{name}".encode())


@pytest.mark.parametrize("version", Version)
@pytest.mark.parametrize("code", [0, 1, 2, 3, -1, 99])
@pytest.mark.parametrize(
    "text", [b"", b"SIP OK | t=1", "Größe\n2".encode(), b"\xff\xfe", b"x" * 1023]
)
def test_what_is_encoded_is_decoded(version: Version, code: int, text: bytes) -> None:
    packet = Packet(version=version, role=Role.ANSWER, code=code, text=text)
    assert _feed(encode(packet), 7) == packet


def test_the_padding_of_version_2_may_be_anything() -> None:
    raw = bytearray(encode(Packet(version=Version.V2, role=Role.ANSWER, text=b"OK")))
    raw[13:] = b"\x7e" * (len(raw) - 13)
    raw[4:8] = bytes(4)
    raw[4:8] = crc32(raw).to_bytes(4, "big")
    packet = Decoder(Role.ANSWER).feed(bytes(raw))
    assert packet is not None
    assert packet.text == b"OK"


def test_version_4_carries_up_to_65535_bytes() -> None:
    packet = Packet(version=Version.V4, role=Role.ANSWER, text=b"x" * (MAX_BUFFER - 1))
    assert _feed(encode(packet), 2047) == packet


def test_bytes_after_the_packet_are_ignored() -> None:
    packet = Packet(version=Version.V4, role=Role.ANSWER, text=b"OK")
    assert Decoder(Role.ANSWER).feed(encode(packet) + b"junk" * 100_000) == packet


@pytest.mark.parametrize("version", Version)
def test_an_answer_that_is_cut_is_no_answer_yet(version: Version) -> None:
    raw = encode(Packet(version=version, role=Role.ANSWER, text=b"SIP OK"))
    for size in range(len(raw)):
        assert Decoder(Role.ANSWER).feed(raw[:size]) is None


@pytest.mark.parametrize("version", Version)
def test_one_wrong_bit_anywhere_is_noticed(version: Version) -> None:
    raw = encode(Packet(version=version, role=Role.ANSWER, text=b"SIP OK"))
    for place in range(len(raw)):
        if version is not Version.V2 and place in (10, 11):
            continue  # The alignment: daemons leave it out of the CRC.
        bent = bytearray(raw)
        bent[place] ^= 1
        with_more = bytes(bent) + bytes(2 * MAX_BUFFER)  # A longer announced length is filled up.
        with pytest.raises(PacketError):
            _feed(with_more, len(with_more))


@pytest.mark.parametrize(
    "hostile",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-OpenSSH_9.2",
        b"\x15\x03\x01\x00\x02\x02\x28",  # A TLS alert.
        b"\x00\x02\x00\x01",  # A question, where an answer belongs.
        b"\x00\x01\x00\x02",  # Packet version 1.
        b"\x00\x05\x00\x02",
        b"\x00\x04\x00\x02" + bytes(8) + b"\xff\xff\xff\xff",  # 4 GiB are announced.
        b"\x00\x04\x00\x02" + bytes(8) + b"\x00\x01\x00\x01",  # One byte more than allowed.
    ],
)
def test_what_cannot_become_an_answer_is_refused_at_once(hostile: bytes) -> None:
    with pytest.raises(PacketError):
        _feed(hostile, 1)


def test_an_endless_answer_is_not_kept() -> None:
    decoder = Decoder(Role.ANSWER)
    decoder.feed(b"\x00\x04\x00\x02" + bytes(8) + b"\x00\x00\x10\x00")
    with pytest.raises(PacketError):
        decoder.feed(b"x" * 10_000_000)
    assert decoder.received <= 16 + 4096


def test_noise_is_refused_or_incomplete_but_never_a_surprise() -> None:
    noise = random.Random(5666)
    for _ in range(3000):
        start = noise.choice([b"", b"\x00\x02\x00\x02", b"\x00\x03\x00\x02", b"\x00\x04\x00\x02"])
        raw = start + noise.randbytes(noise.randrange(1200))
        with suppress(PacketError):
            assert Decoder(Role.ANSWER).feed(raw) is None


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (Version.V2, b"x" * 1024),
        (Version.V4, b"x" * MAX_BUFFER),
        (Version.V2, b"a\0b"),
        (Version.V4, b"a\0b"),
    ],
)
def test_a_text_that_fits_no_packet_is_refused(version: Version, text: bytes) -> None:
    with pytest.raises(PacketError):
        encode(Packet(version=version, role=Role.QUESTION, text=text))


def _feed(raw: bytes, piece: int) -> Packet | None:
    decoder = Decoder(Role.ANSWER)
    for start in range(0, len(raw), piece):
        packet = decoder.feed(raw[start : start + piece])
        if packet:
            return packet
    return None


def _bytes(text: str) -> bytes:
    return unhexlify(text.replace(" ", ""))
