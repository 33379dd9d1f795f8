"""A real mail server (aiosmtpd) on loopback that says what a test wants it to."""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from adapters.nrpe_daemon import need

USER, PASSWORD = "understudy", "correct horse battery"


@dataclass
class Server:
    """What has arrived, and what is said to whoever comes."""

    mails: list[EmailMessage] = field(default_factory=list)
    rcpt: dict[str, list[str]] = field(default_factory=dict)  # By address: one answer per try.
    data: list[str] = field(default_factory=list)  # One answer per mail; then it is taken.
    logins: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    port: int = 0

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answers = self.rcpt.get(address)
        if answers:
            return answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.data:
            return self.data.pop(0)
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login.decode())
        right = (data.login.decode(), data.password.decode()) == (USER, PASSWORD)
        # An unkind server: it repeats what it was told.
        said = None if right else f"535 5.7.8 not {data.password.decode()}"
        return AuthResult(success=right, handled=False, message=said)


@contextmanager
def smtp_server(
    *, tls: "Papers | None" = None, from_the_start: bool = False, login: bool = False
) -> Iterator[Server]:
    """Runs in a thread of its own.  With `tls` it offers STARTTLS, or TLS from the start."""
    handler = Server()
    options: dict[str, Any] = {"hostname": "127.0.0.1", "port": 0}
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    if from_the_start:
        options["ssl_context"] = context
    elif context is not None:
        options["tls_context"] = context
    if login:
        options |= {
            "authenticator": handler.authenticate,
            "auth_required": True,
            "auth_require_tls": False,
        }
    controller = _Controller(handler, **options)
    controller.start()
    try:
        handler.port = controller.port
        yield handler
    finally:
        controller.stop()


class _Controller(Controller):
    def _trigger_server(self) -> None:
        """The port that was asked for is 0: any."""
        server: Any = self.server
        self.port = server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Papers:
    """A certificate and who has signed it."""

    ca: Path
    certificate: Path
    key: Path


def papers(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Papers:
    need("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    certificate, key, request = folder / "cert.pem", folder / "key.pem", folder / "request.pem"
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName={names}\n")
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _run(
        *new, "-x509", "-days", "2", "-subj", "/CN=a CA of the tests", "-keyout", ca_key, "-out", ca
    )
    _run(*new, "-subj", "/CN=server", "-keyout", key, "-out", request)
    _run(
        *("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-days", "2"),
        *("-CAcreateserial", "-extfile", extensions, "-out", certificate),
    )
    return Papers(ca=ca, certificate=certificate, key=key)


def _run(*words: str | Path) -> None:
    subprocess.run([str(each) for each in words], check=True, capture_output=True, timeout=60)
