"""Tells the standby at once that something has changed at the source, so that it need not wait for `every`.

The source lets inotifywait(1) watch, and writes a line for each piece of news; what has changed is found by the pull.

    copy NAME EPOCH watch   what is asked for over the door
    soon                    a sign of life; there is much to watch
    ready                   every change from here on is told; before it nobody watched
    changed                 something has changed since the last one
    still SECONDS           nothing has since then, so many seconds after the watch began
    end                     it was long enough, or what is watched has been replaced: ask anew
    {"ok": false, ...}      as the door refuses anything; then the end

Not seen, and left to `every`: what is written through mmap(2) alone, what another machine writes into a network file
system, and what happens in a new folder before inotifywait has noticed it (inotify(7), Limitations and caveats).
"""

import asyncio
import ctypes
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Self

from understudy.errors import Refused, Unreachable
from understudy.ports import Source

GATHER = 0.3  # Seconds in which changes become one line: a transaction is not announced halfway.
STILL = 1.0  # Seconds between two signs of life.
LATE = 0.3  # Seconds of delay beyond the usual one from which on "still" is no news of this moment.
SILENCE = 15.0  # Seconds without one after which nobody watches any more.
STOP_AFTER = 300.0  # Seconds after which the asker begins anew, and the claim is looked at again.

_LINE_LIMIT = 64 * 1024  # Bytes: a longer line is none of ours.
_END_WITHIN = 1.0  # Seconds for what has closed its output, or was killed, to end.
# Without what reading brings about: the pull itself must not be news.
_EVENTS = "modify,attrib,create,delete,move,delete_self,move_self,unmount"
_GONE = {"DELETE_SELF", "MOVE_SELF", "UNMOUNT"}
_COMPANIONS = ("-wal", "-journal")  # https://www.sqlite.org/tempfiles.html
_LIMITS = re.compile(r"inotify/(max_user_watches|max_user_instances)")


# At the source


def watch_files(
    paths: Sequence[Path],
    *,
    stop_after: float = STOP_AFTER,
    is_still_source: Callable[[], bool] | None = None,
) -> int:
    """Tell on standard output when anything in `paths` changes, until nobody reads it; at most `stop_after` seconds.

    Folders with all that is below them; of a file, and of what is not there, the name in its folder, with what SQLite
    puts beside it.  For the main thread of a process that does nothing else.  `is_still_source` is asked about every
    STILL seconds, and must not block.  Returns the exit status.

    Raises Unreachable where it cannot be watched, Refused when this node is the source no longer.
    """
    with ExitStack() as stack:
        watches = [
            stack.enter_context(_Watch(roots, stop_after, names=names))
            for roots, names in _split(paths)
        ]
        return _tell(watches, stop_after, is_still_source)


def _split(paths: Sequence[Path]) -> list[tuple[list[Path], frozenset[str] | None]]:
    """What to watch with all below it, and what by name: inotifywait does either.  Raises Unreachable."""
    folders = [path for path in paths if _is_folder(path)]
    files = [path for path in paths if path not in folders]
    for path in files:
        if not _is_folder(path.parent):
            raise Unreachable(f"{path} cannot be watched: there is no folder {path.parent}")
    names = frozenset(f"{path}{end}" for path in files for end in ("", *_COMPANIONS))
    parents = list(dict.fromkeys(path.parent for path in files))
    return [each for each in ((folders, None), (parents, names)) if each[0]]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise Unreachable(f"{path} cannot be watched: {error.strerror}") from error


def _tell(
    watches: Sequence["_Watch"], stop_after: float, is_still_source: Callable[[], bool] | None
) -> int:
    poll = select.poll()
    reader = sys.stdout.fileno()
    poll.register(reader, 0)  # POLLERR and POLLHUP alone: whoever read it has gone (poll(2)).
    for watch in watches:
        poll.register(watch.fileno(), select.POLLIN)
    now = began = time.monotonic()
    ends, still_at, changed_at, is_ready = began + stop_after, began + STILL, math.inf, False
    while True:
        wait = min(ends, still_at, changed_at + GATHER if is_ready else math.inf) - now
        if reader in (handle for handle, _ in poll.poll(max(0, math.ceil(1000 * wait)))):
            return 0
        has_news = [watch.has_news() for watch in watches]
        now, lines = time.monotonic(), []
        if any(has_news):
            changed_at = min(changed_at, now)
        if not is_ready and all(watch.is_ready for watch in watches):
            is_ready = True
            lines.append("ready")
        if is_ready and now >= changed_at + GATHER:
            changed_at = math.inf
            lines.append("changed")
        if now >= still_at:
            if is_still_source is not None and not is_still_source():
                raise Refused("this node is not active any more")
            still_at = now + STILL
            if not is_ready:
                lines.append("soon")
            elif changed_at == math.inf:  # Else it would not be true; the next line says so.
                lines.append(f"still {now - began:.2f}")
        if now >= ends or any(watch.is_replaced for watch in watches):
            lines.append("end")
        if not all(_say(reader, line) for line in lines) or "end" in lines:
            return 0


