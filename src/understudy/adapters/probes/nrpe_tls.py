"""TLS as NRPE daemons speak it, and the session that spares most of its price.

A stock daemon has no certificate: it speaks anonymous Diffie-Hellman, which hides the words and
proves nobody's identity.  The two contexts below have nothing in common, so that `verified` cannot
become anonymous by accident.
"""

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import Any

RESUME_FOR = (
    600.0  # Seconds until certificates are looked at again: a resumed session does not show them.
)


def anonymous() -> "Client":
    """As check_nrpe does it without options: any daemon, no identity."""
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # OpenSSL offers anonymous suites at security level 0 alone.  With a certificate there the
    # daemon may still use it.
    context.set_ciphers("ALL:@SECLEVEL=0")
    return Client(context, verified=False, resumes=True)


def verified(ca: Path | None, certificate: Path | None, key: Path | None) -> "Client":
    """The daemon proves its name by `ca` (without: the system's CAs); we prove ours if we have a
    certificate.

    Raises OSError (ssl.SSLError among them) if a file cannot be used.
    """
    # Python's own list of ciphers, unchanged: with a list that has anonymous suites, CERT_REQUIRED
    # and check_hostname are silently without effect, since a server without a certificate has none
    # to be checked.
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    if ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    # A daemon that asks for client certificates sets no session id context, and OpenSSL then
    # refuses every resumption.
    return Client(context, verified=True, resumes=certificate is None)


class Client:
    """One daemon's TLS: a context, and a session to resume.  Belongs to one event loop."""

    def __init__(self, context: "_Context", *, verified: bool, resumes: bool) -> None:
        self.context = context
        self._verified = verified
        self._resumes = resumes
        self._full_handshake = 0.0

    def will_resume(self) -> bool:
        """Does the next connection try to resume a session?  Forgets one that is too old."""
        if time.monotonic() - self._full_handshake > RESUME_FOR:
            self.forget()
        return self.context.session is not None

    def forget(self) -> None:
        """The next handshake is a whole one."""
        self.context.session = None

    def never_resume(self) -> None:
        """The daemon cannot do it."""
        self._resumes = False
        self.forget()

    def check(self, transport: asyncio.BaseTransport) -> None:
        """After the handshake: whoever must have proved a name has.  Raises ssl.SSLError."""
        # OpenSSL has seen to it already.  This asks for the result instead of trusting in how we
        # asked for it.
        if self._verified and not _ssl_object(transport).getpeercert(binary_form=True):
            raise ssl.SSLError("the daemon showed no certificate")

    def remember(self, transport: asyncio.BaseTransport) -> None:
        """After an answer: keep its session, which TLS 1.3 sends together with the answer.

        One session serves until it is too old; RFC 8446 (C.4) would rather have a new one each
        time, so that nobody sees that it is the same client.  Our address shows that anyway.
        """
        tls = _ssl_object(transport)
        if self._resumes and not tls.session_reused:
            self._full_handshake = time.monotonic()
            self.context.session = tls.session


def hurry(transport: asyncio.BaseTransport) -> None:
    """After the question is written: acknowledge at once what comes.

    With TLS 1.3 the daemon's answer waits, by Nagle's algorithm, for our acknowledgement of its
    session tickets, which Linux delays by 40 ms.  The option is no lasting one (tcp(7)), so it is
    set for each question, after the write.
    """
    wire = transport.get_extra_info("socket")
    if wire is not None and hasattr(socket, "TCP_QUICKACK"):
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class _Context(ssl.SSLContext):
    """Resumes a session, for which asyncio has no parameter; it makes each TLS by `wrap_bio`."""

    session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(
            incoming, outgoing, server_side, server_hostname, session or self.session
        )


def _ssl_object(transport: asyncio.BaseTransport) -> Any:
    return transport.get_extra_info("ssl_object")
