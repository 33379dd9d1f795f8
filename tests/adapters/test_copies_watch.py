"""Changes at the source are told at once: a real inotifywait, real files, and processes that are really killed."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from pathlib import Path

import pytest

from adapters.sshd import daemon
from adapters.systemd_host import require_program
from understudy.adapters.copies import watch
from understudy.adapters.copies.watch import Watcher
from understudy.adapters.peers.ssh import over_ssh
from understudy.errors import Unreachable
from understudy.ports import Source

pytestmark = pytest.mark.timeout(90)
SRC = Path(__file__).parents[2] / "src"
# As `understudy answer`: what is raised is the last line.
SERVE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, {src!r})
from understudy.adapters.copies.watch import watch_files
from understudy.errors import UnderstudyError, told
def is_still_source():
    return not Path({gone!r}).exists()
try:
    code = watch_files([Path(each) for each in {paths!r}], stop_after={stop_after!r}, is_still_source=is_still_source)
except UnderstudyError as error:
    print(json.dumps({{"ok": False, "why": told(error)}}), flush=True)
    code = 1
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def _programs() -> None:
    require_program("inotifywait")


def script(folder: Path, *paths: Path, stop_after: float = 60) -> str:
    return SERVE.format(
        src=str(SRC),
        gone=str(folder / "gone"),
        paths=[str(p) for p in paths],
        stop_after=stop_after,
    )


class Serving:
    """The source's process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def line(self, *, but: str = "still ") -> str:
        """The next one that is not a sign of life; "" at the end."""
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline().rstrip("\n")).startswith(but):
            pass
        return line

    @property
    def watching(self) -> int:
        """The process id of its inotifywait."""
        return eventually(lambda: next(iter(_children(self.process.pid)), 0), "no inotifywait")


