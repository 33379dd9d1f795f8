"""What has been merged, for good: what its owner has deleted since does not come back with a second merge.

STORE/merged.jsonl   {"key": "SHA-256", "target": "/var/spool/...", "at": 1795400000.0} in a line for each
"""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from understudy.adapters.disk import sync_folder
from understudy.errors import Denied

NAME = "merged.jsonl"


class Record:
    """Open while one merge goes on: a second one is refused.  Raises Denied, OSError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        handle = os.open(self._path, flags, 0o600)
        self._file = os.fdopen(handle, "r+b", buffering=0)
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def add(self, key: str, target: str) -> None:
        """On the disk when it returns.  Raises Denied."""
        line = json.dumps({"key": key, "target": target, "at": round(time.time(), 3)}).encode()
        why = ""
        try:
            # Half a line, if there is no room for more, is taken away when the record is opened again.
            if self._file.write(line + b"\n") <= len(line):
                why = os.strerror(errno.ENOSPC)
            os.fsync(self._file.fileno())
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise Denied(
                f"{self._path} cannot be written: {why}",
                hint="Without it something could be merged twice: nothing more is.",
            )
        self._known.add(key)

    def _begin(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Denied("another merge of the same is going on", hint="Wait for it.") from error
        text = self._file.read()
        whole = text.rfind(b"\n") + 1
        # The rest is half a line, of one who was killed: what it was to name is looked at again.
        os.truncate(self._file.fileno(), whole)
        for number, line in enumerate(text[:whole].splitlines(), 1):
            try:
                self._known.add(str(json.loads(line)["key"]))
            except (ValueError, KeyError, TypeError) as error:
                raise Denied(
                    f"{self._path}:{number} cannot be understood",
                    hint="Remove that line: what it named is merged once more, if it is not there.",
                ) from error
        sync_folder(self._path.parent)
