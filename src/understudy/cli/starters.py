"""Who is asking systemd for a start, and how they get to know why it was refused.

`systemctl start` itself only says that "the control process exited with error code"; and a unit may throw its
standard error away (Asterisk's own does: StandardOutput=null).
"""

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

JOURNAL = "/run/systemd/journal/stdout"
STARTS = {"start", "restart", "try-restart", "reload-or-restart", "try-reload-or-restart"}
TERMINALS = {
    4,
    *range(136, 144),
}  # Major numbers of /dev/tty*, /dev/pts/*: the kernel's devices.txt.
OPEN = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
WITHIN = 5.0  # Seconds for systemctl.


class Starters:
    """The log of a unit, and every `systemctl start` that waits for it.

    To be made while we are root: what it opens then stays open when we are somebody else.  All of it is best effort.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._log = _journal(unit) if "JOURNAL_STREAM" not in os.environ else None
        self._errors = [handle for pid in _waiting(unit) for handle in _standard_error(pid)]

    def tell(self, text: str) -> None:
        with suppress(OSError):
            if self._log is not None:
                self._log.sendall(f"{' '.join(text.split())}\n".encode())
        for handle in self._errors:
            with suppress(OSError):
                os.write(handle, f"{text}\n".encode())

    def end_restarts(self) -> None:
        """Where systemd itself wants the unit back (Restart=), one refusal is enough.

        Not at the first one, which a person may have asked for: that has to fail, and not to be cancelled.  Nor do
        refusals count for StartLimitBurst=: systemd would then refuse a start in words of its own.
        """
        restarts = _systemctl("show", "--property=NRestarts", "--value", "--", self._unit)
        _systemctl("reset-failed", "--", self._unit)
        if restarts not in ("", "0"):
            _systemctl("stop", "--no-block", "--", self._unit)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
        for handle in self._errors:
            os.close(handle)


def _systemctl(*words: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", "--no-ask-password", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _journal(unit: str) -> socket.socket | None:
    """As systemd itself connects a unit's output: sd_journal_stream_fd(3)."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(WITHIN)
    try:
        stream.connect(JOURNAL)
        # Who speaks, the unit, the priority (3: an error), no levels in the lines, and nowhere else.
        stream.sendall(f"understudy\n{unit}\n3\n0\n0\n0\n0\n".encode())
    except OSError:
        stream.close()
        return None
    return stream


def _waiting(unit: str) -> Iterator[str]:
    """The processes that are `systemctl start UNIT`."""
    names = {unit, unit.removesuffix(".service")}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            program, *words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if program.rpartition("/")[2] == "systemctl" and STARTS & set(words) and names & set(words):
            yield folder.name


def _standard_error(pid: str) -> Iterator[int]:
    """Opened, where that is a terminal, or, of a process of root's, a pipe.

    Never a file: who runs a `systemctl` of his own could make us write to one that is not his.
    """
    with suppress(OSError):
        # O_PATH: looked at before it is opened, and surely the same.
        handle = os.open(f"/proc/{pid}/fd/2", os.O_PATH | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            terminal = stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in TERMINALS
            roots_pipe = stat.S_ISFIFO(found.st_mode) and Path(f"/proc/{pid}").stat().st_uid == 0
            if terminal or roots_pipe:
                yield os.open(f"/proc/self/fd/{handle}", OPEN)
        finally:
            os.close(handle)
