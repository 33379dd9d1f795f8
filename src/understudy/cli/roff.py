"""A manual page, man(7), from the Markdown that our reference pages are written in.

What it knows is what those pages use: headings, paragraphs, bullets, tables, indented examples, `code`, **bold** and
links.  A table becomes a list: its first cell is the tag, each other one stands below it after the name of its column.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    name: str
    section: int
    about: str  # One clause, for whatis(1).
    synopsis: str = ""
    date: str = ""
    version: str = ""


def render(title: Title, body: str, page: Iterable[str], more: Iterable[str] = ()) -> str:
    """`page` before its first `##` is the description; the rest stands below the heading `body`.

    The headings of `more` are as high as that.
    """
    lines = list(page)
    first = next((at for at, line in enumerate(lines) if line.startswith("## ")), len(lines))
    return "\n".join(
        [
            *_head(title),
            ".SH DESCRIPTION",
            *_blocks(lines[:first], heading="SS"),
            f".SH {body.upper()}",
            *_blocks(lines[first:], heading="SS"),
            *_blocks(list(more), heading="SH"),
            "",
        ]
    )


def _head(title: Title) -> Iterator[str]:
    yield '.\\" Made from the definitions in the code.'
    yield f'.TH {title.name.upper()} {title.section} "{title.date}" "Understudy {title.version}"'
    yield ".SH NAME"
    yield f"{_plain(title.name)} \\- {_plain(title.about)}"
    if title.synopsis:
        yield ".SH SYNOPSIS"
        yield _inline(title.synopsis)


def _blocks(lines: Sequence[str], *, heading: str) -> Iterator[str]:
    columns: list[str] = []  # Of the table that we are in.
    example = fenced = False
    for line, before in zip(lines, ["", *lines], strict=False):
        if line.startswith("```"):
            fenced = not fenced
        if fenced or line.startswith(("```", "<!--", "# ")):
            continue  # A diagram is for the web; the page has a title of its own.
        if example and not line.startswith("    "):
            example = False
            yield ".EE"
        if not line.startswith("|"):
            columns = []
        if not line.strip():
            continue
        if line.startswith("    "):
            yield from () if example else (".PP", ".EX")
            example = True
            yield _line(_plain(line))
        elif line.startswith("|"):
            yield from _table_row(line, columns)
        elif line.startswith("#"):
            yield f'.{heading} "{_inline(line.lstrip("# "), bold="")}"'
        elif line.startswith("* "):
            yield from (".IP \\(bu 2", _line(_inline(line[2:])))
        else:
            yield from () if _is_prose(before) else (".PP",)
            yield _line(_inline(line))
    if example:
        yield ".EE"


def _is_prose(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("#", "|", "    ", "```", "<!--"))


def _table_row(line: str, columns: list[str]) -> Iterator[str]:
    cells = [cell.strip().replace("\\|", "|") for cell in _CELL.split(line.strip()[1:-1])]
    if not columns:
        columns += cells
        return
    if set(line) <= set("|-: "):
        return
    yield ".TP"
    yield _line(_inline(cells[0]))
    for number, (name, cell) in enumerate(zip(columns[1:], cells[1:], strict=True)):
        if number:
            yield ".br"
        yield _line((f"\\fI{_inline(name)}:\\fR " if name else "") + _inline(cell))


def _inline(text: str, *, bold: str = "\\fB") -> str:
    """Code and what is bold look alike: a manual page has no more than bold and italic."""
    text = " ".join(_LINK.sub(r"\1", text).split())
    parts = _MARKED.split(text)
    end = "\\fR" if bold else ""
    return "".join(
        f"{bold}{_plain(part)}{end}" if number % 2 else _plain(part)
        for number, part in enumerate(part for part in parts if part is not None)
    )


def _plain(text: str) -> str:
    """groff_char(7): what would be an order to roff, or be printed as another sign."""
    return "".join(_SIGNS.get(c) or (c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)


def _line(text: str) -> str:
    return f"\\&{text}" if text.startswith(".") else text


_CELL = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")
_SIGNS = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    '"': "\\(dq",
    "^": "\\(ha",
    "~": "\\(ti",
}
