"""Ten pairs whose standby is run by cron: all take over in the same round, and never before patience.

The article's numbers, each divided by ten: a run every 6 s, give or take 0.2 s, 30 s of patience.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters import bind, nrpe_daemon
from end_to_end.outside import leads_to, watch
from end_to_end.pair import ZONE, Pair, name_section, quick_pair, sleep_until
from understudy.adapters.claims.record import to_text
from understudy.core.votes import Verdict

pytestmark = pytest.mark.real
PAIRS = 10
INTERVAL, PATIENCE, JITTER = 6.0, 30.0, 0.2  # Seconds.
DETECTION = {
    "interval": "6s",
    "patience": "30s",
    "announce": "4500ms",
    "claim_stale": "1500ms",
    "checkpoints_stale": "9s",
    "restart_grace": "2s",
    "settle_down": "60s",
    "first_proof": "2s",
}


@dataclass(frozen=True, kw_only=True)
class Taken:
    run: int  # Of cron, counted from the first that saw the other node down.
    round: int  # The same for rounds.
    spent: float  # Seconds of patience.


@pytest.fixture
def points() -> Iterator[str]:
    """The check points of all pairs: three real daemons for which every node is down."""
    check = "/bin/echo SIP CRITICAL - no answer; exit 2"
    commands = tuple(f"command[check_{n}]=/bin/sh -c '{check}'" for n in ("pbx01", "pbx02"))
    with ExitStack() as stack:
        daemons = [stack.enter_context(nrpe_daemon.daemon(config=commands)) for _ in range(3)]
        yield "".join(
            f'[checkpoints.cp{number}]\nkind = "nrpe"\naddress = "127.0.0.1"\n'
            f'port = {each.port}\ntimeout = "1s"\n'
            for number, each in enumerate(daemons, 1)
        )


@pytest.fixture
def names(tmp_path: Path) -> Iterator[bind.Pair]:
    (tmp_path / "dns").mkdir()
    with bind.bind_pair(tmp_path / "dns") as made:
        yield made


def test_ten_pairs_under_cron_take_over_in_the_same_round(
    points: str, names: bind.Pair, tmp_path: Path
) -> None:
    begin = time.time() + 1.0
    with ThreadPoolExecutor(PAIRS) as threads:
        found = list(
            threads.map(
                lambda number: _one(
                    number, begin + number * INTERVAL / PAIRS, points, names, tmp_path
                ),
                range(PAIRS),
            )
        )
    assert {each.run for each in found} == {found[0].run}, found
    assert {each.round for each in found} == {found[0].round}, found
    assert all(PATIENCE <= each.spent < PATIENCE + 1.5 for each in found), found


def _one(number: int, begin: float, points: str, names: bind.Pair, folder: Path) -> Taken:
    service = f"sip{number}.{ZONE}"
    names.nsupdate(f"update add {service} 1 CNAME pbx01.{ZONE}")
    ports = (names.primary.port, names.secondary.port)
    rest = points + name_section(names.key(), names.primary.port, *ports)
    with quick_pair(folder / str(number), DETECTION, lambda _: rest, service) as pair:
        (pair.folder / "claim").write_text(to_text(pair.old_claim()) + "\n")
        with watch(pair.addresses, pair.port) as watching:
            runs = _cron(pair, begin)
            assert watching.answering == ("pbx02",), pair.said("pbx02")
            answered = watching.first("pbx02", 0)
        assert leads_to(names.secondary.port, service) == f"pbx02.{ZONE}"
        taken = _taken(pair, runs)
        assert answered > begin + PATIENCE
        return taken


def _cron(pair: Pair, begin: float) -> list[tuple[float, "subprocess.Popen[str]"]]:
    """When each run was begun."""
    runs: list[tuple[float, subprocess.Popen[str]]] = []
    for number in range(int(PATIENCE / INTERVAL) + 1):
        sleep_until(begin + number * INTERVAL + random.uniform(-JITTER, JITTER))
        runs.append((time.time(), pair.start("pbx02", "tick")))
    for _, each in runs:
        assert each.wait(30) == 0
    return runs


def _taken(pair: Pair, runs: list[tuple[float, "subprocess.Popen[str]"]]) -> Taken:
    with closing(pair.journal("pbx02")) as journal:
        decision = next(d for d in journal.decisions() if d.rule == "patience-spent")
        rounds = journal.rounds(until=decision.wall)
    down = [each.wall for each in rounds if each.theirs is Verdict.DOWN]
    assert len(down) == len(rounds)
    # Who came while another was at work has left everything to that, so the round tells the run.
    began = [at for at, _ in runs if at <= down[-1]]
    return Taken(run=len(began), round=len(down), spent=down[-1] - down[0])
