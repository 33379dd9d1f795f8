"""A database in use is copied whole or not at all, its program meets no lock, and what is in place is always whole."""

import asyncio
import grp
import hashlib
import json
import os
import pwd
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from understudy.adapters.copies.sqlite import Settings, Sqlite
from understudy.adapters.copies.sqlite import only_here as rows_only_here
from understudy.adapters.copies.store import Snapshot
from understudy.config.settings import Seconds
from understudy.errors import AdapterError, Denied, Refused, Unreachable, told
from understudy.ports import Pulled, Source

SRC = Path(__file__).parents[2] / "src"
IS_ROOT = os.geteuid() == 0

# The source as `understudy answer` runs it: argv is HOW PATH WITHIN copy NAME EPOCH WORD...
ANSWER = """
import os, subprocess, sys
sys.path.insert(0, {src!r})
from pathlib import Path
from understudy.adapters.copies.sqlite import Settings, Sqlite
from understudy.adapters.peers.requests import render_answer
from understudy.errors import Refused, UnderstudyError, told

how, path, within, copy, name, epoch, *words = sys.argv[1:]
assert (copy, name, epoch) == ("copy", "astdb", "7")
with open(path + ".asked", "a") as log:
    print(*words, file=log)
if how == "as-nobody":
    os.setegid(65534)
    os.seteuid(65534)
if how not in ("well", "as-nobody"):  # In between, as a connection that fails.
    far = subprocess.Popen([sys.executable, __file__, "well", *sys.argv[2:]], stdout=subprocess.PIPE)
    head = far.stdout.readline()
    body = far.stdout.read(5000 if how in ("killed", "cut") else -1)
    if how == "flipped":
        body = body[:4000] + bytes([body[4000] ^ 1]) + body[4001:]
    if how == "longer":
        body += b"more"
    sys.stdout.buffer.write(head + body)
    sys.stdout.buffer.flush()
    far.kill()
    far.wait()
    if how == "killed":
        os.kill(os.getpid(), 9)
    sys.exit(0)
try:
    sys.exit(Sqlite(name, Settings(path=Path(path), within=float(within)), folder=Path("/none")).serve(words))
except UnderstudyError as error:
    print(render_answer(Refused(told(error))))
    print("understudy:", told(error), file=sys.stderr)
    sys.exit(1)
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes on one machine: what is at one path in life is at two here."""

    there: Path  # The database on the active node.
    here: Path  # And on the standby.
    store: Path
    script: Path

    def copy(self, *, within: float = 30.0, keep: int = 24, owner: str | None = None) -> Sqlite:
        settings = Settings(path=self.here, within=Seconds(within), keep=keep, owner=owner)
        return Sqlite("astdb", settings, folder=self.store)

    def source(self, how: str = "well", *, within: float = 30.0) -> Source:
        reach = (sys.executable, str(self.script), how, str(self.there), str(within))
        return Source(node="pbx01", epoch=7, reach=reach)

    def pull(self, how: str = "well", *, within: float = 30.0) -> Pulled:
        return asyncio.run(self.copy().pull(self.source(how, within=within)))

    def put(self, *, owner: str | None = None) -> bool:
        return asyncio.run(self.copy(owner=owner).put())

    @property
    def snapshots(self) -> Sequence[Snapshot]:
        return self.copy().store.all()

    @property
    def newest(self) -> Path:
        return self.snapshots[-1].path / "data.sqlite3"

    @property
    def asked(self) -> list[str]:
        return Path(f"{self.there}.asked").read_text().splitlines()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    script = tmp_path / "answer.py"
    script.write_text(ANSWER.format(src=str(SRC)))
    for node in ("1", "2"):  # Short, as paths are in life: sentences end somewhere.
        (tmp_path / node).mkdir()
    found = Pair(
        there=tmp_path / "1" / "astdb",
        here=tmp_path / "2" / "astdb",
        store=tmp_path / "store",
        script=script,
    )
    make(found.there, 100)
    return found


def make(path: Path, rows: int, *, value: str = "x" * 100) -> None:
    path.unlink(missing_ok=True)
    fill(path, rows, value=value)


def fill(path: Path, rows: int, *, value: str = "x" * 100) -> None:
    """As Asterisk does."""
    with open_(path) as db:
        db.execute("CREATE TABLE astdb(key VARCHAR(256), value VARCHAR(256), PRIMARY KEY(key))")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO astdb VALUES (?, ?)", ((f"/registrar/{n}", value) for n in range(rows))
        )
        db.execute("COMMIT")


