"""Reading a file where others may write."""

import errno
import os
import stat
from pathlib import Path
from typing import IO


def open_regular(path: Path | str, *, folder: int | None = None) -> IO[bytes]:
    """A regular file, and no link: the PBX's user may write in the folder, and we may be root.

    `folder` is a handle of the folder that a relative `path` begins in.  Closing the file drops all locks of this
    process on it (fcntl(2)): not while SQLite has it open.  Raises OSError.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(handle, "rb", buffering=0)
