"""What a rejoin would do, before it does anything."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from understudy.adapters.copies import rsync, sqlite
from understudy.adapters.copies.store import Store
from understudy.errors import Denied
from understudy.ports import Compared


def snapshot(folder: Path) -> Path:
    """An empty one, that is the newest."""
    store = Store(folder, keep=1, keep_bytes=0)
    store.begin()
    return store.commit(1_700_000_000.0).path


def files(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_files_that_would_come_and_files_that_are_only_here(tmp_path: Path) -> None:
    here, store = tmp_path / "data" / "spool", tmp_path / "store"
    copied = snapshot(store) / "root" / here.relative_to("/")
    files(copied, {"new.wav": "12345", "other.txt": "theirs", "same": "same", "a.lock": "theirs"})
    files(here, {"other.txt": "ours", "only.wav": "ours", "b.lock": "ours"})
    (here / "same").hardlink_to(copied / "same")
    settings = rsync.Settings(paths=(here,), exclude=("*.lock",))
    copy = rsync.Rsync("spool", settings, node="pbx01", folder=store)
    found = asyncio.run(copy.compare())
    assert found == Compared(
        unit="files", comes=2, bytes=11, only_here=2, examples=("only.wav", "other.txt")
    )
    assert sorted(each.name for each in here.iterdir()) == [
        "b.lock",
        "only.wav",
        "other.txt",
        "same",
    ]


def test_a_path_that_is_not_here_yet(tmp_path: Path) -> None:
    here, store = tmp_path / "data" / "spool", tmp_path / "store"
    copied = snapshot(store) / "root" / here.relative_to("/")
    files(copied, {"new.wav": "12345"})
    copy = rsync.Rsync("spool", rsync.Settings(paths=(here,)), node="pbx01", folder=store)
    found = asyncio.run(copy.compare())
    assert (found.comes, found.bytes, found.only_here) == (1, 5, 0)
    assert not here.exists()


def database(path: Path, rows: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE astdb (key TEXT PRIMARY KEY, value TEXT)")
        db.executemany("INSERT INTO astdb VALUES (?, ?)", rows.items())


def test_rows_that_would_come_and_rows_that_are_only_here(tmp_path: Path) -> None:
    path, store = tmp_path / "astdb.sqlite3", tmp_path / "store"
    database(snapshot(store) / "data.sqlite3", {"/DND/1": "NO", "/CF/2": "9", "/same": "x"})
    database(path, {"/DND/1": "YES", "/same": "x"})
    before = path.read_bytes()
    copy = sqlite.build("astdb", sqlite.Settings(path=path), node="pbx01", folder=store)
    found = asyncio.run(copy.compare())
    assert (found.unit, found.comes, found.only_here) == ("rows", 2, 1)
    assert found.examples == ("astdb: /DND/1 YES",)
    assert path.read_bytes() == before


def test_before_the_first_pull_there_is_nothing_to_compare(tmp_path: Path) -> None:
    settings = sqlite.Settings(path=tmp_path / "astdb.sqlite3")
    copy = sqlite.build("astdb", settings, node="pbx01", folder=tmp_path / "store")
    with pytest.raises(Denied, match="nothing has been copied yet for astdb"):
        asyncio.run(copy.compare())
