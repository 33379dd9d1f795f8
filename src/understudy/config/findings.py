"""What is wrong with a file, or worth knowing about it, and where."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from understudy.config import locate

BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """`message` completes the sentence that begins with the path, unless it is `whole`."""

    path: locate.Path
    message: str
    whole: bool = False

    @property
    def sentence(self) -> str:
        return self.message if self.whole else f"{dotted(self.path)} {self.message}"


def dotted(path: locate.Path) -> str:
    """As people say it: the line number tells which table of an array is meant."""
    parts = [part for part in path if isinstance(part, str)]
    return ".".join(part if BARE.fullmatch(part) else json.dumps(part) for part in parts)


def show(findings: Iterable[Finding], file: str, text: str) -> tuple[str, ...]:
    """One `file:line: sentence` for each, in order of lines."""
    listed = list(findings)
    if not listed:
        return ()
    found: Mapping[locate.Path, int] = locate.lines(text)
    placed = sorted(((locate.line(found, one.path), one.sentence) for one in listed), key=_line)
    return tuple(f"{file}:{line}: {sentence}" for line, sentence in placed)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest of `known`, as a question, or nothing."""
    near = nearest(word, known)
    return f"  Did you mean {near}?" if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that was probably meant, or nothing."""
    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)), "")


def _line(placed: tuple[int, str]) -> int:
    return placed[0]