def _say(reader: int, word: str) -> bool:
    """False where nobody reads: it is gone, or has left a whole pipe of lines unread."""
    writable = select.poll()
    writable.register(reader, select.POLLOUT)
    if not any(event & select.POLLOUT for _, event in writable.poll(0)):
        return False
    try:
        os.write(reader, f"{word}\n".encode())
    except OSError:
        return False
    return True


class _Watch:
    """One inotifywait(1), which does not outlive us."""

    def __init__(
        self, roots: Sequence[Path], within: float, *, names: frozenset[str] | None
    ) -> None:
        """With all below `roots`; or, with `names`, only these paths in them.  Raises Unreachable."""
        self.is_ready = False
        self.is_replaced = False  # What is there now is not what is being watched.
        self._roots = {f"{str(root).rstrip('/')}/" for root in roots}
        self._names = names
        self._said: deque[str] = deque(maxlen=2)  # Beside events.
        self._rest = b""
        argv = ["inotifywait", "--monitor", "--event", _EVENTS, "--format", ":%e %w%f"]
        # A safety net below the signal: where nothing happens it would otherwise not notice that we have gone.
        argv += ["--timeout", str(math.ceil(within) + 60)]
        argv += ["--recursive"] if names is None else []
        try:
            self._process = subprocess.Popen(
                [*argv, "--", *map(str, roots)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
                preexec_fn=_end_with(os.getpid()),
            )
        except OSError as error:
            hint = "apt install inotify-tools; until then the copy is as old as `every` says."
            raise Unreachable(f"cannot run inotifywait: {error.strerror}", hint=hint) from error
        os.set_blocking(self.fileno(), False)

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def has_news(self) -> bool:
        """Read some of what there is: has anything changed?  Raises Unreachable when inotifywait has ended."""
        try:
            chunk = os.read(self.fileno(), _LINE_LIMIT)
        except BlockingIOError:
            return False
        if not chunk:
            raise self._ended()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        changed = False
        for line in lines:
            changed |= self._is_news(os.fsdecode(line))
        return changed

    def _is_news(self, line: str) -> bool:
        if not line.startswith(":"):
            self._said.append(line)
            self.is_ready |= line.startswith("Watches established")
            return False
        events, _, path = line[1:].partition(" ")
        if path in self._roots:
            self.is_replaced |= not _GONE.isdisjoint(events.split(","))
            return self._names is None or self.is_replaced
        if self._names is None:
            return True
        # What was missing, or a file, is a folder now: to be watched with all below it.
        self.is_replaced |= path in self._names and "ISDIR" in events.split(",")
        return path in self._names

    def _ended(self) -> Unreachable:
        said = "".join(c for c in " ".join(self._said) if c.isprintable())[:300]
        limit = _LIMITS.search(said)
        if limit:
            what = {"max_user_watches": "folders", "max_user_instances": "programs that watch"}
            return Unreachable(
                f"changes cannot be watched: fs.inotify.{limit[1]} allows no more {what[limit[1]]}",
                hint=f"Raise it: sysctl fs.inotify.{limit[1]}=524288, and the same in a file of /etc/sysctl.d; "
                "until then the copy is as old as `every` says.",
            )
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_WITHIN)
        return Unreachable(
            f"inotifywait ended with status {self._process.poll()}: {said or 'it said nothing'}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_WITHIN)
        assert self._process.stdout is not None
        self._process.stdout.close()


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_with(parent: int) -> Callable[[], None]:
    """For the child, between fork and exec: SIGKILL when the thread that made it dies (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)  # Not there: no lock may be waited for.

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # It died before we asked.
            os._exit(1)

    return ask


# At the standby


class Watcher:
    """Hears from the active node that a class of data has changed."""

    async def changes(self, source: Source, name: str) -> AsyncGenerator[bool, None]:
        """True whenever `name` may have changed at the source: first when it begins to watch.  False about every
        second when it has not, to the consumer who waits for it just then.

        What happens while the consumer is busy is one change.  Ends when the source asks to be asked anew, which it
        does after some minutes; its claim is looked at each time.  Raises Unreachable when nothing is watched: with
        the source's own reason, or that it has been silent for SILENCE seconds.

        The connection is closed with the iterator: `async with contextlib.aclosing(...)`.
        """
        words = ("copy", name, str(source.epoch), "watch")
        with _Far(source.node, (*source.reach, *words), f"the watch of {name}") as far:
            while (has_changed := await far.news()) is not None:
                yield has_changed


class _Far:
    """The source's end, by the command that reaches it."""

    def __init__(self, node: str, argv: Sequence[str], what: str) -> None:
        self._node, self._argv, self._what = node, argv, what
        self._came = asyncio.Event()
        self._changed = self._is_still = self._is_over = self._is_gone = False
        self._lags: deque[float] = deque(
            maxlen=10
        )  # Between its clock and ours, by the latest signs of life.
        self._answer = ""  # The last line that is no word of ours.
        self._rest = b""

    async def news(self) -> bool | None:
        """Wait for the next: has it changed?  None at the end that was announced.  Raises Unreachable."""
        self._is_still = False  # Was said while nobody waited for it.
        while not self._changed:
            if self._is_over:
                return None
            if self._is_gone:
                raise await self._failure()
            if self._is_still:
                return False
            self._came.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self._came.wait()
            except TimeoutError:
                silent = f"{self._node} has been silent for {SILENCE:g} s: nobody hears of changes"
                raise Unreachable(f"{silent} ({self._what})") from None
        self._changed = False
        return True

    def __enter__(self) -> Self:
        self._complaints: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                list(self._argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            self._complaints.close()
            raise Unreachable(f"cannot run {self._argv[0]}: {error.strerror}") from error
        assert self._process.stdout is not None
        self._out = self._process.stdout
        os.set_blocking(self._out.fileno(), False)
        asyncio.get_running_loop().add_reader(self._out.fileno(), self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_WITHIN)
        self._complaints.close()

    def _close(self) -> None:
        if not self._out.closed:
            asyncio.get_running_loop().remove_reader(self._out.fileno())
            self._out.close()

    def _read(self) -> None:
        self._came.set()
        try:
            chunk = os.read(self._out.fileno(), _LINE_LIMIT)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._hear(line.decode(errors="replace"))
        if not chunk or len(self._rest) > _LINE_LIMIT:
            self._is_gone = True
            self._close()

    def _hear(self, line: str) -> None:
        match line.split(" "):
            case ["ready" | "changed"]:
                self._changed = True
            case ["still", seconds] if re.fullmatch(r"[0-9]{1,9}\.[0-9]{2}", seconds):
                # What was held up on its way says nothing of this moment.
                lag = asyncio.get_running_loop().time() - float(seconds)
                self._lags.append(lag)
                self._is_still = lag - min(self._lags) < LATE
            case ["soon"]:
                pass
            case ["end"]:
                self._is_over = True
            case _:
                self._answer = line

    async def _failure(self) -> Unreachable:
        why = _reason(self._answer)
        if why:
            return Unreachable(f"{self._node} does not watch: {why} ({self._what})")
        code = await asyncio.to_thread(self._wait)
        said = _printable(self._complaint() or self._answer) or "nothing on its standard error"
        return Unreachable(f"{self._what} at {self._node} has ended: {said} (exit status {code})")

    def _wait(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_END_WITHIN)
        return None

    def _complaint(self) -> str:
        size = os.fstat(self._complaints.fileno()).st_size
        text = os.pread(self._complaints.fileno(), _LINE_LIMIT, max(0, size - _LINE_LIMIT))
        lines = [
            line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()
        ]
        return lines[-1] if lines else ""


def _reason(line: str) -> str:
    """Of a refusal, as the door writes it; else nothing."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    refused = isinstance(said, dict) and said.get("ok") is False
    return _printable(str(said.get("why", "no reason given"))) if refused else ""


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:300]
