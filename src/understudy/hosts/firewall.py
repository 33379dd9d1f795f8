"""Who must reach whom: for the firewalls in between."""

from collections.abc import Iterator

from understudy.adapters.claims.dns import Settings as ClaimSettings
from understudy.adapters.names.rfc2136 import Settings as NameSettings
from understudy.adapters.notify.mail import Settings as MailSettings
from understudy.adapters.probes.nrpe import Settings as NrpeSettings
from understudy.config.schema import Config

from . import mariadb
from .piece import Flow


def flows(config: Config) -> tuple[Flow, ...]:
    return tuple(
        dict.fromkeys(
            (*_questions(config), *_between_nodes(config), *_names(config), *_messages(config))
        )
    )


def _questions(config: Config) -> Iterator[Flow]:
    for name, chosen in config.checkpoints.items():
        if not isinstance(chosen.settings, NrpeSettings):
            continue
        for node in config.nodes:
            yield Flow(
                source=_node(config, node),
                target=f"{name} {chosen.settings.address}",
                port=str(chosen.settings.port),
                protocol="tcp",
                why="NRPE: is the PBX there?",
            )
            yield _sip(config, f"{name} {chosen.settings.address}", node, "the check point asks")
    if any(chosen.kind == "sip" for chosen in config.checkpoints.values()):
        for asker, node in _ways(config):
            yield _sip(config, _node(config, asker), node, "the other node asks")
    for node in config.nodes:
        yield _sip(config, "phones, providers", node, "calls, on the standby too: and RTP as today")


def _between_nodes(config: Config) -> Iterator[Flow]:
    for source, target in _ways(config):
        if config.nodes[target].ssh is not None:
            yield Flow(
                source=_node(config, source),
                target=_node(config, target),
                port="22",
                protocol="tcp",
                why="SSH: ask, fence, wake, place an order",
            )
        for settings in mariadb.chosen(config):
            yield Flow(
                source=_node(config, source),
                target=_node(config, target),
                port=str(settings.port),
                protocol="tcp",
                why="MariaDB: the copy of the databases",
            )


def _names(config: Config) -> Iterator[Flow]:
    places: list[tuple[str, int, str]] = []
    for one in config.names:
        if isinstance(one.settings, NameSettings):
            places.append(
                (one.settings.server, one.settings.port, "the claim and the name: primary")
            )
            for server in one.settings.servers:
                host, _, port = server.rpartition(":")
                places.append((host.strip("[]"), int(port), "does every name server follow?"))
            if not one.settings.servers:
                whole = f"all name servers of {one.settings.zone}"
                places.append((whole, one.settings.port, "does every name server follow?"))
    claim = config.claim.settings
    if isinstance(claim, ClaimSettings) and claim.server:
        places.append((claim.server, claim.port or 53, "the claim: primary"))
    for target, number, why in places:
        for node in config.nodes:
            yield Flow(
                source=_node(config, node),
                target=target,
                port=str(number),
                protocol="tcp+udp",
                why=why,
            )


def _messages(config: Config) -> Iterator[Flow]:
    for name, chosen in config.notify.items():
        if not isinstance(chosen.settings, MailSettings) or chosen.settings.server == "localhost":
            continue
        for node in config.nodes:
            yield Flow(
                source=_node(config, node),
                target=chosen.settings.server,
                port=str(chosen.settings.port_or_usual),
                protocol="tcp",
                why=f"SMTP: {name}",
            )


def _sip(config: Config, source: str, node: str, why: str) -> Flow:
    service = config.service.settings
    protocol = "udp" if service.sip_transport == "udp" else "tcp"
    return Flow(
        source=source,
        target=_node(config, node),
        port=str(service.sip_port),
        protocol=protocol,
        why=f"SIP: {why}",
    )


def _node(config: Config, name: str) -> str:
    return f"{name} {config.nodes[name].address}"


def _ways(config: Config) -> Iterator[tuple[str, str]]:
    first, second = config.nodes
    yield from ((first, second), (second, first))
