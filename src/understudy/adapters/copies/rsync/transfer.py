"""rsync(1): how it is called, and what it complains of."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, ParamSpec, TypeVar

from understudy.adapters.copies.threads import in_thread
from understudy.adapters.processes import Finished, run
from understudy.errors import Unreachable

CHANGE = "changed: "  # In front of what --out-format tells: rsync has other news, too.
INSTALL = "apt install rsync"

P = ParamSpec("P")
T = TypeVar("T")


async def transfer(
    words: Sequence[str], give_up: float, env: Mapping[str, str], into: IO[bytes] | None = None
) -> Finished:
    # Times are compared to the nanosecond: a file may change twice in a second, and keep its size.
    argv = ("rsync", "--archive", "--modify-window=-1", *words)
    # Two variables that would change what rsync sends.
    env = {**env, "RSYNC_PROTECT_ARGS": "0", "RSYNC_ICONV": ""}
    try:
        return await run(argv, within=max(0.0, give_up - time.monotonic()), env=env, into=into)
    except Unreachable as error:
        raise Unreachable(f"{error} here", hint=INSTALL) from error


async def do(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await in_thread(partial(function, *args, **kwargs))


def unread(err: str) -> str:
    """The first files of which rsync complains, and why."""
    found = re.findall(r'^rsync: [^"\n]*"([^"\n]+)"[^\n]*?: ([^:\n]+?) \(\d+\)$', err, re.MULTILINE)
    if not found:
        return printable(err.strip().partition("\n")[0])
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return printable(", ".join(f"{path} ({why})" for path, why in found[:3])) + more


def complaint(done: Finished) -> str:
    """What ssh or the far side has said, else what rsync says first: what follows are consequences."""
    lines = [line.strip() for line in done.err.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith(("rsync", "("))]
    told = others[-1] if others else lines[0] if lines else ""
    return f"{printable(told)} (rsync: exit status {done.code})".strip()


def printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:300]
