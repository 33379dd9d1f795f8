"""The plugin for the check points: run as a program, against Kamailio and against hostile servers."""

import ast
import contextlib
import os
import random
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from adapters.kamailio import Kamailio, certificate, free_ports, kamailio, tls_before
from understudy.plugins import check_sip
from understudy.plugins.check_sip import (
    CRITICAL,
    OK,
    UNKNOWN,
    WARNING,
    Question,
    Target,
    UdpExchange,
)

PLUGIN = Path(check_sip.__file__)
HERE = "127.0.0.1"
LINE = re.compile(r"SIP (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+( \| time=\d+\.\d{4}s;[^|\n]*)?\n")


@pytest.fixture(scope="module")
def pbx() -> Iterator[Kamailio]:
    with kamailio() as server:
        yield server


def run(
    *arguments: object,
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
) -> tuple[int, str]:
    """Exit code and line.  Whatever happens: one line, its word the exit code's, nothing on stderr."""
    done = subprocess.run(
        [python, str(PLUGIN), *(str(each) for each in arguments)],
        capture_output=True,
        timeout=30,
        env={**os.environ, **(environment or {})},
    )
    text = done.stdout.decode()
    assert done.stderr == b""
    assert LINE.fullmatch(text), text
    assert check_sip.WORDS[done.returncode] == text.split()[1]
    return done.returncode, text


# --- replies ------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_server_that_answers_is_ok(pbx: Kamailio, transport: str) -> None:
    code, text = run("-H", HERE, "-p", pbx.port("ready"), "--transport", transport)
    assert code == OK
    assert text.startswith(f"SIP OK - 200 OK from {HERE}:{pbx.port('ready')}/{transport} in 0.")
    assert re.search(r" \| time=0\.\d{4}s;;;0;5\n$", text)


@pytest.mark.real
@pytest.mark.parametrize("way", ["stranger", "forbidden"])
def test_a_server_that_does_not_know_us_is_ok_with_a_warning_in_the_text(
    pbx: Kamailio, way: str
) -> None:
    code, text = run("-H", HERE, "-p", pbx.port(way))
    assert code == OK
    assert "(warning: the server does not know this check point: fail2ban may ban it)" in text


@pytest.mark.real
def test_a_server_that_declines_new_work_is_alive(pbx: Kamailio) -> None:
    code, text = run("-H", HERE, "-p", pbx.port("draining"))
    assert code == OK
    assert "503 Service Unavailable" in text
    assert "(the server is alive but declines new work)" in text


@pytest.mark.real
@pytest.mark.parametrize(
    ("way", "expect", "status"),
    [
        ("ready", "2xx", OK),
        ("ready", "401", CRITICAL),
        ("stranger", "2xx,401", OK),
        ("stranger", "200", CRITICAL),
        ("draining", "2xx,401", CRITICAL),
        ("missing", "any", OK),
        ("missing", "4xx", OK),
    ],
)
def test_expect_says_which_replies_are_up(
    pbx: Kamailio, way: str, expect: str, status: int
) -> None:
    code, text = run("-H", HERE, "-p", pbx.port(way), "--expect", expect)
    assert code == status
    assert ("counts as up" in text) == (status == CRITICAL)


@pytest.mark.real
def test_a_slow_server_is_warning_and_only_on_demand_critical(pbx: Kamailio) -> None:
    at = ("-H", HERE, "-p", pbx.port("ready"))
    assert run(*at, "-w", "0.000001", "-c", "3")[0] == WARNING
    code, text = run(*at, "-w", "0.000001", "-c", "0.000002")
    assert code == CRITICAL
    assert text.endswith(";1e-06;2e-06;0;5\n")
    code, text = run(*at, "-w", "3", "-c", "4", "-t", "7")
    assert code == OK
    assert text.endswith(";3;4;0;7\n")


