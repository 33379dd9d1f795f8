"""The demo's PBX and caller, against SIPp, BIND and each other."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.query
import dns.rcode
import dns.update
import pytest

from adapters.kamailio import free_ports, need
from understudy.adapters.probes.sip import options
from understudy.demo.caller import Attempt, Call, Caller, Directory, Lost, summarize
from understudy.demo.sip_pbx import SipPbx
from understudy.plugins.check_sip import Message, parse_message

HERE = "127.0.0.1"
ONE, TWO = "127.0.0.11", "127.0.0.12"  # Linux answers on all of 127.0.0.0/8.
NAME = "sip.example.test"


# --- the PBX ------------------------------------------------------------------------------------


@contextlib.contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "understudy.demo.sip_pbx", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.real
def test_the_program_takes_the_calls_of_sipp_and_ends_at_once(tmp_path: Path) -> None:
    sipp = need("sipp", "sip-tester")
    port, record = free_ports(1)[0], tmp_path / "record"
    with program("--listen", f"{HERE}:{port}", "--name", "pbx01", "--record", str(record)) as pbx:
        wait_for(lambda: options(HERE, port, timeout=0.2))
        to = f"{HERE}:{port}"
        called = subprocess.run(
            [
                sipp,
                "-sn",
                "uac",
                "-i",
                HERE,
                *["-m", "20", "-r", "100", "-d", "50", "-nostdin", "-timeout", "20"],
                to,
            ],
            cwd=tmp_path,
            capture_output=True,
            timeout=30,
        )
        assert called.returncode == 0, called.stdout.decode(errors="replace")
        pbx.send_signal(signal.SIGTERM)
        started = time.monotonic()
        out, err = pbx.communicate(timeout=10)
        assert time.monotonic() - started < 1
        assert (pbx.returncode, out, err) == (0, b"", b"")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    for method in ("INVITE", "ACK", "BYE"):
        assert len({each["call"] for each in lines if each["method"] == method}) == 20
    assert {each["node"] for each in lines} == {"pbx01"}


def test_an_address_in_use_is_said_in_one_sentence() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HERE, 0))
        port = taken.getsockname()[1]
        with program("--listen", f"{HERE}:{port}", "--name", "pbx01") as pbx:
            _, err = pbx.communicate(timeout=20)
    assert pbx.returncode == 1
    assert err.decode() == f"sip_pbx: cannot listen on {HERE}:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("OPTIONS", 200),
        ("REGISTER", 200),
        ("BYE", 481),
        ("CANCEL", 481),
        ("SUBSCRIBE", 405),
        ("DANCE", 501),
    ],
)
def test_every_method_has_its_answer(method: str, code: int) -> None:
    async def ask() -> None:
        async with SipPbx("pbx01", HERE) as pbx, Phone(pbx) as phone:
            phone.send(method, branch="z9hG4bKone")
            reply = await phone.reply()
            assert reply.start.startswith(f"SIP/2.0 {code} ")
            assert reply.first("server") == "pbx01"
            assert reply.branch == "z9hG4bKone"
            assert "OPTIONS" in reply.first("allow")

    asyncio.run(ask())


def test_a_200_is_repeated_until_the_ack_and_a_repeated_invite_is_the_same_call() -> None:
    async def call() -> None:
        async with SipPbx("pbx01", HERE) as pbx, Phone(pbx) as phone:
            phone.send("INVITE", branch="z9hG4bKone")
            assert (await phone.reply()).start == "SIP/2.0 100 Trying"
            first = await phone.reply()
            assert first.start == "SIP/2.0 200 OK"
            assert b"m=audio" in first.body
            phone.send("INVITE", branch="z9hG4bKone")
            again = await phone.reply()
            assert again == first
            assert await phone.reply() == first  # By the timer: no ACK has come.
            phone.send("ACK", branch="z9hG4bKtwo")
            with pytest.raises(TimeoutError):
                await phone.reply(1.3)
            phone.send("BYE", branch="z9hG4bKthree")
            assert (await phone.reply()).start == "SIP/2.0 200 OK"
            assert pbx.answered == ["call"]

    asyncio.run(call())


def test_junk_is_not_answered() -> None:
    async def send() -> None:
        async with SipPbx("pbx01", HERE) as pbx, Phone(pbx) as phone:
            for junk in (
                b"",
                b"\x00" * 100,
                b"SIP/2.0 200 OK\r\n\r\n",
                b"OPTIONS x SIP/2.0\r\n\r\n",
            ):
                phone.socket.send(junk)
            with pytest.raises(TimeoutError):
                await phone.reply(0.2)
            assert (await options(HERE, pbx.port)).server == "pbx01"

    asyncio.run(send())


def test_a_stopped_pbx_can_be_started_again_on_its_port() -> None:
    async def again() -> None:
        pbx = SipPbx("pbx01", HERE)
        await pbx.start()
        port = pbx.port
        await pbx.stop()
        await pbx.start()
        assert (await options(HERE, port)).server == "pbx01"
        await pbx.stop()

    asyncio.run(again())


# --- the caller -----------------------------------------------------------------------------------


@pytest.mark.real
def test_a_call_is_one_that_sipp_understands(tmp_path: Path) -> None:
    sipp, port = need("sipp", "sip-tester"), free_ports(1)[0]
    server = subprocess.Popen(
        [
            sipp,
            "-sn",
            "uas",
            "-i",
            HERE,
            "-p",
            str(port),
            *["-m", "3", "-nostdin", "-timeout", "20"],
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    async def call() -> str:
        one = Call(NAME, HERE, port)
        try:
            async with asyncio.timeout(3):
                node = await one.invite()
        except BaseException:
            one.close()
            raise
        await one.hang_up(2)
        return node

    try:
        wait_for(call)
        assert asyncio.run(call()) == HERE  # It does not say who it is.
        asyncio.run(call())
        assert server.wait(timeout=15) == 0  # All three calls were complete, from INVITE to BYE.
    finally:
        server.kill()
        server.wait(timeout=10)


@pytest.mark.real
@pytest.mark.parametrize("srv", [False, True])
def test_calls_follow_the_name_from_a_dead_pbx_to_a_live_one(srv: bool) -> None:
    async def story(bind: Bind) -> None:
        port = common_port()
        shown: list[Attempt] = []
        caller = Caller(
            NAME,
            (HERE, bind.port),
            rate=20,
            port=1 if srv else port,  # With SRV the record has it.
            srv=srv,
            limit=0.6,
            on_attempt=shown.append,
        )
        bind.point("pbx01", port)
        one, two = SipPbx("pbx01", ONE, port), SipPbx("pbx02", TWO, port)
        await one.start()
        task = asyncio.create_task(caller.run())
        await until(lambda: len(caller.results) >= 10)
        assert caller.summary().by_node == {"pbx01": len(caller.results)}
        await one.stop()
        await until(lambda: caller.summary().lost >= 3)
        assert caller.summary().out_for > 0
        await two.start()
        bind.point("pbx02", port)
        await until(lambda: caller.summary().by_node.get("pbx02", 0) >= 10)
        await caller.stop()
        await task
        await two.stop()
        seen = caller.summary()
        assert shown == caller.results
        assert seen.answered + seen.lost == len(caller.results)
        assert seen.out_for == 0
        assert 0.1 < seen.longest_silence < 6
        assert 0.1 < seen.longest_outage < 6
        lost = [each for each in caller.results if not each.answered]
        assert all(each.why for each in lost)
        assert {each.where for each in caller.results if each.node == "pbx02"} == {f"{TWO}:{port}"}
        # Calls that were begun after the first answer of pbx02 are answered by it too.
        first = min(each.started for each in caller.results if each.node == "pbx02")
        assert {each.node for each in caller.results if each.started > first} == {"pbx02"}

    with bind9() as bind:
        asyncio.run(asyncio.wait_for(story(bind), 30))


@pytest.mark.real
def test_an_answer_is_kept_for_its_ttl_and_no_longer_than_the_cap() -> None:
    async def look(bind: Bind) -> None:
        long = Directory((HERE, bind.port))
        capped = Directory((HERE, bind.port), ttl_cap=0.2)
        bind.point("pbx01", 5060, ttl=300)
        assert await long.look(NAME) == (ONE, 5060)
        assert await capped.look(NAME) == (ONE, 5060)
        bind.point("pbx02", 5060, ttl=300)
        assert await capped.look(NAME) == (ONE, 5060)
        await asyncio.sleep(0.25)
        assert await capped.look(NAME) == (TWO, 5060)
        assert await long.look(NAME) == (ONE, 5060)
        with pytest.raises(Lost, match="NXDOMAIN"):
            await Directory((HERE, bind.port)).look("nobody.example.test")
        with pytest.raises(Lost, match="has no A record"):
            await Directory((HERE, bind.port)).look("example.test")
        with pytest.raises(Lost, match="has no SRV record"):
            await Directory((HERE, bind.port), srv=True).look("empty.example.test")

    with bind9() as bind:
        asyncio.run(asyncio.wait_for(look(bind), 20))


@pytest.mark.real
def test_a_lost_call_says_why() -> None:
    async def calls(bind: Bind, dns_port: int, name: str, port: int) -> str:
        caller = Caller(name, (HERE, dns_port), rate=1, port=port, limit=0.4)
        task = asyncio.create_task(caller.run())
        await until(lambda: bool(caller.results))
        await caller.stop()
        await task
        assert not caller.results[0].answered
        assert caller.summary().lost == len(caller.results)
        return caller.results[0].why

    with bind9() as bind, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        port = common_port()
        bind.point("pbx01", port)
        assert "refused" in asyncio.run(calls(bind, bind.port, NAME, port))
        mute.bind((ONE, 0))
        port = mute.getsockname()[1]
        why = asyncio.run(calls(bind, bind.port, NAME, port))
        assert why == f"no answer from {ONE}:{port}"
        assert "NXDOMAIN" in asyncio.run(calls(bind, bind.port, "no.example.test", port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
            deaf.bind((HERE, 0))
            why = asyncio.run(calls(bind, deaf.getsockname()[1], NAME, port))
            assert why == "the name server does not answer"


def test_a_lost_invite_is_sent_again() -> None:
    async def call() -> None:
        loop = asyncio.get_running_loop()
        got: list[bytes] = []
        callers: list[tuple[str, int]] = []

        class Lossy(asyncio.DatagramProtocol):
            """Drops the first two, then hands on to the PBX."""

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                got.append(data)
                callers.append(addr)
                if len(got) > 2:
                    behind.sendto(data)

        class Back(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                lossy.sendto(data, callers[-1])

        async with SipPbx("pbx01", HERE) as pbx:
            to = (HERE, pbx.port)
            behind, _ = await loop.create_datagram_endpoint(Back, remote_addr=to)
            lossy, _ = await loop.create_datagram_endpoint(Lossy, local_addr=(HERE, 0))
            one = Call(NAME, HERE, lossy.get_extra_info("sockname")[1])
            started = loop.time()
            assert await one.invite() == "pbx01"
            assert 1.4 < loop.time() - started < 2.5  # 0, 0.5 and 1.5 s.
            assert got[0] == got[1] == got[2]
            one.close()
            behind.close()
            lossy.close()

    asyncio.run(call())


def test_the_summary_measures_from_call_to_call() -> None:
    def attempt(started: float, node: str = "", took: float = 0.1) -> Attempt:
        ended = started + took
        return Attempt(number=0, at=0, started=started, ended=ended, node=node)

    assert summarize([]).longest_outage == 0
    calls = [attempt(0, "one"), attempt(1, "one"), attempt(2, took=2), attempt(3, took=2)]
    out = summarize(calls)
    assert (out.answered, out.lost, out.out_for) == (2, 2, 4.0)
    back = summarize([*calls, attempt(4, "two", took=1.5), attempt(5.25, "two", took=0.5)])
    assert (back.answered, back.lost, back.out_for) == (4, 2, 0)
    assert back.by_node == {"one": 2, "two": 2}
    assert back.longest_outage == 3.0  # From the call at 1 to the call at 4.
    assert back.longest_silence == pytest.approx(4.4)  # Nobody answered from 1.1 to 5.5.


# --- surroundings ---------------------------------------------------------------------------------


class Phone:
    """Raw requests to the PBX and what comes back."""

    def __init__(self, pbx: SipPbx) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._pbx = pbx

    async def __aenter__(self) -> "Phone":
        self.socket.setblocking(False)
        self.socket.connect((self._pbx.host, self._pbx.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, method: str, *, branch: str) -> None:
        self.socket.send(
            f"{method} sip:100@{HERE} SIP/2.0\r\nVia: SIP/2.0/UDP {HERE};branch={branch};rport\r\n"
            f"From: <sip:phone@{HERE}>;tag=x\r\nTo: <sip:100@{HERE}>\r\nCall-ID: call\r\n"
            f"CSeq: 1 {method}\r\nContact: <sip:phone@{HERE}>\r\nl: 0\r\n\r\n".encode()
        )

    async def reply(self, within: float = 2.0) -> Message:
        async with asyncio.timeout(within):
            data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        message = parse_message(data)
        assert message
        return message


@dataclass(frozen=True)
class Bind:
    port: int

    def point(self, node: str, port: int, *, ttl: int = 0) -> None:
        update = dns.update.UpdateMessage("example.test")
        update.replace("sip", ttl, "CNAME", node)
        update.replace(f"_sip._udp.{NAME}.", ttl, "SRV", f"10 0 {port} {node}")
        update.add(f"_sip._udp.{NAME}.", ttl, "SRV", f"20 0 {port} nobody")
        reply = dns.query.udp(update, HERE, timeout=5, port=self.port)
        assert reply.rcode() == dns.rcode.NOERROR


@contextlib.contextmanager
def bind9() -> Iterator[Bind]:
    """A real BIND with the zone of the demo, on a free port; anybody on loopback may change it."""
    named, port = need("named", "bind9"), free_ports(1)[0]
    with tempfile.TemporaryDirectory(prefix="bind-") as name:
        home = Path(name)
        (home / "zone").write_text(
            "$TTL 300\n@ SOA ns hostmaster 1 60 60 60 0\n@ NS ns\n"
            f"ns A {HERE}\npbx01 A {ONE}\npbx02 A {TWO}\n_sip._udp.empty TXT x\n"
        )
        (home / "named.conf").write_text(
            f'options {{ directory "{home}"; pid-file "{home}/pid"; session-keyfile "{home}/key";'
            f" listen-on port {port} {{ {HERE}; }}; listen-on-v6 {{ none; }}; recursion no;"
            " dnssec-validation no; };\ncontrols { };\n"
            'zone "example.test" { type primary; file "zone"; allow-update { 127.0.0.0/8; }; };\n'
        )
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [named, "-g", "-n", "1", "-c", str(home / "named.conf")], stdout=log, stderr=log
            )
        try:
            wait_for(lambda: Directory((HERE, port)).look("ns.example.test"))
            yield Bind(port)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)


def common_port() -> int:
    """A port that is free on both nodes' addresses."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
            contextlib.suppress(OSError),
        ):
            one.bind((ONE, 0))
            port: int = one.getsockname()[1]
            two.bind((TWO, port))
            return port


def wait_for(ask: Callable[[], Awaitable[object]]) -> None:
    """Until it answers, for at most ten seconds."""

    async def once() -> None:
        async with asyncio.timeout(3):
            await ask()

    deadline = time.monotonic() + 10
    while True:
        try:
            asyncio.run(once())
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():  # noqa: ASYNC110  The claims are about time.
            await asyncio.sleep(0.02)
