"""What the service name can lead to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One node, as callers find it."""

    host: str  # pbx01.example.com: what a CNAME or an SRV record says.
    addresses: tuple[str, ...]  # IPv4 and IPv6: what A and AAAA records say.
