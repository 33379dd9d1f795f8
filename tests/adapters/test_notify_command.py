"""A program of the administrator's, run for real."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.test_notify_mail import MESSAGE
from understudy.adapters.notify.command import Settings, build
from understudy.config.settings import Command, Seconds
from understudy.errors import Unanswered, Unreachable
from understudy.ports import Message


def send(*words: str, message: Message = MESSAGE, timeout: float = 20.0) -> None:
    settings = Settings(command=Command(words), timeout=Seconds(timeout))
    (one,) = build("sms", settings, host="pbx02")
    asyncio.run(one.send(message))


def test_the_body_is_on_standard_input_and_the_rest_in_the_environment(tmp_path: Path) -> None:
    send("sh", "-c", f"cat > {tmp_path}/body; env | grep ^UNDERSTUDY_ | sort > {tmp_path}/env")
    assert (tmp_path / "body").read_text() == MESSAGE.body
    assert (tmp_path / "env").read_text().splitlines() == [
        "UNDERSTUDY_AT=2027-01-15T08:00:00+00:00",
        "UNDERSTUDY_ID=pbx02.1800000000000.abc123",
        "UNDERSTUDY_KIND=failover-done",
        "UNDERSTUDY_NODE=pbx02",
        "UNDERSTUDY_PAIR=acme",
        "UNDERSTUDY_SEVERITY=critical",
        "UNDERSTUDY_SUBJECT=[acme] pbx02 has taken over: calls are answered there",
    ]


def test_nothing_of_a_message_is_understood_by_a_shell(tmp_path: Path) -> None:
    evil = replace(MESSAGE, subject=f"$(touch {tmp_path}/hurt)", body="`reboot`")
    send("sh", "-c", f'printf %s "$UNDERSTUDY_SUBJECT" > {tmp_path}/subject', message=evil)
    assert (tmp_path / "subject").read_text() == evil.subject
    assert not (tmp_path / "hurt").exists()


def test_a_program_that_fails_is_tried_again_with_what_it_said() -> None:
    with pytest.raises(Unreachable, match="sh ended with 3: no credit left"):
        send("sh", "-c", "echo no credit left >&2; exit 3")


def test_a_program_that_does_not_read_its_input_may_succeed() -> None:
    send("true", message=replace(MESSAGE, body="x" * 1_000_000))


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(Unreachable, match="cannot run /no/such/program"):
        send("/no/such/program")


def test_a_program_that_hangs_is_killed_at_the_deadline() -> None:
    with pytest.raises(Unanswered, match=r"sleep did not end within 0\.2 s"):
        send("sleep", "60", timeout=0.2)


def test_its_name_shows_no_argument() -> None:
    settings = Settings(command=Command(("/usr/local/bin/send-sms", "+15550100")))
    (one,) = build("sms", settings, host="pbx02")
    assert one.name == "sms (send-sms)"
