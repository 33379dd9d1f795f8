"""Why a check point could not be asked, for whoever is woken by it.

A daemon that refuses a question says nothing: it closes.  Many causes then look alike, and only its
own log tells, so those sentences name the likely causes in the order in which they are worth a
look.
"""

import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

from understudy.adapters.probes.nrpe_packet import PacketError


class Tls(StrEnum):
    ANONYMOUS = "anonymous"
    VERIFIED = "verified"
    OFF = "off"


class Stage(StrEnum):
    """How far a question came."""

    QUEUED = "queued"  # Other questions to this daemon are under way.
    CONNECTING = "connecting"
    SECURING = "securing"  # TCP stands, TLS does not yet.
    ASKED = "asked"


class Closed(Exception):
    """The daemon ended the connection without a whole answer.  The cause, if any, is __cause__."""

    def __init__(self, received: int) -> None:
        super().__init__(received)
        self.received = received  # Bytes of the answer.


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What explain() needs to know about the question."""

    where: str
    tls: Tls
    timeout: float
    stage: Stage


def explain(error: Exception, asked: Asked) -> str:
    """One sentence on what is wrong, and where to look."""
    # The order matters: each is a kind of the later ones.
    match error:
        case Closed(__cause__=ssl.SSLError() as cause):
            return _tls(cause, asked)
        case Closed():
            return _closed(error, asked)
        case TimeoutError():
            return _late(asked)
        case ssl.SSLCertVerificationError():
            return _certificate(error, asked)
        case ssl.SSLError():
            return _tls(error, asked)
        case PacketError():
            return f"{asked.where} answers, but {error}: is this the port of an NRPE daemon?"
        case socket.gaierror():
            return f"{asked.where}: the name cannot be resolved ({error.strerror})"
        case ConnectionRefusedError():
            return (
                f"nobody listens at {asked.where}: nrpe is not running there, or uses another port"
            )
        case ConnectionError() if asked.stage is not Stage.CONNECTING:
            return _closed(Closed(0), asked)
        case OSError():
            return f"no connection to {asked.where}: {error.strerror or error}"
        case _:
            return f"cannot ask {asked.where}: {error}"


def daemons_hint(text: str) -> str:
    """What to do about the daemon's own sentences (nrpe.c), or nothing."""
    if not text.startswith("NRPE: "):
        return ""
    for known, hint in _DAEMON_SAYS.items():
        if known in text:
            return f" ({hint})"
    return ""


_DAEMON_SAYS = {
    "not defined": "add it to nrpe.cfg on the check point and restart nrpe there",
    "Unable to read output": "the plugin is missing there, may not be run, or printed nothing",
    "timed out": "the check takes longer than command_timeout in nrpe.cfg there",
}


def _closed(error: Closed, asked: Asked) -> str:
    if error.received:
        return f"{asked.where} broke off after {error.received} bytes of its answer"
    if asked.stage is Stage.SECURING:
        cause = "allowed_hosts lacks our address, or it runs without TLS (-n)"
    elif asked.tls is Tls.OFF:
        cause = (
            "allowed_hosts lacks our address, or it expects TLS, or it refuses the packet version"
        )
    elif asked.tls is Tls.VERIFIED:
        cause = (
            "it wants another client certificate, or refuses the command's arguments "
            "or the packet version"
        )
    else:
        cause = (
            "it wants a client certificate, or refuses the command's arguments "
            "or the packet version"
        )
    return f"{asked.where} closed without an answer: {cause}; the daemon's own log tells"


def _late(asked: Asked) -> str:
    limit = f"within {asked.timeout:g} s"
    match asked.stage:
        case Stage.QUEUED:
            return f"earlier questions to {asked.where} took all the time: no turn {limit}"
        case Stage.CONNECTING:
            return f"no connection to {asked.where} {limit}: host down, or a firewall drops it"
        case Stage.SECURING:
            return f"{asked.where} accepts but speaks no TLS {limit}: overloaded, or not nrpe"
        case Stage.ASKED:
            return f"{asked.where} took the question and gave no answer {limit}: its check hangs"


def _certificate(error: ssl.SSLCertVerificationError, asked: Asked) -> str:
    message = error.verify_message.rstrip(".")
    lowered = message.lower()
    if "expired" in lowered or "not yet valid" in lowered:
        hint = "renew it, or look at the clocks"
    elif "mismatch" in lowered or "not valid for" in lowered:
        hint = "set server_name to a name that is in it"
    else:
        hint = "ca_file must hold the CA that signed it"
    return f"the certificate of {asked.where} is not accepted: {message}; {hint}"


def _tls(error: ssl.SSLError, asked: Asked) -> str:
    reason = (error.reason or str(error)).upper().replace(" ", "_")
    if "HANDSHAKE_FAILURE" in reason:
        cause = _no_common_cipher(asked)
    else:
        cause = next((says for key, says in _TLS_SAYS.items() if key in reason), "see its log")
    return f"no TLS with {asked.where}: {cause} [{reason}]"


_TLS_SAYS = {
    "CERTIFICATE_REQUIRED": 'it wants a client certificate: tls = "verified", cert_file, key_file',
    "UNKNOWN_CA": "it does not know the CA of our client certificate (its ssl_cacert_file)",
    "BAD_CERTIFICATE": "it does not accept our client certificate",
    "CERTIFICATE_EXPIRED": "our client certificate has expired",
    "WRONG_VERSION_NUMBER": "what answers there does not speak TLS (another service?)",
    "DH_KEY_TOO_SMALL": "its 512-bit key (nrpe 2.x) is refused everywhere today: upgrade it",
    "PROTOCOL_VERSION": "it and we have no TLS version in common (its ssl_version)",
    "UNSUPPORTED_PROTOCOL": "it allows only old TLS versions (its ssl_version): upgrade it",
    "SHOWED_NO_CERTIFICATE": "it has no certificate",
}


def _no_common_cipher(asked: Asked) -> str:
    if asked.tls is Tls.VERIFIED:
        return (
            "it has no certificate (set ssl_cert_file and ssl_privatekey_file there), "
            "or wants one of ours"
        )
    return 'it refuses anonymous TLS, or wants a client certificate: set tls = "verified"'
