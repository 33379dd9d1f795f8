"""Merging the messages of Asterisk's app_voicemail, which keeps each as some files of one number.

    MAILBOX/FOLDER/msg0003.txt         what it is about; a message without it does not count
    MAILBOX/FOLDER/msg0003.wav         what was said; there may be one for each format
    MAILBOX/FOLDER/msg0003intro.wav    what somebody said who passed it on

Messages of a folder are numbered from 0000 without a gap; one that is deleted lets the later ones move up.  So a number
says nothing, and a message is the same where its files have the same contents, whatever its number and folder are.
(apps/app_voicemail.c: last_message_index, resequence_mailbox, save_to_folder.)
"""

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .bundle import Member
from .desk import Desk, LeftError, Place, is_at, is_placed, key_of, removing, temporary
from .walk import folder_in, folder_of, is_there, link, remove, status_of

LOCK_WITHIN = 5.0  # Seconds: as long as Asterisk itself tries.
LOCK_OLD = 120.0  # Seconds from which on nobody is believed to come back to his lock.
MOST = 9999  # Numbers in a folder (MAXMSGLIMIT).

_FILE = re.compile(r"msg(\d{4})((?:intro)?\.[A-Za-z0-9]{1,16})", re.ASCII)
_NUMBER = re.compile(r"msg(\d{1,30})", re.ASCII)
_INFORMATION = ".txt"
_LOCK, _OUR_LOCK = ".lock", ".lock-understudy"


@dataclass(frozen=True, slots=True)
class Message:
    """One of a bundle."""

    folder: Place
    number: str  # That it had.
    parts: Mapping[
        str, Member
    ]  # By what follows the number in their names: ".txt", ".wav", "intro.wav".

    @property
    def path(self) -> str:
        return f"{self.folder.path}/msg{self.number}"


def is_unfinished(place: Place) -> bool:
    """It was being recorded: app_voicemail does that in a folder of its own, beside those of the mailbox."""
    return "tmp" in place.names[-2:-1]


def part_of(place: Place) -> tuple[str, str] | None:
    """Number and rest of the name of a message's file; None for any other file."""
    found = _FILE.fullmatch(place.names[-1])
    return (found[1], found[2]) if found else None


def take_message(desk: Desk, message: Message) -> str | None:
    """Where it is now; None if it was here before.  Raises LeftError, Denied, Unreachable, OSError.

    As single.take_file, with the name of the .txt last: whoever is killed before leaves something that app_voicemail
    does not count, and that the next merge takes away.
    """
    place, parts = message.folder, message.parts
    _expect_whole(parts)
    digests = {end: desk.digest(member) for end, member in parts.items()}
    mailbox = str(place.path.parent if place.names else place.path)
    key = key_of("message", mailbox, *(text for pair in sorted(digests.items()) for text in pair))
    staged = {end: temporary(key, end) for end in parts}
    if key in desk.record:
        with suppress(OSError), folder_of(place.top) as top, folder_in(top, place.names) as folder:
            _unlock(folder)
            _remove_all(folder, staged.values())
        return None

    def is_in_mailbox(top: int) -> bool:
        return any(_has(folder, digests, desk) for folder in _folders(top, place.names))

    if desk.was_here(place.top, is_in_mailbox):
        desk.record.add(key, message.path)
        return None
    with folder_of(place.top) as top, folder_in(top, place.names, make=True) as folder:
        _unlock(folder)
        is_whole = is_placed(folder, staged[_INFORMATION])
        if not is_whole:
            _take_back(folder, staged.values())
            if is_in_mailbox(top):
                desk.record.add(key, message.path)
                return None
        with removing(folder, *staged.values()):
            if not is_whole:
                for end, name in staged.items():
                    desk.stage(folder, name, parts[end], digests[end])
                _place(folder, staged)
            os.fsync(folder)
            number = _number_of(folder, staged[_INFORMATION])
            now = f"{place.path}/msg{number}"
            desk.record.add(key, now)
    return now if number == message.number else f"{now} (was msg{message.number})"


def _expect_whole(parts: Iterable[str]) -> None:
    """Raises LeftError."""
    if _INFORMATION not in parts:
        raise LeftError("its .txt is not among what was kept aside")
    if not any(end.startswith(".") and end != _INFORMATION for end in parts):
        raise LeftError("its sound is not among what was kept aside: only its .txt differs")


# What is in a mailbox


