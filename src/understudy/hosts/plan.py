"""Everything that every host of a pair must have, in the order in which it is done there."""

from understudy.config.schema import Config

from . import copies, dns, firewall, mariadb, nrpe, ours, privileges, sip, ssh, units
from .piece import Choices, Flow, Piece

CONCERNS = (ours, privileges, ssh, units, copies, mariadb, sip, nrpe, dns)


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    found = [piece for concern in CONCERNS for piece in concern.pieces(config, choices)]
    order = hosts(config)
    return tuple(sorted(found, key=lambda piece: order.index(piece.host)))


def flows(config: Config) -> tuple[Flow, ...]:
    return firewall.flows(config)


def hosts(config: Config) -> list[str]:
    return [*config.nodes, *config.checkpoints, "nameserver"]
