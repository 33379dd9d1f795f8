"""The direct probe: silence is down, what could not be asked is unknown."""

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from adapters.kamailio import Kamailio, certificate, free_ports, kamailio, tls_before
from understudy.adapters.probes.sip import NoAnswer, Settings, SipProbe, Transport, options
from understudy.config.settings import InputFile, Port, Seconds
from understudy.core.observations import Health, Report
from understudy.errors import Unreachable

HERE = "127.0.0.1"


@pytest.fixture(scope="module")
def pbx() -> Iterator[Kamailio]:
    with kamailio() as server:
        yield server


def ask(
    port: int,
    *,
    host: str = HERE,
    transport: Transport = Transport.UDP,
    timeout: float = 3.0,
    expect: tuple[str, ...] = (),
    ca_file: Path | None = None,
) -> Report:
    settings = Settings(
        transport=transport,
        port=Port(port),
        timeout=Seconds(timeout),
        expect=expect,
        ca_file=InputFile(ca_file) if ca_file else None,
    )
    return asyncio.run(SipProbe("direct", settings, {"pbx01": host}).ask("pbx01"))


@pytest.mark.real
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("ready", "200 OK"),
        ("missing", "404 Not Found"),
        ("stranger", "401 Unauthorized (warning: the server does not know this check point"),
        ("draining", "503 Service Unavailable (the server is alive but declines new work"),
    ],
)
def test_any_final_reply_is_up(pbx: Kamailio, transport: Transport, way: str, text: str) -> None:
    report = ask(pbx.port(way), transport=transport)
    assert (report.checkpoint, report.health) == ("direct", Health.UP)
    assert report.text.startswith(text)
    assert 0 < report.took < 2


@pytest.mark.real
def test_a_reply_that_is_not_expected_is_down(pbx: Kamailio) -> None:
    assert ask(pbx.port("stranger"), expect=("2xx", "401")).health is Health.UP
    report = ask(pbx.port("draining"), expect=("2xx", "401"))
    assert report.health is Health.DOWN
    assert report.text == "503 Service Unavailable (only 2xx,401 counts as up)"


@pytest.mark.real
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_silence_is_down_at_the_deadline(pbx: Kamailio, transport: Transport) -> None:
    report = ask(pbx.port("mute"), transport=transport, timeout=0.6)
    assert report.health is Health.DOWN
    assert "no answer from" in report.text
    assert 0.6 <= report.took < 2


@pytest.mark.real
def test_a_provisional_reply_alone_is_down(pbx: Kamailio) -> None:
    report = ask(pbx.port("trying"), timeout=0.6)
    assert report.health is Health.DOWN
    assert "only a 1xx" in report.text


@pytest.mark.parametrize("transport", Transport)
def test_a_closed_port_is_down_at_once(transport: Transport) -> None:
    report = ask(free_ports(1)[0], transport=transport, timeout=10)
    assert report.health is Health.DOWN
    assert "nothing listens there" in report.text
    assert report.took < 2


@pytest.mark.parametrize("transport", Transport)
def test_what_could_not_be_asked_is_unknown(transport: Transport) -> None:
    report = ask(5060, host="a" * 64 + ".example", transport=transport)  # No label is that long.
    assert report.health is Health.UNKNOWN
    assert "cannot be resolved" in report.text
    report = ask(5060, host="255.255.255.255", transport=transport)
    assert report.health is Health.UNKNOWN
    assert "cannot ask 255.255.255.255:5060" in report.text


def test_a_node_without_an_address_is_unknown() -> None:
    probe = SipProbe("direct", Settings(), {"pbx01": HERE})
    report = asyncio.run(probe.ask("pbx02"))
    assert report.health is Health.UNKNOWN
    assert report.text == "no address is configured for pbx02"


@pytest.mark.real
def test_tls_proves_who_answers(pbx: Kamailio, tmp_path: Path) -> None:
    paper = certificate(tmp_path)
    with tls_before(pbx, "ready", paper) as port:
        report = ask(port, transport=Transport.TLS, ca_file=paper)
        assert (report.health, report.text) == (Health.UP, "200 OK")
        report = ask(port, transport=Transport.TLS)
        assert report.health is Health.UNKNOWN
        assert "self-signed certificate" in report.text
        report = ask(port, transport=Transport.TLS, ca_file=tmp_path / "none.pem")
        assert report.health is Health.UNKNOWN


@pytest.mark.real
@pytest.mark.parametrize("transport", [Transport.TCP, Transport.TLS])
def test_a_server_that_takes_the_connection_and_hangs_is_down(transport: Transport) -> None:
    with socket.create_server((HERE, 0)) as hung:
        report = ask(hung.getsockname()[1], transport=transport, timeout=0.6)
    assert report.health is Health.DOWN
    assert "no answer from" in report.text
    assert report.took < 2


@pytest.mark.real
def test_silent_nodes_do_not_hold_one_another_up(pbx: Kamailio) -> None:
    async def many() -> list[Report]:
        settings = Settings(port=Port(pbx.port("mute")), timeout=Seconds(0.7))
        probe = SipProbe("direct", settings, {"pbx01": HERE})
        return await asyncio.gather(*(probe.ask("pbx01") for _ in range(40)))

    started = time.monotonic()
    reports = asyncio.run(many())
    assert {each.health for each in reports} == {Health.DOWN}
    assert time.monotonic() - started < 4


@pytest.mark.real
def test_a_question_can_be_cancelled(pbx: Kamailio) -> None:
    async def impatient(transport: Transport) -> None:
        settings = Settings(transport=transport, port=Port(pbx.port("mute")))
        probe = SipProbe("direct", settings, {"pbx01": HERE})
        async with asyncio.timeout(0.2):
            await probe.ask("pbx01")

    for transport in (Transport.UDP, Transport.TCP):
        with pytest.raises(TimeoutError):
            asyncio.run(impatient(transport))


def test_lost_datagrams_are_sent_again() -> None:
    async def lossy() -> int:
        got: list[bytes] = []

        class Lossy(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                got.append(data)
                if len(got) == 3:
                    head = b"SIP/2.0 200 OK\r\n" + data.partition(b"\r\n")[2]
                    server.sendto(b"junk", addr)
                    server.sendto(head, addr)

        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Lossy, local_addr=(HERE, 0))
        try:
            reply = await options(HERE, server.get_extra_info("sockname")[1])
        finally:
            server.close()
        assert reply.code == 200
        return len(set(got)) * 10 + len(got)

    assert asyncio.run(lossy()) == 13


@pytest.mark.real
def test_options_gives_the_reply_or_the_reason(pbx: Kamailio) -> None:
    reply = asyncio.run(options(HERE, pbx.port("draining")))
    assert (reply.code, str(reply)) == (503, "503 Service Unavailable")
    assert reply.server.startswith("kamailio")
    with pytest.raises(NoAnswer, match=r"no answer from 127\.0\.0\.1:\d+/udp within 0\.3 s"):
        asyncio.run(options(HERE, pbx.port("mute"), timeout=0.3))
    with pytest.raises(Unreachable, match="cannot be resolved") as raised:
        asyncio.run(options("a" * 64, 5060))
    assert not isinstance(raised.value, NoAnswer)


def test_an_expectation_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="'100' is no final reply"):
        Settings(expect=("200", "100"))


def test_every_setting_is_explained() -> None:
    for each in fields(Settings):
        assert each.metadata["doc"].endswith("."), each.name
