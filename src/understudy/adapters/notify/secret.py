"""Secrets: read when they are needed, so that a new one holds at once, and never shown."""

from collections.abc import Iterable
from pathlib import Path

from understudy.errors import Unreachable

LONGEST = 64 * 1024  # Characters of a file.
SHOWN = 200  # Characters of what a server said.


def read(path: Path, what: str) -> str:
    """The text of a file, without the line break at its end.  Raises Unreachable."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST).rstrip("\r\n")
    except OSError as error:
        raise Unreachable(f"{what} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unreachable(f"{what} {path} is not UTF-8 text") from None
    if not text:
        raise Unreachable(f"{what} {path} is empty")
    return text


def without(said: str, secrets: Iterable[str]) -> str:
    """What a server said, fit for a sentence, should it repeat what it was told."""
    for secret in sorted(secrets, key=len, reverse=True):
        if secret:
            said = said.replace(secret, "[secret]")
    text = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    return text[:SHOWN].rstrip(".")
