"""What root's commands do where the journal belongs to the agent's user."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from adapters.systemd_host import require_root
from cli.pair import CliPair

SOURCE = Path(__file__).parents[2] / "src"
LIBRARIES = Path(click.__file__).parents[1]
NOBODY = pwd.getpwnam("nobody")
NUMBER = 54_321  # No account has it.


def is_open(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in path.resolve().parents)


def python() -> str:
    """An interpreter that every user may run; a developer's own is often below his home."""
    for each in (sys.executable, "/usr/bin/python3"):
        if Path(each).exists() and is_open(Path(each)):
            known = subprocess.run([each, "-c", "import tomllib"], capture_output=True, check=False)
            if known.returncode == 0:
                return each
    pytest.skip("SKIPPED: no Python >= 3.11 here that every user may run")


class RootsPair(CliPair):
    """Run by root, on files of which only some are root's."""

    def run_as_root(self, *words: str, source: Path = SOURCE) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [python(), *self.argv("pbx01", *words)[1:]],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{source}:{LIBRARIES}"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def give(self, user: int, group: int) -> None:
        """The journal's folder to somebody."""
        os.chown(self.folder / "pbx01", user, group)

    @property
    def key(self) -> Path:
        return self.folder / "tsig.key"

    def owners(self) -> set[int]:
        return {each.stat().st_uid for each in (self.folder / "pbx01").glob("journal*")}


@pytest.fixture
def pair() -> Iterator[RootsPair]:
    require_root()
    if not (is_open(SOURCE) and is_open(LIBRARIES)):
        pytest.skip("SKIPPED: this checkout is in a folder that only some may enter")
    folder = Path(tempfile.mkdtemp())  # tmp_path is closed to other users.
    folder.chmod(0o755)
    made = RootsPair(folder)
    made.begin()
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("user", "group"), [(NOBODY.pw_uid, NOBODY.pw_gid), (NUMBER, NUMBER)], ids=["account", "number"]
)
def test_what_root_writes_belongs_to_the_agents_user(
    pair: RootsPair, user: int, group: int
) -> None:
    pair.give(user, group)
    (pair.folder / "break-glass").touch()
    done = pair.run_as_root("may-start")
    assert (done.returncode, "the glass is broken" in done.stderr) == (0, True), done
    assert pair.owners() == {user}


def test_roots_own_journal_stays_roots(pair: RootsPair) -> None:
    (pair.folder / "break-glass").touch()
    assert pair.run_as_root("may-start").returncode == 0
    assert pair.owners() == {0}


@pytest.mark.parametrize(
    ("user", "group"), [(NOBODY.pw_uid, NOBODY.pw_gid), (NUMBER, NUMBER)], ids=["account", "number"]
)
def test_a_key_of_its_group_is_read(pair: RootsPair, user: int, group: int) -> None:
    pair.give(user, group)
    os.chown(pair.key, 0, group)
    pair.key.chmod(0o640)
    done = pair.run_as_root("tick")
    assert done.returncode == 0, done
    assert "key" not in done.stderr
    assert pair.owners() == {user}


def test_a_key_of_root_alone_is_named(pair: RootsPair) -> None:
    pair.give(NOBODY.pw_uid, NOBODY.pw_gid)
    done = pair.run_as_root("tick")
    assert done.returncode == 2
    assert f"{pair.key}: the key file cannot be read: Permission denied." in done.stderr


def test_a_program_that_the_agents_user_cannot_read_is_named(pair: RootsPair) -> None:
    pair.give(NOBODY.pw_uid, NOBODY.pw_gid)
    closed = pair.folder / "closed"
    shutil.copytree(SOURCE / "understudy", closed / "understudy")
    closed.chmod(0o700)
    done = pair.run_as_root("status", source=closed)
    assert done.returncode == 2
    assert "nobody, who runs the agent here, may not read" in done.stderr
    assert "Traceback" not in done.stderr
