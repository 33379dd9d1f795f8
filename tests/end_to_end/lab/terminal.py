"""A person at a terminal of a host: what is typed, what stands on the screen, and what is answered when it asks."""

import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from typing import IO

from lab import machines

PROMPT = re.compile(r"\[(\d+)\]\$ $")  # With the exit status of what was typed before.
QUIET = 1.0  # Seconds without output: a line that has no end is then a question.


class Terminal:
    """util-linux's script(1) makes a terminal there; bash asks for passwords and the like on it."""

    def __init__(self, host: str) -> None:
        shell = "cd; PS1='[$?]$ ' exec bash --norc --noprofile -i"
        self._process = subprocess.Popen(
            machines.entering(host, "script", "-qefc", shell, "/dev/null"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._selector = DefaultSelector()
        self._selector.register(self._out, EVENT_READ)
        self.screen = ""  # All that has stood on it.
        self._until_prompt(20.0, ())

    def close(self) -> None:
        with suppress(OSError):
            self._in.write(b"exit\n")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait(10)
        self._in.close()
        self._out.close()

    def type(
        self, line: str, *, answers: Sequence[tuple[str, str]] = (), within: float = 120.0
    ) -> tuple[int, str]:
        """The exit status, and what came on the screen.  `answers`: words of a question, and what is typed to it; to
        any other question it is Enter alone."""
        self._write(line)
        return self._until_prompt(within, (("(yes/no", "yes"), *answers))

    def _until_prompt(self, within: float, answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
        said, ends = "", time.monotonic() + within
        while True:
            assert time.monotonic() < ends, f"no end within {within:g} s:\n{said}"
            if self._selector.select(QUIET):
                data = self._out.read(65536)
                assert data, f"the terminal is gone:\n{said}"
                text = data.decode(errors="replace").replace("\r", "")
                said += text
                self.screen += text
                found = PROMPT.search(said)
                if found:
                    return int(found[1]), said[: found.start()]
            elif said and not said.endswith("\n"):
                question = said.rsplit("\n", 1)[-1]
                self._write(next((reply for words, reply in answers if words in question), ""))
                said += "\n"  # Answered: the same question does not count again.

    def _write(self, line: str) -> None:
        self._in.write(line.encode() + b"\n")
