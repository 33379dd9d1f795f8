#!/usr/bin/env python3
"""Writes what the manual says about the configuration, from the definitions that the loader reads.

script/generate_docs.py           writes docs/reference/
script/generate_docs.py --check   writes nothing; exits with 1 if something there is stale
"""

import sys
from pathlib import Path

from understudy.adapters.claims import CLAIMS
from understudy.adapters.names import NAMES
from understudy.adapters.probes import PROBES
from understudy.adapters.services import SERVICES
from understudy.config import describe

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
FAMILIES: describe.Families = {
    "checkpoints": PROBES,
    "claim": CLAIMS,
    "name": NAMES,
    "service": SERVICES,
}


def main(arguments: list[str]) -> int:
    pages = {
        REFERENCE / "config.md": describe.reference(FAMILIES),
        REFERENCE / "understudy.toml": describe.sample(FAMILIES),
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


def _held(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