@contextmanager
def open_(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as db:
        yield db


def run(path: Path, *statements: str) -> None:
    with open_(path) as db:
        for each in statements:
            db.execute(each)


def rows(path: Path) -> int:
    with open_(path) as db:
        (found,) = db.execute("SELECT count(*) FROM astdb").fetchone()
    return int(found)


def is_whole(path: Path) -> bool:
    with open_(path) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def owner(path: Path) -> str:
    found = path.stat()
    return f"{pwd.getpwuid(found.st_uid).pw_name}:{grp.getgrgid(found.st_gid).gr_name}"


def refusal(error: type[AdapterError], work: Callable[[], object]) -> str:
    with pytest.raises(error) as raised:
        work()
    return told(raised.value)


# Pulling


def test_a_pull_brings_the_database_and_what_it_is(pair: Pair) -> None:
    pair.there.chmod(0o640)
    before = time.time()
    pulled = pair.pull()
    assert pulled == Pulled(changed=True, files=1, bytes=pair.there.stat().st_size)
    assert pair.newest.read_bytes() == pair.there.read_bytes()
    assert before - 0.001 <= pair.snapshots[0].taken <= time.time()
    assert json.loads((pair.newest.parent / "about.json").read_text()) == {
        "sha256": sha256(pair.there),
        "bytes": pulled.bytes,
        "owner": owner(pair.there),
        "mode": 0o640,
        "tables": 1,
        "rows": 100,
    }
    assert sorted(each.name for each in pair.newest.parent.iterdir()) == [
        "about.json",
        "data.sqlite3",
    ]


def test_what_has_not_changed_is_not_sent_again(pair: Pair) -> None:
    pair.pull()
    assert pair.pull() == Pulled(changed=False)
    assert pair.asked == ["read", f"read {sha256(pair.there)}"]
    assert len(pair.snapshots) == 1
    assert [each.name for each in pair.store.iterdir()] == [pair.snapshots[0].name]


def test_what_has_changed_is_a_new_snapshot_beside_the_old_one(pair: Pair) -> None:
    pair.pull()
    run(pair.there, "DELETE FROM astdb WHERE key = '/registrar/7'")
    assert pair.pull().changed
    assert [rows(each.path / "data.sqlite3") for each in pair.snapshots] == [100, 99]


def test_no_more_are_kept_than_configured(pair: Pair) -> None:
    for n in range(4):
        run(pair.there, f"INSERT INTO astdb VALUES ('/new/{n}', '')")
        asyncio.run(pair.copy(keep=2).pull(pair.source()))
    assert [rows(each.path / "data.sqlite3") for each in pair.snapshots] == [103, 104]


def test_a_newest_copy_that_cannot_be_understood_is_pulled_anew(pair: Pair) -> None:
    pair.pull()
    (pair.newest.parent / "about.json").write_text("{")
    assert "cannot be understood" in refusal(Denied, pair.put)
    assert pair.pull().changed
    assert pair.asked == ["read", "read"]
    assert pair.put()


# Under the nose of a writer

WRITER = """
import sqlite3, sys, time
from pathlib import Path
path, mode, synchronous, stop = sys.argv[1:]
db = sqlite3.connect(path, isolation_level=None, timeout=0)
db.execute(f"PRAGMA journal_mode = {mode}")
db.execute(f"PRAGMA synchronous = {synchronous}")
print("at work", flush=True)
locked = commits = 0
while not Path(stop).exists():
    try:
        db.execute("BEGIN")
        db.execute("UPDATE first SET n = n + 1")
        db.execute("UPDATE last SET n = n + 1")
        if commits % 3 == 0:
            for _ in range(5):
                db.execute("UPDATE astdb SET value = hex(randomblob(50)) WHERE rowid = abs(random() % 40000)")
            db.execute("DELETE FROM astdb WHERE rowid = abs(random() % 40000)")
            db.execute("INSERT INTO astdb VALUES (hex(randomblob(20)), hex(randomblob(50)))")
        db.execute("COMMIT")
        commits += 1
    except sqlite3.OperationalError as error:
        print(error, file=sys.stderr)
        locked += 1
        if db.in_transaction:
            db.execute("ROLLBACK")  # As Asterisk does.
    time.sleep(0.01)
print(commits, locked)
"""


@contextmanager
def writing(path: Path, mode: str, synchronous: str) -> Iterator[None]:
    """A writer that takes every lock in its way for a failure."""
    script, stop = path.with_name("writer.py"), path.with_name("stop")
    script.write_text(WRITER)
    argv = [sys.executable, str(script), str(path), mode, synchronous, str(stop)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "at work\n"
        yield
        stop.touch()
        commits, locked = process.stdout.read().split()
        assert (int(commits) > 10, locked) == (True, "0")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("mode", "synchronous"),
    [
        ("delete", "full"),
        ("delete", "off"),
        ("truncate", "full"),
        ("persist", "full"),
        ("wal", "full"),
    ],
)
def test_a_busy_database_is_copied_whole_and_its_writer_meets_no_lock(
    pair: Pair, mode: str, synchronous: str
) -> None:
    # Two numbers that are always the same, at both ends of the file: integrity_check knows nothing of it.
    pair.there.unlink()
    run(pair.there, "CREATE TABLE first(n)", "INSERT INTO first VALUES (0)")
    fill(pair.there, 40_000)
    run(pair.there, "CREATE TABLE last(n)", "INSERT INTO last VALUES (0)")
    with writing(pair.there, mode, synchronous):
        for _ in range(6):
            assert pair.pull().changed
    assert len(pair.snapshots) == 6
    for each in pair.snapshots:
        assert is_whole(each.path / "data.sqlite3")
        with open_(each.path / "data.sqlite3") as db:
            (first,), (last,) = (
                db.execute(f"SELECT n FROM {t}").fetchone() for t in ("first", "last")
            )
        assert first == last  # No half transaction.


def test_a_lock_of_somebody_else_keeps_us_from_nothing(pair: Pair) -> None:
    with open_(pair.there) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert pair.pull().changed


def kill_in_a_transaction(path: Path) -> None:
    """The file holds half of it, and the journal what was there before."""
    code = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN")
db.execute("UPDATE astdb SET value = hex(randomblob(50))")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert Path(f"{path}-journal").read_bytes()[:1] == b"\xd9"


def test_half_a_transaction_is_not_copied(pair: Pair) -> None:
    pair.pull()
    committed = pair.newest.read_bytes()
    kill_in_a_transaction(pair.there)
    said = refusal(Denied, lambda: pair.pull(within=1.0))
    assert said == (
        f"pbx01 refuses: {pair.there} was never whole and at rest within 0.5 s: "
        "its -journal says that a transaction is not finished"
    )
    assert pair.newest.read_bytes() == committed
    assert rows(pair.there) == 100  # Its program is back, and has undone it.
    assert pair.pull() == Pulled(changed=False)


@pytest.mark.parametrize("journal", [b"", bytes(512)])
def test_a_journal_without_a_transaction_is_none(pair: Pair, journal: bytes) -> None:
    """What TRUNCATE and PERSIST leave."""
    Path(f"{pair.there}-journal").write_bytes(journal)
    assert pair.pull().changed


def test_rows_that_are_only_in_the_log_are_copied(pair: Pair) -> None:
    with open_(pair.there) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("INSERT INTO astdb VALUES ('/only/in/the/log', '')")
        assert b"/only/in/the/log" not in pair.there.read_bytes()
        assert pair.pull().changed
        assert not pair.pull().changed
        assert rows(pair.newest) == 101


def test_a_log_that_nobody_has_open_leaves_nothing_of_ours_there(pair: Pair) -> None:
    run(pair.there, "PRAGMA journal_mode = wal", "INSERT INTO astdb VALUES ('/a', '')")
    assert pair.pull().changed
    assert rows(pair.newest) == 101
    assert sorted(each.name for each in pair.there.parent.iterdir()) == [
        "astdb",
        "astdb.asked",
    ]


def test_what_is_copied_first_is_nowhere_else_afterwards(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    pair.pull()
    pair.there.write_bytes(b"no database")
    refusal(Denied, pair.pull)
    assert list(scratch.iterdir()) == []


# What is no database is no copy


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 + 1000)
        file.write(random.Random(1).randbytes(8192))


def text(path: Path) -> None:
    path.write_text("no database" * 1000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (truncated, "is damaged: "),
        (overwritten, "is damaged: "),
        (text, "is not an SQLite database.  Is `path` right?"),
        (Path.unlink, "cannot be read: No such file or directory.  Is `path` right"),
        (folder, "cannot be read: it is not a regular file"),
        (pipe, "cannot be read: it is not a regular file"),
        (link, "cannot be read: it is a symbolic link"),
    ],
)
def test_a_source_without_a_whole_database_changes_nothing_here(
    pair: Pair, harm: Callable[[Path], None], sentence: str
) -> None:
    pair.pull()
    snapshots, content = pair.snapshots, pair.newest.read_bytes()
    harm(pair.there)
    said = refusal(Denied, pair.pull)
    assert said.startswith(f"pbx01 refuses: {pair.there} {sentence}")
    assert (pair.snapshots, pair.newest.read_bytes()) == (snapshots, content)
    assert sorted(each.name for each in pair.store.iterdir()) == [snapshots[0].name]


