"""One class of files, as this node has it."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.adapters.copies import node_values
from understudy.adapters.copies.node_values import NodeValue
from understudy.adapters.copies.store import Store
from understudy.errors import Denied

from .settings import Settings

ROOT = "root"  # In a snapshot: what / is on the nodes.


@dataclass(frozen=True, slots=True)
class Files:
    """What every part of a copy needs to know."""

    name: str  # [copies.NAME]
    settings: Settings
    node: str  # This one.
    store: Store

    def copied(self) -> tuple[Path, tuple[Path, ...]]:
        """Where the newest snapshot is, and which of the paths are in it.  Raises Denied."""
        newest = self.store.newest()
        if newest is not None:
            root = newest.path / ROOT
            paths = tuple(
                path for path in self.settings.paths if os.path.lexists(below(root, path))
            )
            if paths:
                return root, paths
        raise Denied(
            f"nothing has been copied yet for {self.name}",
            hint="Let the standby pull it from the active node first.",
        )

    def with_values(self, root: Path, paths: Sequence[Path]) -> dict[Path, bytes]:
        """The contents of the files that differ on this node.  Raises Denied before anything is changed."""
        values: dict[Path, list[NodeValue]] = {}
        for value in self.settings.values:
            if value.node == self.node and any(value.file.is_relative_to(path) for path in paths):
                values.setdefault(value.file, []).append(value)
        contents, wrong = {}, []
        for file, those in values.items():
            copied = below(root, file)
            if not copied.is_file() or copied.resolve() != below(root.resolve(), file):
                wrong.append(f"{file} is not a file there")
                continue
            # Whatever the encoding is, it goes back as it came.
            text = copied.read_bytes().decode(errors="surrogateescape")
            wrong += [f"there is no {value.place}" for value in node_values.missing(text, those)]
            contents[file] = node_values.apply(text, those).encode(errors="surrogateescape")
        if wrong:
            raise Denied(
                f"node_values does not fit the newest copy of {self.name}, and nothing was put in place: "
                + "; ".join(wrong),
                hint="Write it into the file on the active node, or correct `node_values`.",
            )
        return contents


def below(root: Path, path: Path) -> Path:
    """Where `path`, absolute, is when `root` is /."""
    return root / path.relative_to("/")


def in_place(file: Path, paths: Iterable[Path]) -> Path:
    """A path may be a symbolic link here; what is in it is as it was copied."""
    (path,) = (path for path in paths if file.is_relative_to(path))
    return path.resolve() / file.relative_to(path)
