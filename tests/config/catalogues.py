"""A small adapter of each family, so that the tests of the loader need none of the real ones."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from understudy.config.describe import Families
from understudy.config.load import Catalogues
from understudy.config.settings import (
    Command,
    DnsName,
    Host,
    HostPort,
    InputFile,
    Port,
    Seconds,
    SecretFile,
    setting,
)


class Tls(StrEnum):
    ANONYMOUS = "anonymous"
    OFF = "off"


class Record(StrEnum):
    CNAME = "CNAME"
    A = "A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nrpe:
    address: Host = setting("The check point.", example="192.0.2.21")
    port: Port = setting("Its port.", default=5666)
    tls: Tls = setting("How it is protected.", default="anonymous")
    ca_file: InputFile | None = setting("Who signed.", default=None, example="/etc/hosts")
    command: str = setting("What is asked there.", default="check_{node}")
    timeout: Seconds = setting("How long one question may take.", default="10s")
    retries: int = setting("How often it is asked.", default=1)

    def __post_init__(self) -> None:
        if "{node}" not in self.command:
            raise ValueError("command is the same for both nodes.  Put {node} into it")
        if self.retries > 3:
            raise ValueError("three retries are enough")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    command: Command = setting("The plugin.", example=["/bin/true", "{node}"])
    timeout: Seconds = setting("How long it may take.", default=Seconds(10.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsClaim:
    server: Host | None = setting("The primary.", default=None, example="203.0.113.53")
    zone: DnsName | None = setting("The zone.", default=None, example="example.com")
    key_file: SecretFile | None = setting("The key.", default=None, example="/etc/tsig.key")
    timeout: Seconds = setting("How long one reading may take.", default=Seconds(3.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FileClaim:
    path: InputFile = setting("The file.", example="/var/lib/understudy/claim")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rfc2136:
    server: Host = setting("The primary.", example="203.0.113.53")
    zone: DnsName = setting("The zone.", example="example.com")
    record: Record = setting("What the name is made of.", default=Record.CNAME)
    ttl: Seconds = setting("How long it is kept.", default=Seconds(30.0))
    key_file: SecretFile = setting("The key.", example="/etc/understudy/tsig.key")
    servers: tuple[HostPort, ...] = setting(
        "All servers.", default=(), example=["203.0.113.53:53", "[2001:db8::1]:53"]
    )
    secure: bool = setting("Is it signed?", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Systemd:
    unit: str = setting("The unit.", example="asterisk")
    stop_within: Seconds = setting("How long a stop may take.", default=Seconds(25.0))
    active_only: tuple[str, ...] = setting("More units.", default=(), example=["x.timer"])
    sip_ports: tuple[Port, ...] = setting("Its ports.", default=(Port(5060),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    paths: tuple[Path, ...] = setting("What is copied.", example=["/etc/asterisk/"])
    every: Seconds = setting("How often.", default=Seconds(120.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    to: tuple[str, ...] = setting("Who is told.", example=["ops@example.com"])
    password_file: SecretFile | None = setting("Its key.", default=None, example="/etc/mail.key")
    timeout: Seconds = setting("How long one mail may take.", default=Seconds(30.0))


@dataclass(frozen=True, slots=True)
class Member:
    settings: type
    doc: str


FAMILIES: Families = {
    "checkpoints": {
        "nrpe": Member(Nrpe, "Asks an NRPE daemon."),
        "command": Member(Plugin, "Runs a plugin."),
    },
    "claim": {
        "dns": Member(DnsClaim, "A TXT record."),
        "file": Member(FileClaim, "A file."),
    },
    "name": {"rfc2136": Member(Rfc2136, "Your own name server.")},
    "service": {"systemd": Member(Systemd, "A unit of systemd.")},
    "copies": {"rsync": Member(Files, "Folders.")},
    "notify": {"mail": Member(Mail, "A mail."), "command": Member(Plugin, "A program.")},
}
CATALOGUES: Catalogues = {
    family: {kind: member.settings for kind, member in kinds.items()}
    for family, kinds in FAMILIES.items()
}

VALID = """\
[pair]
name = "acme"
service = "sip.example.com"
preferred = "pbx01"

[nodes.pbx01]
host = "pbx01.example.com"
address = "192.0.2.11"
ssh = "understudy@192.0.2.11"
isolation = "stop"

[nodes.pbx02]
host = "pbx02.example.com"
address = "198.51.100.12"
ssh = "understudy@198.51.100.12"
isolation = "stop"

[detection]
interval = "60s"
patience = "5m"
announce = "45s"
claim_stale = "15s"
checkpoints_stale = "90s"
agreement = "unanimous"

[checkpoints.cp1]
kind = "nrpe"
address = "192.0.2.21"

[checkpoints.cp2]
kind = "nrpe"
address = "203.0.113.22"

[checkpoints.cp3]
kind = "nrpe"
address = "198.51.100.23"

[claim]
kind = "dns"

[name]
kind = "rfc2136"
server = "203.0.113.53"
zone = "example.com"
record = "CNAME"
ttl = "30s"
key_file = "tsig.key"

[service]
kind = "systemd"
unit = "asterisk"
stop_within = "25s"

[journal]
path = "journal.sqlite3"
"""
