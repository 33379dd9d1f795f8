"""Real agents that tell people: as a daemon, from cron, and with a mail server that hangs."""

import shlex
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.smtp_server import smtp_server
from cli.pair import CliPair, pair, until


@pytest.fixture
def two(tmp_path: Path) -> Iterator[CliPair]:
    with pair(tmp_path) as made:
        made.begin("pbx01")
        yield made


def tell(two: CliPair, node: str, section: str) -> None:
    path = two.config(node)
    path.write_text(f"{path.read_text()}\n[notify.night]\n{section}\n")


def told(two: CliPair) -> list[str]:
    path = two.folder / "told"
    return path.read_text().splitlines() if path.exists() else []


def by_command(two: CliPair) -> str:
    into = shlex.quote(str(two.folder / "told"))
    return f"""kind = "command"
command = ["/bin/sh", "-c", 'echo "$UNDERSTUDY_SUBJECT" >> {into}']"""


def test_rounds_by_cron_tell_once_what_each_of_them_saw(two: CliPair) -> None:
    tell(two, "pbx02", by_command(two))
    two.run("pbx02", "tick")
    assert told(two) == []  # The past is not told.
    (two.folder / "break-glass").touch()
    for _ in range(2):
        two.run("pbx02", "tick")
    assert [each for each in told(two) if "glass" in each] == [
        "[acme] the glass is broken on pbx02: its PBX runs whatever the claim says"
    ]


def test_a_daemon_mails_a_failover(two: CliPair) -> None:
    with smtp_server() as server:
        tell(
            two,
            "pbx02",
            f'kind = "mail"\nto = ["ops@example.com"]\nserver = "127.0.0.1"\nport = {server.port}',
        )
        two.run("pbx01", "tick")  # It serves, and nobody watches it any more.
        two.start("pbx02", "run")
        until(lambda: "standby" in two.said("pbx02"), within=20, what="pbx02 is standby")
        two.kill_pbx("pbx01")
        until(
            lambda: any("has taken over" in mail["Subject"] for mail in server.mails),
            within=60,
            what="the mail says so",
        )
    mail = next(mail for mail in server.mails if "has taken over" in mail["Subject"])
    assert mail["Subject"] == "[acme] pbx02 has taken over: calls are answered there"
    assert mail["X-Understudy-Kind"] == "failover-done"
    assert "led sip.example.test to itself" in mail.get_content()


def test_a_mail_server_that_hangs_holds_nothing_up(two: CliPair) -> None:
    """Neither the agent's decisions nor its end; and status says who could not be told."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        port = hanging.getsockname()[1]
        tell(
            two,
            "pbx02",
            f'kind = "mail"\nto = ["ops@example.com"]\nserver = "127.0.0.1"\nport = {port}\ntimeout = "2m"',
        )
        process = two.start("pbx02", "run")
        until(lambda: "standby" in two.said("pbx02"), within=20, what="pbx02 is standby")
        time.sleep(3.0)  # It has looked once: what comes is news.
        (two.folder / "break-glass").touch()
        hanging.settimeout(30)
        there, _ = hanging.accept()
        with there:
            assert two.json("pbx02", "status")["undelivered"] == []  # Not yet for long.
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - begun < 30
    assert "the agent ends (SIGTERM)" in two.said("pbx02")
    two.config("pbx02").write_text(
        two.config("pbx02").read_text().partition("\n[notify.night]")[0]
        + f"\n[notify.night]\n{by_command(two)}\n"
    )
    two.run("pbx02", "tick")  # What waited is for a way that is not configured any more.
    (lost,) = two.json("pbx02", "status")["undelivered"]
    assert (lost["notifier"], lost["given_up"]) == ("night (ops@example.com)", True)
