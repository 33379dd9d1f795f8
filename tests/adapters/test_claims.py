"""Promises that every claim store keeps, and what only the ones in the DNS can break."""

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

import dns.rcode as dns_rcode
import pytest

from adapters.bind import ZONE, Pair, bind_pair, demo_server, free_port, update_zone
from adapters.relay import datagrams, holding_back_updates
from understudy.adapters.claims import CLAIMS, dns, file, record
from understudy.config.settings import DnsName, Host, Port, Seconds, SecretFile
from understudy.core.claim import Claim, How, announce, first, serve, take, touch
from understudy.errors import (
    ClaimMissing,
    ConfigError,
    Denied,
    Unanswered,
    Unreachable,
)
from understudy.ports import ClaimStore

_NUMBERS = count()
FIRST = first("pbx01", digest="ab12cd34")


@dataclass(frozen=True)
class Home:
    """Where claims live in these tests."""

    store: Callable[[str], ClaimStore]  # By service name, so that tests do not meet.
    scribble: Callable[[str, str], None]  # Somebody else writes this text.


# One text


def test_a_claim_reads_as_a_line_for_people() -> None:
    claim = Claim(node="pbx01", epoch=7, serial=31, served=True, how=How.TAKEN, digest="ab12cd34")
    assert record.to_text(claim) == (
        "v=1 node=pbx01 epoch=7 serial=31 announced=- ordered=no served=yes how=taken returns=0 pause=0"
        " settle=0 digest=ab12cd34"
    )


@pytest.mark.parametrize(
    "claim",
    [
        FIRST,
        announce(FIRST, "pbx02"),
        serve(take(FIRST, "pbx02", settle=1893456000)),
        Claim(node="x" * 300, epoch=10**17, serial=0, returns=3, pause=4, settle=5),
    ],
)
def test_a_claim_survives_being_written_down(claim: Claim) -> None:
    assert record.from_text(record.to_text(claim)) == claim


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not have the fields"),
        ("hello world", "does not have the fields"),
        ("v=2 node=pbx01", "upgrade this node"),
        (record.to_text(FIRST) + " more=1", "does not have the fields"),
        (record.to_text(FIRST) + " ", "does not have the fields"),
        (
            record.to_text(FIRST).replace("node=pbx01 epoch=1", "epoch=1 node=pbx01"),
            "in this order",
        ),
        (record.to_text(FIRST).replace("epoch=1", "epoch=01"), "epoch is '01'"),
        (record.to_text(FIRST).replace("epoch=1", "epoch=-1"), "epoch is '-1'"),
        (record.to_text(FIRST).replace("epoch=1", "epoch=١"), "epoch is"),
        (record.to_text(FIRST).replace("epoch=1", "epoch=" + "9" * 5000), "epoch is"),
        (record.to_text(FIRST).replace("served=no", "served=maybe"), "yes or no"),
        (
            record.to_text(FIRST).replace("how=set", "how=stolen"),
            "one of set, moved, forced, taken",
        ),
        (record.to_text(FIRST).replace("node=pbx01", "node=-"), "node is '-'"),
        (record.to_text(FIRST).replace("node=pbx01", "node="), "node is ''"),
        (record.to_text(FIRST).replace("announced=-", "announced="), "announced is ''"),
    ],
)
def test_any_other_text_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        record.from_text(text)


@pytest.mark.parametrize("node", ["", "-", "a b", "a=b", "pbx\n01", "pbx\u00e9"])
def test_a_node_that_would_not_read_back_is_not_written(node: str) -> None:
    with pytest.raises(ValueError, match=r"node is|the fields"):
        record.to_text(first(node, digest=""))


def test_an_ordinary_claim_is_one_string_and_a_long_one_several() -> None:
    assert dns.txt(FIRST).to_text().count('"') == 2
    assert dns.txt(first("x" * 400, digest="")).to_text().count('"') == 4


# The contract


def test_what_was_written_is_read(home: Home) -> None:
    store = home.store(_service())
    assert run(store.create(FIRST)) is True
    assert run(store.read()) == FIRST
    assert run(store.swap(FIRST, announce(FIRST, "pbx02"))) is True
    assert run(store.read()) == announce(FIRST, "pbx02")


def test_a_long_claim_is_kept_whole(home: Home) -> None:
    store = home.store(_service())
    long = first("x" * 300, digest="")
    assert run(store.create(long))
    assert run(store.read()) == long
    assert run(store.swap(long, touch(long)))
    assert run(store.confirm(touch(long)))


