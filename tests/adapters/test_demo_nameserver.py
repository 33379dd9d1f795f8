"""The shipped name server, as dig, nsupdate and our own adapters see it."""

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.opcode
import dns.rcode
import dns.tsig
import dns.update
import pytest

from adapters.bind import ZONE, demo_server, free_port, need_programs, update_zone
from understudy.adapters.claims import CLAIMS
from understudy.adapters.claims import dns as claim_dns
from understudy.adapters.names import Target
from understudy.adapters.names.rfc2136 import Record, Rfc2136Name, Settings
from understudy.adapters.tsigkey import load_key
from understudy.config.settings import DnsName, Host, Port, SecretFile
from understudy.core.claim import announce, first, take
from understudy.demo.nameserver import NameServer, Zone
from understudy.errors import ConfigError, Denied

RECORDS = (
    "ns 60 A 127.0.0.1",
    f"sip 30 CNAME pbx01.{ZONE}.",
    "pbx01 30 A 192.0.2.11",
    "pbx01 30 AAAA 2001:db8::11",
    "deep.below.here 30 A 192.0.2.99",
    "out 30 CNAME elsewhere.example.org.",
    f"gone 30 CNAME nobody.{ZONE}.",
)
NODES = {
    "pbx01": Target(host=f"pbx01.{ZONE}", addresses=("192.0.2.11",)),
    "pbx02": Target(host=f"pbx02.{ZONE}", addresses=("198.51.100.12", "2001:db8::12")),
}
CLAIM = first("pbx01", digest="ab12cd34")


# As dig sees it


@pytest.mark.real
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize(
    ("question", "status", "flags", "answers"),
    [
        ("pbx01 A", "NOERROR", "qr aa", ["192.0.2.11"]),
        ("PBX01 AAAA", "NOERROR", "qr aa", ["2001:db8::11"]),
        ("sip A", "NOERROR", "qr aa", [f"pbx01.{ZONE}.", "192.0.2.11"]),
        ("sip CNAME", "NOERROR", "qr aa", [f"pbx01.{ZONE}."]),
        ("sip TXT", "NOERROR", "qr aa", [f"pbx01.{ZONE}."]),
        ("pbx01 TXT", "NOERROR", "qr aa", []),
        ("below.here A", "NOERROR", "qr aa", []),
        ("out A", "NOERROR", "qr aa", ["elsewhere.example.org."]),
        ("gone A", "NXDOMAIN", "qr aa", [f"nobody.{ZONE}."]),
        ("nobody A", "NXDOMAIN", "qr aa", []),
    ],
)
def test_dig_reads_it(
    demo: int, transport: str, question: str, status: str, flags: str, answers: list[str]
) -> None:
    name, kind = question.split()
    text = _dig(demo, transport, f"{name}.{ZONE}", kind)
    assert f"status: {status}," in text
    assert f"flags: {flags};" in text
    assert [line.split()[-1] for line in _section(text, "ANSWER")] == answers
    if not answers:
        assert "SOA" in _section(text, "AUTHORITY")[0]


@pytest.mark.real
def test_other_zones_are_refused_and_transfers_not_done(demo: int) -> None:
    assert "status: REFUSED," in _dig(demo, "www.example.org", "A")
    assert "Transfer failed" in _dig(demo, ZONE, "AXFR")


@pytest.mark.real
def test_what_does_not_fit_comes_over_tcp(demo: int, key: Path) -> None:
    for number in range(40):
        update_zone(demo, key, f'update add big.{ZONE} 0 TXT "{number} {"x" * 100}"')
    assert "flags: qr aa tc;" in _dig(demo, "+ignore", f"big.{ZONE}", "TXT")
    assert len(_section(_dig(demo, f"big.{ZONE}", "TXT"), "ANSWER")) == 40


# As nsupdate sees it