@pytest.mark.real
def test_ipv6_works() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    with kamailio("::1", {"ready": "200 OK"}) as server:
        for host in ("::1", "[::1]"):
            for transport in ("udp", "tcp"):
                at = ("-p", server.port("ready"), "--transport", transport)
                code, text = run("-H", host, *at)
                assert code == OK
                assert f"from [::1]:{server.port('ready')}/{transport}" in text


@pytest.mark.real
def test_more_lines_only_on_demand(pbx: Kamailio) -> None:
    at = ["-H", HERE, "-p", str(pbx.port("ready"))]
    done = subprocess.run(
        [sys.executable, PLUGIN, *at, "-v", "--from", "cp1", "--uri", "sip:ping@pbx.example"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    first, server, question = done.stdout.splitlines()
    assert LINE.fullmatch(first + "\n")
    assert server.startswith("server: kamailio")
    assert "OPTIONS sip:ping@pbx.example SIP/2.0" in question
    assert "sip:cp1@127.0.0.1" in question


# --- no reply -----------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_silence_is_critical_at_the_deadline(pbx: Kamailio, transport: str) -> None:
    started = time.monotonic()
    at = ("-H", HERE, "-p", pbx.port("mute"), "--transport", transport)
    code, text = run(*at, "-t", "0.7")
    assert code == CRITICAL
    assert "no answer from" in text
    assert 0.7 <= time.monotonic() - started < 3


@pytest.mark.real
def test_a_provisional_reply_alone_is_critical(pbx: Kamailio) -> None:
    code, text = run("-H", HERE, "-p", pbx.port("trying"), "-t", "0.7")
    assert code == CRITICAL
    assert "only a 1xx" in text


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_closed_port_is_critical_at_once(transport: str) -> None:
    started = time.monotonic()
    at = ("-H", HERE, "-p", free_ports(1)[0], "--transport", transport)
    # Something there refused: our network is not to blame, whatever the neutral host does.
    code, text = run(*at, "-t", "10", "--neutral", "sip:255.255.255.255:5060")
    assert code == CRITICAL
    assert "nothing listens there" in text
    assert time.monotonic() - started < 4


def test_a_name_that_does_not_resolve_is_unknown() -> None:
    code, text = run("-H", "a" * 64 + ".example", "-t", "3")  # No label is that long.
    assert code == UNKNOWN
    assert "cannot be resolved" in text


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_no_way_to_ask_is_unknown(transport: str) -> None:
    code, text = run("-H", "255.255.255.255", "--transport", transport, "-t", "3")
    assert code == UNKNOWN
    assert "cannot ask 255.255.255.255:5060" in text


@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_host_that_does_not_take_the_connection_is_critical(transport: str) -> None:
    with full_listener() as port:
        at = ("-H", HERE, "-p", port, "--transport", transport, "-t", "1")
        code, text = run(*at)
    assert code == CRITICAL
    assert "does not answer the connection" in text


# --- is it us? ----------------------------------------------------------------------------------


@pytest.mark.real
def test_silence_is_critical_when_a_neutral_host_is_reached(pbx: Kamailio) -> None:
    ready, mute = pbx.port("ready"), pbx.port("mute")
    for neutral in (
        f"sip:{HERE}:{ready}",
        f"{HERE}:{ready}",  # By TCP connect.
        f"{HERE}:{free_ports(1)[0]}",  # Refused: somebody is there.
        f"sip:{HERE}:{free_ports(1)[0]}",
    ):
        code, text = run("-H", HERE, "-p", mute, "-t", "1", "--neutral", neutral)
        assert (code, "no answer from" in text) == (CRITICAL, True), neutral


@pytest.mark.real
def test_silence_is_unknown_when_no_neutral_host_is_reached_either(pbx: Kamailio) -> None:
    mute = pbx.port("mute")
    started = time.monotonic()
    with full_listener() as full:
        neutrals = (f"sip:{HERE}:{mute}", f"{HERE}:{full}", "255.255.255.255:53")
        asked = [word for each in neutrals for word in ("--neutral", each)]
        code, text = run("-H", HERE, "-p", mute, "-t", "1", *asked)
    assert code == UNKNOWN
    assert "our own network is down" in text
    assert time.monotonic() - started < 4


@pytest.mark.real
def test_one_neutral_host_reached_is_enough(pbx: Kamailio) -> None:
    neutrals = (f"sip:{HERE}:{pbx.port('mute')}", f"sip:{HERE}:{pbx.port('ready')}")
    asked = [word for each in neutrals for word in ("--neutral", each)]
    code, _ = run("-H", HERE, "-p", pbx.port("mute"), "-t", "1", *asked)
    assert code == CRITICAL


# --- TLS ----------------------------------------------------------------------------------------


@pytest.mark.real
def test_tls_proves_who_answers(pbx: Kamailio, tmp_path: Path) -> None:
    paper = certificate(tmp_path)
    with tls_before(pbx, "ready", paper) as port:
        at = ("-H", HERE, "-p", port, "--transport", "tls")
        code, text = run(*at, "--ca-file", tmp_path / "certificate.pem")
        assert code == OK
        assert f"200 OK from {HERE}:{port}/tls" in text
        assert run(*at, "--insecure")[0] == OK
        code, text = run(*at)
        assert code == UNKNOWN
        assert "is not accepted: self-signed certificate" in text
        code, text = run("-H", "localhost", "-4", *at[2:], "--ca-file", paper)
        assert code == UNKNOWN
        assert "Hostname mismatch" in text
        code, text = run(*at, "--ca-file", tmp_path / "none.pem")
        assert code == UNKNOWN
        assert "cannot be used: No such file" in text


@pytest.mark.real
def test_a_server_that_speaks_no_tls_proves_nothing(pbx: Kamailio) -> None:
    with stream(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        code, text = run("-H", HERE, "-p", port, "--transport", "tls")
    assert code == UNKNOWN
    assert "no TLS with" in text


def test_a_tls_server_that_hangs_is_critical() -> None:
    with stream(None) as port:
        code, text = run("-H", HERE, "-p", port, "--transport", "tls", "-t", "0.7")
    assert code == CRITICAL
    assert "it accepted the connection" in text


# --- retransmission and recognition, over UDP -----------------------------------------------------


def test_lost_datagrams_are_sent_again() -> None:
    got: list[tuple[float, bytes]] = []

    def deaf_twice(request: bytes) -> list[bytes]:
        got.append((time.monotonic(), request))
        return [] if len(got) < 3 else [answer(request)]

    with datagrams(deaf_twice) as port:
        code, text = run("-H", HERE, "-p", port)
    assert code == OK
    assert "asked 3 times" in text
    assert len({request for _, request in got}) == 1  # The identical bytes, branch and all.
    (first, _), (second, _), (third, _) = got
    assert 0.45 < second - first < 0.8
    assert 0.95 < third - second < 1.4


def test_after_a_provisional_reply_the_interval_is_long() -> None:
    got: list[bytes] = []

    def busy(request: bytes) -> list[bytes]:
        got.append(request)
        return [answer(request, b"100 Trying")]

    with datagrams(busy) as port:
        code, _ = run("-H", HERE, "-p", port, "-t", "1.8")
    assert code == CRITICAL
    assert len(got) == 2  # At 0 and 0.5 s; the next would be at 4.5 s (Timer E, "proceeding").


def test_the_intervals_double_up_to_four_seconds() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind((HERE, 0))
        exchange = UdpExchange(Target(HERE, 0), socket.AF_INET, mute.getsockname())
        with contextlib.closing(exchange):
            at: list[float] = []
            due = 100.0
            while len(at) < 7:
                at.append(due - 100.0)
                due = exchange.advance(due)
    assert at == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5]


def test_what_is_no_answer_to_us_is_passed_over() -> None:
    def confused(request: bytes) -> list[bytes]:
        return [
            b"",
            b"\r\n\r\n",
            b"\x00\xff" * 300,
            b"SIP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            request,  # An echo.
            answer(request).replace(b"branch=z9hG4bK", b"branch=z9hG4bKx"),
            answer(request).replace(b"1 OPTIONS", b"1 INVITE"),
            answer(request, b"999 No"),
            answer(request, b"404 Not Found"),
            answer(request),  # A late duplicate, and another opinion.
            answer(request),
        ]

    with datagrams(confused) as port:
        code, text = run("-H", HERE, "-p", port)
    assert code == OK
    assert "404 Not Found" in text


def test_strange_datagrams_alone_are_critical() -> None:
    with datagrams(lambda _: [b"SIP/2.0 200 OK\r\n\r\n"]) as port:
        code, text = run("-H", HERE, "-p", port, "-t", "0.3")
    assert code == CRITICAL
    assert "1 datagrams that were no answer to us" in text


def test_an_answer_from_elsewhere_does_not_count() -> None:
    with datagrams(lambda request: [answer(request)], elsewhere=True) as port:
        code, _ = run("-H", HERE, "-p", port, "-t", "0.7")
    assert code == CRITICAL


def test_a_hostile_answer_cannot_write_more_than_its_line() -> None:
    reason = b"O|K\x1b[31m\nSIP OK - | time=0\x00 <script>\xff\xe2\x80\xae " + b"x" * 5000

    def hostile(request: bytes) -> list[bytes]:
        return [answer(request, b"200 " + reason.replace(b"\n", b"\r"))]

    with datagrams(hostile) as port:
        code, text = run("-H", HERE, "-p", port)
    assert code == OK
    assert len(text) < 400
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e<>]", text)
    assert text.count("|") == 1


def test_a_huge_answer_is_an_answer() -> None:
    def huge(request: bytes) -> list[bytes]:
        return [answer(request, extra=b"X-Long: " + b"y" * 60000 + b"\r\n")]

    with datagrams(huge) as port:
        assert run("-H", HERE, "-p", port)[0] == OK


def test_any_language_is_printed_whatever_the_locale() -> None:
    with datagrams(lambda request: [answer(request, "200 Größe".encode())]) as port:
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        code, text = run("-H", HERE, "-p", port, environment=plain)
    assert code == OK
    assert "200 Größe" in text


# --- hostile streams ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        b"x" * 300000,
        b"SIP/2.0 200 OK\r\n" + b"X-Long: y\r\n" * 30000,
        b"SIP/2.0 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"SIP/2.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"SIP/2.0 200 OK\r\nl: 100\r\n\r\nshort",
        b"SIP/2.0 200 OK\r\n\r\n" * 50,
    ],
)
def test_a_stream_that_is_no_answer_is_critical(sent: bytes) -> None:
    with stream(sent) as port:
        code, _ = run("-H", HERE, "-p", port, "--transport", "tcp", "-t", "3")
    assert code == CRITICAL


