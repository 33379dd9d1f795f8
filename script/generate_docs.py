#!/usr/bin/env python3
"""Writes the reference pages from the definitions in the code: configuration, commands, phases.

script/generate_docs.py           writes docs/reference/
script/generate_docs.py --check   writes nothing; exits with 1 if something there is stale
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from understudy.adapters.claims import CLAIMS
from understudy.adapters.copies import COPIES
from understudy.adapters.names import NAMES
from understudy.adapters.notify import NOTIFIERS
from understudy.adapters.probes import PROBES
from understudy.adapters.services import SERVICES
from understudy.cli import manual
from understudy.config import describe
from understudy.core import explain
from understudy.doctor import page as findings
from understudy.runtime import telling_words

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
FAMILIES: describe.Families = {
    "checkpoints": PROBES,
    "claim": CLAIMS,
    "name": NAMES,
    "service": SERVICES,
    "copies": COPIES,
    "notify": NOTIFIERS,
}


def main(arguments: list[str]) -> int:
    pages = {
        REFERENCE / "config.md": describe.reference(FAMILIES),
        REFERENCE / "understudy.toml": describe.sample(FAMILIES),
        REFERENCE / "cli.md": _text(manual.page()),
        REFERENCE / "findings.md": _text(findings.page()),
        REFERENCE / "phases.md": _text([manual.GENERATED, *explain.page()]),
        REFERENCE / "messages.md": _text([manual.GENERATED, *telling_words.page()]),
    }
    stale = [path for path, text in pages.items() if _held(path) != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path} is stale.  Run script/generate_docs.py.", file=sys.stderr)
        return 1 if stale else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
        print(f"{path} is written.")
    return 0


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _held(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
