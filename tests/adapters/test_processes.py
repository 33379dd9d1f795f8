"""A program that we run is bounded in time and output, and leaves nothing behind."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from understudy.adapters.processes import LIMIT, Finished, run
from understudy.errors import Unanswered, Unreachable


def sh(script: str, *, within: float = 5.0, leaves_running: bool = False) -> Finished:
    return asyncio.run(run(("sh", "-c", script), within=within, leaves_running=leaves_running))


def test_status_output_and_complaint_are_told() -> None:
    done = sh("echo out; echo first >&2; echo last >&2; exit 3")
    assert (done.code, done.out, done.err, done.said) == (3, "out\n", "first\nlast\n", "last")


def test_a_silent_failure_is_told_by_its_exit_status() -> None:
    assert sh("exit 7").said == "exit status 7"


def test_the_language_is_c_whatever_ours_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert sh("echo $LC_ALL").out == "C\n"


def test_programs_of_the_system_are_found_whatever_our_path_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """sshd gives a user without rights no sbin; and what comes first in our PATH comes first."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sh("echo $PATH").out.startswith(f"{tmp_path}:/usr/local/sbin:")
    assert asyncio.run(run(("ldconfig", "--version"), within=5)).code == 0


def test_input_is_given_and_never_waited_for() -> None:
    assert asyncio.run(run(("cat",), within=5, stdin=b"x" * 200_000)).cut
    assert sh("cat").out == ""


def test_what_is_not_there_could_not_be_asked() -> None:
    with pytest.raises(Unreachable, match=r"cannot run /no/such/program: No such file"):
        asyncio.run(run(("/no/such/program",), within=1))


def test_the_deadline_kills_the_whole_group(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Unanswered, match=r"sh did not end within 0\.3 s"):
        sh(f"sleep 60 & echo $! >{tmp_path}/pid; wait", within=0.3)
    assert time.monotonic() - started < 2
    assert eventually(lambda: not lives(tmp_path / "pid"))


def test_cancellation_kills_the_whole_group(tmp_path: Path) -> None:
    async def cancelled() -> None:
        script = f"sleep 60 & echo $! >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; wait"
        task = asyncio.create_task(run(("sh", "-c", script), within=60))
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancelled())
    assert eventually(lambda: not lives(tmp_path / "pid"))


def test_a_flood_is_cut_and_does_not_stop_the_writer() -> None:
    done = sh("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2")
    assert (len(done.out), done.cut, done.err) == (LIMIT, True, "end\n")


def test_an_endless_flood_ends_at_the_deadline() -> None:
    with pytest.raises(Unanswered):
        sh("yes", within=0.3)


def test_what_is_left_behind_is_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    done = sh(f"sleep 60 & echo $! >{tmp_path}/pid; echo ready")
    assert (done.out, time.monotonic() - started < 2) == ("ready\n", True)
    assert lives(tmp_path / "pid")
    sh(f"kill $(cat {tmp_path}/pid)")


def test_a_daemon_may_go_on_writing(tmp_path: Path) -> None:
    code = "import time; time.sleep(0.5); print('still here', flush=True); open('done', 'w')"
    script = f'cd {tmp_path}; "{sys.executable}" -c "{code}" & echo started'
    assert sh(script, leaves_running=True).out == "started\n"
    assert eventually((tmp_path / "done").exists)


def test_output_of_any_length_goes_into_a_file_and_the_complaint_does_not(tmp_path: Path) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2; exit 3"
    with (tmp_path / "out").open("w+b") as file:
        file.write(b"before")
        file.flush()
        done = asyncio.run(run(("sh", "-c", script), within=10, into=file))
        file.seek(0)
        assert file.read() == b"before" + b"x" * 3_000_000
    assert (done.code, done.out, done.err, done.cut) == (3, "", "end\n", False)
    assert done.said == "end"


def test_the_deadline_holds_for_who_writes_into_a_file(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as file:
        with pytest.raises(Unanswered):
            asyncio.run(run(("sh", "-c", "echo half; sleep 60"), within=0.3, into=file))
        file.seek(0)
        assert file.read() in (b"half\n", b"")


def test_a_daemon_may_write_its_output_into_our_file(tmp_path: Path) -> None:
    script = f"(sleep 0.3; echo late; touch {tmp_path}/done) & echo started; echo well >&2"
    with (tmp_path / "out").open("w+b") as file:
        argv = ("sh", "-c", script)
        done = asyncio.run(run(argv, within=5, into=file, leaves_running=True))
        assert (done.out, done.err) == ("", "well\n")
        assert eventually((tmp_path / "done").exists)
        file.seek(0)
        assert file.read() == b"started\nlate\n"


def lives(pid_file: Path) -> bool:
    try:
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def eventually(claim: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 5
    while not claim():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True
