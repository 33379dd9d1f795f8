"""Random stories on all cores: counts what was promised, and what was not kept.

`--stories N` plays N of them, `--seconds S` as many as fit (0: until you stop it).  `--strict` also demands that the
stories were worth playing: enough take-overs, every row of the table fired, and always three faults at once.  A story
that broke a promise can be played again, with every line of it, by `--seed N`.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pool

from understudy.core.model import Phase
from understudy.core.rules import RULES, Rule
from understudy.sim.weather import Telling, Weather, play

LEAST_TAKEOVERS = 0.25  # Per story: 5,000 in 20,000.
LEAST_FIRED = 50  # Of each row, in 20,000 stories.
FULL = 20_000


def main() -> int:
    arguments = parse()
    if arguments.seed is not None:
        return tell(arguments.seed)
    first = arguments.first if arguments.first is not None else int(time.time()) % 10**9 * 10**5
    print(
        f"random stories from seed {first} on, two simulated hours each, on {workers()} processes"
    )
    started = time.monotonic()
    total, count, broken = gather(first, arguments)
    seconds = time.monotonic() - started
    report(total, count, seconds)
    wanting = missing(total, count) if arguments.strict else []
    for line in [*broken, *wanting]:
        print(line)
    return 1 if broken or wanting else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--first", type=int, help="the first seed (default: from the clock)")
    parser.add_argument("--seed", type=int, help="tell one story, line by line")
    parser.add_argument("--strict", action="store_true")
    return parser.parse_args()


def tell(seed: int) -> int:
    telling = Weather(seed, told=print).play()
    print("\n".join(telling.broken) or "every promise was kept")
    return 1 if telling.broken else 0


def gather(first: int, arguments: argparse.Namespace) -> tuple[Telling, int, list[str]]:
    total, count, broken = Telling(first, most_at_once=99), 0, []
    ends = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")
    try:
        with Pool(workers()) as pool:
            for telling in pool.imap_unordered(play, seeds(first, arguments.stories), chunksize=8):
                count += 1
                total.takeovers += telling.takeovers
                total.replaced += telling.replaced
                total.fired += telling.fired
                total.most_at_once = min(total.most_at_once, telling.most_at_once)
                broken += [f"seed {telling.seed}: {promise}" for promise in telling.broken]
                if len(broken) >= 10 or time.monotonic() > ends:
                    break
    except KeyboardInterrupt:
        print("stopped")
    return total, count, broken


def seeds(first: int, stories: int) -> Iterator[int]:
    end = first + stories if stories else sys.maxsize
    yield from range(first, end)


def workers() -> int:
    return len(os.sched_getaffinity(0))


def report(total: Telling, count: int, seconds: float) -> None:
    rows = rows_fired(total)
    rarest = sorted((number, name) for name, number in rows.items())[:5]
    print(
        f"{count} stories in {seconds:.0f} s: {total.takeovers} take-overs completed, "
        f"{total.replaced} dead nodes replaced in time, at least {total.most_at_once} faults at once in each"
    )
    print("rarest rows: " + ", ".join(f"{name} {number}" for number, name in rarest))


def rows_fired(total: Telling) -> Counter[str]:
    return Counter(
        {f"{phase}/{rule.name}": total.fired[phase, rule.name] for phase, rule in every_row()}
    )


def every_row() -> Iterator[tuple[Phase, Rule]]:
    for phase, rules in RULES.items():
        for rule in rules:
            yield phase, rule


def missing(total: Telling, count: int) -> list[str]:
    share = count / FULL
    found = [
        f"row {name} fired {number} times, not {LEAST_FIRED * share:.0f}"
        for name, number in rows_fired(total).items()
        if number < LEAST_FIRED * share
    ]
    if total.takeovers < LEAST_TAKEOVERS * count:
        found.append(f"only {total.takeovers} take-overs in {count} stories")
    if total.most_at_once < 3:
        found.append(f"a story had only {total.most_at_once} faults at once")
    return found


if __name__ == "__main__":
    sys.exit(main())
