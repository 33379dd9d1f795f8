"""What is ours on a node: the configuration, which node this is, the key for the name server."""

from understudy.config.schema import Config

from . import dns
from .piece import Choices, Piece


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    return tuple(piece for node in config.nodes for piece in _of_node(node, config, choices))


def _of_node(node: str, config: Config, choices: Choices) -> list[Piece]:
    group = f"root:{choices.user}"
    found = []
    if choices.config_text:
        found.append(
            Piece(
                host=node,
                path=str(config.path),
                text=choices.config_text,
                mode=0o640,
                owner=group,
                first=True,
                why="The configuration, the same file on both nodes.",
            )
        )
    found.append(
        Piece(
            host=node,
            path=str(config.path.parent / "node"),
            text=f"{node}\n",
            first=True,
            why="Which node this is.",
        )
    )
    for file in dict.fromkeys(zone.key_file for zone in dns.zones(config, choices)):
        if choices.tsig_key:
            found.append(
                Piece(
                    host=node,
                    path=file,
                    text=choices.tsig_key,
                    mode=0o640,
                    owner=group,
                    secret=True,
                    first=True,
                    why="The key by which the name server knows the nodes.",
                )
            )
        else:
            make = f"tsig-keygen -a hmac-sha256 {choices.tsig_name} >{file}"
            found.append(
                Piece(
                    host=node,
                    why="The key by which the name server knows the nodes, the same on both.",
                    by_hand=(f"{make}; chown {group} {file}; chmod 640 {file}",),
                )
            )
    return found
