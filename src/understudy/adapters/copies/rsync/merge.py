"""Taking what only the other node had, at the node that serves, under the running PBX.

Each unit, a file or a voicemail message, is either known (it was in the copy that this node began with, or is here, or
was merged before), or taken, or left where it is kept aside.  Nothing here is overwritten or deleted.
"""

import errno
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO

from understudy.adapters.copies.regular import open_regular
from understudy.adapters.copies.stop import Stop, beside
from understudy.errors import Denied
from understudy.ports import Merged

from .bundle import Member, read
from .desk import Desk, LeftError, Place
from .files import ROOT, Files
from .record import Record
from .settings import Merge
from .single import take_file
from .transfer import complaint, do, printable, transfer
from .voicemail import Message, is_unfinished, part_of, take_message

NAMES = "merging"  # In the store: names without contents, while `exclude` is asked about them.

Unit = tuple[str, Callable[[Desk], str | None]]  # For people; and how it is taken.


async def merge(files: Files, bundle: Path) -> Merged:
    """ports.Copy.merge.  Raises Denied, Unreachable, OSError."""
    if files.settings.merge is Merge.NONE:
        raise Denied(
            f"{files.name} is not merged: what the active node has counts",
            hint=f"If it should be, write `merge` in [copies.{files.name}], on both nodes.",
        )
    stop = Stop(files.settings.within, f"merging {files.name}")
    with await do(open_regular, bundle) as content:
        members = await do(read, content)
        placed, left = _placed(files, members)
        excluded = await _excluded(files, placed, stop)
        left += [f"{_said(path)}: excluded here" for path in sorted(excluded)]
        units = _units(files, ((p, m) for p, m in placed if p.path not in excluded))
        return await beside(partial(_take, files, content, units, left, stop), stop)


def _placed(
    files: Files, members: Iterable[Member]
) -> tuple[list[tuple[Place, Member]], list[str]]:
    """Where each belongs here; and what belongs nowhere, with the reason."""
    placed, left = [], []
    for member in members:
        place = _place(files.settings.paths, member.path)
        if place is None:
            left.append(f"{_said(member.path)}: in none of the paths here")
        elif any(fnmatchcase(n, each) for n in place.names for each in files.settings.passing):
            left.append(f"{_said(place.path)}: no data")
        else:
            placed.append((place, replace(member, path=place.path)))
    return placed, left


def _place(paths: Sequence[Path], path: Path) -> Place | None:
    _, number, *names = path.parts
    if not re.fullmatch(r"[0-9]{1,4}", number) or int(number) >= len(paths):
        return None
    top = paths[int(number)]
    return Place(top, tuple(names)) if names else Place(top.parent, (top.name,))


async def _excluded(
    files: Files, placed: Sequence[tuple[Place, Member]], stop: Stop
) -> frozenset[Path]:
    """Which of them must not come here.  rsync alone knows what its patterns mean: it copies the names."""
    if not files.settings.exclude:
        return frozenset()
    found: set[Path] = set()
    names = files.store.folder / NAMES
    try:
        for top in files.settings.paths:
            inside = [place for place, _ in placed if place.top == top]
            await do(_write_names, names, inside)
            words = [f"--exclude={pattern}" for pattern in files.settings.exclude]
            words += [f"{names}/all/", f"{names}/passed/"]
            done = await transfer(words, time.monotonic() + stop.left, {})
            if done.code != 0:
                raise Denied(f"`exclude` could not be applied to the bundle: {complaint(done)}")
            found |= await do(_missing, names / "passed", inside)
    finally:
        await do(shutil.rmtree, names, ignore_errors=True)
    return frozenset(found)


def _write_names(names: Path, places: Iterable[Place]) -> None:
    shutil.rmtree(names, ignore_errors=True)
    for folder in ("all", "passed"):
        (names / folder).mkdir(mode=0o700, parents=True)
    for place in places:
        file = names.joinpath("all", *place.names)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def _missing(passed: Path, places: Iterable[Place]) -> set[Path]:
    return {place.path for place in places if not passed.joinpath(*place.names).exists()}


def _units(files: Files, placed: Iterable[tuple[Place, Member]]) -> Iterator[Unit]:
    """In the order of their names, so that messages keep theirs."""
    messages: dict[tuple[Place, str], dict[str, Member]] = {}
    for place, member in sorted(placed, key=lambda each: each[0].path):
        part = part_of(place) if files.settings.merge is Merge.VOICEMAIL else None
        if part is not None and not is_unfinished(place):
            number, end = part
            folder = Place(place.top, place.names[:-1])
            messages.setdefault((folder, number), {})[end] = member
        elif files.settings.merge is Merge.VOICEMAIL and is_unfinished(place):
            yield str(place.path), _leave_unfinished
        else:
            yield str(place.path), partial(take_file, place=place, member=member)
    for (folder, number), parts in messages.items():
        message = Message(folder, number, parts)
        yield message.path, partial(take_message, message=message)


def _leave_unfinished(desk: Desk) -> str | None:
    raise LeftError("it was still being recorded")


def _take(
    files: Files, content: IO[bytes], units: Iterable[Unit], left: Sequence[str], stop: Stop
) -> Merged:
    newest = files.store.newest()
    taken, known, stay, again = list[str](), 0, list(left), False
    with Record(files.store.folder) as record:
        desk = Desk(content, record, newest.path / ROOT if newest else None, stop)
        for name, take in units:
            stop.check()
            try:
                target = take(desk)
            except LeftError as error:
                again |= error.passes
                stay.append(f"{_said(name)}: {error}")
            except OSError as error:
                again |= error.errno in (errno.ENOSPC, errno.EDQUOT)
                stay.append(f"{_said(name)}: {error.strerror or error}")
            else:
                known += target is None
                taken += [_said(target)] if target is not None else []
    return Merged(taken=tuple(taken), known=known, left=tuple(stay), again=again)


def _said(path: Path | str) -> str:
    """Names come from the other node."""
    return printable(str(path))
