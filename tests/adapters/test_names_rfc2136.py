"""The service name moves on a real BIND, and every server that callers ask is looked at."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import fields, replace
from itertools import count
from typing import Any

import dns.rcode
import pytest

from adapters.bind import ZONE, Bind, Pair, bind_pair, demo_server, free_port
from adapters.relay import holding_back_updates
from understudy.adapters.claims import CLAIMS
from understudy.adapters.claims import dns as claim_dns
from understudy.adapters.names import NAMES, SeveralNames, Target
from understudy.adapters.names.rfc2136 import Record, Rfc2136Name, Settings
from understudy.config.settings import DnsName, Host, HostPort, Port, Seconds, SecretFile
from understudy.core.claim import announce, first, take, touch
from understudy.errors import ConfigError, Denied, Unanswered, Unreachable
from understudy.ports import ClaimStore, ServiceName

_NUMBERS = count()
CLAIM = first("pbx01", digest="ab12cd34")
NODES = {
    "pbx01": Target(host=f"pbx01.{ZONE}", addresses=("192.0.2.11", "2001:db8::11")),
    "pbx02": Target(host=f"pbx02.{ZONE}", addresses=("198.51.100.12",)),
}


# Pointing


@pytest.mark.parametrize("with_claim", [True, False])
def test_a_cname_follows_the_node_at_every_server(bind: Pair, with_claim: bool) -> None:
    service = _service()
    name = _name(bind, service, with_claim=with_claim)
    for node in ("pbx01", "pbx02", "pbx02", "pbx01"):
        run(name.point(node, CLAIM))
        run(name.verify(node))
        for server in (bind.primary, bind.secondary):
            assert bind.dig(server, service, "CNAME") == [f"{node}.{ZONE}."]
        assert set(run(name.look()).values()) == {node}


def test_addresses_of_both_families_come_and_go(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service, record=Record.A)
    run(name.point("pbx01", CLAIM))
    run(name.verify("pbx01"))
    assert bind.dig(bind.secondary, service, "A") == ["192.0.2.11"]
    assert bind.dig(bind.secondary, service, "AAAA") == ["2001:db8::11"]
    run(name.point("pbx02", CLAIM))
    run(name.verify("pbx02"))
    assert bind.dig(bind.secondary, service, "A") == ["198.51.100.12"]
    assert bind.dig(bind.secondary, service, "AAAA") == []


def test_srv_records_lead_to_the_active_node_alone(bind: Pair) -> None:
    service = _service()
    name = _name(
        bind,
        service,
        record=Record.SRV,
        srv=("_sip._udp:5060", "_sip._tcp:5060", "_sips._tcp:5061"),
    )
    run(name.point("pbx01", CLAIM))
    run(name.point("pbx02", CLAIM))
    run(name.verify("pbx02"))
    for label, port in (("_sip._udp", 5060), ("_sip._tcp", 5060), ("_sips._tcp", 5061)):
        for server in (bind.primary, bind.secondary):
            assert bind.dig(server, f"{label}.{service}", "SRV") == [f"10 0 {port} pbx02.{ZONE}."]


def test_pointing_again_changes_nothing(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service)
    run(name.point("pbx01", CLAIM))
    before = bind.dig(bind.primary, ZONE, "SOA")
    run(name.point("pbx01", CLAIM))
    assert bind.dig(bind.primary, ZONE, "SOA") == before


def test_a_cname_takes_the_place_of_addresses_and_the_other_way_round(bind: Pair) -> None:
    service = _service()
    alias, plain = _name(bind, service), _name(bind, service, record=Record.A)
    run(plain.point("pbx01", CLAIM))
    run(alias.point("pbx01", CLAIM))
    run(alias.verify("pbx01"))
    assert bind.dig(bind.primary, service, "CNAME") == [f"pbx01.{ZONE}."]
    run(plain.point("pbx02", CLAIM))
    run(plain.verify("pbx02"))
    assert bind.dig(bind.primary, service, "CNAME") == []
    assert bind.dig(bind.primary, service, "A") == ["198.51.100.12"]


def test_an_old_ttl_is_lowered(bind: Pair) -> None:
    service = _service()
    bind.nsupdate(f"update add {service} 3600 CNAME pbx01.{ZONE}.")
    name = _name(bind, service, verify_within=0.1)
    with pytest.raises(Denied, match="serves pbx01 with a TTL of 3600 s, not 30 s"):
        run(name.verify("pbx01"))
    run(name.point("pbx01", CLAIM))
    run(_name(bind, service).verify("pbx01"))


def test_a_lower_ttl_is_well(bind: Pair) -> None:
    service = _service()
    bind.nsupdate(f"update add {service} 5 CNAME pbx01.{ZONE}.")
    run(_name(bind, service).verify("pbx01"))


def test_other_records_at_the_name_are_named_as_the_obstacle(bind: Pair) -> None:
    service = _service()
    bind.nsupdate(f'update add {service} 60 TXT "in the way"')
    with pytest.raises(Denied, match=r"took the update, but .* still says nothing") as caught:
        run(_name(bind, service).point("pbx01", CLAIM))
    assert "Delete whatever else stands" in caught.value.hint


# The claim as a condition


def test_a_node_whose_claim_has_moved_on_cannot_move_the_name(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service)
    claims = _claims(bind, service)
    run(name.point("pbx01", CLAIM))
    taken = take(announce(CLAIM, "pbx02"), "pbx02", settle=0)
    assert run(claims.swap(CLAIM, taken))
    run(name.point("pbx02", taken))
    for stale in (CLAIM, announce(CLAIM, "pbx02"), touch(taken)):
        with pytest.raises(Denied, match="the claim has moved on"):
            run(name.point("pbx01", stale))
    assert bind.dig(bind.primary, service, "CNAME") == [f"pbx02.{ZONE}."]
    run(name.verify("pbx02"))


def test_even_a_name_that_is_right_already_needs_the_claim(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service)
    run(name.point("pbx01", CLAIM))
    with pytest.raises(Denied, match="the claim has moved on"):
        run(name.point("pbx01", touch(CLAIM)))


def test_an_update_that_arrives_late_is_refused_when_the_claim_has_moved_on(bind: Pair) -> None:
    service = _service()
    name, claims = _name(bind, service), _claims(bind, service)
    run(name.point("pbx01", CLAIM))
    taken = take(announce(CLAIM, "pbx02"), "pbx02", settle=0)
    back = take(announce(taken, "pbx01"), "pbx01", settle=0)

    async def overtaken() -> int:
        async with holding_back_updates(bind.primary.port) as held:
            slow = _slow(bind, service, held.port)
            await claims.swap(CLAIM, taken)
            with pytest.raises(Unanswered):
                await slow.point("pbx02", taken)
            await claims.swap(taken, back)
            return await held.let_go()

    assert run(overtaken()) == dns.rcode.NXRRSET
    run(name.verify("pbx01"))


# Verifying


def test_a_secondary_that_lags_is_named_with_what_it_serves(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service, verify_within=0.5)
    run(name.point("pbx01", CLAIM))
    run(_name(bind, service).verify("pbx01"))
    with pytest.raises(Denied) as caught:
        run(name.verify("pbx02"))
    for server in (bind.primary, bind.secondary):
        assert f"127.0.0.1:{server.port} still serves pbx01.{ZONE}" in str(caught.value)


def test_a_secondary_that_is_cut_off_is_named_and_found_again(bind: Pair) -> None:
    service = _service()
    run(_name(bind, service).point("pbx01", CLAIM))
    run(_name(bind, service).verify("pbx01"))
    bind.secondary.freeze()
    try:
        name = _name(bind, service, verify_within=0.6, timeout=0.3)
        run(name.point("pbx02", CLAIM))
        with pytest.raises(Unreachable) as caught:
            run(name.verify("pbx02"))
        assert f"127.0.0.1:{bind.secondary.port} does not answer" in str(caught.value)
        assert f"127.0.0.1:{bind.primary.port}" not in str(caught.value)
        look = run(name.look())
        assert look[f"127.0.0.1:{bind.primary.port}"] == "pbx02"
        assert look[f"127.0.0.1:{bind.secondary.port}"].startswith("? ")
    finally:
        bind.secondary.thaw()
    run(_name(bind, service).verify("pbx02"))


def test_a_secondary_that_was_down_catches_up(bind: Pair) -> None:
    service = _service()
    run(_name(bind, service).point("pbx01", CLAIM))
    bind.secondary.stop()
    try:
        run(_name(bind, service).point("pbx02", CLAIM))
        with pytest.raises(Unreachable, match=f"127.0.0.1:{bind.secondary.port}"):
            run(_name(bind, service, verify_within=0.4, timeout=0.2).verify("pbx02"))
    finally:
        bind.secondary.start()
    run(_name(bind, service).verify("pbx02"))


def test_a_resolver_among_the_servers_is_no_authority(bind: Pair) -> None:
    """The zone is not there: the server refuses, and so might a resolver."""
    name = Rfc2136Name(
        replace(_settings(bind), zone=DnsName("test"), verify_within=Seconds(0.1)),
        service="sip.elsewhere.test",
        nodes=NODES,
    )
    with pytest.raises(Denied, match=r"refuses to answer for sip\.elsewhere\.test"):
        run(name.verify("pbx01"))
    assert all(said.startswith("? ") for said in run(name.look()).values())


def test_what_nobody_of_ours_wrote_is_shown_as_it_is(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service)
    assert set(run(name.look()).values()) == {"nothing"}
    bind.nsupdate(f"update add {service} 30 CNAME elsewhere.example.org.")
    _until(lambda: set(run(name.look()).values()) == {"elsewhere.example.org"})


def test_the_servers_are_found_by_the_zone_s_ns_records(bind: Pair) -> None:
    net = "127.53.53"
    port = free_port(f"{net}.1")
    records = [
        "@ 60 NS ns2",
        f"ns 60 A {net}.1",
        f"ns2 60 A {net}.2",
        f"sip 30 CNAME pbx01.{ZONE}.",
    ]
    settings = replace(_settings(bind), server=Host(f"{net}.1"), port=Port(port), servers=())
    name = Rfc2136Name(
        replace(settings, verify_within=Seconds(0.3), timeout=Seconds(0.3)),
        service=f"sip.{ZONE}",
        nodes=NODES,
    )
    with demo_server(bind.key(), *records, address=f"{net}.1", port=port):
        with demo_server(bind.key(), *records, address=f"{net}.2", port=port):
            run(name.verify("pbx01"))
            run(name.point("pbx02", CLAIM))
            with pytest.raises(Denied, match=f"^{net}.2:{port} still serves pbx01.{ZONE}$"):
                run(name.verify("pbx02"))
        with pytest.raises(Unreachable, match=f"^{net}.2:{port} does not answer"):
            run(name.verify("pbx02"))
    # Once known, the servers are looked at even when the primary cannot name them any more.
    assert set(run(name.look())) == {f"{net}.1:{port}", f"{net}.2:{port}"}


# Refusals


def test_a_key_without_rights_is_told_the_line_that_it_needs(bind: Pair) -> None:
    service = _service()
    with pytest.raises(Denied, match="the key weak may not change this") as caught:
        run(_name(bind, service, key="weak").point("pbx01", CLAIM))
    assert f"grant weak name {service} CNAME A AAAA;" in caught.value.hint


def test_a_key_for_one_type_alone_is_enough(bind: Pair) -> None:
    name = _name(bind, f"only.{ZONE}", key="weak")
    for node in ("pbx01", "pbx02"):
        run(name.point(node, CLAIM))
        run(name.verify(node))


@pytest.mark.parametrize(("key", "why"), [("unknown", "BADKEY"), ("other-secret", "BADSIG")])
def test_a_wrong_key_is_explained(bind: Pair, key: str, why: str) -> None:
    with pytest.raises(Denied, match=why):
        run(_name(bind, _service(), key=key).point("pbx01", CLAIM))


def test_a_secondary_named_as_primary_is_refused(bind: Pair) -> None:
    service = _service()
    name = _name(bind, service, port=Port(bind.secondary.port))
    with pytest.raises(Denied, match="REFUSED") as caught:
        run(name.point("pbx01", CLAIM))
    assert "it is a secondary: name the primary" in caught.value.hint


def test_a_primary_that_is_down_is_unreachable_and_looks_like_it(bind: Pair) -> None:
    port = free_port()
    name = _name(bind, _service(), port=Port(port), servers=(), with_claim=False)
    with pytest.raises(Unreachable, match="Connection refused"):
        run(name.point("pbx01", CLAIM))
    with pytest.raises(Unreachable):
        run(name.verify("pbx01"))
    look = run(name.look())
    assert set(look) == {f"127.0.0.1:{port}"}
    assert look[f"127.0.0.1:{port}"].startswith("? ")


def test_what_can_never_work_is_refused_at_once(bind: Pair) -> None:
    def build(**changes: Any) -> None:
        service = changes.pop("service", f"sip.{ZONE}")
        nodes = changes.pop("nodes", NODES)
        Rfc2136Name(replace(_settings(bind), **changes), service=service, nodes=nodes)

    with pytest.raises(ConfigError, match="is not in the zone"):
        build(service="sip.example.org")
    with pytest.raises(ConfigError, match="cannot stand at the top of a zone"):
        build(service=ZONE)
    with pytest.raises(ConfigError, match=r"should look like \"_sip._udp:5060\""):
        build(record=Record.SRV, srv=("sip",))
    with pytest.raises(ConfigError, match="has no address"):
        build(record=Record.A, nodes={"pbx01": Target(host="pbx01", addresses=())})
    with pytest.raises(ConfigError, match="cannot be the value"):
        build(record=Record.A, nodes={"pbx01": Target(host="pbx01", addresses=("pbx01",))})


@pytest.mark.parametrize("kind", NAMES)
def test_every_setting_is_explained(kind: str) -> None:
    for each in fields(NAMES[kind].settings):
        assert each.metadata["doc"].endswith("."), f"{kind}.{each.name}"
    assert NAMES[kind].doc.endswith(".")


# Several names


def test_a_dead_view_keeps_no_other_from_moving(bind: Pair) -> None:
    service = _service()
    alive = _name(bind, service)
    dead = _name(bind, service, port=Port(free_port()), servers=())
    weak = _name(bind, _service(), key="weak")
    several = SeveralNames([dead, alive, weak])
    with pytest.raises(Denied) as caught:
        run(several.point("pbx01", CLAIM))
    assert "Connection refused" in str(caught.value)
    assert "the key weak may not change this" in str(caught.value)
    run(alive.verify("pbx01"))
    with pytest.raises(Denied, match="Connection refused"):
        run(several.verify("pbx01"))
    assert alive.where in several.where


def test_several_names_that_agree_are_one(bind: Pair) -> None:
    inside, outside = _name(bind, _service()), _name(bind, _service())
    several: ServiceName = SeveralNames([inside, outside])
    run(several.point("pbx02", CLAIM))
    run(several.verify("pbx02"))
    look = run(several.look())
    assert len(look) == 4
    assert set(look.values()) == {"pbx02"}


# The world


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with bind_pair(tmp_path_factory.mktemp("bind")) as pair:
        yield pair


def _settings(pair: Pair, key: str = "strong") -> Settings:
    return Settings(
        server=Host("127.0.0.1"),
        port=Port(pair.primary.port),
        zone=DnsName(ZONE),
        key_file=SecretFile(pair.key(key)),
        verify_within=Seconds(10.0),
        servers=tuple(_host_port(each) for each in (pair.primary, pair.secondary)),
    )


def _name(
    pair: Pair, service: str, *, key: str = "strong", with_claim: bool = True, **changes: Any
) -> Rfc2136Name:
    """The service name, on condition of a claim that is made here if there is none."""
    if with_claim:
        run(_claims(pair, service).create(CLAIM))
    return Rfc2136Name(
        replace(_settings(pair, key), **changes),
        service=service,
        nodes=NODES,
        claim_record=f"_understudy.{service}" if with_claim else None,
    )


def _slow(pair: Pair, service: str, port: int) -> Rfc2136Name:
    return Rfc2136Name(
        replace(_settings(pair), port=Port(port), timeout=Seconds(0.3)),
        service=service,
        nodes=NODES,
        claim_record=f"_understudy.{service}",
    )


def _claims(pair: Pair, service: str) -> ClaimStore:
    settings = _settings(pair)
    return CLAIMS["dns"].build(
        claim_dns.Settings(),
        service=service,
        server=settings.server,
        port=settings.port,
        zone=settings.zone,
        key_file=settings.key_file,
    )


def _host_port(server: Bind) -> HostPort:
    return HostPort(f"127.0.0.1:{server.port}")


def _service() -> str:
    return f"sip{next(_NUMBERS)}.{ZONE}"


def _until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)
