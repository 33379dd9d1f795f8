#!/usr/bin/env python3
"""How long is nobody answered when pbx01 dies?  Callers of every kind at once, in the laboratory.

    benchmarks/outage.py --fault power --runs 5 --profile 2s [--isolation keep] [--json FILE]

outage   start of the first answered attempt after the worst run of failures, less the start of the last one before it.
silence  the longest time between two answers.  An attempt inside an outage may be answered late, by its retransmission;
         so outage can be shorter than what the service was away, by up to the attempt's limit.
lost     attempts that were never answered.

The moment of the fault is random within a round, and the resolver's cache is empty at the beginning of each run.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # `import lab` means the folder.
sys.path.insert(1, f"{sys.path[0]}/src")

from lab import callers, machines, network, pair
from lab.callers import KINDS, Attempt
from lab.hosts import LabError
from lab.profile import PROFILES, find

from understudy.config import durations

LEAD = 6.0  # Seconds of calls before the fault may come.
TAIL = 5.0  # And after everybody is answered again.
MOST_TROUBLES = 3  # Runs that may fail to begin.
STEADY = 2.0  # Seconds without a failed attempt that count as "again".
PHONES = ("phones", "pstn")  # They come at their next registration.
LATE = (*PHONES, "name")  # And that one when its resolver asks again: only waited for on request.


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds; None where nobody was answered any more."""

    outage: float | None
    silence: float
    lost: int
    attempts: int


Run = dict[str, Measured]  # By kind of caller.


def kill(_: float) -> None:
    """The process dies and stays dead: neither systemd nor the agent gets it to run again."""
    folder = "/run/systemd/system/asterisk.service.d"
    text = r"[Service]\nRestart=no\nExecStart=\nExecStart=/bin/false\n"
    script = f"mkdir -p {folder}; printf '{text}' >{folder}/zz.conf; systemctl daemon-reload"
    machines.execute("pbx01", "sh", "-ec", f"{script}; systemctl kill -s KILL asterisk", check=True)


def crash(_: float) -> None:
    """The process dies; systemd may start it again."""
    machines.execute("pbx01", "systemctl", "kill", "-s", "KILL", "asterisk", check=True)


def power(_: float) -> None:
    machines.power_cut(["pbx01"])


def cut(_: float) -> None:
    network.cut("pbx01", "all")


def freeze(_: float) -> None:
    machines.freeze(["pbx01"])


def flap(patience: float) -> None:
    """Three times away for a part of patience: nothing should move."""
    for _ in range(3):
        network.cut("pbx01", "all")
        time.sleep(0.4 * patience)
        network.heal_all()
        time.sleep(0.2 * patience)


FAULTS: dict[str, Callable[[float], None]] = {
    "power": power, "kill": kill, "cut": cut, "freeze": freeze, "flap": flap, "crash": crash,
}  # fmt: skip


def _begin(profile: str, isolation: str, *, patient: bool) -> None:
    """Everybody as at the beginning, also who remembers whom he has talked to.  Raises LabError."""
    if pair.is_up(profile):
        pair.reset_pair("prov", *(("phones",) if patient else ()), isolation=isolation)
    else:
        pair.down()
        pair.up(profile, isolation)
    pair.settle(phones=patient)


def measure(attempts: Sequence[Attempt], since: float, until: float) -> Measured:
    counted = [a for a in attempts if a.counts and since <= a.begun <= until]
    starts = sorted(a.begun for a in counted if a.answered)
    failed = [a.begun for a in counted if not a.answered]
    answers = sorted([since, *(a.answered for a in counted if a.answered), until])
    silence = max(b - a for a, b in pairwise(answers))
    outage: float | None = 0.0
    for before, after in zip([since, *starts], [*starts, float("inf")], strict=True):
        if any(before < at < after for at in failed):
            outage = None if after == float("inf") else max(outage or 0.0, after - before)
    return Measured(outage, silence, len(failed), len(counted))


