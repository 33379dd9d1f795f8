"""Where the claim may live.

`build(settings, *, service, server=None, port=None, zone=None, key_file=None, key_name=None)`:
`service` is the service name of the pair, the rest what `[name]` says (claims.dns.resolve has the
rules; other kinds ignore it). Raises ConfigError.
"""

from understudy.adapters.claims import dns, file
from understudy.adapters.kind import Catalogue, Kind
from understudy.ports import ClaimStore

CLAIMS: Catalogue[ClaimStore] = {
    "dns": Kind(
        dns.Settings,
        dns.build,
        "A TXT record on your own primary name server, changed by RFC 2136 updates.",
    ),
    "file": Kind(
        file.Settings,
        file.build,
        "A file on one machine: for the demo and for trying things out, not for two servers.",
    ),
}
