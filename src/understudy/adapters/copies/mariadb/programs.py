"""MariaDB's own programs, for work in a thread: bounded, stopped when nobody waits, and never left running."""

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from understudy.adapters.copies.stop import Stop
from understudy.config.values import SYSTEM_FOLDERS
from understudy.errors import Denied, Unreachable

from .settings import Settings
from .sql import process_user

_CHUNK = 64 * 1024  # Bytes; no more than a pipe takes.
_LOOK = 0.2  # Seconds between two looks at `stop`.


def words(program: str, settings: Settings, *arguments: str) -> list[str]:
    """For this machine's server: no file of options is read, so no password and no other server comes in by one."""
    user = settings.user or process_user()
    return [program, "--no-defaults", f"--socket={settings.socket}", f"--user={user}", *arguments]


def output(argv: Sequence[str], stop: Stop) -> Iterator[bytes]:
    """What it writes to its standard output, piece by piece.  Raises Unreachable, and Denied when it fails."""
    with _running(argv, subprocess.DEVNULL, subprocess.PIPE) as (process, complaints):
        assert process.stdout is not None
        while True:
            while not select.select([process.stdout], [], [], _LOOK)[0]:
                stop.check()
            stop.check()
            chunk = os.read(process.stdout.fileno(), _CHUNK)
            if not chunk:
                break
            yield chunk
        _check(process, argv, complaints, stop)


def lines(argv: Sequence[str], stop: Stop) -> Iterator[bytes]:
    """The same by lines, without their ends."""
    rest = b""
    for chunk in output(argv, stop):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def feed(argv: Sequence[str], chunks: Iterable[bytes], stop: Stop) -> str:
    """Give it `chunks` on its standard input; returns what it says.  Raises as `output`."""
    with tempfile.TemporaryFile() as said:
        with _running(argv, subprocess.PIPE, said) as (process, complaints):
            assert process.stdin is not None
            # Through us and not from a file of its own: when we are killed it has nothing more to read.
            os.set_blocking(process.stdin.fileno(), False)
            with suppress(BrokenPipeError):  # It has ended: why is in its complaints.
                for chunk in chunks:
                    _write(process.stdin, chunk, stop)
            process.stdin.close()
            _check(process, argv, complaints, stop)
        said.seek(0)
        return said.read(_CHUNK).decode(errors="replace")


def _write(pipe: IO[bytes], chunk: bytes, stop: Stop) -> None:
    rest = memoryview(chunk)
    while rest:
        stop.check()
        if select.select([], [pipe], [], _LOOK)[1]:
            with suppress(BlockingIOError):
                rest = rest[os.write(pipe.fileno(), rest[:_CHUNK]) :]


@contextmanager
def _running(
    argv: Sequence[str], stdin: int, stdout: int | IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    with tempfile.TemporaryFile() as complaints:
        path = ":".join((os.environ.get("PATH", ""), *SYSTEM_FOLDERS))
        try:
            process = subprocess.Popen(
                [shutil.which(argv[0], path=path) or argv[0], *argv[1:]],
                stdin=stdin,
                stdout=stdout,
                stderr=complaints,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise Unreachable(
                f"cannot run {argv[0]}: {error.strerror}", hint="apt install mariadb-client"
            ) from error
        try:
            yield process, complaints
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _check(
    process: subprocess.Popen[bytes], argv: Sequence[str], complaints: IO[bytes], stop: Stop
) -> None:
    while True:
        try:
            code = process.wait(_LOOK)
            break
        except subprocess.TimeoutExpired:
            stop.check()
    if code != 0:
        complaints.seek(0)
        said = complaints.read(_CHUNK).decode(errors="replace").strip().splitlines()
        why = (
            "".join(c for c in said[-1] if c.isprintable())[:300] if said else f"exit status {code}"
        )
        raise Denied(f"{Path(argv[0]).name} failed: {why}")