@contextmanager
def serving(
    folder: Path, *paths: Path, stop_after: float = 60, env: dict[str, str] | None = None
) -> Iterator[Serving]:
    argv = [sys.executable, "-c", script(folder, *paths, stop_after=stop_after)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield Serving(process)
        finally:
            process.kill()


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def eventually(value: Callable[[], int], what: str) -> int:
    ends = time.monotonic() + 30
    while not (found := value()):
        assert time.monotonic() < ends, what
        time.sleep(0.02)
    return found


def is_gone(pid: int) -> bool:
    return _state(pid) in ("", "Z")


def _state(pid: int) -> str:
    """As proc_pid_stat(5) has it; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def refusal(line: str) -> str:
    said = json.loads(line)
    assert said["ok"] is False
    return str(said["why"])


# What is told


def test_everything_that_happens_below_a_folder_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "etc asterisk"
    (folder / "sub").mkdir(parents=True)
    (folder / "old").write_text("x")
    with serving(tmp_path, folder) as far, (folder / "kept open").open("w") as kept:
        assert far.line() == "ready"
        kept.write("written, and not closed")
        kept.flush()
        assert far.line() == "changed"
        for change in (
            lambda: (folder / "new").touch(),
            lambda: (folder / "sub" / "deep").write_text("x"),
            lambda: (folder / "sub" / "deep").rename(folder / "moved"),
            lambda: (folder / "old").chmod(0o600),
            lambda: (folder / "old").unlink(),
            lambda: (folder / "sub" / "deeper").mkdir(),
        ):
            change()
            assert far.line() == "changed"


def test_a_folder_that_is_new_is_watched_too(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    with serving(tmp_path, folder) as far:
        assert far.line() == "ready"
        (folder / "new").mkdir()
        assert far.line() == "changed"
        (folder / "new" / "file").write_text("x")
        assert far.line() == "changed"


def test_reading_is_no_change(tmp_path: Path) -> None:
    """Else each pull would bring about the next."""
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "file").write_text("x" * 100_000)
    with serving(tmp_path, folder, stop_after=4) as far:
        assert far.line() == "ready"
        subprocess.run(["cp", "-r", folder, tmp_path / "copy"], check=True, timeout=30)
        assert far.line() == "end"
        assert far.process.wait(30) == 0


def test_a_burst_is_few_lines(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    with serving(tmp_path, folder, stop_after=4) as far:
        assert far.line() == "ready"
        for number in range(2000):
            (folder / f"{number}").touch()
        lines = list(iter(far.line, "end"))
    assert lines
    assert set(lines) == {"changed"}
    assert len(lines) <= 4 / watch.GATHER + 1


def test_a_transaction_in_a_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "astdb.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE astdb (key PRIMARY KEY, value)")
        db.commit()
        with serving(tmp_path, path) as far:
            assert far.line() == "ready"
            db.execute("INSERT INTO astdb VALUES ('k', 'v')")
            db.commit()
            assert far.line() == "changed"


def test_what_is_beside_a_file_is_not_told(tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    (folder / "sounds").mkdir(parents=True)
    with serving(tmp_path, folder / "astdb.sqlite3", stop_after=4) as far:
        assert far.line() == "ready"
        (folder / "astdb.sqlite3.bak").write_text("x")
        (folder / "xastdb.sqlite3").write_text("x")
        (folder / "sounds" / "file").write_text("x")
        assert far.line() == "end"


def test_a_database_with_a_log_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cdr.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE cdr (a)")
        db.commit()
        with serving(tmp_path, path) as far:
            assert far.line() == "ready"
            db.execute("INSERT INTO cdr VALUES (1)")
            db.commit()
            assert far.line() == "changed"


def test_a_file_that_is_replaced_by_another_is_told_each_time(tmp_path: Path) -> None:
    path = tmp_path / "users.conf"
    path.write_text("1")
    with serving(tmp_path, path) as far:
        assert far.line() == "ready"
        for number in range(3):
            (tmp_path / "new").write_text(str(number))
            (tmp_path / "new").rename(path)
            assert far.line() == "changed"


def test_folders_and_files_are_watched_together(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "lone").mkdir()
    with serving(tmp_path, tmp_path / "folder", tmp_path / "lone" / "file") as far:
        assert far.line() == "ready"
        (tmp_path / "lone" / "file").write_text("x")
        assert far.line() == "changed"
        (tmp_path / "folder" / "sub" / "x").write_text("x")
        assert far.line() == "changed"


# What is there is not what is watched


def test_a_folder_that_is_replaced_is_to_be_asked_for_anew(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    with serving(tmp_path, folder) as far:
        assert far.line() == "ready"
        folder.rename(tmp_path / "old")
        folder.mkdir()
        assert far.line() == "end"
    with serving(tmp_path, folder) as far:
        assert far.line() == "ready"
        (folder / "file").touch()
        assert far.line() == "changed"


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "voicemail"
    with serving(tmp_path, folder) as far:
        assert far.line() == "ready"
        folder.mkdir()
        assert far.line() == "end"


# How it ends


def test_it_shows_life_and_ends_in_time(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path / "file", stop_after=4 * watch.STILL) as far:
        lines = list(iter(lambda: far.line(but="\n"), "end"))
        assert far.process.wait(30) == 0
    assert {line.partition(" ")[0] for line in lines} - {"soon"} == {"ready", "still"}
    seconds = [float(line.removeprefix("still ")) for line in lines if line.startswith("still ")]
    assert seconds == sorted(seconds)
    assert watch.STILL <= seconds[0] <= seconds[-1] <= 5 * watch.STILL


def test_nobody_says_still_before_the_change_is_told(tmp_path: Path) -> None:
    """A copy would count as current that lacks it: also after we were held up for a while."""
    with serving(tmp_path, tmp_path / "file") as far:
        assert far.line() == "ready"
        assert far.process.stdout is not None
        pipe = far.process.stdout.fileno()
        os.kill(far.process.pid, signal.SIGSTOP)
        eventually(lambda: _state(far.process.pid) == "T", "it goes on")
        os.set_blocking(pipe, False)
        with suppress(BlockingIOError):
            while os.read(pipe, 4096):
                pass
        os.set_blocking(pipe, True)
        (tmp_path / "file").touch()
        time.sleep(1.5 * watch.STILL)
        os.kill(far.process.pid, signal.SIGCONT)
        said = b""
        while b"changed\n" not in said:
            said += os.read(pipe, 4096)
    assert said.startswith(b"changed\n")


def test_inotifywait_does_not_outlive_us(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path) as far:
        assert far.line() == "ready"
        child = far.watching
        assert not is_gone(child)
        far.process.kill()
        eventually(lambda: is_gone(child), "inotifywait is still there")


def test_it_ends_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    (tmp_path / "quiet").mkdir()
    with serving(tmp_path, tmp_path / "quiet") as far:
        assert far.line() == "ready"
        child = far.watching
        assert far.process.stdout is not None
        far.process.stdout.close()
        assert far.process.wait(30) == 0
        assert is_gone(child)


def test_it_ends_when_the_reader_has_stopped_reading(tmp_path: Path) -> None:
    """A pipe full of unread lines must not hold it for ever."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 4096)
    os.set_blocking(theirs, True)
    argv = [sys.executable, "-c", script(tmp_path, tmp_path)]
    process = subprocess.Popen(argv, stdout=theirs)
    os.close(theirs)
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_dead_inotifywait_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path) as far:
        assert far.line() == "ready"
        os.kill(far.watching, signal.SIGKILL)
        assert "inotifywait ended with status -9" in refusal(far.line())
        assert far.process.wait(30) == 1