def test_a_source_that_may_not_be_read_says_what_would_be_right(pair: Pair, tmp_path: Path) -> None:
    if not IS_ROOT:
        pair.there.chmod(0)
    else:
        shutil.chown(pair.there, "root", "root")
        pair.there.chmod(0o600)
        for each in (tmp_path, *tmp_path.parents[:2]):
            assert each.stat().st_uid == 0
    said = refusal(Denied, lambda: pair.pull("as-nobody" if IS_ROOT else "well"))
    assert "cannot be read: Permission denied" in said
    assert "member of the PBX's group" in said


# A source that was wiped


def test_a_database_without_tables_does_not_replace_one_with_rows(pair: Pair) -> None:
    make(pair.there, 1)
    pair.pull()
    run(pair.there, "DROP TABLE astdb")
    assert refusal(Denied, pair.pull) == (
        "astdb of pbx01 has 0 rows in 0 tables, and the newest copy "
        f"({pair.snapshots[0].name}) has 1 row in 1 table.  "
        "If that is right: understudy copies accept astdb."
    )
    assert rows(pair.newest) == 1


def test_a_file_without_a_byte_does_not_replace_one_with_rows(pair: Pair) -> None:
    pair.pull()
    os.truncate(pair.there, 0)
    assert "has 0 rows in 0 tables" in refusal(Denied, pair.pull)
    assert len(pair.snapshots) == 1


@pytest.mark.parametrize(("had", "left"), [(20, 9), (1000, 499)])
def test_more_than_half_of_many_rows_may_not_be_lost(pair: Pair, had: int, left: int) -> None:
    make(pair.there, had)
    pair.pull()
    make(pair.there, left)
    assert f"has {left} rows in 1 table, and the newest copy" in refusal(Denied, pair.pull)
    assert rows(pair.newest) == had


@pytest.mark.parametrize(("had", "left"), [(19, 0), (20, 10), (1000, 500), (0, 0)])
def test_half_of_the_rows_or_all_of_a_few_may_be_lost(pair: Pair, had: int, left: int) -> None:
    make(pair.there, had)
    pair.pull()
    make(pair.there, left, value="y")
    run(pair.there, "CREATE TABLE another(n)")
    assert pair.pull().changed
    assert rows(pair.newest) == left


def test_rows_are_counted_in_all_tables_whatever_their_names_are(pair: Pair) -> None:
    run(pair.there, 'CREATE TABLE "a ""b"" [c]"(n)', 'INSERT INTO "a ""b"" [c]" VALUES (1)')
    run(
        pair.there,
        "CREATE TABLE sqliteX(n INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO sqliteX VALUES (1)",
    )
    pair.pull()
    about = json.loads((pair.newest.parent / "about.json").read_text())
    assert (about["tables"], about["rows"]) == (3, 102)


def test_what_a_person_accepts_is_let_through_once(pair: Pair) -> None:
    pair.pull()
    make(pair.there, 40)
    refusal(Denied, pair.pull)
    pair.copy().accept()
    pair.copy().accept()
    assert pair.pull().changed
    make(pair.there, 3)
    refusal(Denied, pair.pull)
    assert rows(pair.newest) == 40


def test_what_is_accepted_stays_so_until_a_pull_succeeds(pair: Pair) -> None:
    pair.pull()
    make(pair.there, 3)
    pair.copy().accept()
    refusal(Unreachable, lambda: pair.pull("killed"))
    assert pair.pull().changed
    assert rows(pair.newest) == 3


