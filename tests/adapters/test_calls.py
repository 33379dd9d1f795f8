"""How many calls are in progress: what a program says, and never just any number in it."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.kamailio import free_ports, need
from understudy.adapters.services.calls import calls_in, count
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable

KAMAILIO = """\
#!KAMAILIO
debug=0
log_stderror=yes
children=1
disable_tcp=yes
dns=no
rev_dns=no
listen=udp:127.0.0.1:{port}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "dialog.so"
loadmodule "ctl.so"
modparam("ctl", "binrpc", "unix:{home}/ctl")
modparam("dialog", "enable_stats", 0)
request_route {{
    sl_send_reply("200", "OK");
    exit;
}}
"""


def script(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "calls"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path),)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 active channels\n2 active calls\n17 calls processed\n", 2),  # Asterisk.
        ("2 active channels\n1 active call\n17 calls processed\n", 1),
        ("0 active channels\n0 active calls\n0 calls processed\n", 0),
        ("\n3 total.\n\n", 3),  # FreeSWITCH.
        ("\n0 total.\n", 0),
        (
            "{\n\tstarting: 4\n\tconnecting: 1\n\tanswering: 0\n\tongoing: 7\n\tall: 12\n}\n",
            12,
        ),  # Kamailio.
        ("5\n", 5),  # A script.
        ("", None),
        ("none", None),
        ("error 7: the PBX is not there", None),
        ("3 active channels\n", None),
    ],
)
def test_a_number_counts_only_where_it_is_one_of_calls(text: str, number: int | None) -> None:
    assert calls_in(text) == number


def test_calls_are_counted_by_the_program(tmp_path: Path) -> None:
    assert asyncio.run(count(script(tmp_path, "echo 4 active channels; echo 2 active calls"))) == 2


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("echo 3; echo Unable to connect >&2; exit 1", Denied, "calls: Unable to connect"),
        ("echo all is well", Denied, "calls does not say how many: all is well"),
        ("sleep 60", Unanswered, "did not end within 0.3 s"),
    ],
)
def test_what_cannot_be_counted_is_not_zero(
    tmp_path: Path, text: str, kind: type[AdapterError], why: str
) -> None:
    with pytest.raises(kind, match=why):
        asyncio.run(count(script(tmp_path, text), within=0.3))


def test_a_program_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="/gone: No such file"):
        asyncio.run(count((f"{tmp_path}/gone",)))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    """Where a Kamailio with dialogs takes commands."""
    program = need("kamailio")
    (port,) = free_ports(1, "127.0.0.1")
    config = tmp_path / "kamailio.cfg"
    config.write_text(KAMAILIO.format(port=port, home=tmp_path))
    log = tmp_path / "log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [program, "-DD", "-E", "-f", config, "-m", "16", "-M", "4", "-Y", tmp_path],
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 15
        while not (tmp_path / "ctl").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield f"unix:{tmp_path}/ctl"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.mark.real
def test_kamailio_says_it_as_we_read_it(control: str) -> None:
    command = (need("kamcmd"), "-s", control, "dlg.stats_active")
    assert asyncio.run(count(command)) == 0
