"""The machine: its disk, its clock, and who may read the keys."""

import os
import stat
from pathlib import Path

from understudy.errors import AdapterError

from . import catalogue as c
from .finding import Finding, Level
from .here import Here
from .settings import secret_files

MB = 1_000_000
LITTLE, HARDLY_ANY = 500 * MB, 50 * MB
PART = 0.05
FEW_FILES = 1000


async def disk(here: Here) -> list[Finding]:
    folder = here.node.journal_path.parent
    try:
        found = os.statvfs(folder)
    except PermissionError:
        return [c.DISK.unknown(here.me, f"{folder} may not be looked at", mend=c.AS_ROOT)]
    except OSError as error:
        return [
            c.DISK.bad(
                here.me,
                f"{folder}: {error.strerror}",
                level=Level.CRITICAL,
                mend=f"mkdir -p {folder}",
            )
        ]
    return [_room(here, folder, found), *_files(here, folder, found)]


def _room(here: Here, folder: Path, found: os.statvfs_result) -> Finding:
    free, whole = found.f_bavail * found.f_frsize, max(found.f_blocks * found.f_frsize, 1)
    said = f"{free // MB} MB ({100 * free // whole} %) are free at {folder}"
    if found.f_flag & os.ST_RDONLY:
        said = f"{folder} is mounted read-only"
        return c.DISK.bad(
            here.me, said, level=Level.CRITICAL, mend=f"mount -o remount,rw {folder}; dmesg"
        )
    if free < HARDLY_ANY:
        return c.DISK.bad(here.me, said, level=Level.CRITICAL, folder=folder)
    if free < LITTLE or free < PART * whole:
        return c.DISK.bad(here.me, said, folder=folder)
    return c.DISK.well(here.me, said)


def _files(here: Here, folder: Path, found: os.statvfs_result) -> list[Finding]:
    if found.f_files == 0:
        return []  # Its file system makes them as they are needed.
    said = f"{found.f_favail} more files can be made at {folder}"
    if found.f_favail < FEW_FILES:
        return [c.INODES.bad(here.me, said, folder=folder)]
    return [c.INODES.well(here.me, said)]


async def secrets(here: Here) -> list[Finding]:
    found = [_secret(here, path) for path in secret_files(here.config)]
    return [each for each in found if each is not None]


def _secret(here: Here, path: Path) -> Finding | None:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return c.SECRETS.unknown(here.me, f"{path} may not be looked at", mend=c.AS_ROOT)
    except OSError as error:
        return c.SECRETS.bad(
            here.me, f"{path}: {error.strerror}", mend=f"copy {path} from the other node"
        )
    if mode & stat.S_IRWXO or mode & stat.S_IWGRP:
        said = f"{path} is open to others (mode {stat.S_IMODE(mode):04o})"
        return c.SECRETS.bad(here.me, said, mend=f"chmod u=rw,g=r,o= {path}")
    return c.SECRETS.well(here.me, f"{path} is closed to others")


async def ntp(here: Here) -> list[Finding]:
    try:
        done = await here.run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    except AdapterError as error:
        return [_untold(here, str(error))]
    match done.out.strip():
        case "yes":
            return [c.NTP.well(here.me, "the clock is kept right (NTP)")]
        case "no":
            return [c.NTP.bad(here.me, "the clock is not synchronised (NTP)")]
    return [_untold(here, done.said)]


def _untold(here: Here, why: str) -> Finding:
    said = f"cannot tell whether the clock is kept right: {why}"
    return c.NTP.bad(here.me, said, mend="timedatectl; chronyc tracking")