def test_what_is_accepted_does_not_last_beyond_a_pull_that_did_not_need_it(pair: Pair) -> None:
    pair.copy().accept()
    pair.pull()
    pair.copy().accept()
    assert not pair.pull().changed
    make(pair.there, 3)
    refusal(Denied, pair.pull)


def test_the_first_copy_may_be_empty(pair: Pair) -> None:
    os.truncate(pair.there, 0)
    assert pair.pull() == Pulled(changed=True, files=1, bytes=0)
    assert pair.put()
    assert pair.here.read_bytes() == b""


# On the way


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("killed", "pbx01 answered, then failed: nothing on its standard error (exit status -9)"),
        ("cut", "pbx01 sent 5000 of the {size} bytes of astdb.  Was the connection cut?"),
        ("longer", "pbx01 sent {more} of the {size} bytes of astdb.  Was the connection cut?"),
        ("flipped", "astdb did not arrive as pbx01 has sent it: its SHA-256 differs"),
    ],
)
def test_what_does_not_arrive_as_it_was_is_never_seen(pair: Pair, how: str, sentence: str) -> None:
    pair.pull()
    snapshots, content = pair.snapshots, pair.newest.read_bytes()
    run(pair.there, "INSERT INTO astdb VALUES ('/new', '')")
    size = pair.there.stat().st_size
    said = refusal(Unreachable, lambda: pair.pull(how))
    assert said == sentence.format(size=size, more=size + 4)
    assert (pair.snapshots, pair.newest.read_bytes()) == (snapshots, content)
    assert [each.name for each in pair.store.iterdir()] == [snapshots[0].name]
    assert pair.pull().changed


def test_a_source_that_sends_rubbish_with_a_right_sum_is_not_believed(pair: Pair) -> None:
    sound = pair.there.read_bytes()
    assert sound.count(b"/registrar/77") == 2  # In the table and in its index.
    rubbish = sound.replace(b"/registrar/77", b"/registrar/7X", 1)
    assert "pbx01 sent a damaged astdb: " in refusal(Denied, lambda: offered(pair, rubbish))
    assert list(pair.store.iterdir()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"bytes": -1},
        {"bytes": "5"},
        {"sha256": "../../etc"},
        {"owner": "root"},
        {"owner": "ro ot:root"},
        {"mode": None},
        {"same": None},
        {"same": True},  # As what?
    ],
)
def test_half_an_offer_is_none(pair: Pair, changed: dict[str, object]) -> None:
    said = refusal(Unreachable, lambda: offered(pair, pair.there.read_bytes(), **changed))
    assert said.startswith("pbx01 did not say what it sends: {")
    assert said.endswith("Do both nodes run the same version?")


def test_no_special_permission_bits_are_taken_over(pair: Pair) -> None:
    offered(pair, pair.there.read_bytes(), mode=0o6755)
    pair.put()
    assert pair.here.stat().st_mode & 0o7777 == 0o755


def offered(pair: Pair, content: bytes, **changed: object) -> None:
    answer = pair.there.with_name("answer")
    answer.write_bytes(offer(pair, content, **changed))
    asyncio.run(pair.copy().pull(sends(answer)))


def offer(pair: Pair, content: bytes, **changed: object) -> bytes:
    head = {
        "ok": True,
        "same": False,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "owner": owner(pair.there),
        "mode": 0o640,
        **changed,
    }
    return json.dumps(head).encode() + b"\n" + content


def sends(answer: Path) -> Source:
    return Source(node="pbx01", epoch=7, reach=("sh", "-c", f"cat {answer}"))


@pytest.mark.parametrize(
    ("script", "error", "sentence"),
    [
        (
            "echo 'ssh: connect to host pbx01: No route to host' >&2; exit 255",
            Unreachable,
            "cannot be reached: ssh:",
        ),
        (
            """echo '{"ok": false, "why": "pbx02 holds the claim"}'; exit 1""",
            Denied,
            "refuses: pbx02 holds the claim",
        ),
        ("echo Welcome", Unreachable, "answered no JSON object but Welcome"),
        ("echo broken >&2; exit 3", Unreachable, "gave no answer: broken (exit status 3)"),
        ("head -c 100000 /dev/zero", Unreachable, "answered no JSON object but"),
        ("sleep 60", Unreachable, "did not send astdb within 0.5 s"),
    ],
)
def test_a_source_that_sends_nothing_is_named(
    pair: Pair, script: str, error: type[AdapterError], sentence: str
) -> None:
    source = Source(node="pbx01", epoch=7, reach=("sh", "-c", script))
    said = refusal(error, lambda: asyncio.run(pair.copy(within=0.5).pull(source)))
    assert said.startswith(f"pbx01 {sentence}")
    assert list(pair.store.iterdir()) == []


def test_a_pull_that_is_cancelled_leaves_nothing_behind(pair: Pair) -> None:
    started = pair.there.with_name("started")
    script = f"head -c 100000 /dev/zero; touch {started}; sleep 60"

    async def cancelled() -> None:
        source = Source(node="pbx01", epoch=7, reach=("sh", "-c", script))
        task = asyncio.create_task(pair.copy().pull(source))
        while not started.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancelled())
    assert list(pair.store.iterdir()) == []
    assert pair.pull().changed


