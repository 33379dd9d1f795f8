"""Notifier kind `mail`: SMTP (RFC 5321), with STARTTLS (RFC 3207) or TLS (RFC 8314), and a login (RFC 4954).

A password is never sent in the clear, and never to a server whose certificate is not right.  One mail per address,
because each address may be refused, or asked to wait (greylisting), for itself.
"""

import base64
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from understudy.config.settings import Host, InputFile, Port, Seconds, SecretFile, setting
from understudy.errors import Denied, Unanswered, Unreachable
from understudy.ports import Message

from . import secret
from .thread import LONGER, Line, beside

if TYPE_CHECKING:  # Imported when there is something to send: the daemon stays small.
    import smtplib
    from email.message import EmailMessage

ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?:[A-Za-z0-9.-]{1,253}|\[[^\s\[\]]+\])"
)


class Security(StrEnum):
    AUTO = "auto"
    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Raises ValueError for values that contradict each other."""

    to: tuple[str, ...] = setting("Who is told: mail addresses.", example=["ops@example.com"])
    sender: str | None = setting(
        "What stands in From; left out it is understudy@ and the host name of this node.",
        default=None,
        example="understudy@example.com",
    )
    server: Host = setting("The mail server that takes the mail.", default=Host("localhost"))
    port: Port | None = setting(
        "Its port; left out it is 465 with TLS, 587 with a login, else 25.",
        default=None,
        example=587,
    )
    security: Security = setting(
        "How the connection is encrypted.  tls: from the beginning; starttls: after the greeting; the server's "
        "certificate must be right for both.  none: not at all.  auto: with a login as starttls; without one as "
        "well as the server can, whatever its certificate.",
        default=Security.AUTO,
    )
    ca_file: InputFile | None = setting(
        "Who has signed the server's certificate, in PEM; left out those that this machine trusts.",
        default=None,
        example="/etc/ssl/certs/mail-ca.pem",
    )
    user: str | None = setting("The login.", default=None, example="understudy@example.com")
    password_file: SecretFile | None = setting(
        "The file that holds the password of the login, or the path of a systemd credential.",
        default=None,
        example="/etc/understudy/mail.password",
    )
    timeout: Seconds = setting("How long one mail may take.", default=Seconds(30.0))

    def __post_init__(self) -> None:
        if not self.to:
            raise ValueError('to is empty.  Write e.g. to = ["ops@example.com"]')
        for each in self.to:
            if not ADDRESS.fullmatch(each):
                raise ValueError(f'to holds "{each}", which is no mail address')
        if len({each.lower() for each in self.to}) < len(self.to):
            raise ValueError("to holds an address twice.  Keep one of them")
        if self.sender is not None and not ADDRESS.fullmatch(self.sender):
            raise ValueError(
                f'sender is "{self.sender}": no mail address.  Write the bare address, without a name'
            )
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together.  Write both, or none")
        if self.user is not None and self.security is Security.NONE:
            raise ValueError(
                'security is "none", but a password is never sent in the clear.  Write "starttls" or "tls"'
            )

    @property
    def encryption(self) -> Security:
        """AUTO only where there is no password to protect."""
        with_login = self.security is Security.AUTO and self.user is not None
        return Security.STARTTLS if with_login else self.security

    @property
    def port_or_usual(self) -> int:
        if self.port is not None:
            return self.port
        if self.security is Security.TLS:
            return 465
        return 25 if self.user is None else 587


def build(name: str, settings: Settings, *, host: str) -> tuple["MailNotifier", ...]:
    return tuple(MailNotifier(name, settings, each, host) for each in settings.to)


class MailNotifier:
    """Implements ports.Notifier, for one address."""

    def __init__(self, name: str, settings: Settings, address: str, host: str) -> None:
        self.name = f"{name} ({address})"
        self._settings = settings
        self._to = address
        self._domain = _domain(host)
        self._server = f"{settings.server}:{settings.port_or_usual}"

    async def send(self, message: Message) -> None:
        timeout = self._settings.timeout
        try:
            await beside(partial(self._send, message), timeout)
        except TimeoutError:
            raise Unanswered(f"{self._server} did not take the mail within {timeout:g} s") from None

    def _send(self, message: Message, line: Line) -> None:
        """In its thread.  Raises AdapterError alone; nothing of the login is in it."""
        import smtplib

        s = self._settings
        password = secret.read(s.password_file, "the password file") if s.password_file else ""
        if not f"{s.user}{password}".isascii():
            raise Denied(f"the login at {self._server} has other than ASCII characters")
        try:
            self._talk(message, password, line)
        except smtplib.SMTPException as error:
            raise _explained(error, self._server, _secrets(s.user or "", password)) from None
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{self._server}: its certificate is not right: {error.verify_message}.  Name in server what the"
                " certificate names, and in ca_file who has signed it"
            ) from None
        except TimeoutError:
            raise Unanswered(f"{self._server} does not answer in time") from None
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            raise Unreachable(f"{self._server} cannot be reached: {why}") from None

    def _talk(self, message: Message, password: str, line: Line) -> None:
        """Raises smtplib.SMTPException, OSError."""
        import smtplib

        s, mail = self._settings, self.mail(message)
        # A name of ours for EHLO; smtplib would ask the resolver.
        here, port = socket.gethostname() or "localhost", s.port_or_usual
        smtp: smtplib.SMTP
        if s.encryption is Security.TLS:
            context = _verified(s.ca_file)
            smtp = smtplib.SMTP_SSL(
                s.server, port, here, timeout=s.timeout + LONGER, context=context
            )
        else:
            smtp = smtplib.SMTP(s.server, port, here, timeout=s.timeout + LONGER)
        try:
            line.hold(lambda: smtp.sock)
            smtp.ehlo_or_helo_if_needed()
            self._encrypt(smtp)
            if s.user is not None:
                smtp.login(s.user, password)
            smtp.send_message(mail, mail["From"], [self._to])
            with suppress(smtplib.SMTPException, OSError):  # The mail is taken.
                smtp.quit()
        finally:
            smtp.close()

    def _encrypt(self, smtp: "smtplib.SMTP") -> None:
        s = self._settings
        if s.encryption is Security.STARTTLS:
            smtp.starttls(context=_verified(s.ca_file))
        elif s.encryption is Security.AUTO and smtp.has_extn("starttls"):
            smtp.starttls(context=_unverified())

    def mail(self, message: Message) -> "EmailMessage":
        """RFC 5322; Auto-Submitted (RFC 3834) keeps holiday notes away."""
        from datetime import datetime
        from email.message import EmailMessage
        from email.policy import SMTP
        from email.utils import format_datetime

        mail = EmailMessage(policy=SMTP)
        mail["From"] = self._settings.sender or f"understudy@{self._domain}"
        mail["To"] = self._to
        mail["Subject"] = " ".join(message.subject.split())
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.at).astimezone())
        mail["Message-ID"] = f"<understudy.{message.id}@{self._domain.strip('[]')}>"
        mail["Auto-Submitted"] = "auto-generated"
        for key, value in (
            ("Pair", message.pair),
            ("Node", message.node),
            ("Kind", message.kind),
            ("Severity", message.severity),
        ):
            mail[f"X-Understudy-{key}"] = " ".join(str(value).split())
        mail.set_content(message.body, charset="utf-8", cte="quoted-printable")
        return mail


def _verified(ca_file: InputFile | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)


def _unverified() -> ssl.SSLContext:
    """Opportunistic (RFC 7435): better than the clear, and nothing secret is sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _explained(
    error: "smtplib.SMTPException", server: str, secrets: tuple[str, ...]
) -> Unreachable | Unanswered | Denied:
    """4yz: try again later; 5yz: not as it is (RFC 5321, 4.2.1)."""
    import smtplib

    if isinstance(error, smtplib.SMTPServerDisconnected):
        return Unanswered(f"{server} broke the connection off")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Denied(f"{server} cannot do what is asked of it: {error}")
    code: int
    said: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, said = next(iter(error.recipients.values()))
    elif isinstance(error, smtplib.SMTPResponseException):
        code, said = error.smtp_code, error.smtp_error
    else:
        return Denied(f"{server}: {type(error).__name__}")
    what = _REFUSED.get(type(error).__name__, "mail")
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    sentence = f"{server} refused the {what}: {code} {secret.without(text, secrets)}"
    return Denied(sentence) if code >= 500 else Unreachable(sentence)


_REFUSED = {
    "SMTPRecipientsRefused": "address",
    "SMTPAuthenticationError": "login",
    "SMTPSenderRefused": "sender",
    "SMTPConnectError": "connection",
}


def _secrets(user: str, password: str) -> tuple[str, ...]:
    """The password, in every form in which it goes over the line."""
    if not password:
        return ()
    plain = f"\0{user}\0{password}".encode()
    encoded = (plain, password.encode())
    return (password, *(base64.b64encode(each).decode() for each in encoded))


def _domain(host: str) -> str:
    """What may stand behind the @: a name, or an address in brackets (RFC 5321, 4.1.3)."""
    if ":" in host:
        return f"[IPv6:{host}]"
    return f"[{host}]" if host.replace(".", "").isdigit() else host