def test_where_there_is_none_the_claim_is_missing_not_empty(home: Home) -> None:
    store = home.store(_service())
    with pytest.raises(ClaimMissing, match="there is no claim") as caught:
        run(store.read())
    assert "set-active" in caught.value.hint
    assert run(store.confirm(FIRST)) is False
    assert run(store.swap(FIRST, touch(FIRST))) is False
    with pytest.raises(ClaimMissing):
        run(store.read())


def test_a_claim_is_created_only_where_there_is_none(home: Home) -> None:
    store = home.store(_service())
    assert run(store.create(FIRST)) is True
    assert run(store.create(first("pbx02", digest="ab12cd34"))) is False
    assert run(store.read()) == FIRST


def test_a_swap_needs_the_whole_old_record(home: Home) -> None:
    store = home.store(_service())
    run(store.create(announce(FIRST, "pbx02")))
    for almost in (FIRST, touch(FIRST), announce(touch(FIRST), "pbx02"), announce(FIRST, "pbx01")):
        assert run(store.swap(almost, first("thief", digest=""))) is False
    assert run(store.read()) == announce(FIRST, "pbx02")


def test_of_two_writers_exactly_one_wins(home: Home) -> None:
    service = _service()
    one, two = home.store(service), home.store(service)
    run(one.create(FIRST))

    async def race() -> None:
        claim = FIRST
        for _ in range(10):
            ours, theirs = announce(claim, "pbx01"), announce(claim, "pbx02")
            won = await asyncio.gather(one.swap(claim, ours), two.swap(claim, theirs))
            assert sorted(won) == [False, True]
            claim = ours if won[0] else theirs
            assert await one.read() == claim

    run(race())


def test_the_claim_is_not_confirmed_after_somebody_else_wrote(home: Home) -> None:
    service = _service()
    store = home.store(service)
    run(store.create(FIRST))
    assert run(store.confirm(FIRST)) is True
    home.scribble(service, record.to_text(first("pbx02", digest="ab12cd34", epoch=2)))
    assert run(store.confirm(FIRST)) is False
    assert run(store.swap(FIRST, touch(FIRST))) is False


def test_confirming_changes_nothing(home: Home) -> None:
    store = home.store(_service())
    run(store.create(FIRST))
    assert run(store.confirm(FIRST)) is True
    assert run(store.confirm(touch(FIRST))) is False
    assert run(store.read()) == FIRST


def test_garbage_is_denied_and_left_alone(home: Home) -> None:
    service = _service()
    store = home.store(service)
    home.scribble(service, "call me")
    with pytest.raises(Denied, match="cannot be read"):
        run(store.read())
    assert run(store.confirm(FIRST)) is False
    assert run(store.swap(FIRST, touch(FIRST))) is False
    assert run(store.create(FIRST)) is False


@pytest.mark.parametrize("kind", CLAIMS)
def test_every_setting_is_explained(kind: str) -> None:
    for each in fields(CLAIMS[kind].settings):
        assert each.metadata["doc"].endswith("."), f"{kind}.{each.name}"
    assert CLAIMS[kind].doc.endswith(".")


# In the DNS


def test_a_proof_does_not_touch_the_zone(bind: Pair) -> None:
    service = _service()
    store = _at_bind(bind)(service)
    run(store.create(FIRST))
    before = bind.dig(bind.primary, ZONE, "SOA")
    assert run(store.confirm(FIRST))
    assert run(store.read()) == FIRST
    assert bind.dig(bind.primary, ZONE, "SOA") == before


def test_what_a_secondary_says_is_no_claim(bind: Pair) -> None:
    service = _service()
    run(_at_bind(bind)(service).create(FIRST))
    _until(lambda: bind.dig(bind.secondary, f"_understudy.{service}", "TXT"))
    secondary = _at_bind(bind, port=bind.secondary.port)(service)
    for work in (
        secondary.read(),
        secondary.confirm(FIRST),
        secondary.swap(FIRST, touch(FIRST)),
        secondary.create(FIRST),
    ):
        with pytest.raises(Denied, match="REFUSED") as caught:
            run(work)
        assert "primary" in caught.value.hint


