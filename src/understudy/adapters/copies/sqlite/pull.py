"""At the standby: one new whole snapshot from the active node."""

import errno
import json
import os
import tempfile
import time
from dataclasses import asdict, replace
from functools import partial
from typing import IO, Any, NamedTuple

from understudy.adapters.copies.stop import Stop, beside
from understudy.adapters.copies.store import INCOMING, Snapshot
from understudy.adapters.peers.door import answer_of
from understudy.adapters.peers.requests import LINE_LIMIT
from understudy.adapters.processes import run
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable
from understudy.ports import Pulled, Source

from .about import ABOUT, DATA, SHA256, About, Database, about_of, in_words
from .database import DamagedError, count, pour, why
from .settings import OWNER

MANY = 20  # Rows from which on losing more than half of them is believed to be an accident.


class _Kept(NamedTuple):
    snapshot: Snapshot
    about: About


class _Offer(NamedTuple):
    bytes: int
    sha256: str
    owner: str
    mode: int


async def pull(database: Database, source: Source) -> Pulled:
    """Raises Unreachable, Denied; then there is no new snapshot.

    Cancelled, it has ended when the cancellation is seen.
    """
    stop = Stop(database.settings.within, f"the pull of {database.name}")
    try:
        return await _pull(database, source, stop)
    except OSError as error:
        where = database.store.folder
        raise Denied(f"{database.name} cannot be kept in {where}: {why(error)}") from error
    finally:
        await beside(database.store.discard, stop)


async def _pull(database: Database, source: Source, stop: Stop) -> Pulled:
    newest = await beside(partial(_newest, database), stop)
    incoming = await beside(database.store.begin, stop)
    with tempfile.TemporaryFile(dir=incoming) as answer:
        taken = time.time()
        offer = await _ask(database, source, newest, answer)
        keep = partial(_keep, database, source.node, offer, newest, answer, taken, stop)
        await beside(keep, stop)
    return Pulled(changed=True, files=1, bytes=offer.bytes) if offer else Pulled(changed=False)


def _newest(database: Database) -> _Kept | None:
    snapshot = database.store.newest()
    about = snapshot and about_of(snapshot)
    return _Kept(snapshot, about) if snapshot and about else None


async def _ask(
    database: Database, source: Source, newest: _Kept | None, answer: IO[bytes]
) -> _Offer | None:
    """None when there is nothing new; else the database follows in `answer`."""
    known = (newest.about.sha256,) if newest else ()
    words = ("copy", database.name, str(source.epoch), "read", *known)
    within = database.settings.within
    try:
        try:
            done = await run((*source.reach, *words), within=within, into=answer)
        except Unanswered:
            raise Unreachable(
                f"{source.node} did not send {database.name} within {within:g} s"
            ) from None
        answer.seek(0)
        line = answer.readline(LINE_LIMIT).decode(errors="replace")
        said = answer_of(source.node, replace(done, out=line))
    except AdapterError as error:
        _blame_full_disk(answer)
        if isinstance(error, Unanswered):  # Nothing was to be changed there.
            raise Unreachable(str(error), hint=error.hint) from error
        raise
    if newest and said.get("same") is True:
        return None
    return _offer(source.node, said)


def _keep(
    database: Database,
    node: str,
    offer: _Offer | None,
    newest: _Kept | None,
    answer: IO[bytes],
    taken: float,
    stop: Stop,
) -> None:
    """The end of a pull."""
    if offer is not None:
        _check_in(database, node, offer, newest, answer, stop)
        database.store.commit(taken)
    database.store.use_up_acceptance()


def _check_in(
    database: Database,
    node: str,
    offer: _Offer,
    newest: _Kept | None,
    answer: IO[bytes],
    stop: Stop,
) -> None:
    """Make what follows in `answer` a whole snapshot, if it is what was offered, and can be believed."""
    incoming = database.store.folder / INCOMING
    with (incoming / DATA).open("xb") as file:
        size, sha256 = pour(answer, file, stop)
    if size != offer.bytes:
        raise Unreachable(
            f"{node} sent {size} of the {offer.bytes} bytes of {database.name}",
            hint="Was the connection cut?",
        )
    if sha256 != offer.sha256:
        raise Unreachable(
            f"{database.name} did not arrive as {node} has sent it: its SHA-256 differs"
        )
    try:
        tables, rows = count(incoming / DATA, stop)
    except DamagedError as error:
        raise Denied(f"{node} sent a damaged {database.name}: {error}") from error
    about = About(
        sha256=sha256,
        bytes=size,
        owner=offer.owner,
        mode=offer.mode,
        tables=tables,
        rows=rows,
    )
    _guard(database, node, about, newest)
    (incoming / ABOUT).write_text(json.dumps(asdict(about)))


def _guard(database: Database, node: str, about: About, newest: _Kept | None) -> None:
    """A source that was wiped does not empty the standby."""
    if newest is None or database.store.accepted.exists():
        return
    had = newest.about.rows
    if (had > 0 and about.tables == 0) or (had >= MANY and 2 * about.rows < had):
        raise Denied(
            f"{database.name} of {node} has {in_words(about)}, and the newest copy ({newest.snapshot.name}) "
            f"has {in_words(newest.about)}",
            hint=f"If that is right: understudy copies accept {database.name}.",
        )


def _offer(node: str, said: dict[str, Any]) -> _Offer:
    """What the source says of the bytes that follow.  Raises Unreachable."""
    match said:
        case {
            "same": False,
            "bytes": int(size),
            "sha256": str(sha256),
            "owner": str(owner),
            "mode": int(mode),
        } if size >= 0 and SHA256.fullmatch(sha256) and OWNER.fullmatch(owner):
            return _Offer(size, sha256, owner, mode & 0o777)
    raise Unreachable(
        f"{node} did not say what it sends: {json.dumps(said)[:200]}",
        hint="Do both nodes run the same version?",
    )


def _blame_full_disk(file: IO[bytes]) -> None:
    """A program that writes into our file cannot say why it stopped.  Raises its OSError."""
    try:
        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, 64 * 1024)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
