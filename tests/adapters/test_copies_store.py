"""The standby keeps whole snapshots, not too many, and the newest whatever happens."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from understudy.adapters.copies.store import INCOMING, Snapshot, Store

SOURCE = Path(__file__).parents[2] / "src"
NOW = 1_763_900_100.25
PLENTY = 1_000_000_000


def store(tmp_path: Path, *, keep: int = 24, keep_bytes: int = PLENTY) -> Store:
    return Store(tmp_path / "copies" / "astdb", keep=keep, keep_bytes=keep_bytes)


def pull(to: Store, taken: float, **files: bytes) -> Snapshot:
    """As an adapter does: what did not change is a hard link to the snapshot before."""
    newest = to.newest()
    incoming = to.begin()
    for name, content in files.items():
        before = newest.path / name if newest else None
        if before is not None and before.exists() and before.read_bytes() == content:
            os.link(before, incoming / name)
        else:
            (incoming / name).write_bytes(content)
    return to.commit(taken)


def test_where_nothing_was_pulled_there_is_nothing(tmp_path: Path) -> None:
    assert store(tmp_path).all() == ()
    assert store(tmp_path).newest() is None


def test_a_snapshot_is_seen_when_it_is_committed_and_not_before(tmp_path: Path) -> None:
    ours = store(tmp_path)
    (ours.begin() / "data").write_bytes(b"1")
    assert ours.all() == ()
    committed = ours.commit(NOW)
    assert ours.all() == (committed,)
    assert (committed.path / "data").read_bytes() == b"1"
    assert not (ours.folder / INCOMING).exists()


def test_a_snapshot_is_named_by_its_instant(tmp_path: Path) -> None:
    committed = pull(store(tmp_path), NOW)
    assert (committed.name, committed.taken) == ("2025-11-23T12-15-00.250Z", NOW)
    assert store(tmp_path).newest() == committed


def test_the_newest_is_the_one_that_was_read_last(tmp_path: Path) -> None:
    ours = store(tmp_path)
    taken = [pull(ours, NOW + seconds) for seconds in (0, 0.001, 9, 3600)]
    assert list(ours.all()) == taken
    assert ours.newest() == taken[-1]


@pytest.mark.parametrize("back", [0.0, 0.001, 86_400.0])
def test_after_the_clock_went_back_the_last_is_still_the_newest(
    tmp_path: Path, back: float
) -> None:
    ours = store(tmp_path)
    first = pull(ours, NOW, data=b"1")
    second = pull(ours, NOW - back, data=b"2")
    third = pull(ours, NOW - back, data=b"3")
    assert ours.all() == (first, second, third)
    assert (third.path / "data").read_bytes() == b"3"


def test_what_an_interrupted_pull_left_is_thrown_away_by_the_next(tmp_path: Path) -> None:
    ours = store(tmp_path)
    first = pull(ours, NOW, data=b"1")
    (ours.begin() / "half").mkdir()
    (ours.folder / INCOMING / "half" / "data").write_bytes(b"2")
    assert store(tmp_path).newest() == first
    assert list(store(tmp_path).begin().iterdir()) == []


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    ours = store(tmp_path)
    ours.discard()  # Nothing is there.
    (ours.begin() / "data").write_bytes(b"1")
    ours.discard()
    assert list(ours.folder.iterdir()) == []


def test_other_names_are_no_snapshots_and_are_left_alone(tmp_path: Path) -> None:
    ours = store(tmp_path, keep=1)
    pull(ours, NOW)
    others = ["accept", "2025-11-23", "x2025-11-23T12-15-00.250Z", "2025-11-23T12-15-00.250Z.bak"]
    for name in others:
        (ours.folder / name).mkdir()
    last = pull(ours, NOW + 1)
    assert ours.all() == (last,)
    assert sorted(each.name for each in ours.folder.iterdir()) == sorted([*others, last.name])


def test_others_may_not_look_inside(tmp_path: Path) -> None:
    committed = pull(store(tmp_path), NOW)
    assert committed.path.stat().st_mode & 0o777 == 0o700
    assert committed.path.parent.stat().st_mode & 0o777 == 0o700


# Not too many


def test_the_oldest_beyond_the_number_are_dropped(tmp_path: Path) -> None:
    ours = store(tmp_path, keep=3)
    taken = [pull(ours, NOW + second, data=bytes([second])) for second in range(5)]
    assert list(ours.all()) == taken[2:]


def test_the_oldest_beyond_the_bytes_are_dropped(tmp_path: Path) -> None:
    ours = store(tmp_path, keep_bytes=250_000)
    taken = [pull(ours, NOW + second, data=bytes([second]) * 100_000) for second in range(5)]
    assert list(ours.all()) == taken[2:]  # Two of 100 000, beside the newest.


def test_the_newest_stays_however_large_it_is(tmp_path: Path) -> None:
    ours = store(tmp_path, keep=1, keep_bytes=0)
    pull(ours, NOW, data=b"1" * 100_000)
    last = pull(ours, NOW + 1, data=b"2" * 100_000)
    assert ours.all() == (last,)


def test_what_is_in_many_snapshots_counts_once_and_what_is_in_the_newest_not_at_all(
    tmp_path: Path,
) -> None:
    ours = store(tmp_path, keep_bytes=150_000)
    old, new = b"1" * 100_000, b"2" * 100_000
    taken = [pull(ours, NOW + second, prompts=old, number=bytes([second])) for second in range(4)]
    assert list(ours.all()) == taken  # All of them link to what is in the newest.
    taken.append(pull(ours, NOW + 4, prompts=new, number=b"4"))
    assert list(ours.all()) == taken  # One file of 100 000 in four snapshots.
    taken.append(pull(ours, NOW + 5, prompts=b"3" * 100_000, number=b"5"))
    assert list(ours.all()) == taken[4:]  # Another one: too much until all four are gone.


def test_a_dropped_snapshot_takes_nothing_from_those_that_share_its_files(tmp_path: Path) -> None:
    ours = store(tmp_path, keep=1)
    pull(ours, NOW, data=b"same")
    last = pull(ours, NOW + 1, data=b"same")
    assert ours.all() == (last,)
    assert (last.path / "data").read_bytes() == b"same"


# Dying

PULLS = """
import os, sys, time
sys.path.insert(0, {source!r})
from pathlib import Path
from understudy.adapters.copies.store import Store
store = Store(Path(sys.argv[1]), keep=100_000, keep_bytes=10**12)
print("at work", flush=True)
for number in range(100_000):
    incoming = store.begin()
    for name in "abc":
        (incoming / name).write_bytes(b"%d" % number * 1000)
    store.commit(round(time.time(), 3))
"""


def test_whoever_pulls_may_be_killed_at_any_instant(tmp_path: Path) -> None:
    script = tmp_path / "pulls.py"
    script.write_text(PULLS.format(source=str(SOURCE)))
    ours, seed = store(tmp_path, keep=100_000), random.randrange(2**32)
    chance = random.Random(seed)
    had = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, str(script), str(ours.folder)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.15))
        process.kill()
        process.communicate()
        for snapshot in ours.all()[had:]:
            contents = {each.name: each.read_bytes() for each in snapshot.path.iterdir()}
            assert sorted(contents) == ["a", "b", "c"], seed
            assert len(set(contents.values())) == 1, seed
            assert contents["a"], seed
        had = len(ours.all())
    assert had > 0
    last = pull(ours, 0.0)
    assert (ours.newest(), len(ours.all())) == (last, had + 1)
