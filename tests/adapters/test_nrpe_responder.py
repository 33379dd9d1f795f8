"""The demo's NRPE responder, asked by Debian's real check_nrpe and by our own probe."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from adapters.nrpe_daemon import CHECK_NRPE, need
from understudy.adapters.probes.nrpe import NrpeProbe, PacketVersion, Settings
from understudy.adapters.probes.nrpe_packet import Decoder, Packet, Role, Version, encode
from understudy.adapters.probes.nrpe_trouble import Tls
from understudy.config.settings import Host, Port, Seconds
from understudy.core.observations import Health, Report
from understudy.demo.nrpe_responder import NrpeResponder, anonymous_tls

Result = TypeVar("Result")

LONG = "x" * 5000


async def _up() -> tuple[int, str]:
    return 0, "SIP OK - 3 ms"


async def _down() -> tuple[int, str]:
    return 2, "SIP CRITICAL - no answer"


async def _long() -> tuple[int, str]:
    return 0, LONG


async def _hang() -> tuple[int, str]:
    await asyncio.sleep(60)
    return 0, "never"


CHECKS = {"check_up": _up, "check_down": _down, "check_long": _long, "check_hang": _hang}


@pytest.mark.real
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("version", ["-2", "-3", "-4"])
@pytest.mark.parametrize(
    ("check", "code", "said"),
    [
        ("check_up", 0, "SIP OK - 3 ms"),
        ("check_down", 2, "SIP CRITICAL - no answer"),
        ("check_nix", 3, "NRPE: Command 'check_nix' not defined"),
        ("_NRPE_CHECK", 0, "NRPE responder of Understudy"),
    ],
)
def test_check_nrpe_takes_it_for_a_daemon(
    tls: bool, version: str, check: str, code: int, said: str
) -> None:
    need(CHECK_NRPE)
    options = (version,) if tls else (version, "-n")

    async def fork(port: int) -> tuple[int | None, str]:
        child = await asyncio.create_subprocess_exec(
            CHECK_NRPE,
            *("-H", "127.0.0.1", "-p", str(port), "-c", check, *options),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await asyncio.wait_for(child.communicate(), 10)
        return child.returncode, output.decode().strip()

    assert _with_responder(anonymous_tls() if tls else None, fork) == (code, said)


@pytest.mark.parametrize(("version", "size"), [(Version.V2, 1023), (Version.V4, 5000)])
def test_version_2_cuts_a_long_answer_and_version_4_does_not(version: Version, size: int) -> None:
    async def ask(port: int) -> Packet | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(encode(Packet(version=version, role=Role.QUESTION, text=b"check_long")))
        answer = Decoder(Role.ANSWER).feed(await asyncio.wait_for(reader.read(), 5))
        writer.close()
        return answer

    answer = _with_responder(None, ask)
    assert answer is not None
    assert answer.text == b"x" * size


@pytest.mark.parametrize("tls", [Tls.OFF, Tls.ANONYMOUS])
@pytest.mark.parametrize("packet", PacketVersion)
def test_our_probe_is_answered(tls: Tls, packet: PacketVersion) -> None:
    async def ask(port: int) -> list[Report]:
        probe = NrpeProbe("cp1", _settings(port, tls, packet))
        return [await probe.ask(node) for node in ("up", "down", "nix", "up")]

    reports = _with_responder(anonymous_tls() if tls is Tls.ANONYMOUS else None, ask)
    wanted = [Health.UP, Health.DOWN, Health.UNKNOWN, Health.UP]
    assert [each.health for each in reports] == wanted


def test_what_is_no_question_is_closed_without_a_word() -> None:
    async def knock(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return said

    assert _with_responder(None, knock) == b""


def test_stop_ends_questions_that_are_under_way() -> None:
    async def story() -> Report:
        responder = NrpeResponder(CHECKS)
        port = await responder.start()
        probe = NrpeProbe("cp1", _settings(port, Tls.OFF, PacketVersion.V2))
        asked = asyncio.create_task(probe.ask("hang"))
        await asyncio.sleep(0.1)
        await responder.stop()
        await responder.stop()
        return await asked

    report = asyncio.run(story())
    assert report.health is Health.UNKNOWN
    assert report.took < 2


def _settings(port: int, tls: Tls, packet: PacketVersion) -> Settings:
    return Settings(
        address=Host("127.0.0.1"), port=Port(port), tls=tls, packet=packet, timeout=Seconds(5)
    )


def _with_responder(tls: ssl.SSLContext | None, work: Callable[[int], Awaitable[Result]]) -> Result:
    async def story() -> Result:
        responder = NrpeResponder(CHECKS, tls=tls)
        port = await responder.start()
        try:
            return await work(port)
        finally:
            await responder.stop()

    return asyncio.run(story())