async def one_run(fault: str, profile: str, *, patient: bool) -> Run:
    numbers = find(profile)
    interval, patience = durations.parse(numbers.interval), durations.parse(numbers.patience)
    wanted = [kind for kind in KINDS if patient or kind not in LATE]
    async with callers.calling() as calling:
        begun = time.time()
        await asyncio.sleep(LEAD + random.uniform(0.0, interval))
        _check_all_answered(calling, wanted)
        at = time.time()
        await asyncio.to_thread(FAULTS[fault], patience)
        ends = at + 2 * patience + (180.0 if patient else 60.0)
        while time.time() < ends:
            await asyncio.sleep(0.5)
            if time.time() > at + STEADY + 2.0 and all(
                _is_steady(calling, kind) for kind in wanted
            ):
                break
        until = time.time()
        await asyncio.sleep(TAIL)
        return {kind: measure(calling.attempts[kind], begun, until) for kind in KINDS}


def _is_steady(calling: callers.Callers, kind: str) -> bool:
    """Only attempts that are over say anything."""
    limit = callers.LIMITS[kind]
    recent = [a for a in calling.recent(kind, STEADY + limit) if a.why != "not over"]
    last = [a for a in recent if a.begun > time.time() - STEADY]
    return bool(last) and all(a.answered for a in last)


def _check_all_answered(calling: callers.Callers, wanted: Sequence[str]) -> None:
    for kind in wanted:
        if not any(a.answered for a in calling.attempts[kind]):
            why = {a.why for a in calling.attempts[kind]}
            raise LabError(f"nobody answers before the fault: {kind}: {', '.join(why)}")


def table(runs: Sequence[Run]) -> str:
    lines = [
        "| caller | outage s, median (min-max) | silence s | attempts lost | of |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        found = [run[kind] for run in runs]
        lost, made = (sum(x) for x in zip(*((m.lost, m.attempts) for m in found), strict=True))
        outages, silences = ([m.outage for m in found], [m.silence for m in found])
        lines.append(f"| {kind} | {spread(outages)} | {spread(silences)} | {lost} | {made} |")
    return "\n".join(lines)


def spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not answered again"
    text = f"{statistics.median(known):.1f} ({min(known):.1f}-{max(known):.1f})"
    return text if len(known) == len(values) else f"{text}, {len(values) - len(known)} not again"


def series(
    fault: str, profile: str, isolation: str, number: int, *, patient: bool = False
) -> list[Run]:
    """So many runs; what has failed before its fault is begun again.  Raises LabError."""
    runs: list[Run] = []
    troubles = 0
    while len(runs) < number:
        try:
            _begin(profile, isolation, patient=patient)
            runs.append(asyncio.run(one_run(fault, profile, patient=patient)))
        except LabError as error:
            print(f"outage: {error}", file=sys.stderr)
            troubles += 1
            if troubles > MOST_TROUBLES:
                raise
            continue
        print(f"run {len(runs)} of {number}: {fault}, {profile}, {isolation}", file=sys.stderr)
    return runs


def as_json(fault: str, profile: str, isolation: str, runs: Sequence[Run]) -> str:
    rows = [{kind: asdict(measured) for kind, measured in run.items()} for run in runs]
    said = {"fault": fault, "profile": asdict(find(profile)), "isolation": isolation, "runs": rows}
    return json.dumps(said, indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fault", choices=FAULTS, default="power")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--profile", choices=PROFILES, default="2s")
    parser.add_argument("--isolation", default="stop")
    parser.add_argument(
        "--patient", action="store_true", help="wait for phones and the resolver's callers, too"
    )
    parser.add_argument("--json", type=Path, help="every run, for docs/benchmarks.md")
    given = parser.parse_args()
    try:
        runs = series(
            given.fault, given.profile, given.isolation, given.runs, patient=given.patient
        )
    except LabError:
        return 1
    if given.json:
        given.json.write_text(as_json(given.fault, given.profile, given.isolation, runs))
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
