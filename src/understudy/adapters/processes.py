"""Runs another program for a bounded time, with bounded output, and leaves nothing of it behind."""

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from understudy.config.values import SYSTEM_FOLDERS
from understudy.errors import Unanswered, Unreachable

LIMIT = 64 * 1024  # Bytes kept of each stream.  The rest is read and forgotten.
REAP_WITHIN = 0.2  # Seconds for the kernel to take away what was killed; the loop waits meanwhile.


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended."""

    code: int  # Its exit status; -N when signal N ended it.
    out: str
    err: str
    cut: bool = False  # It wrote more than was kept.

    @property
    def said(self) -> str:
        """The last line of its complaint, fit for a sentence; else how it ended."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        text = lines[-1] if lines else f"exit status {self.code}"
        return "".join(c for c in text if c.isprintable())[:300]


async def run(
    argv: Sequence[str],
    *,
    within: float,
    stdin: bytes | IO[bytes] = b"",
    limit: int = LIMIT,
    env: Mapping[str, str] | None = None,
    leaves_running: bool = False,
    into: IO[bytes] | None = None,
) -> Finished:
    """Run `argv` (no shell) and return how it ended, `within` seconds.

    It runs with LC_ALL=C, with the system's folders in its PATH, in a session and process group of its own, which is
    killed at the deadline and when we are cancelled.  What it leaves behind when it ends by itself is left alone and
    not waited for, even if that holds its output open.  `leaves_running` says that this is its purpose (it starts a
    daemon): its output is then a file without a name, so that the daemon may go on writing.

    `stdin` is what it reads: bytes, or an open file from where that stands.  With `into` it writes its standard output
    itself into that open file, without a bound; Finished.out is empty.  The file's offset moves: seek before reading.

    Raises Unreachable when it cannot be started, Unanswered at the deadline.
    """
    with ExitStack() as stack:
        running = _start(stack, argv, stdin, limit, env, leaves_running, into)
        try:
            async with asyncio.timeout(within):
                code = await _ended(running.process)
        except TimeoutError:
            raise Unanswered(f"{Path(argv[0]).name} did not end within {within:g} s") from None
        finally:
            _kill(running.process)
        out = running.out.text() if into is None else ""
        err = running.err.text()
        return Finished(code=code, out=out, err=err, cut=running.out.cut or running.err.cut)


class _Pipe:
    """Keeps the first `limit` bytes; reads the rest too, so that the writer never waits."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.cut = False
        self._stream = stream
        self._limit = limit
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(stream.fileno(), False)
        self._loop.add_reader(stream.fileno(), self._read)

    def text(self) -> str:
        # All that the program itself wrote is in the pipe when it has ended: no need to wait for
        # its end.
        while not self.cut and self._read():
            pass
        return self._kept.decode(errors="replace")

    def close(self) -> None:
        if not self._stream.closed:
            self._loop.remove_reader(self._stream.fileno())
            self._stream.close()

    def _read(self) -> bool:
        if self._stream.closed:
            return False
        try:
            chunk = os.read(self._stream.fileno(), LIMIT)
        except BlockingIOError:
            return False
        if not chunk:
            self.close()
            return False
        room = self._limit - len(self._kept)
        self._kept += chunk[:room]
        self.cut = self.cut or len(chunk) > room
        return True


class _File:
    """The same for a stream that goes to a file."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.cut = False
        self._stream = stream
        self._limit = limit

    def text(self) -> str:
        # pread, because the offset is shared with whoever still writes.
        kept = os.pread(self._stream.fileno(), self._limit + 1, 0)
        self.cut = len(kept) > self._limit
        return kept[: self._limit].decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    process: subprocess.Popen[bytes]
    out: _Pipe | _File
    err: _Pipe | _File


def _path() -> str:
    """Ours, and the system's folders after it: who comes over SSH or from cron may have no sbin in his."""
    ours = [folder for folder in os.environ.get("PATH", "").split(":") if folder]
    return ":".join(dict.fromkeys((*ours, *SYSTEM_FOLDERS)))


def _start(
    stack: ExitStack,
    argv: Sequence[str],
    stdin: bytes | IO[bytes],
    limit: int,
    env: Mapping[str, str] | None,
    leaves_running: bool,
    into: IO[bytes] | None,
) -> _Running:
    files = _files(stack, 2 if leaves_running else 0)
    out_file = into or (files[0] if leaves_running else None)
    err_file = files[1] if leaves_running else None
    words: int | IO[bytes] = subprocess.DEVNULL
    if not isinstance(stdin, bytes):
        words = stdin
    elif stdin:
        (words,) = _files(stack, 1)
        words.write(stdin)
        words.seek(0)
    try:
        # Popen, not asyncio's: that one waits for the end of the output as well, which a daemon may
        # hold open.
        process = subprocess.Popen(
            list(argv),
            stdin=words,
            stdout=out_file or subprocess.PIPE,
            stderr=err_file or subprocess.PIPE,
            env={**os.environ, "PATH": _path(), **(env or {}), "LC_ALL": "C"},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Unreachable(f"cannot run {argv[0]}: {why}") from error
    return _Running(
        process=process,
        out=_kept(stack, process.stdout, out_file, limit),
        err=_kept(stack, process.stderr, err_file, limit),
    )


def _kept(
    stack: ExitStack, pipe: IO[bytes] | None, file: IO[bytes] | None, limit: int
) -> _Pipe | _File:
    """One stream: through a pipe, unless it goes to a file."""
    if file is not None:
        return _File(file, limit)
    assert pipe is not None
    kept = _Pipe(pipe, limit)
    stack.callback(kept.close)
    return kept


def _files(stack: ExitStack, count: int) -> list[IO[bytes]]:
    return [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]


async def _ended(process: subprocess.Popen[bytes]) -> int:
    pause = 0.002
    while (code := process.poll()) is None:
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.05)
    return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    """If it still runs.  What runs as another user (sudo) may refuse; then it is let go."""
    if process.poll() is not None:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except PermissionError:
        return
    # No await: a second cancellation must not leave a zombie.  It takes a millisecond.
    give_up = time.monotonic() + REAP_WITHIN
    while process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.001)
