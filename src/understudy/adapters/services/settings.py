"""What every kind of service is told about its PBX."""

from dataclasses import dataclass

from understudy.adapters.probes.sip import Transport
from understudy.config import values
from understudy.config.settings import HostPort, InputFile, Port, Seconds, setting

from .calls import PROGRAMS
from .shutoff import PORTS


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxSettings:
    stop_within: Seconds = setting(
        "From the request to stop to the proof that no process of the PBX is left.  After 70 % of "
        "it, they are killed.",
        default=Seconds(25.0),
    )
    start_within: Seconds = setting(
        "From the request to start to the first SIP answer.", default=Seconds(60.0)
    )
    sip: HostPort = setting(
        "Where the PBX listens for SIP on this machine.", default=HostPort("127.0.0.1:5060")
    )
    sip_transport: Transport = setting("How it is asked there.", default=Transport.UDP)
    sip_timeout: Seconds = setting("How long to wait for its answer.", default=Seconds(2.0))
    sip_ca_file: InputFile | None = setting(
        "The authority that signed the PBX's certificate, for TLS.  Without it: the system's.",
        default=None,
        example="/etc/understudy/pbx-ca.pem",
    )
    sip_ports: tuple[Port, ...] = setting(
        "All ports on which it speaks SIP: shut off by a packet filter if it cannot be stopped.",
        default=tuple(Port(port) for port in PORTS),
    )
    use_sudo: bool = setting(
        "Run systemctl and nft by `sudo -n`, for an agent that is not root and has no polkit.",
        default=False,
    )
    calls: tuple[str, ...] = setting(
        "Says how many calls are in progress: a program with its whole path, and its arguments.  Orders then say how "
        'many they cut off, and `switchover --drain` can wait for none.  It must say "N active calls" '
        '(Asterisk), "N total" (FreeSWITCH), "all: N" (Kamailio), or a number alone; in 5 s.',
        default=(),
        example=list(PROGRAMS["asterisk"]),
    )

    def __post_init__(self) -> None:
        """Root may run it: what it is must not depend on a PATH, or on a folder.  Raises ValueError."""
        if self.calls and not self.calls[0].startswith("/"):
            raise ValueError(
                "calls does not begin with a whole path.  Write e.g. "
                f"{values.text(list(PROGRAMS['asterisk']))}."
            )

    @property
    def sip_port(self) -> int:
        return int(self.sip.rpartition(":")[2])

    @property
    def all_ports(self) -> tuple[int, ...]:
        """What is shut off when it cannot be stopped (S5)."""
        return (*self.sip_ports, self.sip_port)
