"""Mail, to a real SMTP server on loopback."""

import asyncio
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.smtp_server import PASSWORD, USER, Papers, papers, smtp_server
from understudy.adapters.notify.mail import MailNotifier, Security, Settings, build
from understudy.config.settings import Host, InputFile, Port, Seconds, SecretFile
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable
from understudy.ports import Message, Severity

# With TLS from the start the server cannot tell that it is there.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

OPS = "ops@example.com"
MESSAGE = Message(
    id="pbx02.1800000000000.abc123",
    kind="failover-done",
    subject="[acme] pbx02 has taken over: calls are answered there",
    body="What happened\n    pbx01 did not answer.\n\nÜber 5 min.\n.\nend\n",
    at=1_800_000_000.0,
    node="pbx02",
    pair="acme",
    severity=Severity.CRITICAL,
)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def password(tmp_path: Path) -> SecretFile:
    path = tmp_path / "mail.password"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return SecretFile(path)


def notifier(port: int, **settings: Any) -> MailNotifier:
    given: dict[str, Any] = {"to": (OPS,), "server": Host("127.0.0.1"), "port": Port(port)}
    (one,) = build("mail", Settings(**(given | settings)), host="pbx02.example.com")
    return one


def send(port: int, message: Message = MESSAGE, **settings: Any) -> None:
    asyncio.run(notifier(port, **settings).send(message))


def refusal(port: int, kind: type[AdapterError], **settings: Any) -> str:
    """The sentence; nothing of the login is anywhere in the error."""
    with pytest.raises(AdapterError) as caught:
        send(port, **settings)
    assert type(caught.value) is kind, caught.value
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown + repr(caught.value) + repr(caught.value.__context__)
    return str(caught.value)


# What arrives


def test_a_mail_arrives_as_it_was_written() -> None:
    with smtp_server() as server:
        send(server.port)
    (mail,) = server.mails
    assert mail["Subject"] == MESSAGE.subject
    assert mail["From"] == "understudy@pbx02.example.com"
    assert mail["To"] == OPS
    assert mail["Message-ID"] == "<understudy.pbx02.1800000000000.abc123@pbx02.example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime.timestamp() == MESSAGE.at
    assert [mail[f"X-Understudy-{each}"] for each in ("Pair", "Node", "Kind", "Severity")] == [
        "acme",
        "pbx02",
        "failover-done",
        "critical",
    ]
    assert mail.get_content().replace("\r\n", "\n") == MESSAGE.body


def test_a_second_try_is_the_same_mail() -> None:
    with smtp_server() as server:
        send(server.port)
        send(server.port)
    assert len({mail["Message-ID"] for mail in server.mails}) == 1


def test_each_address_gets_a_mail_of_its_own() -> None:
    with smtp_server() as server:
        settings = Settings(
            to=(OPS, "boss@example.com"), server=Host("127.0.0.1"), port=Port(server.port)
        )
        both = build("mail", settings, host="pbx02.example.com")
        assert [each.name for each in both] == ["mail (ops@example.com)", "mail (boss@example.com)"]
        for each in both:
            asyncio.run(each.send(MESSAGE))
    assert [mail["To"] for mail in server.mails] == [OPS, "boss@example.com"]


def test_nothing_in_a_message_makes_a_header_of_its_own() -> None:
    with smtp_server() as server:
        send(server.port, replace(MESSAGE, subject="a\r\nBcc: you@example.com", node="x\ny"))
    (mail,) = server.mails
    assert mail["Bcc"] is None
    assert mail["Subject"] == "a Bcc: you@example.com"


