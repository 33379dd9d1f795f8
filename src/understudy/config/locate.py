"""Where in a TOML text a key was written.  tomllib does not say."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]  # ("name", 1, "server"): numbers count the tables of an array.


def lines(text: str) -> dict[Path, int]:
    """The line on which each table and key of `text` (valid TOML) begins, the first being 1."""
    found: dict[Path, int] = {(): 1}
    header: Path = ()
    counts: dict[Path, int] = {}
    for number, parsed, is_header in _statements(text):
        if is_header:
            header = _header(parsed, counts)
            _note(found, header, number)
        for path in _paths(parsed) if not is_header else ():
            _note(found, header + path, number)
    return found


def line(found: Mapping[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest table around it.

    A number does not count where there is one table and no array.
    """
    while path not in found:
        unnumbered = tuple(part for part in path if isinstance(part, str))
        if unnumbered in found:
            return found[unnumbered]
        path = path[:-1]
    return found[path]


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """A header, or a key with its value, is valid TOML by itself, and no beginning of one is."""
    start, chunk = 0, ""
    for number, row in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not chunk and (not row.strip() or row.lstrip().startswith("#")):
            continue
        start = start if chunk else number
        chunk += row + "\n"
        try:
            parsed = tomllib.loads(chunk)
        except tomllib.TOMLDecodeError:
            continue
        yield start, parsed, chunk.lstrip().startswith("[")
        chunk = ""


def _header(parsed: dict[str, Any], counts: dict[Path, int]) -> Path:
    """The whole path of `[a.b]` or `[[a.b]]`, with the numbers of the arrays on the way."""
    path: Path = ()
    here: Any = parsed
    while here:
        if isinstance(here, list):
            counts[path] = counts.get(path, -1) + 1
            return (*path, counts[path])
        key, here = next(iter(here.items()))
        path = (*path, key)
        if path in counts and not isinstance(here, list):
            path = (*path, counts[path])
    return path


def _paths(value: Any) -> Iterator[Path]:
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        yield (key,)
        yield from ((key, *rest) for rest in _paths(child))


def _note(found: dict[Path, int], path: Path, number: int) -> None:
    for end in range(len(path) + 1):
        found.setdefault(path[:end], number)
