"""The machine: a disk that fills up, a key that everybody may read, a clock that nobody keeps."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.systemd_host import require_root
from cli.pair import CliPair
from doctor.world import append, here, levels, only, run
from understudy.doctor import machine
from understudy.doctor.finding import Level
from understudy.doctor.here import Here

MB = 1_000_000


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    return CliPair(tmp_path)


@pytest.mark.parametrize(
    ("size", "used", "level"),
    [
        (2000, 0, Level.OK),
        (60, 0, Level.WARNING),
        (60, 20, Level.CRITICAL),
    ],
)
def test_a_disk_that_fills_up_is_told(
    pair: CliPair, tmp_path: Path, size: int, used: int, level: Level
) -> None:
    with disk(tmp_path, f"size={size * MB}") as folder:
        with (folder / "full").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(used * MB, 1))
        found = run(machine.disk, journal_in(here(pair), folder))
    assert levels(found, "disk") == [level]
    assert levels(found, "inodes") == [Level.OK]


def test_a_disk_without_inodes_is_told(pair: CliPair, tmp_path: Path) -> None:
    with disk(tmp_path, f"size={2000 * MB},nr_inodes=100") as folder:
        found = run(machine.disk, journal_in(here(pair), folder))
    assert levels(found, "inodes") == [Level.WARNING]
    assert levels(found, "disk") == [Level.OK]


def test_a_disk_that_cannot_be_written_is_critical(pair: CliPair, tmp_path: Path) -> None:
    with disk(tmp_path, "ro") as folder:
        found = only(run(machine.disk, journal_in(here(pair), folder)), "disk")
    assert (found.level, found.what) == (Level.CRITICAL, f"{folder} is mounted read-only")


def test_a_folder_that_is_not_there_is_critical(pair: CliPair, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    found = only(run(machine.disk, journal_in(here(pair), folder)), "disk")
    assert (found.level, found.mend) == (Level.CRITICAL, f"mkdir -p {folder}")


def test_a_secret_that_others_may_read_is_critical(pair: CliPair) -> None:
    secret = pair.folder / "nrpe.key"
    secret.write_text("secret")
    secret.chmod(0o600)
    append(
        pair.config("pbx01"),
        f'[checkpoints.cp4]\nkind = "nrpe"\naddress = "127.0.0.1"\nkey_file = "{secret}"\n'
        f'cert_file = "{secret}"\ntls = "verified"\ntimeout = "900ms"\n',
    )
    place = here(pair)
    assert levels(run(machine.secrets, place), "secrets") == [Level.OK, Level.OK]
    for mode in (0o604, 0o620):
        secret.chmod(mode)
        (found,) = [each for each in run(machine.secrets, place) if each.level is not Level.OK]
        assert (found.level, found.mend) == (Level.CRITICAL, f"chmod u=rw,g=r,o= {secret}")
    secret.unlink()
    (found,) = [each for each in run(machine.secrets, place) if each.level is not Level.OK]
    assert found.level is Level.CRITICAL
    assert "No such file" in found.what


@pytest.mark.parametrize(
    ("says", "level"), [("yes", Level.OK), ("no", Level.NOTE), ("", Level.NOTE)]
)
def test_a_clock_that_nobody_keeps_is_noted(
    pair: CliPair, tmp_path: Path, says: str, level: Level
) -> None:
    """timedatectl is not asked: this machine's clock is not ours to set."""
    program = tmp_path / "timedatectl"
    program.write_text(f"#!/bin/sh\necho {says}\n")
    program.chmod(0o755)
    place = replace(here(pair), prefix=("env", f"PATH={tmp_path}:{os.environ['PATH']}"))
    assert only(run(machine.ntp, place), "ntp").level is level


def journal_in(place: Here, folder: Path) -> Here:
    return replace(place, node=replace(place.node, journal_path=folder / "journal.sqlite3"))


@contextmanager
def disk(tmp_path: Path, options: str) -> Iterator[Path]:
    """A tmpfs: pages that nobody writes to cost nothing."""
    require_root("mount", "umount")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if made.returncode != 0:
        pytest.skip(f"SKIPPED: this kernel mounts no tmpfs for us: {made.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=20)
