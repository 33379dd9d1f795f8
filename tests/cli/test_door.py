"""The doorkeeper: requests are answered at once by a process that has the program loaded."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from understudy import knock

KEEPER = """
import os, sys, time
from understudy.cli.door import Doorkeeper

def answer(words):
    line = os.environ.get("SSH_ORIGINAL_COMMAND", "-")
    print("kept:", os.getppid() == int(KEEPER), line, *words)
    if "echo" in words:
        sys.stdout.write(sys.stdin.read())
    if "fail" in words:
        print("it failed", file=sys.stderr)
        return 3
    if "crash" in words:
        raise ValueError("a bug")
    if "replace" in words:
        sys.stdout.flush()
        os.execvp("sh", ["sh", "-c", "echo another program; exit 7"])
    if "sleep" in words:
        sys.stdout.flush()
        time.sleep(60)
    return 0

KEEPER = os.getpid()
Doorkeeper(sys.argv[1], answer).keep()
"""
AS_NOBODY = "import os; from understudy.knock import knock; os.setuid(65534)\n"
ASK = """
import sys
from understudy.knock import knock
status = knock(sys.argv[1:])
if status is None:
    print("answered here")
sys.exit(0 if status is None else status)
"""


@contextmanager
def keeper(place: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", KEEPER, place])
    try:
        ends = time.monotonic() + 10
        while not is_open(place):
            assert process.poll() is None
            assert time.monotonic() < ends
            time.sleep(0.01)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)


def is_open(place: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        try:
            knock.connect(door, place)
        except OSError:
            return False
        return True


@pytest.fixture
def config(tmp_path: Path) -> str:
    # Longer than an address of a socket may be.
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    return str(folder / "understudy.toml")


def ask(
    config: str, *words: str, line: str = "", stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-c", ASK, "--config", config, "--node", "pbx01", "answer", *words]
    environment = {**os.environ, **({"SSH_ORIGINAL_COMMAND": line} if line else {})}
    return subprocess.run(
        argv, input=stdin, env=environment, capture_output=True, text=True, timeout=20, check=False
    )


def place(config: str) -> str:
    return knock.place(["--config", config, "--node", "pbx01", "answer"])


def test_a_request_is_answered_with_the_askers_streams_and_status(config: str) -> None:
    with keeper(place(config)):
        done = ask(config, "echo", line="fence pbx01 7", stdin="what came in\n")
        words = f"--config {config} --node pbx01 answer echo"
        assert done.stdout == f"kept: True fence pbx01 7 {words}\nwhat came in\n"
        assert done.returncode == 0
        # The line of the one before is not there any more.
        assert ask(config).stdout.startswith("kept: True - ")
        failed = ask(config, "fail")
        assert (failed.returncode, failed.stderr) == (3, "it failed\n")
        crashed = ask(config, "crash")
        assert crashed.returncode == 1
        assert "ValueError: a bug" in crashed.stderr
        replaced = ask(config, "replace")
        assert (replaced.returncode, replaced.stdout.splitlines()[-1]) == (7, "another program")
    assert not Path(place(config)).exists()


def test_without_a_doorkeeper_the_program_answers_itself(config: str) -> None:
    assert ask(config).stdout == "answered here\n"
    Path(place(config)).touch()
    assert ask(config).stdout == "answered here\n"
    Path(place(config)).unlink()
    with keeper(place(config)) as process:
        process.kill()  # Its door is left behind.
        process.wait(10)
        assert ask(config).stdout == "answered here\n"
        with keeper(place(config)):  # And the next one takes it.
            assert ask(config).stdout.startswith("kept: True")


def test_a_doorkeeper_that_hangs_is_not_waited_for(config: str) -> None:
    with keeper(place(config)) as process:
        process.send_signal(signal.SIGSTOP)
        assert ask(config).stdout == "answered here\n"
        process.send_signal(signal.SIGCONT)
        assert ask(config).stdout.startswith("kept: True")


def test_a_strangers_door_is_not_knocked_at(config: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    with keeper(place(config)):
        folder = Path(config).parent
        for each in (folder, *folder.parents[:3]):
            each.chmod(0o755)
        Path(place(config)).chmod(0o666)
        found = subprocess.run(
            [
                sys.executable,
                "-c",
                AS_NOBODY + ASK,
                "--config",
                config,
                "--node",
                "pbx01",
                "answer",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert found.stdout == "answered here\n"


def test_who_says_nothing_or_too_little_is_sent_away(config: str) -> None:
    with keeper(place(config)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            knock.connect(silent, place(config))
            silent.settimeout(5)
            silent.sendall(knock.KNOCK)
            assert silent.recv(1) == knock.TAKEN
            silent.sendall(b"answer")  # Without streams.
            assert silent.recv(1) == b""
        assert ask(config).stdout.startswith("kept: True")


def test_what_is_being_answered_outlives_the_doorkeeper(config: str) -> None:
    with keeper(place(config)) as process:
        argv = [sys.executable, "-c", ASK, "--config", config, "--node", "pbx01", "answer", "sleep"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline().startswith("kept: True")
            process.terminate()
            process.wait(10)
            assert asking.wait(10) == 1  # Nobody can tell any more how it ends.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["answer"], "/run/understudy/door"),
        (["--config", "/etc/a.toml", "answer"], "/etc/a.toml..door"),
        (["--config=/etc/a.toml", "--node", "b", "answer", "--node", "c"], "/etc/a.toml.b.door"),
    ],
)
def test_each_configuration_and_node_has_a_door_of_its_own(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNDERSTUDY_CONFIG", raising=False)
    assert knock.place(arguments) == expected


def test_only_answers_that_need_no_rights_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_ORIGINAL_COMMAND", raising=False)
    assert knock.is_request(["--config", "x", "answer", "ask", "7"])
    assert not knock.is_request(["answer"])
    assert not knock.is_request(["answer", "fence", "pbx01", "7"])
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "copy etc 7 read")
    assert knock.is_request(["answer"])
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "fence pbx01 7")
    assert not knock.is_request(["answer", "status"])
    monkeypatch.delenv("SSH_ORIGINAL_COMMAND")
    assert not knock.is_request(["status", "answer"])
    assert not knock.is_request(["--node", "answer"])
    assert not knock.is_request([])