def test_who_is_the_source_no_longer_says_so(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    with serving(tmp_path, tmp_path / "watched") as far:
        assert far.line() == "ready"
        (tmp_path / "gone").touch()
        assert refusal(far.line()) == "this node is not active any more"


def test_too_many_folders_name_the_limit(tmp_path: Path) -> None:
    """In a user namespace with a limit of its own (namespaces(7), /proc/sys/user)."""
    for number in range(5):
        (tmp_path / "watched" / str(number)).mkdir(parents=True)
    limited = (
        "unshare",
        "-U",
        "-r",
        "sh",
        "-c",
        'echo 3 >/proc/sys/user/max_inotify_watches && exec "$@"',
        "sh",
    )
    if subprocess.run([*limited, "true"], capture_output=True, timeout=30).returncode != 0:
        pytest.skip("SKIPPED: this kernel gives us no user namespace")
    argv = [*limited, sys.executable, "-c", script(tmp_path, tmp_path / "watched")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    said = refusal(done.stdout.splitlines()[-1])
    assert "fs.inotify.max_user_watches allows no more folders" in said
    assert "sysctl fs.inotify.max_user_watches=" in said


def test_without_inotify_tools_it_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path, env={**os.environ, "PATH": str(tmp_path)}) as far:
        said = refusal(far.line())
    assert "cannot run inotifywait" in said
    assert "apt install inotify-tools" in said


def test_a_path_without_a_folder_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path / "no" / "file") as far:
        assert f"there is no folder {tmp_path / 'no'}" in refusal(far.line())


def test_a_path_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300) / "file"
    with serving(tmp_path, path) as far:
        assert refusal(far.line()) == f"{path} cannot be watched: File name too long"


# At the standby


def source(*reach: str) -> Source:
    return Source(node="pbx01", epoch=7, reach=reach)


def here(folder: Path, *paths: Path, stop_after: float = 60) -> Source:
    return source(sys.executable, "-c", script(folder, *paths, stop_after=stop_after))


async def change(changes: AsyncIterator[bool]) -> None:
    async with asyncio.timeout(60):
        while not await anext(changes):
            pass