@pytest.mark.parametrize(
    ("host", "sender"),
    [
        ("pbx02.example.com", "understudy@pbx02.example.com"),
        ("192.0.2.12", "understudy@[192.0.2.12]"),
    ],
)
def test_the_sender_is_this_node_where_none_is_named(host: str, sender: str) -> None:
    (one,) = build("mail", Settings(to=(OPS,)), host=host)
    assert one.mail(MESSAGE)["From"] == sender
    (one,) = build("mail", Settings(to=(OPS,), sender="pbx@example.com"), host=host)
    assert one.mail(MESSAGE)["From"] == "pbx@example.com"


# Encryption and login


def test_starttls_with_a_login(signed: Papers, password: SecretFile) -> None:
    with smtp_server(tls=signed, login=True) as server:
        send(server.port, user=USER, password_file=password, ca_file=InputFile(signed.ca))
    assert (server.logins, server.encrypted, len(server.mails)) == ([USER], [True], 1)


def test_tls_from_the_start_with_a_login(signed: Papers, password: SecretFile) -> None:
    with smtp_server(tls=signed, from_the_start=True, login=True) as server:
        send(
            server.port,
            security=Security.TLS,
            user=USER,
            password_file=password,
            ca_file=InputFile(signed.ca),
        )
    assert len(server.mails) == 1


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS, Security.AUTO])
def test_a_server_with_a_strangers_certificate_gets_nothing(
    signed: Papers, password: SecretFile, tmp_path: Path, security: Security
) -> None:
    stranger = papers(tmp_path / "stranger")
    with smtp_server(tls=stranger, from_the_start=security is Security.TLS, login=True) as server:
        said = refusal(
            server.port,
            Unreachable,
            security=security,
            user=USER,
            password_file=password,
            ca_file=InputFile(signed.ca),
        )
    assert "its certificate is not right" in said
    assert (server.mails, server.logins) == ([], [])


def test_a_certificate_for_another_name_is_not_right(password: SecretFile, tmp_path: Path) -> None:
    elsewhere = papers(tmp_path, "DNS:elsewhere.example.com")
    with smtp_server(tls=elsewhere, login=True) as server:
        said = refusal(
            server.port,
            Unreachable,
            user=USER,
            password_file=password,
            ca_file=InputFile(elsewhere.ca),
        )
    assert "IP address mismatch" in said
    assert server.logins == []


def test_a_server_without_starttls_never_sees_the_password(password: SecretFile) -> None:
    with smtp_server(login=True) as server:
        said = refusal(server.port, Denied, user=USER, password_file=password)
    assert "STARTTLS" in said
    assert server.logins == []


def test_without_a_login_the_line_is_encrypted_as_well_as_it_can_be(signed: Papers) -> None:
    with smtp_server(tls=signed) as server:  # Nobody here trusts its CA.
        send(server.port)
        send(server.port, security=Security.NONE)
    assert server.encrypted == [True, False]


