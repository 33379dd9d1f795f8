"""The copy of the data: can it be read here, is somebody copying, and is what was copied fresh?"""

import shutil
import time
from collections.abc import Iterator

from understudy.config.values import SYSTEM_FOLDERS
from understudy.core.model import Phase
from understudy.errors import AdapterError, JournalError
from understudy.runtime import copy_state
from understudy.runtime.copy_state import CopyState
from understudy.runtime.waiting import span

from . import catalogue as c
from .finding import Finding, Level
from .here import Here

FIND_WITHIN = 20.0  # Seconds for a look at every file of one class.
SHOWN = 3  # Files that are named.


async def copier(here: Here) -> list[Finding]:
    """Is it at work, and how fresh is what it has brought?"""
    file = here.node.copies_file
    if file is None:  # There is nothing to copy.
        return []
    found = [*_rsync(here), *_inotify(here)]
    try:
        state = copy_state.read(file)
    except JournalError as error:
        return [*found, c.COPIER.unknown(here.me, str(error), mend=c.AS_ROOT)]
    wall = time.time()
    if state is None or state.is_silent(wall):
        ago = f", for {span(wall - state.written)}" if state is not None else ""
        return [*found, c.COPIER.bad(here.me, f"no copier is at work here{ago}")]
    found.append(c.COPIER.well(here.me, "the copier is at work"))
    return found + list(_ages(here, state, wall))


def _rsync(here: Here) -> list[Finding]:
    """Both ends need it: one pulls, the other sends."""
    if all(chosen.kind != "rsync" for chosen in here.config.copies.values()):
        return []
    if shutil.which("rsync", path=":".join(SYSTEM_FOLDERS)) is None:
        return [c.RSYNC.bad(here.me, "rsync is not installed")]
    return [c.RSYNC.well(here.me, "rsync is installed")]


def _inotify(here: Here) -> list[Finding]:
    """Whoever is active must tell what changes."""
    if not any(chosen.settings.on_change for chosen in here.config.copies.values()):
        return []
    if shutil.which("inotifywait", path=":".join(SYSTEM_FOLDERS)) is None:
        return [c.INOTIFY.bad(here.me, "inotifywait is not installed")]
    return [c.INOTIFY.well(here.me, "inotifywait is installed")]


def _ages(here: Here, state: CopyState, wall: float) -> Iterator[Finding]:
    """Only of a node that pulls; on any other one it is of yesterday, rightly."""
    if _phase(here) not in (Phase.STANDBY, Phase.SUSPECTING):
        return
    for each in state.classes:
        age = each.age(wall)
        said = (
            f"{each.name} is {span(age)} old"
            if age is not None
            else f"{each.name} was never copied"
        )
        if each.is_stale(wall):
            yield c.COPY_FRESH.bad(
                here.me, said + (f": {each.trouble}" if each.trouble else ""), name=each.name
            )
        elif each.trouble:  # Fresh enough as yet.
            said += f", and cannot be renewed: {each.trouble}"
            yield c.COPY_FRESH.bad(here.me, said, level=Level.WARNING)
        else:
            yield c.COPY_FRESH.well(here.me, said)


def _phase(here: Here) -> Phase | None:
    try:
        journal = here.node.journal()
    except JournalError:
        return None
    try:
        return journal.state.phase
    finally:
        journal.close()


async def readable(here: Here) -> list[Finding]:
    """As the agent's user, who is the source when the other node pulls."""
    found = []
    for name, chosen in here.config.copies.items():
        places = [place for place in chosen.settings.places if place.exists()]
        if not places:
            continue
        argv = (*here.as_agent, "find", *map(str, places), *_UNREADABLE)
        try:
            done = await here.run(*argv, within=FIND_WITHIN)
        except AdapterError as error:
            found.append(c.COPY_READABLE.unknown(here.me, f"{name}: {error}"))
            continue
        files = done.out.splitlines()
        if not files and done.code != 0:
            files = [done.said]  # Not even the way there.
        if files:
            more = f", and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
            said = f"{name}: the other node cannot read {', '.join(files[:SHOWN])}{more}"
            user = here.as_agent[2] if here.as_agent else "understudy"
            found.append(c.COPY_READABLE.bad(here.me, said, user=user))
        else:
            found.append(c.COPY_READABLE.well(here.me, f"{name} can be read by the other node"))
    return found


# find(1): a folder that may not be looked into is one, too.
_UNREADABLE = ("-not", "-type", "l", "-not", "-readable", "-print")
