"""Webhooks, to a real HTTP server on loopback."""

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.smtp_server import Papers, papers
from adapters.test_notify_mail import MESSAGE
from understudy.adapters.notify.webhook import Format, Settings, build
from understudy.config.settings import InputFile, Seconds, SecretFile
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable


@dataclass
class Room:
    """What was posted, and what is answered."""

    posts: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, str]] = field(default_factory=list)  # Then 200.
    hangs: bool = False
    port: int = 0


@contextmanager
def room(tls: Papers | None = None) -> Iterator[Room]:
    there = Room()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there.posts.append((self.path, dict(self.headers), body))
            if there.hangs:
                ended.wait(30)
            code, said = there.answers.pop(0) if there.answers else (200, "ok")
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", "https://elsewhere.example.com/")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Not on the terminal."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                return  # Whoever posted has gone.

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    there.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield there
    finally:
        ended.set()
        server.shutdown()
        thread.join(30)
        server.server_close()


def send(**settings: Any) -> None:
    (one,) = build("chat", Settings(**settings), host="pbx02.example.com")
    asyncio.run(one.send(MESSAGE))


def refusal(kind: type[AdapterError], **settings: Any) -> str:
    with pytest.raises(AdapterError) as caught:
        send(**settings)
    assert type(caught.value) is kind, caught.value
    assert "s3cret" not in repr(caught.value) + repr(caught.value.__context__)
    return str(caught.value)


def secret(folder: Path, text: str) -> SecretFile:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return SecretFile(path)


def test_the_whole_message_is_posted_as_an_object() -> None:
    with room() as there:
        send(url=f"http://127.0.0.1:{there.port}/hooks/voip?team=night")
    ((path, headers, body),) = there.posts
    assert path == "/hooks/voip?team=night"
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert json.loads(body) == asdict(MESSAGE)


def test_chat_rooms_get_text() -> None:
    with room() as there:
        send(url=f"http://127.0.0.1:{there.port}", format=Format.SLACK)
    ((path, _, body),) = there.posts
    assert path == "/"
    assert json.loads(body) == {"text": f"*{MESSAGE.subject}*\n{MESSAGE.body}"}


def test_plain_text() -> None:
    with room() as there:
        send(url=f"http://127.0.0.1:{there.port}/", format=Format.PLAIN)
    ((_, headers, body),) = there.posts
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert body.decode() == f"{MESSAGE.subject}\n\n{MESSAGE.body}"


def test_headers_come_from_a_file(tmp_path: Path) -> None:
    headers = secret(tmp_path, "Authorization: Bearer s3cret-token\n\nX-Team: night\n")
    with room() as there:
        send(url=f"http://127.0.0.1:{there.port}/", headers_file=headers)
    assert there.posts[0][1]["Authorization"] == "Bearer s3cret-token"
    assert there.posts[0][1]["X-Team"] == "night"


def test_an_address_that_is_secret_is_never_shown(tmp_path: Path) -> None:
    with room() as there:
        there.answers = [(404, "no such hook: /services/T000/s3cretHook")]
        url = secret(tmp_path, f"http://127.0.0.1:{there.port}/services/T000/s3cretHook\n")
        said = refusal(Denied, url_file=url)
        send(url_file=url)
    assert said == f"http://127.0.0.1:{there.port} answered 404: no such hook: [secret]"
    assert there.posts[1][0] == "/services/T000/s3cretHook"


def test_tls_is_verified(tmp_path: Path) -> None:
    good, stranger = papers(tmp_path / "good"), papers(tmp_path / "stranger")
    with room(tls=good) as there:
        url = f"https://127.0.0.1:{there.port}/"
        assert "its certificate is not right" in refusal(Unreachable, url=url)
        assert "its certificate is not right" in refusal(
            Unreachable, url=url, ca_file=InputFile(stranger.ca)
        )
        assert there.posts == []
        send(url=url, ca_file=InputFile(good.ca))
    assert len(there.posts) == 1


@pytest.mark.parametrize("code", [200, 201, 204])
def test_every_2xx_is_a_success(code: int) -> None:
    with room() as there:
        there.answers = [(code, "")]
        send(url=f"http://127.0.0.1:{there.port}/")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (429, Unreachable),
        (408, Unreachable),
        (500, Unreachable),
        (503, Unreachable),
        (400, Denied),
        (403, Denied),
        (301, Denied),
    ],
)
def test_what_is_worth_another_try(code: int, kind: type[AdapterError]) -> None:
    with room() as there:
        there.answers = [(code, "because\nof this")]
        said = refusal(kind, url=f"http://127.0.0.1:{there.port}/")
    assert said.endswith(f"answered {code}: because of this")
    assert len(there.posts) == 1  # A redirection is not followed.


def test_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        said = refusal(Unreachable, url=f"http://127.0.0.1:{port}/s3cret")
    assert said == f"http://127.0.0.1:{port} cannot be reached: Connection refused"


def test_a_server_that_hangs_is_let_go_at_the_deadline() -> None:
    with room() as there:
        there.hangs = True
        refusal(Unanswered, url=f"http://127.0.0.1:{there.port}/", timeout=Seconds(0.3))


def test_a_headers_file_that_is_none_is_named_by_line(tmp_path: Path) -> None:
    headers = secret(tmp_path, "X-Team: night\ns3cret-token\n")
    said = refusal(Denied, url="http://127.0.0.1:9/", headers_file=headers)
    assert said == f"{headers}:2: not a header.  Write Name: value"


def test_an_address_file_that_holds_none_is_named_and_not_shown(tmp_path: Path) -> None:
    said = refusal(Denied, url_file=secret(tmp_path, "s3cret"))
    assert said.endswith("is no address.  Write https://host/path")
    assert "s3cret" not in said.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "Write one of the two"),
        ({"url": "https://a.example/", "url_file": SecretFile(Path("x"))}, "one of the two"),
        ({"url": "ftp://a.example/"}, "url is no address"),
        ({"url": "https://"}, "url is no address"),
        ({"url": "https://a.example:port/"}, "url is no address"),
        ({"url": "https://a.example/ x"}, "url is no address"),
        ({"url": "https://me:s3cret@a.example/"}, "url holds a login"),
        (
            {"url": "http://a.example/", "headers_file": SecretFile(Path("x"))},
            "would be sent in the clear",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Settings(**settings)
    assert "s3cret" not in str(caught.value)


def test_its_name_shows_no_more_than_the_host() -> None:
    (one,) = build("chat", Settings(url="https://chat.example.com/s3cret"), host="pbx02")
    assert one.name == "chat (chat.example.com)"
