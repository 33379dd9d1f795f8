"""Merging a file that stands for itself: a recording, a greeting."""

import os
from contextlib import suppress

from .bundle import Member
from .desk import Desk, LeftError, Place, digest_at, is_at, is_placed, key_of, removing, temporary
from .walk import folder_in, folder_of, link, remove


def take_file(desk: Desk, place: Place, member: Member) -> str | None:
    """Where it is now; None if it was here before.  Raises LeftError, Denied, Unreachable, OSError.

    It is staged beside its place, gets its name by link(2), is recorded, and loses the first name: whoever is killed
    in between leaves two names of one file, from which the next merge learns that it has been here.
    """
    digest = desk.digest(member)
    key = key_of("file", str(place.path), digest)
    *folders, name = place.names
    staged = temporary(key)
    if key in desk.record:
        with suppress(OSError), folder_of(place.top) as top, folder_in(top, folders) as folder:
            remove(folder, staged)
        return None

    def is_same(top: int) -> bool:
        with folder_in(top, folders) as folder:
            return is_at(folder, name, digest, desk.stop)

    if desk.was_here(place.top, is_same):
        desk.record.add(key, str(place.path))
        return None
    with folder_of(place.top) as top, folder_in(top, folders, make=True) as folder:
        if not is_placed(folder, staged) and _is_known(desk, folder, name, digest):
            desk.record.add(key, str(place.path))
            remove(folder, staged)
            return None
        with removing(folder, staged):
            if not is_placed(folder, staged):
                desk.stage(folder, staged, member, digest)
                _place(folder, staged, name)
            os.fsync(folder)
            desk.record.add(key, str(place.path))
    return str(place.path)


def _is_known(desk: Desk, folder: int, name: str, digest: str) -> bool:
    """Raises LeftError."""
    try:
        here = digest_at(folder, name, desk.stop)
    except OSError as error:
        raise LeftError(f"here is something else of that name: {error.strerror}") from error
    if here is not None and here != digest:
        raise LeftError("another file of that name is here")
    return here is not None


def _place(folder: int, staged: str, name: str) -> None:
    try:
        link(folder, staged, name)
    except FileExistsError as error:
        raise LeftError("another file of that name has just come here") from error
