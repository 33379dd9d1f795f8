"""The copy of the data, as doctor sees it on one node."""

import os
import tempfile
import time
from pathlib import Path

import pytest

from adapters.systemd_host import require_root
from cli.pair import CliPair
from doctor.world import append, here, levels, only, run
from understudy.doctor import copies
from understudy.doctor.finding import Level
from understudy.runtime import copy_state
from understudy.runtime.copy_state import ClassState, CopyState


def copying(folder: Path) -> CliPair:
    made = CliPair(folder)
    (folder / "etc").mkdir()
    for node in ("pbx01", "pbx02"):
        table = f'\n[copies.config]\nkind = "rsync"\npaths = ["{folder}/etc"]\n'
        append(made.config(node), table)
    return made


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    return copying(tmp_path)


def say(pair: CliPair, *classes: ClassState, ago: float = 1.0) -> None:
    """As a copier of that node."""
    file = here(pair, "pbx02").node.copies_file
    assert file is not None
    file.parent.mkdir(parents=True, exist_ok=True)
    copy_state.write(file, CopyState(written=time.time() - ago, pid=1, classes=classes))


def config(as_of: float, trouble: str = "") -> ClassState:
    return ClassState(
        name="config", kind="rsync", every=120, max_age=900, as_of=as_of, trouble=trouble
    )


def test_nobody_copies_is_critical_and_says_since_when(pair: CliPair) -> None:
    found = only(run(copies.copier, here(pair, "pbx02")), "copier")
    assert (found.level, found.what) == (Level.CRITICAL, "no copier is at work here")
    say(pair, config(0.0), ago=90)
    found = only(run(copies.copier, here(pair, "pbx02")), "copier")
    assert found.what.startswith("no copier is at work here, for 1m3")
    assert "systemctl enable --now understudy-copier" in found.mend


def test_where_nothing_is_to_be_copied_nothing_is_asked(tmp_path: Path) -> None:
    plain = here(CliPair(tmp_path))
    assert run(copies.copier, plain) == run(copies.readable, plain) == []


def test_a_stale_class_of_a_standby_is_critical_with_its_reason(pair: CliPair) -> None:
    now = time.time()
    say(pair, config(now - 1000, trouble="pbx01 cannot be reached"))
    at = here(pair, "pbx02")
    assert levels(run(copies.copier, at), "copy-fresh") == []  # No agent has said that it pulls.
    pair.begin("pbx01")
    agent = pair.start("pbx02", "run")
    try:
        ends = time.monotonic() + 20
        while "standby" not in pair.said("pbx02"):
            assert time.monotonic() < ends, pair.said("pbx02")
            time.sleep(0.1)
        found = only(run(copies.copier, at), "copy-fresh")
        assert found.level is Level.CRITICAL
        assert found.what.startswith("config is 16m4")
        assert found.what.endswith("pbx01 cannot be reached")
        say(pair, config(now))
        assert levels(run(copies.copier, at), "copy-fresh") == [Level.OK]
    finally:
        agent.terminate()
        agent.wait(10)


def test_a_file_that_the_other_node_cannot_read_is_named() -> None:
    require_root()
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to other users.
        folder = Path(name)
        folder.chmod(0o755)
        pair = copying(folder)
        (folder / "etc/pjsip.conf").write_text("open")
        journal = here(pair).node.journal_path.parent
        journal.mkdir(parents=True, exist_ok=True)
        os.chown(journal, 65534, 65534)  # nobody's: whose agent this is.
        assert levels(run(copies.readable, here(pair)), "copy-readable") == [Level.OK]
        (folder / "etc/secret.conf").write_text("closed")
        (folder / "etc/secret.conf").chmod(0o600)
        found = only(run(copies.readable, here(pair)), "copy-readable")
        assert found.level is Level.CRITICAL
        assert found.what == f"config: the other node cannot read {folder}/etc/secret.conf"
        folder.chmod(0o700)  # Not even the way there is open.
        found = only(run(copies.readable, here(pair)), "copy-readable")
        assert found.level is Level.CRITICAL
        assert "Permission denied" in found.what


def test_what_tells_changes_is_looked_for_where_it_is_needed(
    pair: CliPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "inotify" not in {each.check for each in run(copies.copier, here(pair, "pbx02"))}
    append(pair.config("pbx02"), "on_change = true\n")
    monkeypatch.setattr(copies, "SYSTEM_FOLDERS", ("/nowhere",))
    found = only(run(copies.copier, here(pair, "pbx02")), "inotify")
    assert (found.level, found.what) == (Level.WARNING, "inotifywait is not installed")
    assert found.mend == "apt install inotify-tools"