@pytest.mark.real
def test_an_update_bumps_the_serial_once_and_a_proof_never(demo: int, key: Path) -> None:
    before = _serial(demo)
    update_zone(
        demo, key, f"update add a.{ZONE} 30 A 192.0.2.1", f"update add a.{ZONE} 30 A 192.0.2.2"
    )
    assert _serial(demo) == before + 1
    update_zone(demo, key, f"prereq yxrrset a.{ZONE} A")
    update_zone(demo, key, f"update add a.{ZONE} 30 A 192.0.2.1")
    assert _serial(demo) == before + 1
    update_zone(demo, key, f"update delete a.{ZONE} A 192.0.2.1")
    assert [each.split()[-1] for each in _section(_dig(demo, f"a.{ZONE}", "A"), "ANSWER")] == [
        "192.0.2.2"
    ]
    update_zone(demo, key, f"update delete a.{ZONE}")
    assert "NXDOMAIN" in _dig(demo, f"a.{ZONE}", "A")


@pytest.mark.real
@pytest.mark.parametrize(
    ("prerequisite", "refusal"),
    [
        ("yxdomain nobody", "NXDOMAIN"),
        ("nxdomain pbx01", "YXDOMAIN"),
        ("yxrrset pbx01 TXT", "NXRRSET"),
        ("nxrrset pbx01 A", "YXRRSET"),
        ("yxrrset pbx01 A 192.0.2.12", "NXRRSET"),
    ],
)
def test_each_prerequisite_is_kept(demo: int, key: Path, prerequisite: str, refusal: str) -> None:
    verb, name, *rest = prerequisite.split()
    lines = [f"prereq {verb} {name}.{ZONE} {' '.join(rest)}", f"update add no.{ZONE} 0 A 192.0.2.1"]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        update_zone(demo, key, *lines)
    assert f"update failed: {refusal}" in caught.value.stderr.decode()
    assert "NXDOMAIN" in _dig(demo, f"no.{ZONE}", "A")