def test_an_answer_in_small_pieces_after_others_is_found() -> None:
    question = Question(b"", "z9hG4bKmine")
    other = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP h;branch=z9hG4bKx\r\nCSeq: 1 OPTIONS\r\nl: 3\r\n\r\nabc"
    mine = other.replace(b"z9hG4bKx", b"z9hG4bKmine").replace(b"200 OK", b"486 Busy Here")
    waiting, replies = b"", []
    for byte in b"\r\n\r\n" + other + b"\r\n" + mine:
        message, waiting = check_sip.take_message(waiting + bytes([byte]))
        if message:
            replies.append(check_sip.read_reply(message, question))
    assert [each and each.code for each in replies] == [None, 486]


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;rport=1;received=::1;branch=mine\r\nCSeq: 1 OPTIONS\r\n\r\n",
        "SIP/2.0 200 OK\nv:SIP/2.0/UDP h ; BRANCH = mine\nCSEQ :  1   OPTIONS\n\n",
        "sip/2.0 200\r\nVia: SIP/2.0/UDP h\r\n ;branch=mine\r\nCSeq: 1\r\n\tOPTIONS\r\n\r\n",
        "\r\n\r\nSIP/2.0 200 OK\r\nVia: X h;branch=mine, Y h;branch=z\r\nCSeq: 1 OPTIONS\r\n\r\n",
    ],
)
def test_legal_variations_are_understood(text: str) -> None:
    reply = check_sip.read_reply(text.encode(), Question(b"", "mine"))
    assert reply
    assert reply.code == 200