def test_a_wrong_password_is_refused_and_never_shown(signed: Papers, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wr0ng-password")
    with smtp_server(tls=signed, login=True) as server, pytest.raises(Denied) as caught:
        send(
            server.port,
            user=USER,
            password_file=SecretFile(wrong),
            ca_file=InputFile(signed.ca),
        )
    shown = "".join(traceback.format_exception(caught.value))
    assert "refused the login: 535 5.7.8 not [secret]" in str(caught.value)
    assert "wr0ng" not in shown


def test_a_password_file_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = SecretFile(tmp_path / "gone")
    said = refusal(9, Unreachable, user=USER, password_file=gone)
    assert said == f"the password file {gone} cannot be read: No such file or directory"


def test_a_new_password_holds_at_once(signed: Papers, password: SecretFile) -> None:
    password.write_text("an old one")
    with smtp_server(tls=signed, login=True) as server:
        one = notifier(server.port, user=USER, password_file=password, ca_file=InputFile(signed.ca))
        with pytest.raises(Denied):
            asyncio.run(one.send(MESSAGE))
        password.write_text(PASSWORD)
        asyncio.run(one.send(MESSAGE))
    assert len(server.mails) == 1


def test_a_password_that_smtp_cannot_carry_is_said_without_showing_it(password: SecretFile) -> None:
    password.write_text("pässwort")
    said = refusal(9, Denied, user=USER, password_file=password)
    assert said == "the login at 127.0.0.1:9 has other than ASCII characters"


# When it does not go well


def test_a_server_that_is_down_is_worth_another_try() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert refusal(port, Unreachable) == (
            f"127.0.0.1:{port} cannot be reached: Connection refused"
        )


def test_greylisting_is_worth_another_try() -> None:
    with smtp_server() as server:
        server.rcpt[OPS] = ["450 4.2.0 greylisted, come again in 60 s"]
        said = refusal(server.port, Unreachable)
        send(server.port)
    assert said.endswith("refused the address: 450 4.2.0 greylisted, come again in 60 s")
    assert len(server.mails) == 1


def test_an_address_that_is_refused_is_told_as_refused() -> None:
    with smtp_server() as server:
        server.rcpt[OPS] = ["550 5.1.1 no such user here"]
        said = refusal(server.port, Denied)
    assert said.endswith("refused the address: 550 5.1.1 no such user here")


def test_a_mail_that_is_refused() -> None:
    with smtp_server() as server:
        server.data += ["451 4.3.0 out of disk", "554 5.7.1 this is spam"]
        assert "451 4.3.0 out of disk" in refusal(server.port, Unreachable)
        assert "refused the mail: 554 5.7.1 this is spam" in refusal(server.port, Denied)


def test_a_server_that_hangs_is_let_go_at_the_deadline() -> None:
    with _silent() as port:
        begun = time.monotonic()
        said = refusal(port, Unanswered, timeout=Seconds(0.3))
        assert time.monotonic() - begun < 30
    assert said == f"127.0.0.1:{port} did not take the mail within 0.3 s"


def test_a_server_that_drips_is_let_go_at_the_deadline() -> None:
    """Each byte comes in time, the mail never does; and nothing of it is left running."""
    with _silent(drip=b"2") as port:
        refusal(port, Unanswered, timeout=Seconds(0.5))
    until = time.monotonic() + 20
    while any(each.name == "notify" for each in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_server_that_speaks_something_else() -> None:
    with _silent(drip=b"HTTP/1.1 400 Bad Request\r\n") as port:
        said = refusal(port, Unreachable, timeout=Seconds(20))
    assert "refused the connection" in said


def test_whoever_waits_may_stop_waiting() -> None:
    async def scene(port: int) -> None:
        task = asyncio.create_task(notifier(port).send(MESSAGE))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with _silent() as port:
        asyncio.run(scene(port))


# Settings


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"to": ()}, "to is empty"),
        ({"to": ("ops",)}, 'to holds "ops", which is no mail address'),
        ({"to": ("a@b.example\nBcc: c@d.example",)}, "no mail address"),
        ({"to": (OPS, "OPS@example.com")}, "to holds an address twice"),
        ({"sender": "PBX <pbx@example.com>"}, "no mail address"),
        ({"user": "u"}, "user and password_file belong together"),
        (
            {
                "user": "u",
                "password_file": SecretFile(Path("x")),
                "security": Security.NONE,
            },
            "a password is never sent in the clear",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Settings(**({"to": (OPS,)} | settings))


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({}, 25),
        ({"user": "u", "password_file": SecretFile(Path("x"))}, 587),
        ({"security": Security.TLS}, 465),
        ({"port": Port(2525)}, 2525),
    ],
)
def test_the_port_is_the_usual_one(settings: dict[str, Any], port: int) -> None:
    assert Settings(to=(OPS,), **settings).port_or_usual == port


@contextmanager
def _silent(drip: bytes = b"") -> Iterator[int]:
    """A server that never comes to the point."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            try:
                there, _ = listening.accept()
                with there:
                    while not ended.wait(0.05):
                        if drip:
                            there.sendall(drip)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            thread.join(10)
