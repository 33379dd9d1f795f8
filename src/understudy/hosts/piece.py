"""The nouns: what a host must have, what must get through to it, and what the configuration does not say."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from understudy.config.schema import Config

USUAL_CONFIG = Path("/etc/understudy/understudy.toml")
SSH_FOLDER = "/etc/understudy/ssh"
HOME = "/var/lib/understudy"
PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A file that a host must have.  Without a path: only what is to be done there.

    Putting it there twice, and every command in `then` twice, does no more than once.
    """

    host: str  # A node, a check point, or "nameserver".
    path: str = ""
    text: str = ""
    mode: int = 0o644
    owner: str = "root:root"
    why: str
    then: tuple[str, ...] = ()  # Commands for sh(1), as root, once the file is in its place.
    by_hand: tuple[str, ...] = ()  # What only a person can do: lines in files that are not ours.
    secret: bool = False  # Its text is never shown.
    first: bool = False  # Without it `understudy init --install` cannot do the rest there.
    only_if: str = ""  # A path: a host without it does not need the piece.


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What the firewalls between two hosts must let through."""

    source: str
    target: str
    port: str
    protocol: str
    why: str


class PbxKind(StrEnum):
    ASTERISK = "asterisk"
    FREESWITCH = "freeswitch"
    KAMAILIO = "kamailio"
    OTHER = "other"


class NameServerKind(StrEnum):
    BIND = "bind"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The public SSH keys of a node: `ssh-ed25519 AAAA...` each."""

    agent: str
    host: str

    @classmethod
    def read(cls, line: str) -> tuple[str, "Keys"]:
        """A node's name and its keys from what `understudy init --keys` prints.  Raises ValueError."""
        words = line.split()
        if len(words) != 5:
            raise ValueError(
                "not the line that `understudy init --keys` prints on the other node: its name, "
                "the key of its agent (two words), the key of its SSH server (two words)"
            )
        name, *rest = words
        keys = cls(agent=" ".join(rest[:2]), host=" ".join(rest[2:]))
        for key in (keys.agent, keys.host):
            if not PUBLIC_KEY.fullmatch(key):
                raise ValueError("holds something that is no public SSH key")
        return name, keys

    def line(self, node: str) -> str:
        return f"{node} {self.agent} {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the configuration does not say."""

    pbx: PbxKind = PbxKind.ASTERISK
    name_server: NameServerKind = NameServerKind.BIND
    user: str = "understudy"
    program: str = "/usr/bin/understudy"
    nrpe_include: str = "/etc/nagios/nrpe.d"
    plugins: str = "/usr/lib/nagios/plugins"
    keys: Mapping[str, Keys] = field(default_factory=dict)  # By node, as far as they are known.
    config_text: str = ""  # The file itself, for the other node.
    tsig_key: str = ""  # The file itself, for the other node and the name server.
    tsig_name: str = "understudy"


def command(config: Config, choices: Choices, *words: str) -> str:
    """This program with that configuration, for a shell or a unit file."""
    given = () if config.path == USUAL_CONFIG else ("--config", str(config.path))
    return shlex.join((choices.program, *given, *words))


def other_node(config: Config, node: str) -> str:
    return next(name for name in config.nodes if name != node)
