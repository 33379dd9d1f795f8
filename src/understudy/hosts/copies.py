"""What copying needs on a node: which folders the copier may write, and whose files the other node's copier may read.

The copier is root without root's powers but over files, in a file system that is read-only but for the folders of
[copies.*] (systemd.exec(5), ReadWritePaths=).  The source is the agent's user, through the forced command: it reads
what the groups of those folders may read.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from understudy.adapters.copies import rsync, sqlite
from understudy.config.schema import Config

from .piece import Choices, Piece

UNIT = "understudy-copier.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/understudy.conf"


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    if not config.copies:
        return ()
    written = writable(config)
    read = [place for chosen in config.copies.values() for place in chosen.settings.places]
    text = "".join(f"ReadWritePaths=-{_quoted(path)}\n" for path in written)
    places = shlex.join(map(str, dict.fromkeys((*written, *read))))
    return tuple(
        Piece(
            host=node,
            path=DROP_IN,
            text=f"# Understudy (understudy init): where the copier puts what it has copied.\n[Service]\n{text}",
            why="The copier may write the folders of [copies.*], and nothing else of this host.",
            then=(
                *_folders(written, places, choices.user),
                "systemctl daemon-reload",
                f"systemctl enable {UNIT}",
            ),
        )
        for node in config.nodes
    )


def _folders(written: Sequence[Path], places: str, user: str) -> tuple[str, ...]:
    """None where all that is copied has a server that writes it."""
    if not written:
        return ()
    return (
        f"mkdir -p {shlex.join(map(str, written))}",
        # Groups that own what is copied: the other node reads it as the agent's user.
        f"for place in {places}; do test -e $place || continue; group=$(stat -c %G $place); "
        f"test $group = root || usermod -a -G $group {user}; done",
    )


def writable(config: Config) -> tuple[Path, ...]:
    """Folders: a file is put in place by a new one beside it."""
    found = []
    for chosen in config.copies.values():
        match chosen.settings:
            case sqlite.Settings(path=path):
                found.append(path.parent)
            case rsync.Settings(paths=paths):
                # A file is put in place by a new one beside it, too.
                found += [path.parent if path.is_file() else path for path in paths]
    return tuple(dict.fromkeys(found))


def _quoted(path: Path) -> str:
    """systemd.syntax(7): % is a specifier, blanks separate."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if any(c.isspace() for c in text) else text
