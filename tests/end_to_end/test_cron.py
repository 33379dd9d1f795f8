"""Ten pairs whose standby is run by cron: all take over in the same round, and never before patience.

The article's numbers, each divided by ten: a run every 6 s, give or take 0.2 s, 30 s of patience.
"""

import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters import bind, nrpe_daemon
from end_to_end.outside import leads_to, until, watch
from end_to_end.pair import ZONE, Pair, name_section, quick_pair, sleep_until
from understudy.adapters.claims.record import to_text
from understudy.core.votes import Verdict

pytestmark = pytest.mark.real
PAIRS = 10
INTERVAL, PATIENCE, JITTER = 6.0, 30.0, 0.2  # Seconds.
RUNS = 6  # So the last one comes when patience is spent, give or take.
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
    round: int  # Counted from the first that saw the other node down.
    spent: float  # Seconds of patience.


@pytest.fixture
def dead() -> Iterator[Path]:
    """While this file is there no check point reaches pbx01."""
    with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "dead"


@pytest.fixture
def points(dead: Path) -> Iterator[str]:
    """The check points of all pairs: three real daemons."""
    up = f"test -e {dead} || exec echo SIP OK"
    down = "echo SIP CRITICAL - no answer; exit 2"
    commands = (
        f"command[check_pbx01]=/bin/sh -c '{up}; {down}'",
        f"command[check_pbx02]=/bin/sh -c '{down}'",
    )
    with ExitStack() as stack:
        daemons = [stack.enter_context(nrpe_daemon.daemon(config=commands)) for _ in range(3)]
        yield "".join(
            f'[checkpoints.cp{number}]\nkind = "nrpe"\naddress = "127.0.0.1"\n'
            f'port = {each.port}\ntimeout = "2s"\n'
            for number, each in enumerate(daemons, 1)
        )


@pytest.fixture
def names(tmp_path: Path) -> Iterator[bind.Pair]:
    (tmp_path / "dns").mkdir()
    with bind.bind_pair(tmp_path / "dns") as made:
        yield made


def test_ten_pairs_under_cron_take_over_in_the_same_round(
    points: str, dead: Path, names: bind.Pair, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        pairs = [
            stack.enter_context(_pair(number, points, names, tmp_path)) for number in range(PAIRS)
        ]
        with ThreadPoolExecutor(4) as threads:
            for done in threads.map(lambda pair: pair.run("pbx02", "tick"), pairs):
                assert done.returncode == 0, done.stderr
        assert {pair.phase("pbx02") for pair in pairs} == {"standby"}
        dead.touch()
        begin = time.time() + 0.5
        begins = [begin + number * INTERVAL / PAIRS for number in range(PAIRS)]
        with ThreadPoolExecutor(PAIRS) as threads:
            found = list(threads.map(_one, pairs, begins))
        for pair in pairs:
            assert leads_to(names.secondary.port, pair.service) == f"pbx02.{ZONE}"
    assert {each.round for each in found} == {found[0].round}, found
    assert all(PATIENCE <= each.spent < PATIENCE + 1.5 for each in found), found


@contextmanager
def _pair(number: int, points: str, names: bind.Pair, folder: Path) -> Iterator[Pair]:
    service = f"sip{number}.{ZONE}"
    names.nsupdate(f"update add {service} 1 CNAME pbx01.{ZONE}")
    ports = (names.primary.port, names.secondary.port)
    rest = points + name_section(names.key(), names.primary.port, *ports)
    with quick_pair(folder / str(number), DETECTION, lambda _: rest, service) as pair:
        (pair.folder / "claim").write_text(to_text(pair.old_claim()) + "\n")
        yield pair


def _one(pair: Pair, begin: float) -> Taken:
    """Cron, from the first run that sees the other node down."""
    with watch(pair.addresses, pair.port) as watching:
        ticks: list[subprocess.Popen[str]] = []
        for number in range(RUNS):
            sleep_until(begin + number * INTERVAL + random.uniform(-JITTER, JITTER))
            ticks.append(pair.start("pbx02", "tick"))
        assert [each.wait(30) for each in ticks] == [0] * RUNS
        until(
            lambda: watching.answering == ("pbx02",),
            within=3,
            what=lambda: f"pbx02 answers: {pair.said('pbx02')}",
        )
        assert watching.first("pbx02", 0.0) > begin + PATIENCE
    with closing(pair.journal("pbx02")) as journal:
        decision = next(d for d in journal.decisions() if d.rule == "patience-spent")
        rounds = journal.rounds(since=begin - JITTER, until=decision.wall)
    assert {each.theirs for each in rounds} == {Verdict.DOWN}
    return Taken(round=len(rounds), spent=decision.wall - rounds[0].wall)