def test_it_yields_when_it_begins_and_at_every_change(tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()

    async def story() -> None:
        async with aclosing(Watcher().changes(here(tmp_path, watched), "config")) as changes:
            await change(changes)
            for number in range(3):
                (watched / str(number)).touch()
                await change(changes)

    asyncio.run(story())


def test_what_is_asked_for_comes_as_words(tmp_path: Path) -> None:
    told = tmp_path / "told"
    asked = source("sh", "-c", f'printf "%s\\n" "$@" >{told}; echo ready; echo end', "sh")

    assert words(asked) == [True]
    assert told.read_text().split() == ["copy", "config", "7", "watch"]


def test_what_came_while_we_were_busy_is_one_change(tmp_path: Path) -> None:
    asked = source("printf", "ready\\nchanged\\nstill 1.00\\nchanged\\nchanged\\nend\\n")
    assert words(asked) == [True]


def test_the_announced_end_is_no_trouble(tmp_path: Path) -> None:
    said = words(here(tmp_path, tmp_path / "file", stop_after=4))
    assert said[0] is True
    assert said.count(False) >= 1


def test_a_sign_of_life_that_was_held_up_is_none_of_this_moment() -> None:
    """The third is said a tenth of a second after the second, and comes half a second after it."""
    lines = ["ready", "still 1.00", "still 9.00", "still 9.10", "changed", "end"]
    script = "; ".join(f"echo {line}; sleep 0.5" for line in lines)
    assert words(source("sh", "-c", script)) == [True, False, False, True]


def words(asked: Source) -> list[bool]:
    async def story() -> list[bool]:
        return [word async for word in Watcher().changes(asked, "config")]

    return asyncio.run(story())


def reason(asked: Source) -> str:
    async def story() -> None:
        async for _ in Watcher().changes(asked, "config"):
            pass

    with pytest.raises(Unreachable) as caught:
        asyncio.run(story())
    return str(caught.value)


def test_the_sources_own_reason_is_told(tmp_path: Path) -> None:
    said = reason(here(tmp_path, tmp_path / "no" / "file"))
    assert "pbx01 does not watch: " in said
    assert f"there is no folder {tmp_path / 'no'}" in said
    assert "(the watch of config)" in said


def test_an_end_without_a_word_is_told_with_the_last_complaint() -> None:
    said = reason(
        source("sh", "-c", "echo ready; echo first >&2; echo no route to host >&2; exit 255")
    )
    assert said == "the watch of config at pbx01 has ended: no route to host (exit status 255)"


def test_a_source_that_does_not_speak_our_language_is_told() -> None:
    assert "Welcome to pbx01" in reason(source("sh", "-c", "echo Welcome to pbx01"))
    assert "has ended" in reason(source("sh", "-c", "exec head -c 1000000 /dev/zero"))


def test_a_program_that_is_not_there_is_told() -> None:
    assert (
        reason(source("/no/such/program"))
        == "cannot run /no/such/program: No such file or directory"
    )


def test_a_silent_source_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENCE", 0.5)
    pid = tmp_path / "pid"
    said = reason(source("sh", "-c", f"echo $$ >{pid}; echo ready; exec sleep 1000"))
    assert "pbx01 has been silent for 0.5 s" in said
    assert is_gone(int(pid.read_text()))


def test_a_sign_of_life_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENCE", 3.0)
    lives = (
        "echo ready; for i in 1 2 3 4; do sleep 1; echo still $i.00; done; echo changed; echo end"
    )
    said = words(source("sh", "-c", lives))
    assert said[0] is True
    assert said[-1] is True


def test_a_consumer_that_is_cancelled_leaves_nobody_behind(tmp_path: Path) -> None:
    """Neither the way there, nor the source, nor its inotifywait; nor does one who breaks off."""
    (tmp_path / "quiet").mkdir()
    pid = tmp_path / "pid"
    asked = source(
        "sh", "-c", f'echo $$ >{pid}; exec "$0" "$@"', *here(tmp_path, tmp_path / "quiet").reach
    )

    async def consume(ready: asyncio.Event) -> None:
        async with aclosing(Watcher().changes(asked, "config")) as changes:
            async for _ in changes:
                ready.set()

    async def story() -> list[int]:
        ready = asyncio.Event()
        task = asyncio.create_task(consume(ready))
        async with asyncio.timeout(60):
            await ready.wait()
        far = int(pid.read_text())
        processes = [far, *_children(far)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return processes

    processes = asyncio.run(story())
    assert len(processes) == 2
    for each in processes:
        eventually(lambda pid=each: is_gone(pid), "something is left")  # type: ignore[misc]


@pytest.mark.real
def test_over_ssh_changes_come_and_a_cut_way_leaves_nothing_there(tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    note = "pathlib.Path({!r}).write_text({})\n"
    (tmp_path / "answer.py").write_text(
        "import os, pathlib\n"
        + note.format(str(tmp_path / "asked"), "os.environ['SSH_ORIGINAL_COMMAND']")
        + note.format(str(tmp_path / "pid"), "str(os.getpid())")
        + script(tmp_path, watched)
    )
    forced = f"{sys.executable} {tmp_path / 'answer.py'}"
    with daemon(tmp_path / "ssh", root_login="forced-commands-only") as sshd:
        sshd.authorize(f'restrict,command="{forced}"')
        shutil.copy(sshd.folder / "user", sshd.folder / "id_ed25519")
        reach = over_ssh(f"ssh://root@127.0.0.1:{sshd.port}", folder=sshd.folder)

        async def story() -> list[int]:
            async with aclosing(Watcher().changes(source(*reach), "config")) as changes:
                await change(changes)
                (watched / "file").touch()
                await change(changes)
                far = int((tmp_path / "pid").read_text())
                return [far, *_children(far)]

        processes = asyncio.run(story())
        assert (tmp_path / "asked").read_text() == "copy config 7 watch"
        assert len(processes) == 2
        for each in processes:
            eventually(lambda pid=each: is_gone(pid), "something is left")  # type: ignore[misc]