@pytest.mark.real
def test_a_refused_update_changes_nothing_at_all(demo: int, key: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        update_zone(
            demo,
            key,
            f"update add half.{ZONE} 0 A 192.0.2.1",
            "update add www.example.org 0 A 192.0.2.1",
        )
    assert "NOTZONE" in caught.value.stderr.decode()
    assert "NXDOMAIN" in _dig(demo, f"half.{ZONE}", "A")


@pytest.mark.real
def test_an_unsigned_update_is_refused(demo: int) -> None:
    done = subprocess.run(
        ["nsupdate"],
        input=f"server 127.0.0.1 {demo}\nzone {ZONE}\nupdate add x.{ZONE} 0 A 192.0.2.1\nsend\n".encode(),
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert b"REFUSED" in done.stderr


def test_the_top_of_the_zone_stays(key: Path) -> None:
    server = _server(key)
    update = dns.update.UpdateMessage(ZONE)
    for kind in ("SOA", "NS"):
        update.delete("@", kind)
    update.delete("@")
    update.add("@", 60, "NS", "thief.example.org.")
    assert _sent(server, update, key).rcode() == dns.rcode.NOERROR
    assert server.zone.serial == 1
    answer = dns.message.from_wire(
        server.respond(dns.message.make_query(ZONE, "NS").to_wire()) or b""
    )
    assert [each.to_text() for each in answer.answer[0]] == [f"ns.{ZONE}."]


def test_a_cname_and_other_records_are_never_beside_each_other(key: Path) -> None:
    server = _server(key)
    update = dns.update.UpdateMessage(ZONE)
    update.add("sip", 30, "A", "192.0.2.1")
    update.add("pbx01", 30, "CNAME", "sip")
    assert _sent(server, update, key).rcode() == dns.rcode.NOERROR
    assert server.zone.serial == 1


def test_a_ttl_alone_is_a_change(key: Path) -> None:
    server = _server(key)
    update = dns.update.UpdateMessage(ZONE)
    update.replace("sip", 5, "CNAME", f"pbx01.{ZONE}.")
    _sent(server, update, key)
    assert server.zone.serial == 2


# As our adapters see it


def test_claim_and_name_work_on_it_unchanged(demo: int, key: Path) -> None:
    service = f"all.{ZONE}"
    claims = CLAIMS["dns"].build(
        claim_dns.Settings(
            server=Host("127.0.0.1"),
            port=Port(demo),
            zone=DnsName(ZONE),
            key_file=SecretFile(key),
        ),
        service=service,
    )

    async def story() -> None:
        await claims.create(CLAIM)
        taken = take(announce(CLAIM, "pbx02"), "pbx02", settle=0)
        for record in Record:
            name = Rfc2136Name(
                Settings(
                    server=Host("127.0.0.1"),
                    port=Port(demo),
                    zone=DnsName(ZONE),
                    record=record,
                    key_file=SecretFile(key),
                ),
                service=service,
                nodes=NODES,
                claim_record=f"_understudy.{service}",
            )
            await name.point("pbx01", CLAIM)
            await name.verify("pbx01")
            assert set((await name.look()).values()) == {"pbx01"}
            with pytest.raises(Denied, match="the claim has moved on"):
                await name.point("pbx02", taken)
        assert await claims.swap(CLAIM, taken)
        await name.point("pbx02", taken)
        await name.verify("pbx02")

    asyncio.run(story())


def test_it_starts_and_stops_in_one_loop_and_leaves_the_port_free(key: Path) -> None:
    async def twice() -> None:
        port = free_port()
        for _ in range(2):
            server = _server(key)
            assert await server.start("127.0.0.1", port) == port
            _, caller = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.01)
            await server.stop()
            caller.close()

    asyncio.run(twice())


def test_a_port_that_is_taken_is_said_at_once(key: Path) -> None:
    async def clash() -> None:
        one, two = _server(key), _server(key)
        port = await one.start("127.0.0.1", 0)
        with pytest.raises(OSError, match="in use"):
            await two.start("127.0.0.1", port)
        await one.stop()

    asyncio.run(clash())


def test_nonsense_never_stops_it(key: Path) -> None:
    server, chance = _server(key), random.Random(1)
    for _ in range(2000):
        update = dns.update.UpdateMessage(ZONE, keyring=load_key(key))
        update.present("sip", "CNAME")
        update.absent("nobody")
        update.replace("sip", 30, "CNAME", "pbx02")
        wire = bytearray(update.to_wire())
        for _ in range(chance.randint(0, 4)):
            wire[chance.randrange(len(wire))] = chance.randrange(256)
        server.respond(bytes(wire[: chance.randint(0, 2 * len(wire))]))
    assert server.respond(b"") is None


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ("sip CNAME", "should look like"),
        ("sip x A 192.0.2.1", "should look like"),
        ("www.example.org. 1 A 192.0.2.1", "not in the zone"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(record: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Zone(ZONE, [record])


def test_its_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "understudy.demo.nameserver", "--zone", ZONE]
    done = subprocess.run(
        [*command, "--key-file", str(tmp_path / "none")],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert b"the key file cannot be read" in done.stderr


# The world


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text('key "strong" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OWFiY2RlZg=="; };\n')
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def demo(key: Path) -> Iterator[int]:
    need_programs("dig", "nsupdate")
    with demo_server(key, *RECORDS) as port:
        yield port


def _server(key: Path) -> NameServer:
    return NameServer(Zone(ZONE, RECORDS), [load_key(key)])


def _sent(server: NameServer, update: dns.update.UpdateMessage, key: Path) -> dns.message.Message:
    update.use_tsig(load_key(key))
    wire = server.respond(update.to_wire())
    assert wire is not None
    return dns.message.from_wire(wire, keyring=load_key(key), request_mac=update.mac)


def _dig(port: int, *words: str) -> str:
    command = ["dig", "+norecurse", "+time=2", "+tries=1", "@127.0.0.1", "-p", str(port), *words]
    return subprocess.run(command, capture_output=True, timeout=10, check=False).stdout.decode()


def _section(text: str, name: str) -> list[str]:
    _, found, rest = text.partition(f";; {name} SECTION:\n")
    return rest.partition("\n\n")[0].splitlines() if found else []


def _serial(port: int) -> int:
    (line,) = _section(_dig(port, ZONE, "SOA"), "ANSWER")
    return int(line.split()[6])
