#!/usr/bin/env python3
"""The outages of docs/benchmarks.md: every fault, with every pair of numbers, so many times.  An hour and a half.

    benchmarks/outages.py FOLDER [--runs 5]

Each series leaves a JSON file in FOLDER; what is there already is not run again.  Prints the table.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # `import lab` means the folder.
sys.path.insert(1, f"{sys.path[0]}/src")

from benchmarks import outage
from lab import pair
from lab.hosts import LabError
from lab.profile import find

from understudy.config import durations

FAULTS = ("power", "kill", "cut", "freeze", "flap")
# One after the other with the same numbers: the hosts are installed anew for others.
NUMBERS = (
    ("fast", "stop", FAULTS),
    ("fast", "keep", FAULTS),
    ("5s", "stop", FAULTS),
    ("scaled", "stop", FAULTS),
)
CALLERS = ("dispatcher", "registrar", "name0")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        for profile, isolation, faults in NUMBERS:
            for fault in faults:
                path = given.folder / f"{profile}-{isolation}-{fault}.json"
                if not path.exists():
                    runs = outage.series(fault, profile, isolation, given.runs)
                    path.write_text(outage.as_json(fault, profile, isolation, runs))
    except LabError:
        return 1
    finally:
        print("\n".join(_table(given.folder)))
        pair.down()
    return 0


def _table(folder: Path) -> Iterator[str]:
    yield (
        "| rounds, patience, isolation | fault | "
        + " | ".join(CALLERS)
        + " | silence, name0 | lost |"
    )
    yield "|---|---|" + "---|" * (len(CALLERS) + 2)
    for profile, isolation, faults in NUMBERS:
        numbers = find(profile)
        for fault in faults:
            path = folder / f"{profile}-{isolation}-{fault}.json"
            if not path.exists():
                continue
            runs = json.loads(path.read_text())["runs"]
            outages = [outage.spread([run[kind]["outage"] for run in runs]) for kind in CALLERS]
            silence = outage.spread([run["name0"]["silence"] for run in runs])
            lost = "/".join(
                str(sum(run[kind]["lost"] for run in runs) // len(runs)) for kind in CALLERS
            )
            patience = durations.show(durations.parse(numbers.patience))
            who = f"{numbers.interval}, {patience}, {isolation}"
            yield f"| {who} | {fault} | {' | '.join(outages)} | {silence} | {lost} |"


if __name__ == "__main__":
    sys.exit(main())
