"""What standby and source say to each other over the door, copy NAME EPOCH ...:

position   a line of JSON: class server.Standing
dump       a gzip file of SQL: dump.py
"""

import sys
from collections.abc import Mapping, Sequence
from typing import IO

from understudy.adapters.copies.stop import Stop
from understudy.adapters.peers.door import answer_of
from understudy.adapters.peers.requests import LINE_LIMIT, render_answer
from understudy.adapters.processes import Finished, run
from understudy.errors import Refused, Unanswered, Unreachable
from understudy.ports import Source

from . import dump, server
from .server import Standing
from .settings import Settings
from .sql import Sql

ANSWER_WITHIN = 30.0  # Seconds for `position`, of which most is the connection's.


def serve(name: str, settings: Settings, words: Sequence[str]) -> int:
    """At the source.  Raises Refused, Unreachable, Denied: also when whoever asked goes away."""
    out = sys.stdout.buffer
    stop = Stop(settings.within, f"sending {name}")
    try:
        match list(words):
            case ["position"]:
                with Sql(settings.socket, settings.user) as db:
                    standing = server.look(db)
                out.write(render_answer(standing.as_json()).encode() + b"\n")
            case ["dump"]:
                dump.write(settings, settings.databases, out, stop, seeds=True)
            case _:
                raise Refused(
                    f"not what a pull of {name} asks for",
                    hint="Do both nodes run the same version?",
                )
        out.flush()
    except BrokenPipeError as error:
        raise Unreachable(f"whoever asked for {name} has gone") from error
    return 0


async def ask(name: str, source: Source, within: float) -> Standing:
    """Where the source is at.  Raises Unreachable, Denied."""
    words = ("copy", name, str(source.epoch), "position")
    try:
        done = await run((*source.reach, *words), within=min(ANSWER_WITHIN, within))
    except Unanswered as error:
        raise Unreachable(f"{source.node} does not say where {name} is at: {error}") from None
    said = _said(source.node, done)
    try:
        return Standing.from_json(said)
    except (KeyError, ValueError) as error:
        raise Unreachable(
            f"{source.node} does not say where {name} is at: {error}",
            hint="Do both nodes run the same version?",
        ) from error


async def fetch(name: str, source: Source, file: IO[bytes], stop: Stop) -> int:
    """The source's dump; returns its bytes.  Raises Unreachable, Denied."""
    words = ("copy", name, str(source.epoch), "dump")
    try:
        done = await run((*source.reach, *words), within=max(0.0, stop.left), into=file)
    except Unanswered as error:
        raise Unreachable(
            f"{source.node} did not send a dump of {name}: {error}", hint="Raise `within`?"
        ) from None
    size = file.seek(0, 2)
    file.seek(0)
    if done.code == 0 and file.read(2) == dump.MAGIC:
        return size
    # What it says for itself is the last line, behind as much of the dump as there was.
    file.seek(max(0, size - LINE_LIMIT))
    _, mark, rest = file.read().rpartition(b'{"ok"')
    line = (mark + rest).decode(errors="replace") if mark else ""
    _said(source.node, Finished(code=done.code or 1, out=line, err=done.err))
    raise Unreachable(f"{source.node} sent no dump of {name}")


def _said(node: str, done: Finished) -> Mapping[str, object]:
    try:
        return answer_of(node, done)
    except Unanswered as error:  # Nothing was to be changed there.
        raise Unreachable(str(error), hint=error.hint) from error
