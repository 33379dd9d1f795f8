"""The pair with more kinds of events at once than the tests have time for.

Hours; name the kinds: `prove.py view crash link`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from core.pair_model import Model, explore

EVERYTHING = "store ask view start crash boot late link switchover failover"


def main() -> None:
    events = frozenset(sys.argv[1:] or EVERYTHING.split())
    print("events: " + " ".join(sorted(events)))
    found = explore(Model(events), limit=50_000_000)
    print(f"{len(found)} worlds, never two active")


if __name__ == "__main__":
    main()
