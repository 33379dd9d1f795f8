"""At the standby: one new whole snapshot from the active node."""

import re
import shlex
import time
from pathlib import Path

from understudy.adapters.processes import Finished
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable
from understudy.ports import Pulled, Source

from .difference import Difference, count, difference
from .files import ROOT, Files, below
from .transfer import complaint, do, printable, transfer, unread

MANY = 20  # Files in a path: to lose more than half of so many is believed to be an accident.
SILENCE = 60  # Seconds without a byte after which either rsync gives up (--timeout).

# rsync calls SHELL HOST PROGRAM WORD...; the request is a line for a shell, since it may hold any signs.
_SHELL = """sh -c 'shift 2; eval "exec $UNDERSTUDY_REACH \\"\\$@\\""' sh"""


async def pull(files: Files, source: Source) -> Pulled:
    """Raises Unreachable, Denied, OSError; then there is no new snapshot."""
    taken, give_up = time.time(), time.monotonic() + files.settings.within
    new = await do(files.store.begin) / ROOT
    newest = files.store.newest()
    old = newest.path / ROOT if newest else None
    received = 0
    try:
        for path in files.settings.paths:
            received += await _receive(files, source, path, new, old, give_up)
        return await do(_keep, files, source.node, new, old, taken, received)
    except AdapterError:
        await do(files.store.discard)
        raise


async def _receive(
    files: Files, source: Source, path: Path, new: Path, old: Path | None, give_up: float
) -> int:
    """Returns the bytes that travelled."""
    words = await do(_receiving, files, path, new, old)
    # rsync asks its shell to run "rsync" there; ours knows better.
    request = shlex.join((*source.reach, "copy", files.name, str(source.epoch)))
    try:
        done = await transfer(words, give_up, {"UNDERSTUDY_REACH": request})
    except Unanswered as error:
        within = files.settings.within
        raise Unreachable(f"{source.node} did not send {path} within {within:g} s") from error
    if done.code not in (0, 24):  # 24: a file vanished while it was read, as files do.
        raise await do(_failure, files, source.node, path, old, done)
    return _received(done.out)


def _receiving(files: Files, path: Path, new: Path, old: Path | None) -> list[str]:
    """rsync's arguments."""
    into = below(new, path).parent
    into.mkdir(parents=True, exist_ok=True)
    words = ["--stats", f"--timeout={SILENCE}", f"--rsh={_SHELL}"]
    if old is not None and below(old, path).parent.is_dir():
        words.append(f"--link-dest={below(old, path).parent}")
    # Which of the paths, with the name under which it will come: rsync insists on that.
    number = files.settings.paths.index(path)
    return [*words, *_filters(files, path), f"other:@{number}/{path.name}", f"{into}/"]


def _filters(files: Files, path: Path) -> list[str]:
    """For a transfer of `path` itself: patterns that begin with a slash are meant to begin in it."""
    anchored = (
        f"/{path.name}{each}" if each.startswith("/") else each for each in files.settings.exclude
    )
    # First the path itself, which an unlucky pattern would match; last, what a `put` or a merge may have left there.
    return [
        f"--include=/{path.name}",
        *(f"--exclude={each}" for each in anchored),
        *(f"--exclude={each}" for each in files.settings.passing),
    ]


def _failure(files: Files, node: str, path: Path, old: Path | None, done: Finished) -> AdapterError:
    refusal = re.search(r"^understudy: (.+)$", done.err, re.MULTILINE)
    if refusal:
        return Denied(f"{node} refuses: {printable(refusal[1])}")
    gone = rf'link_stat "[^"]*/{re.escape(path.name)}" failed: .*\(2\)$'
    if re.search(gone, done.err, re.MULTILINE):
        had = count(below(old, path)) if old is not None else 0
        return Denied(
            f"{node} has no {path}" + (f"; the newest copy has {had} files there" if had else ""),
            hint="Make it there, or take it out of `paths`.",
        )
    if done.code == 23:
        return Denied(
            f"not all of {path} could be copied from {node}: {unread(done.err)}",
            hint="Let it be read there, or exclude it.",
        )
    if done.code == 11:
        return Denied(f"{path} could not be kept here: {complaint(done)}")
    return Unreachable(f"{node} did not send {path}: {complaint(done)}")


def _keep(
    files: Files, node: str, new: Path, old: Path | None, taken: float, received: int
) -> Pulled:
    """What has come whole."""
    found = {
        path: difference(below(new, path), old and below(old, path))
        for path in files.settings.paths
    }
    if not files.store.accepted.exists():
        for path, change in found.items():
            _guard(files, node, path, change)
    changed = any(each.changed for each in found.values())
    if changed:
        files.store.commit(taken)
    else:
        files.store.discard()
    files.store.use_up_acceptance()
    return Pulled(
        changed=changed,
        files=sum(each.new for each in found.values()),
        bytes=received if changed else 0,
    )


def _guard(files: Files, node: str, path: Path, found: Difference) -> None:
    """A source that was wiped does not empty the standby."""
    had, where = found.before, "the newest copy has"
    if not found.known:
        # The first pull: then all that counts is that `put` would leave nothing.
        had, where = (count(path.resolve()), f"{files.node} has") if found.after == 0 else (0, "")
    if (found.after == 0 and had > 0) or (had >= MANY and 2 * found.after < had):
        raise Denied(
            f"{node} has {found.after} files in {path}, and {where} {had}",
            hint=f"If that is right: understudy copies accept {files.name}.",
        )


def _received(out: str) -> int:
    found = re.search(r"^Total bytes received: ([0-9,.]+)$", out, re.MULTILINE)
    return int(re.sub(r"\D", "", found[1])) if found else 0
