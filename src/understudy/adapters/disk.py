"""What every adapter that writes files needs of the disk."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """What was renamed or removed in it is so after a power cut, too: fsync(2).  Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