def test_cancelled_at_any_instant_it_has_ended_and_is_not_in_the_way_of_the_next(
    pair: Pair,
) -> None:
    make(pair.there, 30_000)
    odd, even = pair.there.with_name("odd"), pair.there.with_name("even")
    odd.write_bytes(offer(pair, pair.there.read_bytes()))
    run(pair.there, "DELETE FROM astdb WHERE key = '/registrar/7'")
    even.write_bytes(offer(pair, pair.there.read_bytes()))
    seed = random.randrange(2**32)
    chance = random.Random(seed)

    async def cancelled_and_pulled() -> None:
        first = asyncio.create_task(pair.copy().pull(sends(odd)))
        await asyncio.wait([first], timeout=chance.uniform(0.0, 0.25))
        first.cancel()
        await asyncio.wait([first])
        assert (await pair.copy().pull(sends(even))).changed

    for _ in range(12):
        asyncio.run(cancelled_and_pulled())
        assert pair.newest.read_bytes() == pair.there.read_bytes(), seed
        assert {rows(each.path / "data.sqlite3") for each in pair.snapshots} <= {30_000, 29_999}, (
            seed
        )
        assert sorted(each.name for each in pair.store.iterdir()) == [
            each.name for each in pair.snapshots
        ]


# The source's words


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["write"],
        ["read", "x"],
        ["read", "A" * 64],
        ["read", "a" * 64, "b"],
        ["read", "a" * 64 + "\n"],
    ],
)
def test_other_words_are_refused(pair: Pair, words: list[str]) -> None:
    with pytest.raises(Refused, match="not a request"):
        Sqlite("astdb", Settings(path=pair.there), folder=pair.store).serve(words)


def test_whoever_asks_may_go_away(pair: Pair) -> None:
    make(pair.there, 20_000)  # More than a pipe holds.
    argv = [*pair.source().reach, "copy", "astdb", "7", "read"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["ok"] is True
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert said == "understudy: the answer could not be sent: Broken pipe\n"


def test_whoever_asks_and_does_not_read_is_not_waited_for(pair: Pair) -> None:
    make(pair.there, 20_000)
    argv = [*pair.source(within=1.0).reach, "copy", "astdb", "7", "read"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.wait(30) == -signal.SIGALRM


# Putting it in place


def test_the_newest_copy_is_put_in_place_as_it_was_there(pair: Pair) -> None:
    pair.there.chmod(0o640)
    pair.pull()
    assert pair.put()
    assert pair.here.read_bytes() == pair.there.read_bytes()
    assert pair.here.stat().st_mode & 0o7777 == 0o640
    assert owner(pair.here) == owner(pair.there)
    assert [each.name for each in pair.here.parent.iterdir()] == ["astdb"]
    assert (
        pair.here.stat().st_ino != pair.newest.stat().st_ino
    )  # Who writes it never reaches the store.


def test_what_is_in_place_already_is_not_touched(pair: Pair) -> None:
    pair.pull()
    pair.put()
    before = (pair.here.stat(), pair.here.parent.stat().st_mtime_ns)
    assert not pair.put()
    after = pair.here.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before[0].st_ino,
        before[0].st_mtime_ns,
        before[0].st_ctime_ns,
    )
    assert pair.here.parent.stat().st_mtime_ns == before[1]


def test_one_previous_file_is_kept(pair: Pair) -> None:
    for count in (1, 2, 3):
        make(pair.there, count)
        pair.pull()
        assert pair.put()
    assert rows(pair.here) == 3
    assert rows(Path(f"{pair.here}.understudy-old")) == 2
    assert sorted(each.name for each in pair.here.parent.iterdir()) == [
        "astdb",
        "astdb.understudy-old",
    ]


def test_a_journal_is_used_up_by_the_file_that_it_belongs_to(pair: Pair) -> None:
    """The PBX here was killed in a transaction: neither the new file nor the kept one gets harm from it."""
    pair.pull()
    make(pair.here, 50, value="y" * 100)
    kill_in_a_transaction(pair.here)
    assert pair.put()
    assert pair.here.read_bytes() == pair.there.read_bytes()
    assert names_beside(pair.here) == [".understudy-old"]
    with open_(Path(f"{pair.here}.understudy-old")) as db:
        assert db.execute("SELECT DISTINCT value FROM astdb").fetchall() == [("y" * 100,)]


def test_a_log_is_used_up_by_the_file_that_it_belongs_to(pair: Pair) -> None:
    pair.pull()
    make(pair.here, 50)
    code = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = wal")
db.execute("INSERT INTO astdb VALUES ('/only/in/the/log', '')")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(pair.here)], check=False)
    assert names_beside(pair.here) == ["-shm", "-wal"]
    assert pair.put()
    assert pair.here.read_bytes() == pair.there.read_bytes()
    assert names_beside(pair.here) == [".understudy-old"]
    assert rows(Path(f"{pair.here}.understudy-old")) == 51


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
def test_what_lies_beside_the_right_file_is_removed_as_well(pair: Pair, end: str) -> None:
    pair.pull()
    pair.put()
    Path(f"{pair.here}{end}").write_bytes(b"of another file" * 100)
    assert pair.put()
    assert names_beside(pair.here) == [".understudy-old"]
    assert is_whole(pair.here)
    assert not pair.put()


def test_what_is_there_and_no_database_is_replaced_and_kept(pair: Pair) -> None:
    pair.pull()
    pair.here.write_text("no database")
    Path(f"{pair.here}-journal").write_bytes(b"\xd9 nor a journal")
    assert pair.put()
    assert rows(pair.here) == 100
    assert Path(f"{pair.here}.understudy-old").read_text() == "no database"
    assert names_beside(pair.here) == [".understudy-old"]


