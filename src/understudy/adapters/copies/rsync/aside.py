"""Keeping aside what is in place here and would be lost by putting the newest snapshot there."""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from understudy.errors import Denied

from .files import ROOT, Files, below, in_place
from .transfer import complaint, do, transfer


async def keep(files: Files) -> str:
    """Files alone, below their paths.  Raises Denied, Unanswered, OSError."""
    give_up = time.monotonic() + files.settings.within
    root, paths = await do(files.copied)
    ours = await do(files.with_values, root, paths)
    aside = await do(files.store.begin_aside) / ROOT
    for path in paths:
        if path not in ours:
            await _put_aside(files, root, path, aside, ours, give_up)
    for file, content in ours.items():
        await do(_copy_other, in_place(file, paths), below(aside, file), content)
    return str(await do(files.store.keep_aside, time.time()) or "")


async def _put_aside(
    files: Files, root: Path, path: Path, aside: Path, ours: Iterable[Path], give_up: float
) -> None:
    """What is in `path` here and not the same in the snapshot."""
    words = await do(_aside, files, root, path, aside, ours)
    done = await transfer(words, give_up, {}) if words else None
    if done is not None and done.code not in (0, 24):
        raise Denied(f"what is in {path} here could not be kept aside: {complaint(done)}")


def _aside(files: Files, root: Path, path: Path, aside: Path, ours: Iterable[Path]) -> list[str]:
    """rsync's arguments; none where there is nothing."""
    copied, kept, here = below(root, path), below(aside, path), path.resolve()
    words = ["--prune-empty-dirs", *(f"--exclude={each}" for each in files.settings.passing)]
    if here.is_dir():
        kept.mkdir(parents=True)
        mine = (file.relative_to(path) for file in ours if file.is_relative_to(path))
        words += [f"--exclude=/{file}" for file in mine]
        words += [f"--exclude={pattern}" for pattern in files.settings.exclude]
        # Everything that is the same there is left out (rsync(1), --compare-dest).
        return [*words, f"--compare-dest={copied}", f"{here}/", f"{kept}/"]
    if not here.exists():
        return []
    kept.parent.mkdir(parents=True)
    return [*words, f"--compare-dest={copied.parent}", str(here), str(kept)]


def _copy_other(here: Path, kept: Path, content: bytes) -> None:
    """Keep the file that is here, unless it is just this."""
    if here.is_file() and here.read_bytes() != content:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here, kept)
