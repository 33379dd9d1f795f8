"""What a real BIND lets our key do, and who serves the zone."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters import bind
from adapters.bind import ZONE, ZONE_TEXT, Bind
from cli.pair import CliPair
from doctor.world import claim, edit, here, levels, only, run
from understudy.doctor import zone
from understudy.doctor.finding import Finding, Level

SERVICE = f"sip.{ZONE}"
POLICY = f"""
    grant narrow name {SERVICE} CNAME; grant narrow name _understudy.{SERVICE} TXT;
    grant wide zonesub ANY;
    grant below subdomain {SERVICE} ANY;
    grant poor name {SERVICE} CNAME;
"""
KEYS = ("narrow", "wide", "below", "poor", "mute")
OK, NOTE, WARNING, CRITICAL = Level.OK, Level.NOTE, Level.WARNING, Level.CRITICAL


@dataclass(frozen=True)
class Servers:
    """A primary, and one that has an older zone."""

    primary: Bind
    behind: Bind
    keys: Path

    def soa(self) -> str:
        at = ("dig", "+short", "@127.0.0.1", "-p", str(self.primary.port), ZONE, "SOA")
        return subprocess.run(at, capture_output=True, text=True, check=True, timeout=20).stdout


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with started(tmp_path_factory.mktemp("bind")) as made:
        yield made


@contextmanager
def started(folder: Path) -> Iterator[Servers]:
    bind.need_programs("named", "tsig-keygen", "dig")
    keys = [bind.make_key(folder / f"{name}.key", name) for name in KEYS]
    made = []
    for name, serial, ns1 in (("primary", 7, "127.0.0.1"), ("behind", 6, "127.0.0.2")):
        server = bind._configure(
            folder / name,
            bind.free_port(),
            keys,
            f'type primary; file "zone"; update-policy {{ {POLICY} }}; notify no;',
        )
        text = ZONE_TEXT.replace("hostmaster 1 ", f"hostmaster {serial} ")
        text = text.replace("ns1 A 127.0.0.1", f"ns1 A {ns1}")
        (server.directory / "zone").write_text(f"{text}sip 30 CNAME pbx01\n")
        made.append(server)
    try:
        for server in made:
            server.start()
        yield Servers(made[0], made[1], folder)
    finally:
        for server in made:
            server.stop()


@pytest.fixture
def pair(tmp_path: Path, servers: Servers) -> CliPair:
    """Its nodes are elsewhere, its zone and its claim at the primary."""
    made = CliPair(tmp_path)
    key = tmp_path / "tsig.key"
    for old, new in (
        (f'server = "{made.ns}"', 'server = "127.0.0.1"'),
        (f"port = {made.ns_port}", f"port = {servers.primary.port}"),
        (f'["{made.ns}:{made.ns_port}"]', f'["127.0.0.1:{servers.primary.port}"]'),
        (f'kind = "file"\npath = "{tmp_path}/claim"', 'kind = "dns"'),
        (str(key), str(servers.keys / "narrow.key")),
    ):
        edit(made, old, new)
    return made


def with_key(pair: CliPair, name: str) -> None:
    edit(pair, "/narrow.key", f"/{name}.key")


def test_a_key_that_may_do_what_it_must_and_no_more_is_well(
    pair: CliPair, servers: Servers
) -> None:
    before = servers.soa()
    found = run(zone.rights, here(pair))
    assert levels(found, "key-may") == levels(found, "key-no-more") == [OK]
    assert servers.soa() == before, "asking has changed the zone"


@pytest.mark.parametrize(
    ("key", "too"),
    [
        ("wide", f"_understudy-doctor-probe.{ZONE}"),
        ("below", f"_understudy-doctor-probe.{SERVICE}"),
    ],
)
def test_a_key_that_may_do_more_is_told(
    pair: CliPair, servers: Servers, key: str, too: str
) -> None:
    with_key(pair, key)
    before = servers.soa()
    found = run(zone.rights, here(pair))
    assert levels(found, "key-may") == [OK]
    one = only(found, "key-no-more")
    assert one.level is WARNING
    assert one.what.endswith(f": {too} too")
    assert (
        f"grant {key} name {SERVICE} CNAME; grant {key} name _understudy.{SERVICE} TXT;" in one.mend
    )
    assert servers.soa() == before, "asking has changed the zone"


def test_a_key_that_may_not_write_the_claim_is_critical(pair: CliPair) -> None:
    with_key(pair, "poor")
    found = run(zone.rights, here(pair))
    one = only(found, "key-may")
    assert one.level is CRITICAL
    assert f"change TXT at _understudy.{SERVICE}" in one.what
    assert f"update-policy {{ grant poor name _understudy.{SERVICE} TXT; }};" in one.mend


def test_a_key_that_may_nothing_is_told_for_each_name(pair: CliPair) -> None:
    with_key(pair, "mute")
    found = run(zone.rights, here(pair))
    assert levels(found, "key-may") == [CRITICAL, CRITICAL]
    assert levels(found, "key-no-more") == [OK]


def test_addresses_need_another_right_than_a_cname(pair: CliPair) -> None:
    edit(pair, 'zone = "example.test"', 'zone = "example.test"\nrecord = "A"')
    one = only(run(zone.rights, here(pair)), "key-may")
    assert one.level is CRITICAL
    assert f"change A AAAA at {SERVICE}" in one.what
    with_key(pair, "below")
    assert only(run(zone.rights, here(pair)), "key-may").level is OK


def test_srv_records_are_asked_for_one_by_one(pair: CliPair, servers: Servers) -> None:
    before = servers.soa()
    edit(pair, 'zone = "example.test"', 'zone = "example.test"\nrecord = "SRV"')
    with_key(pair, "below")
    assert only(run(zone.rights, here(pair)), "key-may").level is OK
    edit(pair, "/below.key", "/narrow.key")
    found = [each.what for each in run(zone.rights, here(pair)) if each.level is CRITICAL]
    assert len(found) == 2
    assert found[0].endswith(f"SRV at _sip._udp.{SERVICE}")
    assert found[1].endswith(f"SRV at _sip._tcp.{SERVICE}")
    assert servers.soa() == before, "asking has changed the zone"


def test_the_name_leads_to_the_active_node_or_it_is_critical(pair: CliPair) -> None:
    place = here(pair, claim=claim("pbx01"))
    found = run(zone.name, place)
    assert levels(found, "name") == levels(found, "name-servers") == [OK]
    one = only(run(zone.name, replace(place, claim=claim("pbx02"))), "name")
    assert one.level is CRITICAL
    assert "leads sip.example.test to pbx01, and pbx02 is active" in one.what
    assert only(run(zone.name, replace(place, claim=None)), "name").level is Level.UNKNOWN


def test_a_server_that_is_behind_is_told(pair: CliPair, servers: Servers) -> None:
    edit(pair, 'servers = ["', f'servers = ["127.0.0.1:{servers.behind.port}", "')
    one = only(run(zone.name, here(pair, claim=claim())), "name-servers")
    assert one.level is WARNING
    assert f"127.0.0.1:{servers.behind.port} still has an older {ZONE} (serial 6, not 7" in one.what


def test_a_server_that_does_not_answer_is_told(pair: CliPair) -> None:
    edit(pair, 'servers = ["', f'timeout = "500ms"\nservers = ["127.0.0.1:{bind.free_port()}", "')
    found = run(zone.name, here(pair, claim=claim()))
    assert sorted(levels(found, "name-servers")) == [OK, WARNING]
    assert levels(found, "name") == [OK]


def test_a_ttl_above_the_configured_one_is_told(pair: CliPair) -> None:
    assert only(run(zone.ttl, here(pair)), "name-ttl").level is OK
    edit(pair, 'zone = "example.test"', 'zone = "example.test"\nttl = "10s"')
    one = only(run(zone.ttl, here(pair)), "name-ttl")
    assert one.level is WARNING
    assert "has a TTL of 30 s, and 10 s is configured" in one.what


def test_one_primary_elsewhere_by_its_address_is_well(pair: CliPair) -> None:
    found = run(zone.primary, here(pair))
    for check in ("primary", "primary-address", "primary-site"):
        assert levels(found, check) == [OK]


def test_a_primary_in_the_site_of_a_node_is_told(pair: CliPair) -> None:
    edit(pair, pair.addresses["pbx02"], "127.0.0.99")
    one = only(run(zone.primary, here(pair)), "primary-site")
    assert one.level is WARNING
    assert "the primary 127.0.0.1 is in the network of pbx02 (127.0.0.99)" in one.what


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::2", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("192.0.2.1", "2001:db8:1::1", False),
    ],
)
def test_a_site_is_a_24_or_a_48(one: str, other: str, same: bool) -> None:
    assert zone.same_site(one, other) is same


def test_a_primary_by_name_is_noted(pair: CliPair) -> None:
    edit(pair, 'server = "127.0.0.1"', 'server = "localhost"')
    one = only(run(zone.primary, here(pair)), "primary-address")
    assert one.level is NOTE
    assert one.mend.startswith('server = "')


def test_a_zone_that_names_another_primary_is_noted(pair: CliPair, servers: Servers) -> None:
    edit(pair, f"port = {servers.primary.port}", f"port = {servers.behind.port}")
    one = only(run(zone.primary, here(pair)), "primary")
    assert one.level is NOTE
    assert f"names ns1.{ZONE} (127.0.0.2) as its primary, and we ask 127.0.0.1" in one.what


def test_a_resolver_is_no_primary(pair: CliPair) -> None:
    edit(pair, 'zone = "example.test"', 'zone = "test"')
    one = only(run(zone.primary, here(pair)), "primary")
    assert one.level is WARNING
    assert "REFUSED" in one.what


def test_a_primary_says_which_machine_it_is(pair: CliPair) -> None:
    async def look(place: object) -> list[Finding]:
        said.update(await zone.identities(here(pair)))
        return []

    said: dict[str, str] = {}
    run(look, here(pair))
    assert len(said) == 1
    assert all(said.values())