@pytest.mark.parametrize(
    ("begin", "sentence"),
    [
        ("PRAGMA journal_mode = delete; BEGIN; UPDATE astdb SET value = ''", "database is locked"),
        (
            "PRAGMA journal_mode = wal; UPDATE astdb SET value = ''; BEGIN; SELECT 1 FROM astdb",
            "its log is in use",
        ),
    ],
)
def test_what_somebody_is_working_with_is_not_replaced(
    pair: Pair, begin: str, sentence: str
) -> None:
    pair.pull()
    make(pair.here, 50)
    code = f"""
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
for each in "{begin}".split(";"):
    open_cursor = db.execute(each)
    open_cursor.fetchone()
print("at work", flush=True)
sys.stdin.read()
"""
    argv = [sys.executable, "-c", code, str(pair.here)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        inode, beside = pair.here.stat().st_ino, names_beside(pair.here)
        said = refusal(Denied, pair.put)
        assert said.startswith(
            f"{pair.here} cannot be replaced: {sentence}.  Is the PBX here stopped?"
        )
        assert (pair.here.stat().st_ino, names_beside(pair.here)) == (inode, beside)
        process.kill()
    assert pair.put()
    assert rows(pair.here) == 100


def names_beside(path: Path) -> list[str]:
    return sorted(
        each.name.removeprefix(path.name) for each in path.parent.iterdir() if each != path
    )


def test_nothing_that_was_copied_is_nothing_to_put(pair: Pair) -> None:
    make(pair.here, 1)
    assert refusal(Denied, pair.put).startswith("nothing has been copied yet for astdb")
    assert rows(pair.here) == 1


def test_a_copy_that_the_disk_has_spoilt_is_not_put_in_place(pair: Pair) -> None:
    pair.pull()
    overwritten(pair.newest)
    make(pair.here, 1)
    said = refusal(Denied, pair.put)
    assert f"{pair.newest} is damaged: its SHA-256 is not the one in about.json" in said
    assert (rows(pair.here), names_beside(pair.here)) == (1, [])


def test_a_link_is_not_replaced(pair: Pair) -> None:
    pair.pull()
    make(pair.here, 1)
    link(pair.here)
    assert refusal(Denied, pair.put) == f"{pair.here} cannot be put in place: it is a symbolic link"
    assert pair.here.is_symlink()


def test_a_folder_that_is_missing_is_named(pair: Pair) -> None:
    pair.pull()
    pair.here.parent.rmdir()
    said = refusal(Denied, pair.put)
    assert said.startswith(f"{pair.here} cannot be put in place: No such file or directory.  ")
    assert said.endswith(f"There is no {pair.here.parent}.")


# Whose it is


@pytest.mark.skipif(not IS_ROOT, reason="NOT TESTED: giving files away; only root may")
def test_the_owner_is_the_same_by_name(pair: Pair) -> None:
    shutil.chown(pair.there, "nobody", "daemon")
    pair.there.chmod(0o660)
    pair.pull()
    pair.put()
    assert (owner(pair.here), pair.here.stat().st_mode & 0o7777) == ("nobody:daemon", 0o660)


@pytest.mark.skipif(not IS_ROOT, reason="NOT TESTED: giving files away; only root may")
def test_the_owner_is_the_configured_one(pair: Pair) -> None:
    pair.pull()
    pair.put(owner="daemon:nogroup")
    assert owner(pair.here) == "daemon:nogroup"


def test_an_owner_who_is_not_known_here_is_named(pair: Pair) -> None:
    pair.pull()
    make(pair.here, 1)
    said = refusal(Denied, lambda: pair.put(owner="no-such-user:root"))
    assert said.startswith(
        "no-such-user:root cannot own the file: this machine does not know both names"
    )
    assert (rows(pair.here), names_beside(pair.here)) == (1, [])


def test_who_may_not_give_files_away_says_so(pair: Pair) -> None:
    pair.pull()
    make(pair.here, 1)
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(SRC)!r})
from pathlib import Path
from understudy.adapters.copies.sqlite import Settings, Sqlite
from understudy.errors import Denied
settings = Settings(path=Path({str(pair.here)!r}), owner=sys.argv[1] if sys.argv[1:] else None)
try:
    print(asyncio.run(Sqlite("astdb", settings, folder=Path({str(pair.store)!r})).put()))
except Denied as error:
    print(error)
"""
    # root without CAP_CHOWN; anybody else has none anyway.
    drop = ("setpriv", "--bounding-set=-chown", "--inh-caps=-chown") if IS_ROOT else ()
    argv = [*drop, sys.executable, "-c", code]
    refused = subprocess.run([*argv, "daemon:daemon"], capture_output=True, text=True, check=True)
    assert refused.stdout == (
        f"{pair.here.parent} cannot get a file that is owned by daemon:daemon: Operation not permitted\n"
    )
    assert (rows(pair.here), names_beside(pair.here)) == (1, [])
    own = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert own.stdout == "True\n"
    assert rows(pair.here) == 100


@pytest.mark.parametrize("value", ["asterisk", "asterisk:", ":", "a b:c", "a:b:c", "../x:y"])
def test_an_owner_is_two_names(value: str) -> None:
    with pytest.raises(ValueError, match='Write "user:group"'):
        Settings(path=Path("/x"), owner=value)


def test_a_path_is_absolute() -> None:
    with pytest.raises(ValueError, match="Write an absolute path"):
        Settings(path=Path("astdb.sqlite3"))


def test_the_rules_of_all_classes_hold() -> None:
    assert Settings(path=Path("/x"), owner="asterisk:asterisk").every == 10.0
    with pytest.raises(ValueError, match="keep is 0"):
        Settings(path=Path("/x"), keep=0)


# Dying

PUTS = """
import asyncio, sys
sys.path.insert(0, {src!r})
from pathlib import Path
from understudy.adapters.copies.sqlite import Settings, Sqlite
settings = Settings(path=Path(sys.argv[1]))
copies = [Sqlite("astdb", settings, folder=Path(each)) for each in sys.argv[2:]]
print("at work", flush=True)
while True:
    for each in copies:
        asyncio.run(each.put())
