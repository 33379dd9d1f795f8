"""What every kind of service is told about its PBX."""

from dataclasses import dataclass

from understudy.adapters.probes.sip import Transport
from understudy.config.settings import HostPort, InputFile, Port, Seconds, setting

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

    @property
    def sip_port(self) -> int:
        return int(self.sip.rpartition(":")[2])

    @property
    def all_ports(self) -> tuple[int, ...]:
        """What is shut off when it cannot be stopped (S5)."""
        return (*self.sip_ports, self.sip_port)
