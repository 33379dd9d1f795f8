"""Who waits for a start gets to know why it was refused; a file is never written to."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest

from understudy.cli.starters import Starters

pytestmark = pytest.mark.timeout(30)
UNIT = f"pbx-of-test-{os.getpid()}"  # Tests beside this one have processes of their own.
WAITS = "import sys; sys.stdin.read()"


@contextmanager
def waiting(*words: str, stderr: int | IO[bytes]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that looks like `systemctl WORDS`, until the context ends."""
    with subprocess.Popen(
        ["systemctl", "-c", WAITS, *words],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stderr=stderr,
    ) as process:
        # For a moment after exec it has no words yet, and Popen does not wait for that.
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.001)
        yield process


def tell(unit: str, text: str) -> None:
    with closing(Starters(unit)) as starters:
        starters.tell(text)


def test_a_terminal_is_told() -> None:
    ours, theirs = os.openpty()
    with waiting("start", UNIT, stderr=theirs):
        tell(f"{UNIT}.service", "the claim names pbx02")
        assert os.read(ours, 200) == b"the claim names pbx02\r\n"
    os.close(ours)
    os.close(theirs)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="SKIPPED FOR WANT OF ROOT: only root's pipes are used"
)
def test_a_script_of_roots_is_told() -> None:
    with waiting("restart", f"{UNIT}.service", stderr=subprocess.PIPE) as process:
        tell(f"{UNIT}.service", "the claim names pbx02")
        assert process.stderr is not None
        assert os.read(process.stderr.fileno(), 200) == b"the claim names pbx02\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED FOR WANT OF ROOT: another user is needed")
def test_a_pipe_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with subprocess.Popen(
        ["systemctl", "-c", "read x", "start", UNIT],
        executable="/bin/sh",
        stdin=subprocess.PIPE,
        stderr=theirs,
        user=65534,
    ):
        tell(f"{UNIT}.service", "the claim names pbx02")
        with pytest.raises(BlockingIOError):
            os.read(ours, 200)
    os.close(ours)
    os.close(theirs)


def test_a_file_is_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("as it was")
    with path.open("rb") as precious, waiting("start", UNIT, stderr=precious):
        tell(f"{UNIT}.service", "the claim names pbx02")
    assert path.read_text() == "as it was"


def test_who_starts_something_else_is_left_alone() -> None:
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    for words in (("start", "other"), ("status", UNIT)):
        with waiting(*words, stderr=theirs):
            tell(f"{UNIT}.service", "the claim names pbx02")
        with pytest.raises(BlockingIOError):
            os.read(ours, 200)
    os.close(ours)
    os.close(theirs)