def test_no_bytes_make_the_reading_fail() -> None:
    chance = random.Random(5060)
    good = answer(check_sip.ask_options(Target(HERE, 5060), (HERE, 1)).data)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        del data[chance.randrange(len(data)) :]
        check_sip.read_reply(bytes(data), Question(b"", "x"))
        with contextlib.suppress(ValueError):
            check_sip.take_message(bytes(data))


def test_a_request_has_what_rfc_3261_demands() -> None:
    question = check_sip.ask_options(Target("::1", 5061, "tls"), ("fe80::1%lo", 7, 0, 1))
    message = check_sip.parse_message(question.data)
    assert message
    assert message.start == "OPTIONS sip:[::1]:5061;transport=tls SIP/2.0"
    assert message.first("via").startswith("SIP/2.0/TLS [fe80::1]:7;branch=z9hG4bK")
    assert message.branch == question.branch
    assert ";tag=" in message.first("from")
    assert ";tag=" not in message.first("to")
    assert {"call-id", "max-forwards", "cseq", "content-length"} <= dict(message.headers).keys()
    assert question.data.endswith(b"\r\n\r\n")
    assert question.branch != check_sip.ask_options(Target("::1", 1), ("::1", 7)).branch


# --- a plugin among plugins -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-H",
        "-H 127.0.0.1 -p 0",
        "-H 127.0.0.1 -p 65536",
        "-H 127.0.0.1 -p sip",
        "-H 127.0.0.1 -t 0",
        "-H 127.0.0.1 -t nan",
        "-H 127.0.0.1 -t 1e9",
        "-H 127.0.0.1 -w x",
        "-H 127.0.0.1 -w 3 -c 2",
        "-H 127.0.0.1 --transport sctp",
        "-H 127.0.0.1 --expect 1xx",
        "-H 127.0.0.1 --expect ,",
        "-H 127.0.0.1 --expect 200|x",
        "-H 127.0.0.1 --neutral nowhere",
        "-H 127.0.0.1 --neutral sip:nowhere:99999",
        "-H 127.0.0.1 --ca-file x",
        "-H 127.0.0.1 --uri sip:a>\r\nX:y",
        "-H 127.0.0.1 --uri http://a",
        "-H 127.0.0.1 --from a\x01b",
        "-H 127.0.0.1 --time 3",
        "-H 127.0.0.1 --what",
        "-H 127.0.0.1 more",
        "-H a/b",
    ],
)
def test_wrong_usage_is_unknown_in_one_line(arguments: str) -> None:
    code, text = run(*arguments.split(" ") if arguments else [])
    assert code == UNKNOWN
    assert text.startswith("SIP UNKNOWN - wrong usage: ")


