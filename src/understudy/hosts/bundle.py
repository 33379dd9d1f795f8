"""The pieces of one host as a folder to copy there, with a script that puts them in their places."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from .piece import Piece

SCRIPT = "install.sh"
PUT = """\
put() {  # FILE MODE OWNER
    if test -e "/$1" && ! cmp -s "$1" "/$1"; then cp -p "/$1" "/$1.old"; fi
    mkdir -p "/${1%/*}"
    install -m "$2" -o "${3%:*}" -g "${3#*:}" "$1" "/$1.new"
    mv "/$1.new" "/$1"
    echo "/$1"
}
"""


def write(folder: Path, host: str, pieces: Sequence[Piece], *, is_node: bool) -> Path:
    """`folder`/`host`/...; returns the folder of the host.  Raises OSError."""
    top = folder / host
    top.mkdir(parents=True, exist_ok=True, mode=0o700)
    for piece in pieces:
        if piece.path:
            _write(top / piece.path.lstrip("/"), piece.text, piece.mode)
    _write(top / SCRIPT, script(host, pieces, is_node=is_node), 0o755)
    return top


def script(host: str, pieces: Sequence[Piece], *, is_node: bool) -> str:
    """For sh(1), as root, on that host.

    A node has this program and does the rest by itself: `understudy init --install` can be undone.
    """
    chosen = [piece for piece in pieces if piece.first] if is_node else pieces
    lines = [
        "#!/bin/sh",
        f"# Understudy (understudy init): what {host} must have.  As root; can be repeated.",
        'set -eu\ncd "$(dirname "$0")"\n',
        PUT,
    ]
    for piece in chosen:
        lines += _of_piece(piece)
    if is_node:
        lines.append("understudy init --install")
    said = [line for piece in chosen for line in piece.by_hand]
    if said:
        lines += ["echo", "echo 'By hand:'", *(f"echo {shlex.quote(f'  {line}')}" for line in said)]
    return "\n".join(lines) + "\n"


def _of_piece(piece: Piece) -> list[str]:
    words = shlex.join([piece.path.lstrip("/"), f"{piece.mode:04o}", piece.owner])
    lines = [*([f"put {words}"] if piece.path else []), *(f"( {line} )" for line in piece.then)]
    if piece.only_if and lines:
        lines = [
            f"if test -e {shlex.quote(piece.only_if)}; then",
            *(f"    {x}" for x in lines),
            "fi",
        ]
    return [f"\n# {piece.why}", *lines] if lines else []


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    path.chmod(mode)
