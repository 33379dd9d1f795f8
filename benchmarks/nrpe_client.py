"""What one NRPE question costs this machine: our client against forking check_nrpe, on one real nrpe.

    python benchmarks/nrpe_client.py [--checks 60] [--repetitions 7] [--json FILE]

Both ask two questions at a time, as a round does, of a daemon from Debian's package on loopback.  The measurements
alternate (ours, fork, ours, fork ...), so that what else the machine does falls on both.  Counted: user and system CPU
time of this process and of the children that it has waited for, which are check_nrpe alone; the daemon's own time,
the same for both, is not.  The fork is a bare posix_spawn, the cheapest that Python has.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from adapters.nrpe_daemon import CHECK_NRPE, Daemon, Papers, daemon, papers  # noqa: E402
from understudy.adapters.probes.nrpe import NrpeProbe, Settings, Tls  # noqa: E402
from understudy.config.settings import Host, InputFile, Port  # noqa: E402
from understudy.core.observations import Health  # noqa: E402

AT_ONCE = 2
GOALS = {"plain": 7.0, "anonymous": 8.0, "verified": 4.0}


@dataclass(frozen=True, kw_only=True)
class Mode:
    name: str
    daemon_options: tuple[str, ...]
    daemon_config: tuple[str, ...]
    tls: Tls
    ca_file: InputFile | None
    check_nrpe: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checks", type=int, default=60, help="per measurement (default: 60)")
    parser.add_argument("--repetitions", type=int, default=7, help="default: 7")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with papers() as made:
        results = [
            _compare(mode, options.checks, options.repetitions) for mode in _modes(made)
        ]
    _show(results)
    if options.json:
        options.json.write_text(json.dumps({"results": results}, indent=2) + "\n")


def _modes(made: Papers) -> list[Mode]:
    return [
        Mode(
            name="plain",
            daemon_options=("-n",),
            daemon_config=(),
            tls=Tls.OFF,
            ca_file=None,
            check_nrpe=("-n",),
        ),
        Mode(
            name="anonymous",
            daemon_options=(),
            daemon_config=(),
            tls=Tls.ANONYMOUS,
            ca_file=None,
            check_nrpe=(),
        ),
        Mode(
            name="verified",
            daemon_options=(),
            daemon_config=made.daemon("server"),
            tls=Tls.VERIFIED,
            ca_file=InputFile(made.ca),
            check_nrpe=("-A", str(made.ca), "-L", "ALL:!aNULL:!eNULL"),
        ),
    ]


def _compare(mode: Mode, checks: int, repetitions: int) -> dict[str, Any]:
    with daemon(*mode.daemon_options, config=mode.daemon_config) as there:
        settings = Settings(
            address=Host(there.address), port=Port(there.port), tls=mode.tls, ca_file=mode.ca_file
        )
        with asyncio.Runner() as runner:
            probe = NrpeProbe("benchmark", settings)

            def ours(count: int) -> None:
                runner.run(_ask(probe, count))

            def fork(count: int) -> None:
                _fork(mode, there, count)

            ours(AT_ONCE * 2)  # Imports, caches and the first full handshake are no habit.
            fork(AT_ONCE)
            pairs = [(_cpu(ours, checks), _cpu(fork, checks)) for _ in range(repetitions)]
    ratios = [forked / asked for asked, forked in pairs]
    return {
        "mode": mode.name,
        "ours_ms": _spread([asked for asked, _ in pairs]),
        "check_nrpe_ms": _spread([forked for _, forked in pairs]),
        "ratio": _spread(ratios),
        "goal": GOALS[mode.name],
        "reached": statistics.median(ratios) >= GOALS[mode.name],
    }


async def _ask(probe: NrpeProbe, count: int) -> None:
    for _ in range(count // AT_ONCE):
        reports = await asyncio.gather(*(probe.ask("up") for _ in range(AT_ONCE)))
        if any(each.health is not Health.UP for each in reports):
            sys.exit(f"a question failed: {reports}")


def _fork(mode: Mode, there: Daemon, count: int) -> None:
    where = ("-H", there.address, "-p", str(there.port))
    argv = [CHECK_NRPE, *where, *mode.check_nrpe, "-2", "-c", "check_up"]
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    for _ in range(count // AT_ONCE):
        children = [
            os.posix_spawn(CHECK_NRPE, argv, os.environ, file_actions=quiet)
            for _ in range(AT_ONCE)
        ]
        for child in children:
            _, status = os.waitpid(child, 0)
            if status:
                sys.exit(f"check_nrpe ended with {os.waitstatus_to_exitcode(status)}: {argv}")


def _cpu(work: Callable[[int], None], checks: int) -> float:
    """Milliseconds of CPU per check."""
    before = _spent()
    work(checks)
    return (_spent() - before) * 1000 / checks


def _spent() -> float:
    """Seconds of CPU.  By getrusage(2): os.times() counts in steps of 10 ms."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _show(results: list[dict[str, Any]]) -> None:
    print("CPU per check, ms, median (min-max)")
    print(f"{'mode':<10} {'ours':>20} {'check_nrpe':>21} {'times less':>21}  goal")
    for each in results:
        cells = [_cell(each[key]) for key in ("ours_ms", "check_nrpe_ms", "ratio")]
        verdict = "reached" if each["reached"] else "MISSED"
        print(
            f"{each['mode']:<10} {cells[0]:>20} {cells[1]:>21} {cells[2]:>21}"
            f"  {each['goal']:g} {verdict}"
        )


def _cell(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f}-{spread['max']:.2f})"


if __name__ == "__main__":
    main()