"""


def test_whoever_puts_may_be_killed_at_any_instant(pair: Pair, tmp_path: Path) -> None:
    """Two copies are put in place in turn: whenever we look it is one of them, and the next put brings its own."""
    stores = (tmp_path / "odd", tmp_path / "even")
    for store, count in zip(stores, (300, 200), strict=True):
        make(pair.there, count)
        asyncio.run(Sqlite("astdb", Settings(path=pair.here), folder=store).pull(pair.source()))
    script = tmp_path / "puts.py"
    script.write_text(PUTS.format(src=str(SRC)))
    argv = [sys.executable, str(script), str(pair.here), *map(str, stores)]
    seed = random.randrange(2**32)
    chance, seen = random.Random(seed), set[int]()
    for _ in range(12):
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        if not pair.here.exists():
            continue  # Killed before the very first.
        assert is_whole(pair.here), seed
        seen.add(rows(pair.here))
        assert rows(pair.here) in (200, 300), seed
        old = Path(f"{pair.here}.understudy-old")
        assert not old.exists() or is_whole(old), seed
        asyncio.run(Sqlite("astdb", Settings(path=pair.here), folder=stores[0]).put())
        assert rows(pair.here) == 300, seed
    assert seen
    assert set(names_beside(pair.here)) <= {".understudy-old"}


CRASHES = """
import asyncio, json, os, shutil, sqlite3, sys
sys.path.insert(0, {src!r})
from contextlib import closing
from pathlib import Path
from understudy.adapters.copies.sqlite import Settings, Sqlite
saved, here, store = map(Path, sys.argv[1:])
copy = Sqlite("astdb", Settings(path=here), folder=store)

def values():
    if not here.exists():
        return None
    with closing(sqlite3.connect(here)) as db:  # Else it stays open until the garbage is collected.
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return db.execute("SELECT count(*), min(value), max(value) FROM astdb").fetchone()

def die_before(count):
    seen = 0
    def hook(event, args):
        nonlocal seen
        if event in ("open", "sqlite3.connect") or event.startswith("os."):
            seen += 1
            if seen == count:
                print(event, flush=True)
                os.kill(os.getpid(), 9)
    sys.addaudithook(hook)

status, count = 9, 0
while status == 9:
    count += 1
    shutil.rmtree(here.parent)
    shutil.copytree(saved, here.parent)
    child = os.fork()
    if child == 0:
        die_before(count)
        asyncio.run(copy.put())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    first = values()
    asyncio.run(copy.put())
    print(json.dumps([first, values()]), flush=True)
