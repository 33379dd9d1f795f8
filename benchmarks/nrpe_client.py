"""What one NRPE question costs this machine: our client against forking check_nrpe, on one real
nrpe.

    python benchmarks/nrpe_client.py [--checks 60] [--repetitions 7] [--at-once 2] [--json FILE]

All ask the same number of questions at a time of a daemon from Debian's package on loopback.  The
measurements alternate (ours, fork, ours, fork ...), so that what else the machine does falls on
all.  Counted: user and system CPU time of this process and of the children that it has waited for,
which are check_nrpe alone; the daemon's own time, the same for all, is not.

Forking is measured twice: `spawn` is a bare posix_spawn and a blocking wait, the cheapest that
Python has; `agent` is what a program that must not block does, here the probe kind `command`.
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
from understudy.adapters.probes.command import CommandProbe  # noqa: E402
from understudy.adapters.probes.command import Settings as CommandSettings  # noqa: E402
from understudy.adapters.probes.nrpe import NrpeProbe, Settings  # noqa: E402
from understudy.adapters.probes.nrpe_trouble import Tls  # noqa: E402
from understudy.config.settings import Command, Host, InputFile, Port  # noqa: E402
from understudy.core.observations import Health  # noqa: E402
from understudy.ports import Probe  # noqa: E402

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
    parser.add_argument(
        "--at-once",
        type=int,
        choices=range(1, 5),
        default=2,
        help="questions under way at once (default: 2, as a round has)",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with papers() as made:
        results = [
            _compare(mode, options.checks, options.repetitions, options.at_once)
            for mode in _modes(made)
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


def _compare(mode: Mode, checks: int, repetitions: int, at_once: int) -> dict[str, Any]:
    with daemon(*mode.daemon_options, config=mode.daemon_config) as there:
        settings = Settings(
            address=Host(there.address),
            port=Port(there.port),
            tls=mode.tls,
            ca_file=mode.ca_file,
            connections=at_once,
        )
        with asyncio.Runner() as runner:
            ways: dict[str, Callable[[], None]] = {}
            ours = NrpeProbe("ours", settings)
            fork = CommandProbe("fork", CommandSettings(command=_argv(mode, there, "check_{node}")))
            ways["ours"] = lambda: runner.run(_ask(ours, checks, at_once))
            ways["spawn"] = lambda: _spawn(_argv(mode, there, "check_up"), checks, at_once)
            ways["agent"] = lambda: runner.run(_ask(fork, checks, at_once))
            for work in ways.values():
                work()  # Imports, caches and the first full handshake are no habit.
            spent: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(repetitions):
                for name, work in ways.items():
                    spent[name].append(_cpu(work) / checks)
    spawn, agent = (
        [forked / asked for asked, forked in zip(spent["ours"], spent[name], strict=True)]
        for name in ("spawn", "agent")
    )
    return {
        "mode": mode.name,
        **{f"{name}_ms": _spread(values) for name, values in spent.items()},
        "ratio_spawn": _spread(spawn),
        "ratio_agent": _spread(agent),
        "goal": GOALS[mode.name],
    }


def _argv(mode: Mode, there: Daemon, command: str) -> Command:
    where = ("-H", there.address, "-p", str(there.port))
    return Command((CHECK_NRPE, *where, *mode.check_nrpe, "-2", "-c", command))


async def _ask(probe: Probe, count: int, at_once: int) -> None:
    for _ in range(count // at_once):
        reports = await asyncio.gather(*(probe.ask("up") for _ in range(at_once)))
        if any(each.health is not Health.UP for each in reports):
            sys.exit(f"a question failed: {reports}")


def _spawn(argv: Command, count: int, at_once: int) -> None:
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    for _ in range(count // at_once):
        children = [
            os.posix_spawn(CHECK_NRPE, argv, os.environ, file_actions=quiet) for _ in range(at_once)
        ]
        for child in children:
            _, status = os.waitpid(child, 0)
            if status:
                sys.exit(f"check_nrpe ended with {os.waitstatus_to_exitcode(status)}: {argv}")


def _cpu(work: Callable[[], None]) -> float:
    """Milliseconds of CPU."""
    before = _spent()
    work()
    return (_spent() - before) * 1000


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
    print("CPU per check, ms, and how many times less ours is: median (min-max)")
    head = ("mode", "ours", "check_nrpe, spawn", "times less", "check_nrpe, agent", "times less")
    print(_row(*head, "goal"))
    for each in results:
        keys = ("ours_ms", "spawn_ms", "ratio_spawn", "agent_ms", "ratio_agent")
        print(_row(each["mode"], *(_cell(each[key]) for key in keys), f"{each['goal']:g}"))


def _row(mode: str, *cells: str) -> str:
    return f"{mode:<10}" + "".join(f"{each:>20}" for each in cells[:-1]) + f"{cells[-1]:>6}"


def _cell(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f}-{spread['max']:.2f})"


if __name__ == "__main__":
    main()
