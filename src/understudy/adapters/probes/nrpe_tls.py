"""TLS as NRPE daemons speak it, and the session that spares most of its price.

A stock daemon has no certificate: it speaks anonymous Diffie-Hellman, which hides the words and
proves nobody's identity.  The two contexts below have nothing in common, so that `verified` cannot
become anonymous by accident.
"""

import socket
import ssl
import time
from pathlib import Path

from understudy.adapters.probes.nrpe_wire import PIECE, Wire

RESUME_FOR = (
    600.0  # Seconds until certificates are looked at again: a resumed session does not show them.
)


def anonymous() -> "Client":
    """As check_nrpe does it without options: any daemon, no identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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

    def __init__(self, context: ssl.SSLContext, *, verified: bool, resumes: bool) -> None:
        self.context = context
        self.session: ssl.SSLSession | None = None
        self._verified = verified
        self._resumes = resumes
        self._full_handshake = 0.0

    def will_resume(self) -> bool:
        """Does the next connection try to resume a session?  Forgets one that is too old."""
        if time.monotonic() - self._full_handshake > RESUME_FOR:
            self.forget()
        return self.session is not None

    def forget(self) -> None:
        """The next handshake is a whole one."""
        self.session = None

    def never_resume(self) -> None:
        """The daemon cannot do it."""
        self._resumes = False
        self.forget()

    async def secure(self, wire: Wire, server_name: str) -> "Secured":
        """Shake hands.  Raises ssl.SSLError and other OSErrors; the wire stays the caller's."""
        secured = Secured(wire, self.context, server_name, self.session)
        await secured.shake_hands()
        # OpenSSL has seen to it already.  This asks for the result instead of trusting in how we
        # asked for it.
        if self._verified and not secured.tls.getpeercert(binary_form=True):
            raise ssl.SSLError("the daemon showed no certificate")
        return secured

    def remember(self, secured: "Secured") -> None:
        """After an answer: keep its session, which TLS 1.3 sends together with the answer.

        One session serves until it is too old; RFC 8446 (C.4) would rather have a new one each
        time, so that nobody sees that it is the same client.  Our address shows that anyway.
        """
        if self._resumes and not secured.tls.session_reused:
            self._full_handshake = time.monotonic()
            self.session = secured.tls.session


class Secured:
    """A wire under TLS, with the same two methods."""

    def __init__(
        self,
        wire: Wire,
        context: ssl.SSLContext,
        server_name: str,
        session: ssl.SSLSession | None,
    ) -> None:
        self._wire = wire
        self._come = ssl.MemoryBIO()
        self._go = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._come, self._go, server_hostname=server_name, session=session
        )

    async def shake_hands(self) -> None:
        """Our last words wait for the question: one packet less.  Raises OSError."""
        self._wire.set(socket.TCP_NODELAY)
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._wire.send(self._go.read())
                piece = await self._wire.receive()
                if not piece:
                    raise ConnectionResetError("closed within the handshake") from None
                self._come.write(piece)
            else:
                return

    async def send(self, data: bytes) -> None:
        """As one TLS record, up to 16 KiB: nrpe reads one, and drops what is cut.  Raises OSError.

        With TLS 1.3 the daemon's answer waits, by Nagle's algorithm, for our acknowledgement of
        its session tickets, which Linux delays by 40 ms.  The option that hurries it is no lasting
        one (tcp(7)), so it is set for each question, after the write.
        """
        self.tls.write(data)
        await self._wire.send(self._go.read())
        if hasattr(socket, "TCP_QUICKACK"):
            self._wire.set(socket.TCP_QUICKACK)

    async def receive(self) -> bytes:
        """What comes next; nothing when the other side has closed.  Raises OSError."""
        while True:
            try:
                return self.tls.read(PIECE)
            except ssl.SSLWantReadError:
                piece = await self._wire.receive()
            if not piece:
                return b""
            self._come.write(piece)