print(status)
"""


@pytest.mark.parametrize("mode", ["delete", "wal", "orphan"])
def test_whoever_puts_may_die_before_any_step_of_it(pair: Pair, tmp_path: Path, mode: str) -> None:
    """The PBX here was killed in its work: in place is what it had committed, or the copy, wherever we die."""
    pair.pull()
    make(pair.here, 50, value="y" * 100)
    code = f"""
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = {"wal" if mode == "wal" else "delete"}")
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN")
db.execute("UPDATE astdb SET value = '{"z" * 100}'")
if "{mode}" == "wal":
    db.execute("COMMIT")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(pair.here)], check=False)
    assert names_beside(pair.here)
    if mode == "orphan":  # Nobody uses up its journal, and the copy would take it for its own.
        pair.here.unlink()
    saved = tmp_path / "saved"
    pair.here.parent.rename(saved)
    shutil.copytree(saved, pair.here.parent)
    script = tmp_path / "crashes.py"
    script.write_text(CRASHES.format(src=str(SRC)))
    argv = [sys.executable, str(script), str(saved), str(pair.here), str(pair.store)]
    out = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert out[-1] == "0"
    committed = {
        "delete": [50, "y" * 100, "y" * 100],
        "wal": [50, "z" * 100, "z" * 100],
        "orphan": None,
    }[mode]
    new = [100, *2 * ["x" * 100]]
    outcomes = [json.loads(line) for line in out if line.startswith("[")]
    assert {json.dumps(first) for first, _ in outcomes} == {json.dumps(committed), json.dumps(new)}
    assert all(last == new for _, last in outcomes)
    assert {"os.rename", "os.remove"} <= set(out)  # Where we died.
    if mode != "orphan":
        assert {"sqlite3.connect", "os.link"} <= set(out)


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte: only root may mount it."""
    if not IS_ROOT:
        pytest.skip("NOT TESTED: a full disk; only root may mount a tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk; no tmpfs: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True)


@pytest.mark.parametrize("kib", [700, 3000])  # Fits once and not twice; does not even arrive.
def test_a_full_disk_for_copies_is_told_and_the_newest_copy_stays(
    pair: Pair, small_disk: Path, kib: int
) -> None:
    copy = Sqlite("astdb", Settings(path=pair.here), folder=small_disk / "astdb")
    asyncio.run(copy.pull(pair.source()))
    (before,) = copy.store.all()
    make(pair.there, kib, value="x" * 900)
    assert pair.there.stat().st_size > kib * 900
    said = refusal(Denied, lambda: asyncio.run(copy.pull(pair.source())))
    assert said == f"astdb cannot be kept in {small_disk}/astdb: No space left on device"
    assert [each.name for each in (small_disk / "astdb").iterdir()] == [before.name]
    assert rows(before.path / "data.sqlite3") == 100
    make(pair.there, 200)
    assert asyncio.run(copy.pull(pair.source())).changed


def test_a_full_disk_in_place_is_told_and_what_is_there_stays(pair: Pair, small_disk: Path) -> None:
    here = small_disk / "astdb.sqlite3"
    make(here, 50)
    make(pair.there, 2000, value="x" * 900)
    pair.pull()
    copy = Sqlite("astdb", Settings(path=here), folder=pair.store)
    said = refusal(Denied, lambda: asyncio.run(copy.put()))
    assert said == f"{here} cannot be put in place: No space left on device"
    assert (rows(here), names_beside(here)) == (50, [])


def test_a_full_disk_at_the_source_is_told(pair: Pair, small_disk: Path) -> None:
    make(pair.there, 2000, value="x" * 900)
    argv = [*pair.source().reach, "copy", "astdb", "7", "read"]
    env = {**os.environ, "TMPDIR": str(small_disk)}
    done = subprocess.run(argv, capture_output=True, env=env, check=False)
    assert (done.returncode, json.loads(done.stdout)["why"]) == (
        1,
        f"{pair.there} cannot be copied to {small_disk}: No space left on device.  "
        "Make room there, or set TMPDIR.",
    )
    assert list(small_disk.iterdir()) == []


# What only this node has


def test_a_database_that_differs_is_kept_aside_with_its_journal(pair: Pair) -> None:
    pair.pull()
    assert asyncio.run(pair.copy().keep()) == ""  # There is none here.
    pair.put()
    assert asyncio.run(pair.copy().keep()) == ""
    run(pair.here, "INSERT INTO astdb VALUES ('/mine', '1')")
    Path(f"{pair.here}-journal").write_bytes(b"")
    aside = Path(asyncio.run(pair.copy().keep()))
    names = sorted(each.name for each in aside.iterdir())
    assert names == ["astdb", "astdb-journal", "only-here.txt"]
    assert rows(aside / "astdb") == rows(pair.here)
    pair.put()
    assert rows(pair.here) == 100
    assert rows(aside / "astdb") != 100


def test_before_anything_was_copied_whatever_is_here_is_kept(pair: Pair) -> None:
    make(pair.here, 3)
    aside = Path(asyncio.run(pair.copy().keep()))
    assert rows(aside / "astdb") == 3
    assert not (aside / "only-here.txt").exists()


def only_here(pair: Pair) -> list[str]:
    """What a person reads of it, from the third line on."""
    aside = Path(asyncio.run(pair.copy().keep()))
    assert sorted(each.name for each in aside.parent.iterdir()) == [aside.name]
    head, empty, *lines = (aside / "only-here.txt").read_text().splitlines()
    copied = pair.snapshots[-1].name
    wanted = f"What was in astdb here, and is not in the copy {copied}, which replaced it:"
    assert (head, empty) == (wanted, "")
    assert not [each for each in aside.iterdir() if each.is_dir()]
    shutil.rmtree(aside)
    return lines


def test_rows_that_are_only_here_are_listed_for_a_person(pair: Pair) -> None:
    run(pair.there, "INSERT INTO astdb VALUES ('/CF/6002', '6003')")
    pair.pull()
    pair.put()
    run(
        pair.here,
        "INSERT INTO astdb VALUES ('/DND/6001', 'YES')",
        "UPDATE astdb SET value = '6004' WHERE key = '/CF/6002'",
        "DELETE FROM astdb WHERE key = '/registrar/5'",
        'CREATE TABLE "my ""own"(a, b)',
        """INSERT INTO "my ""own" VALUES (NULL, x'00ff'), (1.5, 'two' || char(10) || 'lines')""",
    )
    assert only_here(pair) == [
        "astdb (key, value), 2 rows:",
        "/CF/6002 6004",
        "/DND/6001 YES",
        "",
        'my "own (a, b), 2 rows; the copy has no such table:',
        "NULL x'00ff'",
        "1.5 two?lines",
        "",
    ]


def test_rows_in_a_journal_count_as_sqlite_counts_them(pair: Pair) -> None:
    """What was committed to a log is here; half a transaction is not."""
    pair.pull()
    pair.put()
    with open_(pair.here) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO astdb VALUES ('/DND/6001', 'YES')")
        assert only_here(pair) == ["astdb (key, value), 1 row:", "/DND/6001 YES", ""]
    pair.put()
    kill_in_a_transaction(pair.here)
    assert names_beside(pair.here) == ["-journal", ".understudy-old"]
    assert only_here(pair) == ["no row"]
    assert names_beside(pair.here) == ["-journal", ".understudy-old"]


def test_a_long_list_of_rows_ends_and_a_table_of_another_shape_is_named(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_only_here, "MOST", 10)
    pair.pull()
    make(pair.here, 25, value="y" * 3000)
    head, *some, last, empty = only_here(pair)
    assert (head, len(some)) == ("astdb (key, value), 25 rows:", 10)
    assert (last, empty) == ("... and 15 more", "")
    assert all(len(line) < 1100 and line.endswith("y...") for line in some)
    pair.here.unlink()
    run(pair.here, "CREATE TABLE astdb(key, value, more)", "INSERT INTO astdb VALUES (1, 2, 3)")
    assert only_here(pair) == [
        "astdb: its columns are key, value, more here, and key, value in the copy.",
        "Compare it by hand: sqlite3(1).",
        "",
    ]


def test_what_cannot_be_compared_is_kept_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.pull()
    pair.here.write_bytes(b"no database" * 100)
    (line,) = only_here(pair)
    why = "file is not a database"
    assert line == f"The rows could not be compared: {why}.  Compare both by hand: sqlite3(1)."
    make(pair.here, 20_000)
    monkeypatch.setattr(rows_only_here, "WITHIN", 0.0)
    (line,) = only_here(pair)
    assert line.startswith("The rows could not be compared: that took longer than 0 s.")


def test_a_database_is_not_merged(pair: Pair, tmp_path: Path) -> None:
    pair.pull()
    make(pair.here, 3)
    aside = Path(asyncio.run(pair.copy().keep()))
    assert not pair.copy().bundle(aside, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    said = refusal(Denied, lambda: asyncio.run(pair.copy().merge(tmp_path / "bundle")))
    assert said == "astdb is a database: it is not merged, as the active node's counts"
