"""Puts a host's pieces in their places, and takes them away again.

Safe to repeat, also when it was interrupted: a file is written beside its place and renamed, and what belongs to it
is done again until a line in the ledger says that it was.  What was there before is kept as FILE.old.
"""

import difflib
import grp
import hashlib
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.errors import Refused

from .piece import Piece

LEDGER = Path("var/lib/understudy/pieces.json")
KEPT = "/etc/understudy/"  # What a person wrote, and the keys: that goes with the package's purge.
GUARDS = "etc/systemd/system/*.d/understudy.conf"
WITHIN = 120.0  # Seconds for one command.

Run = Callable[[str], str]
"""Runs a line of shell; returns why it failed, or ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was, or would be, done about one piece."""

    piece: Piece
    difference: str = ""  # Lines as of `diff -u`; "" where the file is as it should be.
    commands: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    skipped: str = ""  # Why nothing is needed.


def install(
    pieces: Sequence[Piece],
    *,
    root: Path = Path("/"),
    run: Run | None = None,
    dry_run: bool = False,
) -> Iterator[Step]:
    """One step for each piece, as it is done.  Raises Refused where a file cannot be written."""
    execute = shell if run is None else run
    done = _read_ledger(root)
    for piece in pieces:
        if piece.only_if and not _below(root, piece.only_if).exists():
            yield Step(piece=piece, skipped=f"there is no {piece.only_if} here")
            continue
        difference = _difference(piece, root)
        digest = _digest(piece)
        fresh = not piece.path or bool(difference) or done.get(piece.path) != digest
        commands = piece.then if fresh else ()
        if dry_run:
            yield Step(piece=piece, difference=difference, commands=commands)
            continue
        if difference:
            done[piece.path] = ""  # Ours, and not finished.
            _write_ledger(root, done)
            _put(piece, root)
        troubles = tuple(f"{line}: {why}" for line in commands if (why := execute(line)))
        if piece.path and not troubles and done.get(piece.path) != digest:
            done[piece.path] = digest
            _write_ledger(root, done)
        yield Step(piece=piece, difference=difference, commands=commands, troubles=troubles)


def uninstall(
    *, root: Path = Path("/"), run: Run | None = None, dry_run: bool = False
) -> Iterator[str]:
    """Take away what `install` put here, but for KEPT; yields each path.

    Needs no configuration, and not even a ledger for what matters most: with a guard whose program has gone, no PBX
    would start any more.
    """
    known = _read_ledger(root)
    guards = {f"/{path.relative_to(root)}" for path in root.glob(GUARDS)}
    for name in sorted({*known, *guards}):
        if name.startswith(KEPT):
            continue
        path = _below(root, name)
        if path.exists():
            if not dry_run:
                _keep_old(
                    path, changed=hashlib.sha256(path.read_bytes()).hexdigest() != known.get(name)
                )
                path.unlink(missing_ok=True)
            yield name
    if dry_run:
        return
    _below(root, str(LEDGER)).unlink(missing_ok=True)
    if guards:
        (shell if run is None else run)("systemctl daemon-reload")


def shell(line: str) -> str:
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done within {WITHIN:g} s"
    said = [row.strip() for row in (done.stderr or done.stdout).splitlines() if row.strip()]
    return "" if done.returncode == 0 else (said[-1] if said else f"exit status {done.returncode}")


def _difference(piece: Piece, root: Path) -> str:
    """ "" where text, mode and owner are right."""
    if not piece.path:
        return ""
    path = _below(root, piece.path)
    try:
        held, found = path.read_text("utf-8", errors="replace"), path.stat()
    except FileNotFoundError:
        held, found = "", None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", hint="Run as root.") from error
    if found and held == piece.text:
        right = (found.st_uid, found.st_gid) == _ids(piece.owner, root)
        same = right and found.st_mode & 0o7777 == piece.mode
        return "" if same else f"mode {piece.mode:04o}, owner {piece.owner}\n"
    if piece.secret:
        return "(a secret: not shown)\n"
    before, after = held.splitlines(keepends=True), piece.text.splitlines(keepends=True)
    if found is None and len(after) > 40:
        return f"(new, {len(after)} lines)\n"
    return "".join(difflib.unified_diff(before, after, f"{path}", f"{path} (new)", n=1))


def _put(piece: Piece, root: Path) -> None:
    path = _below(root, piece.path)
    fresh = path.with_name(f"{path.name}.new")
    ids = _ids(piece.owner, root)
    if ids is None:
        raise Refused(
            f"there is no user or group {piece.owner} on this machine",
            hint="The package makes it.  Without one: systemd-sysusers sysusers.conf",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes() != piece.text.encode():
            _keep_old(path)
        fresh.unlink(missing_ok=True)
        # The mode from the first byte on: it may be a secret.
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(piece.text.encode())
            os.fchown(handle, *ids)
            os.fchmod(handle, piece.mode)
            os.fsync(handle)
        fresh.replace(path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", hint="Run as root.") from error


def _keep_old(path: Path, *, changed: bool = True) -> None:
    if changed:
        shutil.copy2(path, path.with_name(f"{path.name}.old"))


def _ids(owner: str, root: Path) -> tuple[int, int] | None:
    """None where there is no such user here.  On another root (a test) everything is ours."""
    if root != Path("/"):
        return os.getuid(), os.getgid()
    user, _, group = owner.partition(":")
    try:
        return pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _digest(piece: Piece) -> str:
    return hashlib.sha256(piece.text.encode()).hexdigest()


def _read_ledger(root: Path) -> dict[str, str]:
    try:
        found = json.loads(_below(root, str(LEDGER)).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _write_ledger(root: Path, done: dict[str, str]) -> None:
    path = _below(root, str(LEDGER))
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(done, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", hint="Run as root.") from error
