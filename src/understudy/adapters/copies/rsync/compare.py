"""What putting the newest snapshot in place would change here: rsync(1), --dry-run, both ways."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from understudy.errors import Denied
from understudy.ports import Compared

from .files import Files, below, in_place
from .transfer import complaint, do, transfer

SHOWN = 5  # Names.
_FORM = "--out-format=%i %l %n"  # itemized change, bytes, name


async def compare(files: Files) -> Compared:
    """Raises Denied, Unanswered, OSError."""
    give_up = time.monotonic() + files.settings.within
    root, paths = await do(files.copied)
    ours = await do(files.with_values, root, paths)
    comes = size = only_here = 0
    examples: list[str] = []
    with tempfile.TemporaryDirectory() as nowhere:
        for path in paths:
            if path in ours:
                continue
            copied, here = below(root, path), path.resolve()
            for _, length in await _list(_words(files, path, ours, copied, here), give_up):
                comes, size = comes + 1, size + length
            if not here.exists():
                continue
            beside = copied if here.is_dir() else copied.parent
            words = [f"--compare-dest={beside}"]
            words += _words(files, path, ours, here, Path(nowhere) / path.name)
            for name, _ in await _list(words, give_up):
                only_here += 1
                examples.append(name)
    for file, content in ours.items():
        target = in_place(file, paths)
        if not target.is_file() or await do(target.read_bytes) != content:
            comes += 1
    return Compared(
        unit="files",
        comes=comes,
        bytes=size,
        only_here=only_here,
        examples=tuple(examples[:SHOWN]),
    )


def _words(files: Files, path: Path, ours: Iterable[Path], source: Path, target: Path) -> list[str]:
    words = ["--dry-run", _FORM, *(f"--exclude={each}" for each in files.settings.passing)]
    if not source.is_dir() or source.is_symlink():
        return [*words, str(source), str(target)]
    mine = (file.relative_to(path) for file in ours if file.is_relative_to(path))
    words += [f"--exclude=/{file}" for file in mine]
    words += [f"--exclude={pattern}" for pattern in files.settings.exclude]
    return [*words, f"{source}/", f"{target}/"]


async def _list(words: list[str], give_up: float) -> list[tuple[str, int]]:
    """Names and bytes of the files that would be sent."""
    with tempfile.TemporaryFile() as told:
        done = await transfer(words, give_up, {}, into=told)
        if done.code not in (0, 24):
            raise Denied(f"what is here could not be compared: {complaint(done)}")
        return await do(_read, told)


def _read(told: IO[bytes]) -> list[tuple[str, int]]:
    told.seek(0)
    lines = (line.decode(errors="replace").rstrip("\n").split(" ", 2) for line in told)
    return [(each[2], int(each[1])) for each in lines if len(each) == 3 and each[0][1:2] == "f"]
