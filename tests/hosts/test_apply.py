"""Putting pieces in their places, and taking them away: again and again, and interrupted."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from understudy.errors import Refused
from understudy.hosts.apply import LEDGER, install, uninstall
from understudy.hosts.piece import Piece

GUARD = Piece(
    host="pbx01",
    path="/etc/systemd/system/pbx.service.d/understudy.conf",
    text="[Service]\n",
    why="x.",
    then=("reload", "disable"),
)
KEY = Piece(
    host="pbx01",
    path="/etc/understudy/tsig.key",
    text="c2VjcmV0\n",
    mode=0o600,
    secret=True,
    why="x.",
)
BAN = Piece(host="pbx01", path="/etc/fail2ban/x", text="x\n", why="x.", only_if="/etc/fail2ban")
PIECES = (KEY, GUARD, BAN)


class Ran(list[str]):
    """Notes the commands, and fails those it was told to."""

    failing = ""

    def __call__(self, line: str) -> str:
        self.append(line)
        return "it broke" if line == self.failing else ""


def test_the_second_time_nothing_is_done(tmp_path: Path) -> None:
    ran = Ran()
    first = list(install(PIECES, root=tmp_path, run=ran))
    assert ran == ["reload", "disable"]
    assert [bool(step.difference) for step in first] == [True, True, False]
    assert first[2].skipped == "there is no /etc/fail2ban here"
    again = list(install(PIECES, root=tmp_path, run=ran))
    assert ran == ["reload", "disable"]
    assert not any(step.difference or step.commands for step in again)
    assert stat.S_IMODE((tmp_path / "etc/understudy/tsig.key").stat().st_mode) == 0o600


def test_what_was_there_is_kept(tmp_path: Path) -> None:
    list(install(PIECES, root=tmp_path, run=Ran()))
    changed = replace(GUARD, text="[Service]\nx=y\n")
    (step,) = install([changed], root=tmp_path, run=Ran())
    assert "+x=y" in step.difference
    place = tmp_path / GUARD.path[1:]
    assert (place.read_text(), place.with_name("understudy.conf.old").read_text()) == (
        changed.text,
        GUARD.text,
    )


def test_a_mode_that_somebody_widened_is_put_right(tmp_path: Path) -> None:
    list(install(PIECES, root=tmp_path, run=Ran()))
    key = tmp_path / "etc/understudy/tsig.key"
    key.chmod(0o644)
    (step,) = install([KEY], root=tmp_path, run=Ran())
    assert step.difference == "mode 0600, owner root:root\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_command_that_failed_is_run_again(tmp_path: Path) -> None:
    ran = Ran()
    ran.failing = "disable"
    (step,) = install([GUARD], root=tmp_path, run=ran)
    assert step.troubles == ("disable: it broke",)
    ran.failing = ""
    (step,) = install([GUARD], root=tmp_path, run=ran)
    assert not step.difference
    assert ran == ["reload", "disable"] * 2


def test_interrupted_anywhere_the_next_time_completes_it(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def dies(line: str) -> str:
        raise Killed(line)

    with pytest.raises(Killed):
        list(install(PIECES, root=tmp_path, run=dies))
    assert list(uninstall(root=tmp_path, run=Ran(), dry_run=True)) == [GUARD.path]
    ran = Ran()
    list(install(PIECES, root=tmp_path, run=ran))
    assert ran == ["reload", "disable"]


def test_a_dry_run_changes_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    ran = Ran()
    steps = list(install(PIECES, root=tmp_path, run=ran, dry_run=True))
    assert steps[1].commands == ("reload", "disable")
    assert not ran
    assert not list(tmp_path.iterdir())
    assert not any("c2VjcmV0" in step.difference for step in steps)


def test_uninstall_takes_away_what_would_keep_the_pbx_from_starting(tmp_path: Path) -> None:
    list(install(PIECES, root=tmp_path, run=Ran()))
    place = tmp_path / GUARD.path[1:]
    place.write_text("[Service]\n# A person's own line.\n")
    ran = Ran()
    assert list(uninstall(root=tmp_path, run=ran)) == [GUARD.path]
    assert not place.exists()
    assert "own line" in place.with_name("understudy.conf.old").read_text()
    assert (
        tmp_path / KEY.path[1:]
    ).exists()  # The key and the configuration are not this program's.
    assert ran == ["systemctl daemon-reload"]
    assert list(uninstall(root=tmp_path, run=ran)) == []


def test_uninstall_needs_no_ledger_for_the_guard(tmp_path: Path) -> None:
    list(install(PIECES, root=tmp_path, run=Ran()))
    (tmp_path / LEDGER).write_text("{torn")
    assert list(uninstall(root=tmp_path, run=Ran())) == [GUARD.path]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(Refused, match=r"etc/understudy/tsig\.key cannot be"):
        list(install([KEY], root=tmp_path, run=Ran()))
