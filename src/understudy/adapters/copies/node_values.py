"""Values that differ between the nodes in files that are otherwise copied: an external address, a system name.

One is written `NODE FILE [SECTION] KEY = VALUE`; without `[SECTION]` every line with that key in FILE is meant.  The
files are Asterisk's (main/config.c): `key = value` or `key => value` below `[section]` or `[section](template)`,
comments from `;` to the end of the line or from `;--` to `--;`.  Everything but the value stays as it is.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Nothing in it means anything to a shell or to rsync(1).
SAFE_PATH = re.compile(r"(/[A-Za-z0-9._+@:,-]+)+")
RIGHT = 'Write "NODE FILE [SECTION] KEY = VALUE"'


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeValue:
    """On `node`, `key` has this value in `file`."""

    node: str
    file: Path  # Absolute.
    section: str | None  # None: wherever the key is.
    key: str
    value: str

    @property
    def place(self) -> str:
        """For sentences."""
        within = "" if self.section is None else f" in [{self.section}]"
        return f"{self.key}{within} of {self.file}"


def parse(text: str) -> NodeValue:
    """Raises ValueError with a sentence that begins with `node_values`."""
    found = _WRITTEN.fullmatch(text)
    if found is None or not text.isprintable():
        raise ValueError(f"node_values has {text[:200]!r}.  {RIGHT}.")
    file, value = found["file"], found["value"]
    if not SAFE_PATH.fullmatch(file) or ".." in Path(file).parts:
        raise ValueError(
            f"node_values names the file {file!r}.  Write an absolute path of letters, digits and . _ - + @ : , alone."
        )
    if re.search(r"(?<!\\);", value):
        raise ValueError(
            f"node_values has {text[:200]!r}: a comment begins at `;`.  Leave it out, or write `\\;` as in the file."
        )
    return NodeValue(
        node=found["node"],
        file=Path(file),
        section=found["section"],
        key=found["key"],
        value=value,
    )


def apply(text: str, values: Sequence[NodeValue]) -> str:
    """`text`, a whole file, with `values`: see `missing` for those that find no line."""
    lines = text.split("\n")
    for value in values:
        for number, found in _places(lines, value):
            lines[number] = found["before"] + value.value + found["after"]
    return "\n".join(lines)


def missing(text: str, values: Sequence[NodeValue]) -> tuple[NodeValue, ...]:
    """Those whose key is nowhere in `text`, or not in their section."""
    lines = text.split("\n")
    return tuple(value for value in values if not any(_places(lines, value)))


_WRITTEN = re.compile(
    r"(?P<node>\S+) +(?P<file>\S+) +(?:\[(?P<section>[^\[\]]+)\] *)?"
    r"(?P<key>[^\s=;\[\]]+) *=>? *(?P<value>[^\s>](?:.*\S)?) *"
)
_HEADER = re.compile(r"[ \t]*\[([^\]]+)\]")
_LINE = re.compile(
    r"(?P<before>[ \t]*(?P<key>[^\s=;\[\]]+)[ \t]*=>?[ \t]*)"
    r"(?:[^;\\]|\\;|\\(?!;))*?(?P<after>[ \t\r]*(?:;.*)?)",
    re.DOTALL,
)
_MARK = re.compile(r"(?<!\\)(?P<open>;--(?!-))|(?P<close>--;)|(?<!\\);")


def _places(lines: Sequence[str], value: NodeValue) -> Iterator[tuple[int, re.Match[str]]]:
    """The lines with its key, by number."""
    section = None
    depth = 0  # Of comments between `;--` and `--;`: they nest.
    for number, line in enumerate(lines):
        inside, depth = depth > 0, _depth(line, depth)
        if inside:
            continue
        header = _HEADER.match(line)
        if header:
            section = header[1].strip()
            continue
        found = _LINE.fullmatch(line)
        # Asterisk's keys have no case.
        if found and found["key"].lower() == value.key.lower() and value.section in (None, section):
            yield number, found


def _depth(line: str, depth: int) -> int:
    """How many comments are open at its end, when `depth` are at its beginning."""
    for mark in _MARK.finditer(line):
        if mark["open"]:
            depth += 1
        elif depth == 0:
            return 0  # The rest of the line is a comment.
        elif mark["close"]:
            depth -= 1
    return depth
