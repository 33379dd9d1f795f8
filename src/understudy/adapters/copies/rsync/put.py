"""Putting the newest snapshot in place."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from understudy.adapters.copies.store import tree
from understudy.adapters.processes import run
from understudy.config.values import SYSTEM_FOLDERS
from understudy.errors import Denied

from .files import Files, below, in_place
from .settings import STAGED
from .transfer import CHANGE, complaint, do, transfer, unread

SELINUX = Path("/sys/fs/selinux/enforce")


async def put(files: Files) -> bool:
    """Raises Denied, Unanswered, OSError.  Cancelled, it has ended when the cancellation is seen.

    A path that came into `paths` after the newest snapshot is left alone.
    """
    give_up = time.monotonic() + files.settings.within
    root, paths = await do(files.copied)
    ours = await do(files.with_values, root, paths)
    changed = False
    for path in paths:
        if path not in ours:
            changed |= await _place(files, root, path, ours, give_up)
    for file, content in ours.items():
        changed |= await do(_write, below(root, file), in_place(file, paths), content)
    await _relabel(files, paths, give_up)
    return changed


async def _place(
    files: Files, root: Path, path: Path, ours: Iterable[Path], give_up: float
) -> bool:
    """All of `path` but the files in `ours`.  Did anything differ?"""
    words = await do(_placing, files, root, path, ours)
    done = await transfer(words, give_up, {})
    if done.code != 0:
        why = unread(done.err) if done.code == 23 else complaint(done)
        raise Denied(f"{path} could not be put in place: {why}")
    return any(line.startswith(CHANGE) for line in done.out.splitlines())


def _placing(files: Files, root: Path, path: Path, ours: Iterable[Path]) -> list[str]:
    """rsync's arguments.  Raises Denied."""
    copied, target = below(root, path), path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _unstage(target)
    # Nothing in place changes before all of it is on this disk: then renames, then deletions.
    words = [
        "--delay-updates",
        "--delete-delay",
        "--omit-dir-times",
        f"--out-format={CHANGE}%i",
    ]
    if copied.is_dir() and not copied.is_symlink():
        mine = (file.relative_to(path) for file in ours if file.is_relative_to(path))
        words += [f"--exclude=/{file}" for file in mine]
        words += [f"--exclude={pattern}" for pattern in files.settings.exclude]
        return [*words, f"{copied}/", f"{target}/"]
    if target.is_dir():
        raise Denied(
            f"{path} is a folder here and a file on the active node", hint="Remove it here."
        )
    return [*words, str(copied), str(target)]


async def _relabel(files: Files, paths: Sequence[Path], give_up: float) -> None:
    """SELinux: what came from the store has its label (restorecon(8))."""
    program = shutil.which("restorecon", path=":".join(SYSTEM_FOLDERS))
    if program is None or not await do(SELINUX.exists):
        return
    there = [str(path.resolve()) for path in paths]
    done = await run((program, "-R", *there), within=max(0.0, give_up - time.monotonic()))
    if done.code != 0:
        raise Denied(f"all is in place, but without its SELinux labels: {done.said}")


def _unstage(target: Path) -> None:
    """Take away what a `put` that was killed has left: rsync itself never would."""
    if target.is_dir():
        staged = [each.path for each in tree(target) if each.name == STAGED]
        for path in staged:
            shutil.rmtree(path, ignore_errors=True)


def _write(copied: Path, target: Path, content: bytes) -> bool:
    """`content` at `target` in one step, with owner and mode of `copied`.  Did anything differ?"""
    like = copied.stat()
    if _is_there(target, like, content):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return True


def _is_there(target: Path, like: os.stat_result, content: bytes) -> bool:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return False
    ours = os.geteuid() != 0 or (found.st_uid, found.st_gid) == (like.st_uid, like.st_gid)
    return found.st_mode == like.st_mode and ours and target.read_bytes() == content
