"""What the primary name server must know: one key, and exactly what that key may change."""

from dataclasses import dataclass, field

from understudy.adapters.claims.dns import Settings as ClaimSettings
from understudy.adapters.names.rfc2136 import Record
from understudy.adapters.names.rfc2136 import Settings as NameSettings
from understudy.config.schema import Config

from .piece import Choices, NameServerKind, Piece

KEY = "/etc/bind/understudy.key"
POLICY = "/etc/bind/understudy-policy.{zone}"


@dataclass(slots=True, kw_only=True)
class Zone:
    """One zone at its primary: what the key may change there, and no more."""

    server: str
    zone: str
    key_file: str
    key_name: str
    rights: list[tuple[str, str]] = field(
        default_factory=list
    )  # A name, and the types of its records.


def zones(config: Config, choices: Choices) -> list[Zone]:
    found: dict[tuple[str, str], Zone] = {}
    given = [one.settings for one in config.names if isinstance(one.settings, NameSettings)]
    for name in given:
        zone = _zone(found, name.server, name.zone, str(name.key_file), name.key_name, choices)
        zone.rights += _of_name(name, config.pair.service)
    claim = config.claim.settings
    if isinstance(claim, ClaimSettings):
        # As wiring has it: what [claim] leaves open is what the one [name] says.
        giver = given[0] if len(given) == 1 else None
        server = claim.server or (giver.server if giver else "")
        where = claim.zone or (giver.zone if giver else "")
        file = claim.key_file or (giver.key_file if giver else None)
        key = claim.key_name or (giver.key_name if giver and not claim.key_file else None)
        zone = _zone(found, server, where, str(file), key, choices)
        zone.rights.append((claim.record or f"_understudy.{config.pair.service}", "TXT"))
    return list(found.values())


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    if choices.name_server is not NameServerKind.BIND:
        return tuple(_by_hand(zone) for zone in zones(config, choices))
    return tuple(
        piece for zone in zones(config, choices) for piece in (_key(zone, choices), _policy(zone))
    )


def grants(zone: Zone) -> list[str]:
    return [f"grant {zone.key_name} name {name}. {types};" for name, types in zone.rights]


def _zone(
    found: dict[tuple[str, str], Zone],
    server: str,
    zone: str,
    key_file: str,
    key_name: str | None,
    choices: Choices,
) -> Zone:
    fresh = Zone(
        server=server, zone=zone, key_file=key_file, key_name=key_name or choices.tsig_name
    )
    return found.setdefault((server, zone), fresh)


def _of_name(name: NameSettings, service: str) -> list[tuple[str, str]]:
    match name.record:
        case Record.CNAME:
            return [(service, "CNAME")]
        case Record.A:
            return [(service, "A AAAA")]
        case Record.SRV:
            return [(f"{each.partition(':')[0]}.{service}", "SRV") for each in name.srv]


def _key(zone: Zone, choices: Choices) -> Piece:
    by_hand = () if choices.tsig_key else (f"copy {zone.key_file} of a node to {KEY}",)
    return Piece(
        host="nameserver",
        path=KEY if choices.tsig_key else "",
        text=choices.tsig_key,
        mode=0o640,
        owner="root:bind",
        secret=True,
        why=f"The key by which {zone.server} knows the nodes.",
        by_hand=by_hand,
    )


def _policy(zone: Zone) -> Piece:
    path = POLICY.format(zone=zone.zone)
    granted = "\n".join(f"    {each}" for each in grants(zone))
    return Piece(
        host="nameserver",
        path=path,
        text=(
            "// Understudy (understudy init): what its key may change in this zone, and no more.\n"
            f"update-policy {{\n{granted}\n}};\n"
        ),
        why=f"The key may move the service name and write the claim in {zone.zone}, and nothing else.",
        by_hand=(
            f'in named.conf: include "{KEY}";',
            f'in its zone "{zone.zone}" {{ ... }}: include "{path}";   (has it an update-policy already: '
            "add the grant lines to that)",
            "then: named-checkconf && rndc reconfig",
            "a zone that takes updates is edited with: rndc freeze, rndc thaw",
        ),
    )


def _by_hand(zone: Zone) -> Piece:
    rights = "; ".join(f"{types} at {name}" for name, types in zone.rights)
    return Piece(
        host="nameserver",
        why=f"{zone.server} must know the nodes by a key, and let it change exactly what it has to.",
        by_hand=(
            f"the key {zone.key_name} as {zone.key_file} of a node has it",
            f"by RFC 2136 that key may change in {zone.zone}: {rights}; and nothing else",
        ),
    )
