"""Which hosts there are, where they stand, and what runs on them.  Addresses are those of RFC 5737.

Names that begin with `probe` are no machines: a network namespace each, from which the instruments look.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The image, and what the hosts write.  Another place: LAB_HOME.
HOME = Path(os.environ.get("LAB_HOME", "/var/cache/understudy-lab"))
IMAGE = HOME / "image"


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    address: str
    site: str
    role: str  # The directory below conf/; a probe has none.
    units: tuple[str, ...] = ()

    @property
    def is_machine(self) -> bool:
        return bool(self.role)

    @property
    def namespace(self) -> str:
        return f"lab-{self.name}"

    @property
    def folder(self) -> Path:
        """The overlay of this host: what it wrote (up), and what it sees (root)."""
        return HOME / "hosts" / self.name


PBX = ("ssh", "nagios-nrpe-server")
CHECKPOINT = ("ssh", "nagios-nrpe-server")
_ALL = (
    Host("pbx01", "192.0.2.11", "siteA", "pbx", PBX),
    Host("cp1", "192.0.2.21", "siteA", "cp", CHECKPOINT),
    Host("probeA", "192.0.2.200", "siteA", ""),
    Host("pbx02", "198.51.100.12", "siteB", "pbx", PBX),
    Host("cp2", "198.51.100.22", "siteB", "cp", CHECKPOINT),
    Host("probeB", "198.51.100.200", "siteB", ""),
    Host("cp3", "203.0.113.23", "inet", "cp", CHECKPOINT),
    Host("dns1", "203.0.113.53", "inet", "dns1", ("named", "ssh")),
    Host("dns2", "203.0.113.54", "inet", "dns2", ("named",)),
    Host("prov", "203.0.113.80", "inet", "prov", ("named", "kamailio", "pstn", "mail")),
    Host("phones", "203.0.113.100", "inet", "phones", ("baresip@6001", "baresip@6002")),
    Host("probeI", "203.0.113.200", "inet", ""),
)
HOSTS = {host.name: host for host in _ALL}
MACHINES = tuple(host.name for host in _ALL if host.is_machine)
SITES = ("siteA", "siteB", "inet")
NODES = ("pbx01", "pbx02")
CHECKPOINTS = ("cp1", "cp2", "cp3")
PROBES = ("probeA", "probeB", "probeI")
NAT_ADDRESS = "203.0.113.250"  # What a home router would show of the phones behind it.


class LabError(Exception):
    """A sentence for who works in the laboratory."""


def find(name: str) -> Host:
    if name not in HOSTS:
        raise LabError(f"there is no host {name}.  Hosts: {', '.join(HOSTS)}")
    return HOSTS[name]


def members(name: str) -> tuple[Host, ...]:
    """Of a host, a site, or `all`."""
    if name == "all":
        return _ALL
    if name in SITES:
        return tuple(host for host in _ALL if host.site == name)
    return (find(name),)


def pairs(first: str, second: str, *, oneway: bool = False) -> Sequence[tuple[str, str]]:
    """(source, destination) addresses between two hosts or sites, each once."""
    found: dict[tuple[str, str], None] = {}
    for a in members(first):
        for b in members(second):
            if a.name == b.name:
                continue
            found[a.address, b.address] = None
            if not oneway:
                found[b.address, a.address] = None
    return tuple(found)
