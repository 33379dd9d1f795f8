"""One definition per setting: its type, default, explanation and example.

Loading, the sample file and docs/reference/config.md all read these definitions.  Settings live
with their adapter, as frozen keyword-only dataclasses whose fields are made by `setting`; the
loader gets the catalogues as an argument.

The types below say how a value is written in TOML; `config.load` turns text into them and refuses
the rest.
"""

from dataclasses import MISSING, field
from pathlib import Path
from typing import Any, NewType

Seconds = NewType(
    "Seconds", float
)  # "60s", "5m", "2h", "1d", "250ms"; always a float of seconds here.
Host = NewType("Host", str)  # A host name or an IP address, without a port.
HostPort = NewType(
    "HostPort", str
)  # "192.0.2.1:5060", "[2001:db8::1]:5060", "pbx01.example.com:5060".
Port = NewType("Port", int)  # 1 to 65535.
DnsName = NewType("DnsName", str)  # A domain name, kept without the trailing dot.
SecretFile = NewType(
    "SecretFile", Path
)  # Must exist and be readable by its owner (and group) alone.
InputFile = NewType("InputFile", Path)  # Must exist.
Command = NewType("Command", tuple[str, ...])  # ["program", "argument", ...]; no shell.

# Fields may also be str, int, bool, StrEnum classes, tuples of any of these, and `X | None`.


def setting(doc: str, *, default: Any = MISSING, example: Any = MISSING) -> Any:
    """Declare a setting.

    `doc` ends with a full stop; `default` and `example` are as written in TOML, or as typed here.
    """
    return field(default=default, metadata={"doc": doc, "example": example})
