"""What a configuration file says, as values.  The adapters bring settings of their own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from understudy.config.settings import (
    Command,
    DnsName,
    Host,
    InputFile,
    Seconds,
    SecretFile,
    setting,
)
from understudy.core.policy import Agreement, Isolation

FILES = {Path, InputFile, SecretFile}


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """Two nodes that stand in for each other."""

    name: str = setting(
        "What people call this pair, in mails and on the status page.", example="acme"
    )
    service: DnsName = setting(
        "The name that phones and providers call.", example="sip.example.com"
    )
    preferred: str = setting("The node that is active when all is well.", example="pbx01")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """One PBX server.  There are two."""

    host: Host = setting("What the service name points to.", example="pbx01.example.com")
    address: Host = setting("Where this node is reached.", example="192.0.2.11")
    ssh: str | None = setting(
        "The other node's way in over SSH: a user of its own with a forced command.",
        default=None,
        example="understudy@192.0.2.11",
    )
    door: Command | None = setting(
        "A command that reaches this node's agent, instead of SSH (demo and tests).",
        default=None,
        example=["ssh", "-F", "/etc/understudy/ssh_config", "pbx01"],
    )
    isolation: Isolation = setting(
        'What this node does when it can see neither the claim nor the check points.  "stop": it '
        "stops its PBX, two are never active, and an office whose phones sit on the same network "
        'falls silent.  "keep": that office goes on telephoning, and two may be active.',
        example="stop",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """When a node counts as dead, and how old a proof may be."""

    interval: Seconds = setting(
        "Time from one round of questions to the next, give or take a tenth; at least 1s.",
        default=Seconds(60.0),
    )
    patience: Seconds = setting(
        "How long the verdict must stay down, without a break, before a failover.",
        default=Seconds(300.0),
    )
    announce: Seconds = setting(
        "How long an announcement stands before the claim is taken; the last part of patience.",
        default=Seconds(45.0),
    )
    claim_stale: Seconds = setting(
        "How old a reading of the claim may be and still prove that this node is active.",
        default=Seconds(15.0),
    )
    checkpoints_stale: Seconds = setting(
        "How old the check points' word may be and still prove that a node is up.",
        default=Seconds(90.0),
    )
    agreement: Agreement = setting(
        "When check points agree that a node is down.  unanimous: a majority of them answers, and "
        "every answer is down.  majority: more than half of them say down.  all: every one does.",
        default=Agreement.UNANIMOUS,
    )
    restart_grace: Seconds = setting(
        "How long a PBX that died may take to come back by itself before its node hands over.",
        default=Seconds(20.0),
    )
    settle_down: Seconds = setting(
        "How long after an automatic change no second one is made, unless a person acknowledges.",
        default=Seconds(600.0),
    )
    first_proof: Seconds = setting(
        "How long an agent without any proof (just started, or its machine stood still) may look for one.",
        default=Seconds(15.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """What a node remembers: what it saw, decided and did, and why."""

    path: Path = setting(
        "The file that holds the journal.", default=Path("/var/lib/understudy/journal.sqlite3")
    )
    keep: Seconds = setting("How long an entry is kept.", default=Seconds(90 * 86_400.0))


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which member of a family, and that member's own settings."""

    kind: str
    settings: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One file, read and found right.  Build it with `config.load.load`."""

    pair: PairSettings
    nodes: Mapping[str, NodeSettings]
    detection: Detection
    checkpoints: Mapping[str, Chosen]
    claim: Chosen
    names: tuple[Chosen, ...]
    service: Chosen
    journal: JournalSettings
    path: Path  # Of the file.
    copies: Mapping[str, Chosen] = field(default_factory=dict)  # Something else may copy the data.
    notify: Mapping[str, Chosen] = field(default_factory=dict)  # Nobody need be told.
    notes: tuple[str, ...] = ()  # What is allowed, and worth knowing: `file:line: sentence`.

    @property
    def digest(self) -> str:
        """C6: 16 hexadecimal digits that are equal on both nodes when they judge alike.

        Made of nodes, detection and check points, and of the two deadlines beyond them that the
        sums of T2 use.  Names of local files do not count: a key may lie elsewhere on the
        other node.
        """
        judged = {
            "nodes": {name: _plain(node) for name, node in self.nodes.items()},
            "detection": _plain(self.detection),
            "checkpoints": {
                name: [chosen.kind, _plain(chosen.settings)]
                for name, chosen in self.checkpoints.items()
            },
            "stop_within": stop_within(self),
            "claim_reading": claim_reading(self),
        }
        text = json.dumps(judged, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def question(config: Config) -> float:
    """Seconds within which the slowest check point must have answered one question."""
    return max((_timeout(c.settings, 10.0) for c in config.checkpoints.values()), default=10.0)


def claim_reading(config: Config) -> float:
    """Seconds within which the claim has been read, or has not."""
    return _timeout(config.claim.settings, 3.0)


def stop_within(config: Config) -> float:
    """Seconds within which this machine's PBX is proved stopped."""
    return float(config.service.settings.stop_within)


def _timeout(settings: Any, otherwise: float) -> float:
    return float(getattr(settings, "timeout", otherwise))


def _plain(settings: Any) -> dict[str, Any]:
    """Files are left out even when unset: who has a key file and who has none may still agree."""
    hints = get_type_hints(type(settings))
    return {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if not FILES & {hints[field.name], *get_args(hints[field.name])}
    }
