"""The NRPE probe against Debian's real nrpe, and against what else may listen on its port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest

from adapters.nrpe_daemon import LONG, Daemon, Papers, daemon, free_port, papers
from understudy.adapters.probes import nrpe_tls
from understudy.adapters.probes.nrpe import NrpeProbe, PacketVersion, Settings
from understudy.adapters.probes.nrpe_packet import Decoder, Packet, Role, Version, encode
from understudy.adapters.probes.nrpe_trouble import Tls
from understudy.config.settings import Host, InputFile, Port, Seconds, SecretFile
from understudy.core.observations import Health, Report

pytestmark = pytest.mark.real

UP = "SIP OK - answers in 3 ms"


def test_every_setting_is_explained() -> None:
    for each in fields(Settings):
        assert each.metadata["doc"].endswith("."), each.name


@pytest.mark.parametrize("mode", ["plain", "anonymous", "verified", "mutual"])
@pytest.mark.parametrize(
    ("check", "health", "text"),
    [
        ("up", Health.UP, UP),
        ("slow", Health.UP, "SIP WARNING - answers in 2500 ms"),
        ("down", Health.DOWN, "SIP CRITICAL - no answer"),
        ("odd", Health.UNKNOWN, "SIP UNKNOWN - no such host"),
        ("code9", Health.UNKNOWN, "Traceback"),
        ("lines", Health.UP, "first"),
    ],
)
def test_a_plugins_result_is_the_report(
    modes: dict[str, Settings], mode: str, check: str, health: Health, text: str
) -> None:
    report = _ask(modes[mode], check)
    assert (report.checkpoint, report.health, report.text) == ("cp1", health, text)
    assert 0 < report.took < 5


@pytest.mark.parametrize("mode", ["plain", "anonymous", "verified", "mutual"])
@pytest.mark.parametrize("packet", PacketVersion)
def test_every_packet_version_works_in_every_mode(
    modes: dict[str, Settings], mode: str, packet: PacketVersion
) -> None:
    reports = _ask_often(replace(modes[mode], packet=packet), ["up"] * 3)
    assert [each.text for each in reports] == [UP] * 3


@pytest.mark.parametrize("mode", ["plain", "anonymous", "verified"])
def test_a_long_answer_comes_whole_with_version_4(modes: dict[str, Settings], mode: str) -> None:
    async def raw() -> Packet:
        from understudy.adapters.probes.nrpe import _Progress

        probe = NrpeProbe("cp1", replace(modes[mode], packet=PacketVersion.V4))
        return await probe._converse("check_long", _Progress())

    assert asyncio.run(raw()).text == b"x" * LONG
    assert len(_ask(modes[mode], "long").text) == 300


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("nix", "NRPE: Command 'check_nix' not defined (add it to nrpe.cfg"),
        ("mute", "NRPE: Unable to read output (the plugin is missing there"),
        ("late", "NRPE: Command timed out after 1 seconds (the check takes longer than"),
    ],
)
def test_the_daemons_own_trouble_is_unknown_with_a_hint(
    modes: dict[str, Settings], check: str, text: str
) -> None:
    report = _ask(modes["anonymous"], check)
    assert report.health is Health.UNKNOWN
    assert report.text.startswith(text)


def test_a_check_that_hangs_is_unknown_at_the_deadline(modes: dict[str, Settings]) -> None:
    report = _ask(replace(modes["anonymous"], timeout=Seconds(0.4)), "late")
    assert report.health is Health.UNKNOWN
    assert report.text.endswith(
        "took the question and gave no answer within 0.4 s: its check hangs"
    )
    assert report.took < 0.9


def test_a_source_that_allowed_hosts_lacks_is_told_so() -> None:
    for options, tls in ((("-n",), Tls.OFF), ((), Tls.ANONYMOUS)):
        with daemon(*options, allowed="127.0.0.9") as there:
            for report in _ask_often(_settings(there, tls=tls), ["up"] * 20):
                assert report.health is Health.UNKNOWN
                assert "closed without an answer: allowed_hosts lacks our address" in report.text
                assert report.text.endswith("the daemon's own log tells")


def test_tls_on_one_side_only_is_unknown(modes: dict[str, Settings]) -> None:
    no_tls = _ask(replace(modes["anonymous"], tls=Tls.OFF), "up")
    assert no_tls.health is Health.UNKNOWN
    assert "or it expects TLS" in no_tls.text
    too_much = _ask(replace(modes["plain"], tls=Tls.ANONYMOUS), "up")
    assert too_much.health is Health.UNKNOWN
    assert "or it runs without TLS (-n)" in too_much.text


# Certificates.


@pytest.mark.parametrize("system_cas", [True, False])
def test_verified_never_becomes_anonymous(
    modes: dict[str, Settings], made: Papers, system_cas: bool
) -> None:
    ca_file = None if system_cas else InputFile(made.ca)
    asked = replace(modes["anonymous"], tls=Tls.VERIFIED, ca_file=ca_file)
    for report in _ask_often(asked, ["up", "down", "up"]):
        assert report.health is Health.UNKNOWN
        assert "no TLS with" in report.text
        assert "it has no certificate" in report.text


def test_the_verified_context_offers_no_anonymous_cipher(made: Papers) -> None:
    context = nrpe_tls.verified(made.ca, None, None).context
    offered = {str(each["auth"]) for each in context.get_ciphers()}
    assert "auth-null" not in offered
    assert "auth-null" in {str(each["auth"]) for each in nrpe_tls.anonymous().context.get_ciphers()}


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        ("stranger", "ca_file must hold the CA that signed it"),
        ("expired", "certificate has expired; renew it"),
        ("elsewhere", "is not valid for '127.0.0.1'; set server_name to a name that is in it"),
    ],
)
def test_a_certificate_that_proves_nothing_is_unknown(
    made: Papers, certificate: str, text: str
) -> None:
    with daemon(config=made.daemon(certificate)) as there:
        report = _ask(_verified(there, made), "up")
    assert report.health is Health.UNKNOWN
    assert "the certificate of 127.0.0.1:" in report.text
    assert text in report.text


def test_server_name_is_the_name_that_counts(modes: dict[str, Settings], made: Papers) -> None:
    assert _ask(replace(modes["verified"], server_name="cp1.example.com"), "up").text == UP
    wrong = _ask(replace(modes["verified"], server_name="cp2.example.com"), "up")
    assert wrong.health is Health.UNKNOWN
    assert "not valid for 'cp2.example.com'" in wrong.text


@pytest.mark.parametrize("newest", ["TLSv1.2", "TLSv1.3"])
def test_a_daemon_that_wants_our_certificate_says_so(made: Papers, newest: str) -> None:
    config = made.daemon("server", "ssl_client_certs=2", f"ssl_version={newest}")
    with daemon(config=config) as there:
        without = _ask(_verified(there, made), "up")
        wrong = _ask(_verified(there, made, "stranger"), "up")
        right = _ask_often(_verified(there, made, "client"), ["up"] * 3)
    assert without.health is Health.UNKNOWN
    assert wrong.health is Health.UNKNOWN
    assert [each.text for each in right] == [UP] * 3


def test_a_broken_certificate_file_is_a_report_and_mending_it_is_enough(
    modes: dict[str, Settings], made: Papers, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("no certificate\n")

    async def story() -> tuple[Report, Report]:
        probe = NrpeProbe("cp1", replace(modes["verified"], ca_file=InputFile(ca_file)))
        broken = await probe.ask("up")
        ca_file.write_bytes(made.ca.read_bytes())
        return broken, await probe.ask("up")

    broken, mended = asyncio.run(story())
    assert broken.health is Health.UNKNOWN
    assert "ca_file, cert_file or key_file is of no use" in broken.text
    assert mended.text == UP


# Sessions.


@pytest.mark.parametrize("mode", ["anonymous", "verified"])
def test_later_questions_resume_the_session_of_the_first(
    modes: dict[str, Settings], mode: str
) -> None:
    async def handshakes() -> set[float]:
        probe = NrpeProbe("cp1", modes[mode])
        seen = set()
        for _ in range(4):
            assert (await probe.ask("up")).health is Health.UP
            assert probe._tls is not None
            seen.add(probe._tls._full_handshake)
        return seen

    assert len(asyncio.run(handshakes())) == 1


def test_certificates_are_looked_at_again_after_a_while(
    modes: dict[str, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nrpe_tls, "RESUME_FOR", 0.0)

    async def sessions() -> list[object]:
        probe = NrpeProbe("cp1", modes["verified"])
        seen: list[object] = []
        for _ in range(3):
            assert (await probe.ask("up")).health is Health.UP
            assert probe._tls is not None
            seen.append(probe._tls.session)
        return seen

    assert len(set(map(id, asyncio.run(sessions())))) == 3


def test_a_daemon_that_cannot_resume_is_asked_without(made: Papers) -> None:
    # It asks for a client certificate, does not insist, and has no session id context.
    with daemon(config=made.daemon("server", "ssl_client_certs=1")) as there:
        reports = _ask_often(_verified(there, made), ["up"] * 4)
    assert [each.text for each in reports] == [UP] * 4


@pytest.mark.parametrize("tls", [Tls.ANONYMOUS, Tls.VERIFIED])
def test_a_daemon_that_was_restarted_is_asked_as_if_nothing_had_been(
    made: Papers, tls: Tls
) -> None:
    port = free_port()
    config = made.daemon("server") if tls is Tls.VERIFIED else ()

    async def story() -> list[str]:
        said = []
        with daemon(config=config, port=port) as there:
            asked = _verified(there, made) if tls is Tls.VERIFIED else _settings(there)
            probe = NrpeProbe("cp1", asked)
            said += [(await probe.ask("up")).text for _ in range(2)]
        said.append((await probe.ask("up")).text)
        with daemon(config=config, port=port):
            said += [(await probe.ask("up")).text for _ in range(2)]
        return said

    before, again, gone, after, last = asyncio.run(story())
    assert (before, again, after, last) == (UP, UP, UP, UP)
    assert gone.startswith(f"nobody listens at 127.0.0.1:{port}")


def test_tls_1_3_does_not_wait_for_a_delayed_acknowledgement(modes: dict[str, Settings]) -> None:
    reports = _ask_often(modes["mutual"], ["up"] * 10)
    assert min(each.took for each in reports) < 0.035  # The stall takes 40 ms, each time.


# Load and time.


@pytest.mark.parametrize("mode", ["plain", "anonymous", "verified"])
def test_a_daemon_with_a_queue_of_five_answers_thirty_two_at_once(
    modes: dict[str, Settings], mode: str
) -> None:
    async def crowd() -> list[Report]:
        probe = NrpeProbe("cp1", modes[mode])
        return await asyncio.gather(*(probe.ask("up") for _ in range(32)))

    reports = asyncio.run(crowd())
    assert [each.text for each in reports] == [UP] * 32
    assert max(each.took for each in reports) < 5


def test_no_more_connections_than_allowed_are_open_at_once() -> None:
    now = most = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await reader.readexactly(1036)
        await asyncio.sleep(0.02)
        now -= 1
        writer.write(encode(Packet(version=Version.V2, role=Role.ANSWER, text=b"OK")))

    async def crowd() -> list[Report]:
        async with _server(answer) as port:
            probe = NrpeProbe("cp1", _plain(port, connections=3))
            return await asyncio.gather(*(probe.ask("n") for _ in range(20)))

    assert {each.text for each in asyncio.run(crowd())} == {"OK"}
    assert most == 3


def test_the_wait_for_a_turn_counts_as_well(modes: dict[str, Settings]) -> None:
    asked = replace(modes["plain"], connections=1, timeout=Seconds(0.45))

    async def crowd() -> list[Report]:
        probe = NrpeProbe("cp1", asked)
        return await asyncio.gather(*(probe.ask("pause") for _ in range(4)))

    first, *_, last = asyncio.run(crowd())
    assert first.health is Health.UP
    assert last.health is Health.UNKNOWN
    assert "took all the time: no turn within 0.45 s" in last.text
    assert last.took < 1


def test_a_cancelled_question_ends_at_once_and_gives_its_turn_back(
    modes: dict[str, Settings],
) -> None:
    async def story() -> Report:
        probe = NrpeProbe("cp1", replace(modes["anonymous"], connections=1))
        task = asyncio.create_task(probe.ask("late"))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await probe.ask("up")

    report = asyncio.run(story())
    assert report.text == UP
    assert report.took < 2


@pytest.mark.parametrize("tls", [Tls.OFF, Tls.ANONYMOUS])
def test_a_silent_server_is_unknown_at_the_deadline(tls: Tls) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    report = _ask_server(silence, tls=tls, timeout=Seconds(0.3))
    assert report.health is Health.UNKNOWN
    said = "gave no answer" if tls is Tls.OFF else "accepts but speaks no TLS"
    assert f"{said} within 0.3 s" in report.text
    assert report.took < 0.8


def test_a_second_try_has_no_deadline_of_its_own() -> None:
    async def reluctance(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)

    report = _ask_server(reluctance, timeout=Seconds(0.45))
    assert report.health is Health.UNKNOWN
    assert 0.4 < report.took < 0.9


def test_an_answer_that_drips_is_unknown_at_the_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in encode(Packet(version=Version.V2, role=Role.ANSWER, text=b"OK")):
            writer.write(bytes((each,)))
            await writer.drain()
            await asyncio.sleep(0.02)

    report = _ask_server(drip, timeout=Seconds(0.3))
    assert report.health is Health.UNKNOWN
    assert report.took < 0.8


# What else may be there.


@pytest.mark.parametrize("tls", [Tls.OFF, Tls.ANONYMOUS])
@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example.com ESMTP\r\n"]
)
def test_another_service_on_the_port_is_unknown(greeting: bytes, tls: Tls) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read(100)

    report = _ask_server(greet, tls=tls)
    assert report.health is Health.UNKNOWN
    said = "this is not NRPE: it begins with" if tls is Tls.OFF else "does not speak TLS"
    assert said in report.text


def test_a_closed_port_is_unknown_at_once() -> None:
    port = free_port()
    report = _ask(_plain(port), "up")
    assert report.health is Health.UNKNOWN
    assert report.text.startswith(f"nobody listens at 127.0.0.1:{port}: nrpe is not running there")
    assert report.took < 1


@pytest.mark.parametrize("address", ["no.such.host.invalid", "a..b", "x" * 80])
def test_an_unresolvable_host_is_unknown_not_down(address: str) -> None:
    report = _ask(Settings(address=Host(address), timeout=Seconds(3)), "up")
    assert report.health is Health.UNKNOWN
    assert address in report.text


@pytest.mark.parametrize("tls", [Tls.OFF, Tls.ANONYMOUS])
def test_a_host_name_that_refuses_us_is_told_so(tls: Tls) -> None:
    with daemon(*(("-n",) if tls is Tls.OFF else ()), allowed="127.0.0.9") as there:
        asked = replace(_settings(there, tls=tls), address=Host("localhost"))
        for report in _ask_often(asked, ["up"] * 5):
            assert report.health is Health.UNKNOWN
            assert "closed without an answer: allowed_hosts lacks our address" in report.text


def test_an_ipv6_address_may_be_asked() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1036)
        writer.write(encode(Packet(version=Version.V2, role=Role.ANSWER, text=b"OK")))

    async def story() -> Report:
        async with _server(answer, "::1") as port:
            return await NrpeProbe("cp1", replace(_plain(port), address=Host("::1"))).ask("n")

    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"NOT TESTED: this machine has no IPv6 on loopback: {error}")
    assert asyncio.run(story()).text == "OK"


@pytest.mark.parametrize("mode", ["plain", "anonymous"])
def test_no_question_leaves_a_descriptor_behind(modes: dict[str, Settings], mode: str) -> None:
    async def story() -> None:
        probe = NrpeProbe("cp1", modes[mode])
        await probe.ask("up")
        before = _descriptors()
        for wait in (0.0, 0.001, 0.003, 0.01):
            task = asyncio.create_task(probe.ask("pause"))
            await asyncio.sleep(wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await probe.ask("up")).text == UP
        assert _descriptors() == before

    asyncio.run(story())


def test_a_host_name_may_be_asked(modes: dict[str, Settings]) -> None:
    assert _ask(replace(modes["anonymous"], address=Host("localhost")), "up").text == UP


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda raw: raw[:500], "broke off after 500 bytes of its answer"),
        (lambda raw: raw[:20] + b"?" + raw[21:], "its CRC is wrong"),
    ],
)
def test_a_damaged_answer_is_unknown(change: Callable[[bytes], bytes], text: str) -> None:
    critical = Packet(version=Version.V2, role=Role.ANSWER, code=2, text=b"SIP CRITICAL - dead")

    async def damage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1036)
        writer.write(change(encode(critical)))

    report = _ask_server(damage)
    assert report.health is Health.UNKNOWN
    assert text in report.text


def test_the_packet_version_that_works_is_remembered() -> None:
    asked = []

    async def four_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = Decoder(Role.QUESTION).feed(await reader.readexactly(1036))
        assert question is not None
        asked.append(question.version)
        if question.version is Version.V4:
            writer.write(encode(Packet(version=Version.V4, role=Role.ANSWER, text=b"OK")))

    async def story() -> None:
        async with _server(four_only) as port:
            probe = NrpeProbe("cp1", _plain(port))
            for _ in range(3):
                assert (await probe.ask("n")).health is Health.UP

    asyncio.run(story())
    assert asked == [Version.V2, Version.V4, Version.V4, Version.V4]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"command": "check_sip"}, "both nodes would get one and the same answer"),
        ({"connections": 5}, "connections is 5"),
        ({"timeout": Seconds(0)}, "timeout is 0 s"),
        ({"ca_file": InputFile(Path("/ca.pem"))}, 'mean nothing with tls = "anonymous"'),
        (
            {"tls": Tls.VERIFIED, "key_file": SecretFile(Path("/k"))},
            "key_file is set without cert_file",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    wrong: dict[str, object], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Settings(address=Host("192.0.2.21"), **wrong)  # type: ignore[arg-type]


# The daemons.


@pytest.fixture(scope="module")
def made() -> Iterator[Papers]:
    with papers() as all_of_them:
        yield all_of_them


@pytest.fixture(scope="module")
def modes(made: Papers) -> Iterator[dict[str, Settings]]:
    """One daemon per way of protecting the connection, and how to ask it."""
    mutual = made.daemon("server", "ssl_client_certs=2")
    with (
        daemon("-n") as plain,
        daemon(timeout=1) as anonymous,
        daemon(config=made.daemon("server")) as verified,
        daemon(config=mutual) as both,
    ):
        yield {
            "plain": _settings(plain, tls=Tls.OFF),
            "anonymous": _settings(anonymous),
            "verified": _verified(verified, made),
            "mutual": _verified(both, made, "client"),
        }


def _settings(there: Daemon, *, tls: Tls = Tls.ANONYMOUS) -> Settings:
    return Settings(address=Host(there.address), port=Port(there.port), tls=tls)


def _verified(there: Daemon, made: Papers, client: str = "") -> Settings:
    asked = replace(_settings(there), tls=Tls.VERIFIED, ca_file=InputFile(made.ca))
    if not client:
        return asked
    return replace(
        asked,
        cert_file=InputFile(made.path(f"{client}.pem")),
        key_file=SecretFile(made.path(f"{client}.key")),
    )


def _plain(port: int, *, connections: int = 2) -> Settings:
    return Settings(
        address=Host("127.0.0.1"), port=Port(port), tls=Tls.OFF, connections=connections
    )


def _descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def _ask(settings: Settings, node: str) -> Report:
    return _ask_often(settings, [node])[0]


def _ask_often(settings: Settings, nodes: list[str]) -> list[Report]:
    """One probe, one question after the other."""

    async def ask() -> list[Report]:
        probe = NrpeProbe("cp1", settings)
        return [await probe.ask(node) for node in nodes]

    return asyncio.run(ask())


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _ask_server(
    handler: Handler,
    *,
    tls: Tls = Tls.OFF,
    timeout: Seconds = Seconds(5),  # noqa: B008
) -> Report:
    async def ask() -> Report:
        async with _server(handler) as port:
            return await NrpeProbe("cp1", replace(_plain(port), tls=tls, timeout=timeout)).ask("n")

    return asyncio.run(ask())


@asynccontextmanager
async def _server(handler: Handler, address: str = "127.0.0.1") -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
            writer.close()
        except (OSError, EOFError):
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()

    server = await asyncio.start_server(serve, address, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