def _folders(top: int, names: Sequence[str]) -> Iterator[int]:
    """Handles of the folder `names` and of those beside it; of none that is not below `top`."""
    if not names:
        yield top
        return
    with folder_in(top, names[:-1]) as mailbox:
        with os.scandir(mailbox) as entries:
            beside = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        for name in beside:
            with folder_in(mailbox, (name,)) as folder:
                yield folder


def _has(folder: int, digests: Mapping[str, str], desk: Desk) -> bool:
    """Is a message of just these contents in it?"""
    numbers: dict[str, set[str]] = {}
    for name in os.listdir(folder):
        if found := _FILE.fullmatch(name):
            numbers.setdefault(found[1], set()).add(found[2])
    return any(
        ends == digests.keys()
        # Its .txt first, which is small and hardly ever the same.
        and all(
            is_at(folder, f"msg{number}{end}", digests[end], desk.stop)
            for end in sorted(ends, key=_txt_last, reverse=True)
        )
        for number, ends in numbers.items()
    )


# Placing


@contextmanager
def _locked(folder: int) -> Iterator[None]:
    """As app_voicemail locks a folder: by the one name that only one can link (main/app.c, ast_lock_path_lockfile).

    Whoever dies with it keeps callers from leaving messages there.  So ours has a second name, and is taken away by
    the next merge; one of somebody else never is.  Raises LeftError.
    """
    _unlock(folder)
    os.close(
        os.open(
            _OUR_LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder
        )
    )
    try:
        give_up = time.monotonic() + LOCK_WITHIN
        while not _try_lock(folder):
            if time.monotonic() >= give_up:
                raise LeftError(_why_locked(folder), passes=True)
            time.sleep(0.05)
        yield
    finally:
        _unlock(folder)


def _try_lock(folder: int) -> bool:
    try:
        link(folder, _OUR_LOCK, _LOCK)
    except FileExistsError:
        return False
    return True


def _unlock(folder: int) -> None:
    """If the lock is ours."""
    ours, lock = status_of(folder, _OUR_LOCK), status_of(folder, _LOCK)
    if ours is not None and lock is not None and os.path.samestat(ours, lock):
        remove(folder, _LOCK)
    remove(folder, _OUR_LOCK)


def _why_locked(folder: int) -> str:
    lock = status_of(folder, _LOCK)
    age = time.time() - lock.st_mtime if lock is not None else 0.0
    if age < LOCK_OLD:
        return f"its folder was locked by Asterisk for {LOCK_WITHIN:g} s"
    return (
        f"its folder has been locked for {age / 60:.0f} min: whoever did that is gone, and nobody can leave messages "
        f"there.  Remove {_LOCK} in it"
    )


def _place(folder: int, staged: Mapping[str, str]) -> None:
    """With the first number that nobody has, as app_voicemail does; the .txt last.  Raises LeftError, OSError."""
    with _locked(folder):
        used = {int(found[1]) for name in os.listdir(folder) if (found := _NUMBER.match(name))}
        number = next(number for number in range(MOST + 1) if number not in used)
        if number == MOST:
            raise LeftError("its folder is full")
        try:
            for end in sorted(staged, key=_txt_last):
                if end == _INFORMATION:
                    os.fsync(folder)
                link(folder, staged[end], f"msg{number:04}{end}")
        except BaseException as error:
            _unname(folder, staged.values())
            if isinstance(error, FileExistsError):
                why = "something else puts messages into its folder, and minds no lock"
                raise LeftError(why) from error
            raise


def _txt_last(end: str) -> bool:
    return end == _INFORMATION


def _take_back(folder: int, staged: Collection[str]) -> None:
    """What one who was killed has left of a message that is not whole."""
    if any(is_there(folder, name) for name in staged):
        with _locked(folder):
            _unname(folder, staged)
            _remove_all(folder, staged)


def _unname(folder: int, staged: Iterable[str]) -> None:
    """Only the staged names remain; whatever number the message has by now."""
    ours = [status for name in staged if (status := status_of(folder, name))]
    for name in os.listdir(folder):
        status = status_of(folder, name) if _FILE.fullmatch(name) else None
        if status is not None and any(os.path.samestat(status, each) for each in ours):
            remove(folder, name)


def _number_of(folder: int, staged: str) -> str:
    """The message whose .txt that is has this number; `????` if somebody has just moved it to another folder."""
    ours = status_of(folder, staged)
    for name in os.listdir(folder):
        found = _FILE.fullmatch(name)
        status = status_of(folder, name) if found else None
        if found and ours is not None and status is not None and os.path.samestat(ours, status):
            return found[1]
    return "????"


def _remove_all(folder: int, names: Iterable[str]) -> None:
    for name in names:
        remove(folder, name)