@pytest.mark.real
def test_a_secondary_that_passes_updates_on_proves_only_what_the_primary_says(
    tmp_path: Path,
) -> None:
    with bind_pair(tmp_path, forwarding=True) as pair:
        service = _service()
        primary = _at_bind(pair)(service)
        behind = _at_bind(pair, port=pair.secondary.port, timeout=1.0)(service)
        run(primary.create(FIRST))
        _until(lambda: pair.dig(pair.secondary, f"_understudy.{service}", "TXT"))
        assert run(behind.confirm(FIRST)) is True
        pair.primary.freeze()
        # The secondary still serves the record, with authority.
        assert pair.dig(pair.secondary, f"_understudy.{service}", "TXT")
        for work in (behind.read(), behind.confirm(FIRST)):
            with pytest.raises(Unreachable):
                run(work)
        with pytest.raises(Unanswered):
            run(behind.swap(FIRST, touch(FIRST)))
        pair.primary.thaw()


def test_several_records_are_no_claim(bind: Pair) -> None:
    service = _service()
    owner = f"_understudy.{service}"
    store = _at_bind(bind)(service)
    run(store.create(FIRST))
    bind.nsupdate(f'update add {owner} 0 TXT "{record.to_text(touch(FIRST))}"')
    with pytest.raises(Denied, match="2 TXT records"):
        run(store.read())
    assert run(store.confirm(FIRST)) is False
    assert run(store.swap(FIRST, announce(FIRST, "pbx02"))) is False


def test_a_claim_in_foreign_pieces_is_denied(bind: Pair) -> None:
    service = _service()
    text = record.to_text(FIRST)
    bind.nsupdate(f'update add _understudy.{service} 0 TXT "{text[:20]}" "{text[20:]}"')
    with pytest.raises(Denied, match="cut into strings"):
        run(_at_bind(bind)(service).read())


@pytest.mark.parametrize("kind", ["bind", "demo"])
@pytest.mark.parametrize(
    ("key", "why", "cure"),
    [
        ("unknown", "does not know the key unknown .* \\(BADKEY\\)", "Include our key file"),
        ("other-secret", "has another secret for the key strong \\(BADSIG\\)", "Copy the key file"),
    ],
)
def test_a_wrong_key_is_explained(
    kind: str, key: str, why: str, cure: str, bind: Pair, demo_port: int
) -> None:
    port = bind.primary.port if kind == "bind" else demo_port
    store = _at_bind(bind, port=port, key=key)(_service())
    for work in (store.read(), store.confirm(FIRST), store.swap(FIRST, touch(FIRST))):
        with pytest.raises(Denied, match=why) as caught:
            run(work)
        assert cure in caught.value.hint


@pytest.mark.parametrize("kind", ["bind", "demo"])
def test_a_clock_that_is_wrong_is_told_by_how_much(
    kind: str, bind: Pair, demo_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = bind.primary.port if kind == "bind" else demo_port
    store = _at_bind(bind, port=port)(_service())
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 1000)
    for work in (store.read(), store.swap(FIRST, touch(FIRST))):
        with pytest.raises(Denied, match=r"(999|1000) s ahead of that of .*BADTIME") as caught:
            run(work)
        assert "NTP" in caught.value.hint


def test_a_key_without_rights_is_told_the_line_that_it_needs(bind: Pair) -> None:
    service = _service()
    run(_at_bind(bind)(service).create(FIRST))
    with pytest.raises(Denied, match="the key weak may not change this") as caught:
        run(_at_bind(bind, key="weak")(service).swap(FIRST, touch(FIRST)))
    assert f"grant weak name _understudy.{service} TXT;" in caught.value.hint
    assert run(_at_bind(bind)(service).read()) == FIRST


def test_a_server_without_the_zone_is_denied(bind: Pair) -> None:
    elsewhere = _at_bind(bind, zone="example.org")("sip.example.org")
    with pytest.raises(Denied, match="REFUSED"):
        run(elsewhere.read())
    with pytest.raises(Denied, match=r"not the primary of example\.org \(NOTAUTH\)"):
        run(elsewhere.confirm(FIRST))


def test_a_server_that_is_down_is_unreachable(bind: Pair) -> None:
    store = _at_bind(bind, port=free_port())(_service())
    for work in (
        store.read(),
        store.confirm(FIRST),
        store.swap(FIRST, touch(FIRST)),
        store.create(FIRST),
    ):
        with pytest.raises(Unreachable, match="Connection refused"):
            run(work)


