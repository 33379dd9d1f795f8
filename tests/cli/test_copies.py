"""What a person may do about snapshots."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cli.pair import CliPair
from understudy import wiring
from understudy.adapters.copies.store import Store


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    """pbx02 has two snapshots of a database, and something aside."""
    made = CliPair(tmp_path)
    path = made.config("pbx02")
    path.write_text(
        path.read_text() + f'\n[copies.astdb]\nkind = "sqlite"\npath = "{tmp_path}/astdb"\n'
    )
    store = store_of(made)
    for number in (1, 2):
        with closing(sqlite3.connect(store.begin() / "data.sqlite3")) as db, db:
            db.execute(f"CREATE TABLE t{number} (a)")
        store.commit(1_763_900_000.0 + number)
    (store.begin_aside() / "astdb").write_bytes(b"mine")
    store.keep_aside(1_763_900_003.0)
    return made


def store_of(pair: CliPair) -> Store:
    config = wiring.load_config(pair.config("pbx02"), check_files=False)
    store = wiring.copies_of(config, "pbx02")["astdb"].store
    assert isinstance(store, Store)
    return store


def test_snapshots_are_listed_the_newest_first_and_what_is_aside(pair: CliPair) -> None:
    first, second = (each.name for each in store_of(pair).all())
    shown = pair.here("pbx02", "copies", "list").out.splitlines()
    assert shown[0] == "astdb: 2 snapshots"
    assert [line.split()[0] for line in shown[1:3]] == [second, first]
    assert shown[3].strip() == f"kept aside: {store_of(pair).asides()[0]}"
    found = pair.json("pbx02", "copies", "list")
    assert found["astdb"]["snapshots"] == [second, first]


def test_a_snapshot_is_taken_out_as_it_was(pair: CliPair, tmp_path: Path) -> None:
    first, _ = (each.name for each in store_of(pair).all())
    done = pair.here("pbx02", "copies", "restore", "astdb", first, "--to", str(tmp_path / "old"))
    assert (done.code, done.out) == (0, f"astdb as it was at {first} is in {tmp_path}/old\n")
    with closing(sqlite3.connect(tmp_path / "old/data.sqlite3")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("t1",)]
        db.execute("DROP TABLE t1")
    # It shares nothing with the snapshot.
    with closing(sqlite3.connect(store_of(pair).all()[0].path / "data.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_what_is_not_there_or_in_the_way_is_refused(pair: CliPair, tmp_path: Path) -> None:
    (first, *_) = (each.name for each in store_of(pair).all())
    for words, why in (
        (
            ("restore", "astdb", "yesterday", "--to", f"{tmp_path}/x"),
            "no snapshot yesterday of astdb",
        ),
        (("restore", "config", first, "--to", f"{tmp_path}/x"), "no [copies.config]"),
        (("restore", "astdb", first, "--to", str(tmp_path)), "is there already"),
        (("accept", "config"), "There are: astdb."),
    ):
        done = pair.here("pbx02", "copies", *words)
        assert done.code == 1
        assert why in done.err
    assert not (tmp_path / "x").exists()


def test_an_acceptance_waits_for_the_next_pull(pair: CliPair) -> None:
    done = pair.here("pbx02", "copies", "accept", "astdb")
    assert done.code == 0
    assert (store_of(pair).folder / "accept").exists()


def test_without_anything_to_copy_the_copier_says_so(tmp_path: Path) -> None:
    done = CliPair(tmp_path).here("pbx01", "copies", "run")
    assert done.code == 2
    assert "there is no [copies.NAME] table" in done.err
