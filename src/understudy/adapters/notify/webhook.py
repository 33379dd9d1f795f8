"""Notifier kind `webhook`: one HTTP POST per message (RFC 9110), to a chat room or to a program of yours.

The address of a chat room is a secret: of an address no more than scheme and host is ever shown.
"""

import json
import re
import ssl
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from understudy.config.settings import InputFile, Seconds, SecretFile, setting
from understudy.errors import Denied, Unanswered, Unreachable
from understudy.ports import Message

from . import secret
from .thread import LONGER, Line, beside

HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):\s*(.*)")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LATER = (408, 425, 429)  # Besides all of 5xx: worth another try.
READ = 4096  # Bytes of an answer.


class Format(StrEnum):
    JSON = "json"
    SLACK = "slack"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Raises ValueError for values that contradict each other."""

    url: str | None = setting(
        "Where to post, https:// or http://.  An address that is itself a secret belongs in url_file.",
        default=None,
        example="https://alarms.example.com/understudy",
    )
    url_file: SecretFile | None = setting(
        "A file that holds the address instead (chat rooms).",
        default=None,
        example="/etc/understudy/chat.url",
    )
    format: Format = setting(
        "What is posted.  json: an object with id, kind, subject, body, at, node, pair and severity.  slack: an object "
        "with text, which Mattermost and Rocket.Chat read as well.  plain: text, the subject above the body.",
        default=Format.JSON,
    )
    headers_file: SecretFile | None = setting(
        "A file with more headers, one `Name: value` per line, e.g. Authorization.",
        default=None,
        example="/etc/understudy/chat.headers",
    )
    ca_file: InputFile | None = setting(
        "Who has signed the server's certificate, in PEM; left out those that this machine trusts.",
        default=None,
        example="/etc/ssl/certs/chat-ca.pem",
    )
    timeout: Seconds = setting("How long one message may take.", default=Seconds(15.0))

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("url or url_file is where to post.  Write one of the two")
        if self.url is None:
            return
        wrong = _wrong(self.url)
        if wrong:
            raise ValueError(f"url {wrong}")
        parts = urlsplit(self.url)
        if self.headers_file and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError(
                "url begins with http://, and headers_file would be sent in the clear.  Use https://"
            )


def build(name: str, settings: Settings, *, host: str) -> tuple["WebhookNotifier", ...]:
    where = urlsplit(settings.url).hostname if settings.url is not None else "webhook"
    return (WebhookNotifier(f"{name} ({where})", settings),)


class WebhookNotifier:
    """Implements ports.Notifier."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._settings = settings

    async def send(self, message: Message) -> None:
        timeout = self._settings.timeout
        try:
            await beside(partial(self._send, message), timeout)
        except TimeoutError:
            raise Unanswered(f"the webhook did not answer within {timeout:g} s") from None

    def _send(self, message: Message, line: Line) -> None:
        """In its thread.  Raises AdapterError alone; nothing secret is in it."""
        import http.client

        url, headers = self._address(), self._headers()
        where = f"{url.scheme}://{url.netloc}"
        try:
            code, said = self._post(url, headers, message, line)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{where}: its certificate is not right: {error.verify_message}"
            ) from None
        except TimeoutError:
            raise Unanswered(f"{where} does not answer in time") from None
        except http.client.HTTPException as error:
            raise Unanswered(
                f"{where} does not answer as HTTP does: {type(error).__name__}"
            ) from None
        except OSError as error:
            why = error.strerror or str(error) or type(error).__name__
            raise Unreachable(f"{where} cannot be reached: {why}") from None
        if 200 <= code < 300:
            return
        text = secret.without(said, (*headers.values(), *_words(url)))
        sentence = f"{where} answered {code}" + (f": {text}" if text else "")
        raise Unreachable(sentence) if code >= 500 or code in LATER else Denied(sentence)

    def _post(
        self, url: SplitResult, headers: dict[str, str], message: Message, line: Line
    ) -> tuple[int, str]:
        """Raises http.client.HTTPException, OSError."""
        import http.client

        s, host = self._settings, url.hostname or ""
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            ca_file = str(s.ca_file) if s.ca_file is not None else None
            connection = http.client.HTTPSConnection(
                host,
                url.port,
                timeout=s.timeout + LONGER,
                context=ssl.create_default_context(cafile=ca_file),
            )
        else:
            connection = http.client.HTTPConnection(host, url.port, timeout=s.timeout + LONGER)
        try:
            connection.connect()
            line.hold(lambda: connection.sock)
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, content(message, s.format), headers)
            answer = connection.getresponse()
            return answer.status, answer.read(READ).decode("utf-8", "replace")
        finally:
            connection.close()

    def _address(self) -> SplitResult:
        s = self._settings
        url = s.url if s.url_file is None else secret.read(s.url_file, "the address file").strip()
        wrong = _wrong(url or "")
        if wrong:
            raise Denied(f"the address in {s.url_file} {wrong}")
        return urlsplit(url or "")

    def _headers(self) -> dict[str, str]:
        s = self._settings
        kind = "text/plain" if s.format is Format.PLAIN else "application/json"
        headers = {"User-Agent": "understudy", "Content-Type": f"{kind}; charset=utf-8"}
        if s.headers_file is not None:
            headers |= _read_headers(s.headers_file)
        return headers


def content(message: Message, format: Format) -> bytes:  # noqa: A002
    match format:
        case Format.SLACK:
            return json.dumps({"text": f"*{message.subject}*\n{message.body}"}).encode()
        case Format.PLAIN:
            return f"{message.subject}\n\n{message.body}".encode()
    return json.dumps(asdict(message)).encode()


def _wrong(url: str) -> str:
    """What is wrong with an address; it completes the sentence that begins with its name, and never shows it."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not url.isascii() or not url.isprintable() or " " in url:
        return "is no address.  Write https://host/path"
    if parts.username is not None or parts.password is not None:
        return "holds a login.  Write an Authorization line into headers_file"
    return ""


def _read_headers(path: Path) -> dict[str, str]:
    """Raises Unreachable, Denied."""
    headers = {}
    for number, line in enumerate(secret.read(path, "the headers file").splitlines(), 1):
        if not line.strip():
            continue
        found = HEADER.fullmatch(line.strip())
        if found is None or not line.isascii() or not line.strip().isprintable():
            raise Denied(f"{path}:{number}: not a header.  Write Name: value")
        headers[found[1]] = found[2]
    return headers


def _words(url: SplitResult) -> list[str]:
    """The parts of an address that may be secret."""
    return [each for each in (url.path, url.query, *url.path.split("/")) if len(each) > 3]
