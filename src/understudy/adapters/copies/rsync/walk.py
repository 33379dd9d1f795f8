"""Folders in which the PBX's user may write while we, who may be root, look and write there too.

Every step is taken from the folder before it, and never over a symbolic link of somebody else: wherever the names lead
a moment later, we stay where we have looked (openat(2), "Rationale for openat()").
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".understudy-"  # How names of ours begin that come and go.

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = f"{TEMPORARY}folder"
_MOST_LINKS = 40  # As in the kernel: path_resolution(7).


@contextmanager
def folder_of(path: Path) -> Iterator[int]:
    """A handle of the folder `path`, absolute.  Raises OSError: also where a symbolic link leads there that anybody
    but root (and ourselves) could have put there."""
    handle = os.open("/", _FOLDER)
    try:
        names, links = list(path.parts[1:]), 0
        while names:
            name = names.pop(0)
            target = _link(name, handle)
            if target is None:
                handle = _step(handle, name)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            names = [*Path(target).parts, *names]
            if target.startswith("/"):
                handle = _step(handle, "/")
                names.pop(0)
        yield handle
    finally:
        os.close(handle)


def _step(handle: int, name: str) -> int:
    """From one folder to the next: the first is closed, but if that fails."""
    new = os.open(name, _FOLDER, dir_fd=handle)
    os.close(handle)
    return new


def _link(name: str, folder: int) -> str | None:
    """Where that symbolic link leads; None if it is none.  Raises OSError where it is not to be trusted."""
    try:
        target = os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
    status = os.fstat(folder)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise OSError(errno.ELOOP, "a symbolic link that others than root may change", name)
    return target


@contextmanager
def folder_in(top: int, names: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A handle of the folder that `names` lead to from `top`; `make` what is missing.  Raises OSError."""
    handle = os.dup(top)
    try:
        for name in names:
            if make:
                _make(handle, name)
            handle = _step(handle, name)
        yield handle
    finally:
        os.close(handle)


def _make(folder: int, name: str) -> None:
    """If it is not there: with the owner and mode of the folder that it is in, from the first moment on."""
    if is_there(folder, name):
        return
    like = os.fstat(folder)
    with suppress(FileNotFoundError):
        os.rmdir(_NEW, dir_fd=folder)  # Of one who was killed.
    os.mkdir(_NEW, 0o700, dir_fd=folder)
    new = os.open(_NEW, _FOLDER, dir_fd=folder)
    try:
        own(new, like.st_uid, like.st_gid)
        os.fchmod(new, stat.S_IMODE(like.st_mode))
    finally:
        os.close(new)
    try:
        # Onto an empty folder that has appeared meanwhile: that is the same.
        os.rename(_NEW, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.rmdir(_NEW, dir_fd=folder)
        if not is_there(folder, name):
            raise
    os.fsync(folder)


def is_there(folder: int, name: str) -> bool:
    return status_of(folder, name) is not None


def status_of(folder: int, name: str) -> os.stat_result | None:
    """Of the name itself, if it is a link; None where it is not there.  Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def link(folder: int, old: str, new: str) -> None:
    """A second name in the same folder.  Raises FileExistsError, OSError: nothing is ever overwritten."""
    os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)


def remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def own(handle: int, user: int, group: int) -> None:
    """Who is not root gives nothing away; what is so already needs no right."""
    status = os.fstat(handle)
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (user, group):
        os.fchown(handle, user, group)