def test_a_server_that_takes_the_call_and_is_silent_leaves_a_write_open(bind: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        store = _at_bind(bind, port=mute.getsockname()[1], timeout=0.2)(_service())
        for asking in (store.read(), store.confirm(FIRST)):
            with pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
                run(asking)
        for writing in (store.swap(FIRST, touch(FIRST)), store.create(FIRST)):
            with pytest.raises(Unanswered, match=r"did not answer within 0\.2 s"):
                run(writing)


@pytest.mark.parametrize(
    "answer", [b"", b"\0\3abc", b"\0\x0c" + bytes(12), b"\xff\xff" + bytes(40)]
)
def test_a_server_that_talks_nonsense_leaves_a_write_open(bind: Pair, answer: bytes) -> None:
    async def nonsense() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(2)
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            store = _at_bind(bind, port=port, timeout=1.0)(_service())
            with pytest.raises(Unreachable):
                await store.confirm(FIRST)
            with pytest.raises(Unanswered):
                await store.swap(FIRST, touch(FIRST))

    run(nonsense())


def confirmed(bind: Pair, claim: Claim, service: str, **relay: Any) -> tuple[bool, int]:
    """Over datagrams alone, through a relay; and how many of them were sent."""

    async def story() -> tuple[bool, int]:
        async with datagrams(bind.primary.port, **relay) as (port, stands_there):
            answer = await _at_bind(bind, port=port, timeout=3.0)(service).confirm(claim)
            return answer, stands_there.seen

    answer: tuple[bool, int] = run(story())
    return answer


def test_a_proof_gets_through_a_network_that_loses(bind: Pair) -> None:
    """Nothing listens there over TCP: a datagram alone has proved it, and another claim is another claim."""
    service = _service()
    run(_at_bind(bind)(service).create(FIRST))
    assert confirmed(bind, FIRST, service) == (True, 1)
    assert confirmed(bind, FIRST, service, lose=lambda number: number < 4) == (True, 5)
    assert confirmed(bind, touch(FIRST), service) == (False, 1)


@pytest.mark.parametrize(
    "lie",
    [
        lambda true: true[:3] + bytes([true[3] & 0xF0 | dns_rcode.NXRRSET]) + true[4:],
        lambda true: true[:2] + b"\xa8\x80" + bytes(8),
        lambda true: true[:1] + bytes([true[1] ^ 1]) + true[2:],
        lambda true: b"",
    ],
    ids=["another verdict", "unsigned", "to another question", "empty"],
)
def test_a_datagram_that_is_not_signed_proves_nothing(
    bind: Pair, lie: Callable[[bytes], bytes]
) -> None:
    service = _service()
    run(_at_bind(bind)(service).create(FIRST))
    with pytest.raises(Unreachable, match="Connection refused"):
        confirmed(bind, FIRST, service, answer=lie)


def test_where_datagrams_are_swallowed_a_proof_comes_over_tcp(bind: Pair) -> None:
    """A firewall that lets TCP through alone."""
    service = _service()
    run(_at_bind(bind)(service).create(FIRST))

    async def story() -> bool:
        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", bind.primary.port)
            back.write(await reader.read(65536))
            writer.write(await there.read(65536))
            back.close()
            writer.close()

        async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as swallows:
                swallows.bind(("127.0.0.1", port))
                return await _at_bind(bind, port=port, timeout=3.0)(service).confirm(FIRST)

    assert run(story())


def test_a_write_without_an_answer_may_still_land(bind: Pair) -> None:
    """Why C2 wants the record overwritten before anybody acts on what he reads."""
    service = _service()
    store = _at_bind(bind)(service)
    announced = announce(FIRST, "pbx02")

    async def late(*, overwritten: bool) -> int:
        async with holding_back_updates(bind.primary.port) as relay:
            slow = _at_bind(bind, port=relay.port, timeout=0.3)(service)
            with pytest.raises(Unanswered):
                await slow.swap(FIRST, announced)
            assert await store.read() == FIRST
            if overwritten:
                assert await store.swap(FIRST, touch(FIRST))
            return await relay.let_go()

    run(store.create(FIRST))
    assert run(late(overwritten=False)) == dns_rcode.NOERROR
    assert run(store.read()) == announced
    assert run(store.swap(announced, FIRST))
    assert run(late(overwritten=True)) == dns_rcode.NXRRSET
    assert run(store.read()) == touch(FIRST)


def test_what_the_claim_leaves_open_the_name_fills_in(bind: Pair) -> None:
    place = dns.resolve(
        dns.Settings(),
        service="sip.example.test",
        server=Host("192.0.2.53"),
        port=Port(5300),
        zone=DnsName("example.test"),
        key_file=SecretFile(bind.key()),
    )
    assert str(place.server) == "192.0.2.53:5300"
    assert place.record.to_text() == "_understudy.sip.example.test."
    own = dns.resolve(
        dns.Settings(server=Host("192.0.2.99"), record=DnsName("who.example.test")),
        service="sip.example.test",
        server=Host("192.0.2.53"),
        port=Port(5300),
        zone=DnsName("example.test"),
        key_file=SecretFile(bind.key()),
    )
    assert str(own.server) == "192.0.2.99"  # The port was that of the other server.
    assert own.record.to_text() == "who.example.test."


def test_a_claim_without_a_place_is_refused_with_all_that_is_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        dns.resolve(dns.Settings(), service="sip.example.test")
    assert [each.split()[1] for each in caught.value.findings] == ["server", "zone", "key_file"]


def test_a_record_outside_its_zone_is_refused(bind: Pair) -> None:
    with pytest.raises(ConfigError, match=r"not in the zone example\.org"):
        _at_bind(bind, zone="example.org")("sip.example.test")


# In a file


def test_a_lock_that_is_held_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    store = _in_file(tmp_path / "claim", timeout=0.1)
    run(store.create(FIRST))
    with (tmp_path / "claim.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unreachable, match=r"held .* for 0\.1 s"):
            run(store.swap(FIRST, touch(FIRST)))
        assert run(store.read()) == FIRST  # Readers need no lock.
    assert run(store.swap(FIRST, touch(FIRST)))


def test_a_full_disk_leaves_the_old_claim(tmp_path: Path) -> None:
    store = _in_file(tmp_path / "claim")
    run(store.create(FIRST))
    # A process that may write no byte to any file: as near to a full disk as a test gets unprivileged.
    script = f"""
import asyncio, resource
from understudy.adapters.claims import file
from understudy.core.claim import first, touch
from understudy.errors import Unreachable
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
store = file.FileClaims(file.Settings(path={str(tmp_path / "claim")!r}))
claim = first("pbx01", digest="ab12cd34")
try:
    asyncio.run(store.swap(claim, touch(claim)))
except Unreachable as error:
    assert "the old one stands" in str(error) and "df -h" in error.hint, error
else:
    raise SystemExit("it was written")
"""
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run(store.read()) == FIRST
    assert sorted(each.name for each in tmp_path.iterdir()) == ["claim", "claim.lock"]


@pytest.mark.parametrize("place", ["/sys/understudy-claim", "/proc/no/such/directory/claim"])
def test_a_directory_that_cannot_be_written_is_unreachable(place: str) -> None:
    with pytest.raises(Unreachable, match="cannot be written") as caught:
        run(_in_file(Path(place)).create(FIRST))
    assert "must be allowed to write" in caught.value.hint


def test_a_claim_that_is_a_directory_is_unreachable(tmp_path: Path) -> None:
    for work in (_in_file(tmp_path).read(), _in_file(tmp_path).confirm(FIRST)):
        with pytest.raises(Unreachable, match="cannot be read"):
            run(work)


# The world


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with bind_pair(tmp_path_factory.mktemp("bind")) as pair:
        yield pair


@pytest.fixture(scope="module")
def demo_port(bind: Pair) -> Iterator[int]:
    with demo_server(bind.key()) as port:
        yield port


@pytest.fixture(params=["file", "dns-bind", "dns-demo"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    if request.param == "file":
        return Home(
            lambda service: _in_file(tmp_path / service),
            lambda service, text: _write(tmp_path / service, text),
        )
    pair: Pair = request.getfixturevalue("bind")
    port = (
        pair.primary.port
        if request.param == "dns-bind"
        else int(request.getfixturevalue("demo_port"))
    )
    return Home(
        _at_bind(pair, port=port),
        lambda service, text: update_zone(
            port,
            pair.key(),
            f"update delete _understudy.{service} TXT",
            f'update add _understudy.{service} 0 TXT "{text}"',
        ),
    )


def _at_bind(
    pair: Pair,
    *,
    port: int | None = None,
    key: str = "strong",
    zone: str = ZONE,
    timeout: float = 3.0,
) -> Callable[[str], ClaimStore]:
    settings = dns.Settings(
        server=Host("127.0.0.1"),
        port=Port(port or pair.primary.port),
        zone=DnsName(zone),
        key_file=SecretFile(pair.key(key)),
        timeout=Seconds(timeout),
    )
    return lambda service: CLAIMS["dns"].build(settings, service=service)


def _in_file(path: Path, *, timeout: float = 3.0) -> ClaimStore:
    return CLAIMS["file"].build(
        file.Settings(path=str(path), timeout=Seconds(timeout)), service="sip.example.test"
    )


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n")


def _service() -> str:
    return f"sip{next(_NUMBERS)}.{ZONE}"


def _until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)
