"""At the source: one request of a pull."""

import errno
import grp
import json
import math
import os
import pwd
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from understudy.adapters.copies.stop import Stop
from understudy.errors import Refused, Unreachable

from .about import DATA, SHA256, Database
from .database import CHUNK, pour, why
from .live import State, copy_live

PATIENCE = 20.0  # Seconds for the source to be at rest for a moment; at most half of `within`.


def serve(database: Database, words: Sequence[str]) -> int:
    """Raises Refused, Unreachable: also when whoever asked goes away."""
    known = _known(words)
    path, within = database.settings.path, database.settings.within
    stop = Stop(within, f"reading {path}")
    try:
        with tempfile.TemporaryDirectory(prefix="understudy-") as scratch:
            copy = Path(scratch, DATA)
            state = copy_live(path, copy, min(PATIENCE, within / 2), stop)
            # From here on it has no name: nothing of it can be left behind.
            file = copy.open("rb")
    except OSError as error:
        where = tempfile.tempdir or "a temporary file"
        raise Unreachable(
            f"{path} cannot be copied to {where}: {why(error)}",
            hint="Make room there, or set TMPDIR." if error.errno == errno.ENOSPC else "",
        ) from error
    with file:
        size, sha256 = pour(file, None, stop)
        file.seek(0)
        if sha256 == known:
            _send({"ok": True, "same": True}, None, stop)
            return 0
        head = {"ok": True, "same": False, "bytes": size, "sha256": sha256}
        _send({**head, "owner": _owner(state), "mode": state.mode}, file, stop)
    return 0


def _known(words: Sequence[str]) -> str | None:
    match words:
        case ["read"]:
            return None
        case ["read", sha256] if SHA256.fullmatch(sha256):
            return sha256
    raise Refused(
        f"not a request: {' '.join(words)[:80]!r}", hint="read, or read SHA256 of the newest copy."
    )


def _owner(state: State) -> str:
    """Names, where there are."""
    user, group = str(state.uid), str(state.gid)
    with suppress(KeyError):
        user = pwd.getpwuid(state.uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(state.gid).gr_name
    return f"{user}:{group}"


def _send(head: dict[str, Any], body: IO[bytes] | None, stop: Stop) -> None:
    """Raises Unreachable.  Somebody who does not read must not hold us for ever: SIGALRM ends us."""
    signal.alarm(max(1, math.ceil(stop.left)))
    out = sys.stdout.buffer
    try:
        out.write(json.dumps(head).encode() + b"\n")
        if body is not None:
            shutil.copyfileobj(body, out, CHUNK)
        out.flush()
    except OSError as error:
        # What is still in the buffer would fail again at our end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        raise Unreachable(f"the answer could not be sent: {why(error)}") from error
    finally:
        signal.alarm(0)