@pytest.mark.parametrize("option", ["-h", "--help", "-V", "--version"])
def test_help_and_version_end_with_3_as_every_plugins_do(option: str) -> None:
    done = subprocess.run([PLUGIN, option], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (3, "")
    assert "check_sip" in done.stdout
    if "h" in option:
        for word in ("--neutral", "CRITICAL", "fail2ban", "dangerous", "ICMP"):
            assert word in done.stdout


def test_a_failure_of_the_plugin_itself_is_unknown_without_a_traceback(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Resources run out in ways that no server can bring about: here the kernel gives no socket.
    def none_left(*_: object, **__: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    assert check_sip.main(["-H", HERE]) == UNKNOWN
    out, err = capfdbinary.readouterr()
    assert out.startswith(b"SIP UNKNOWN - this plugin failed: OSError: [Errno 24]")
    assert (out.count(b"\n"), err) == (1, b"")


def test_it_can_be_copied_to_a_check_point() -> None:
    assert PLUGIN.stat().st_mode & stat.S_IXOTH
    assert PLUGIN.read_text().startswith("#!/usr/bin/env python3\n")
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(PLUGIN.read_text(), feature_version=(3, 9)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [each.name for each in node.names]
        )
    }
    assert imported <= sys.stdlib_module_names


@pytest.mark.real
@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_it_runs_on_the_pythons_of_check_points(
    pbx: Kamailio, version: str, tmp_path: Path
) -> None:
    found = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python3"))
    if not found:
        pytest.skip(f"no Python {version} on this machine")
    python = str(found[-1])
    for transport in ("udp", "tcp"):
        at = ("-H", HERE, "-p", pbx.port("stranger"), "--transport", transport)
        code, text = run(*at, python=python)
        assert code == OK
        assert "401 Unauthorized" in text
    certificate(tmp_path)
    with tls_before(pbx, "ready", tmp_path / "both.pem") as port:
        at = ("-H", HERE, "-p", port, "--transport", "tls")
        assert run(*at, "--ca-file", tmp_path / "certificate.pem", python=python)[0] == OK
        assert run(*at, python=python)[0] == UNKNOWN
    code, _ = run(
        "-H", HERE, "-p", pbx.port("mute"), "-t", "0.5", "--neutral", f"{HERE}:1", python=python
    )
    assert code == CRITICAL
    assert run("-H", HERE, "-t", "x", python=python)[0] == UNKNOWN


# --- servers that no package has ------------------------------------------------------------------


def answer(request: bytes, line: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    """As a server would: the headers of the request, with another first line."""
    return b"SIP/2.0 " + line + b"\r\n" + extra + request.partition(b"\r\n")[2]


@contextlib.contextmanager
def datagrams(
    script: Callable[[bytes], Sequence[bytes]], *, elsewhere: bool = False
) -> Iterator[int]:
    """A UDP server that sends what `script` makes of each datagram; `elsewhere`: from another port."""
    ended = threading.Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        sock.bind((HERE, 0))
        sock.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    request, source = sock.recvfrom(65536)
                    for each in script(request):
                        (other if elsewhere else sock).sendto(each, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def stream(sent: bytes | None) -> Iterator[int]:
    """A TCP server that reads a little, sends this and closes; None: never says a word."""
    ended = threading.Event()
    with socket.create_server((HERE, 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    client, _ = listener.accept()
                    with client:
                        client.settimeout(2)
                        client.recv(65536)
                        if sent is None:
                            ended.wait(5)
                        else:
                            client.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port whose queue is full: further connections get no answer, as from a dead host."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HERE, 0), backlog=0))
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ("Contact: <sip:pbx@192.0.2.11:5060;transport=udp>", "", ("192.0.2.11",)),
        ('m: "The PBX" <sips:[2001:DB8::1]:5061>;q=1', "", ("2001:db8::1",)),
        ("Contact: sip:PBX01.example.com;expires=60", "", ("pbx01.example.com",)),
        ("Contact: *", "", ()),
        ("X: y", "v=0\r\no=- 1 1 IN IP4 198.51.100.1\r\nc=IN IP4 192.0.2.11\r\n", ("192.0.2.11",)),
        ("X: y", "", ()),
    ],
)
def test_where_an_answer_wants_calls_to_go(
    headers: str, body: str, expected: tuple[str, ...]
) -> None:
    text = (
        f"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=mine\r\nCSeq: 1 OPTIONS\r\n{headers}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    reply = check_sip.read_reply(text.encode(), Question(b"", "mine"))
    assert reply is not None
    assert reply.names == expected
