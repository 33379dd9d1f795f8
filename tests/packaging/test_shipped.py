"""Manual pages and shell completion, as a package gets them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.systemd_host import require_program
from understudy.cli import roff, shipped
from understudy.cli.main import VERBS
from understudy.core.rules import RULES

PAGES = ("man/man1/understudy.1", "man/man5/understudy.toml.5", "man/man7/understudy-phases.7")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_renders_without_a_warning(page: str) -> None:
    require_program("groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"],
        input=shipped.manual_pages()[page],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def shown(page: str) -> str:
    """As a reader sees it, on one line: what is broken over two lines is found too."""
    require_program("groff")
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-rLL=200n", "-rHY=0"],
        input=shipped.manual_pages()[page],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return " ".join(done.stdout.split())


def test_the_manual_has_every_verb() -> None:
    text = shown("man/man1/understudy.1")
    for verb in VERBS:
        assert f" understudy {verb} " in text
    assert "--config FILE" in text
    assert "/var/lib/understudy/journal.sqlite3" in text


def test_the_manual_has_every_phase_and_row() -> None:
    text = shown("man/man7/understudy-phases.7")
    for phase, rules in RULES.items():
        for word in (phase, *(rule.name for rule in rules)):
            assert f" {word} " in text


def test_the_manual_has_the_settings() -> None:
    text = shown("man/man5/understudy.toml.5")
    assert "[pair] Two nodes that stand in for each other. name written as: text" in text
    assert 'patience written as: duration default: "5m"' in text


def test_no_sign_is_lost_or_an_order_to_roff() -> None:
    lines = ["Begin \\n with `.code` and 'quotes' - ^~.", "", ".TH is no heading", "", "* |"]
    page = roff.render(
        roff.Title(name="x", section=1, about="about"),
        "more",
        lines,
        ["## Größe", "", "| a | b | c |", "|---|---|---|", "| `x\\|y` | 1 | **2** |"],
    )
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u"],
        input=page,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    text = " ".join(done.stdout.split())
    assert "Begin \\n with .code and 'quotes' - ^~. .TH is no heading • | MORE Größe" in text
    assert "x|y b: 1 c: 2" in text
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_parses(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"SKIPPED: there is no {shell} here")
    path = tmp_path / "completion"
    path.write_text(shipped.completions()[shipped.SHELLS[shell]])
    done = subprocess.run(
        [shell, "-n", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_knows_the_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy"],
        env={
            **os.environ,
            "_UNDERSTUDY_COMPLETE": "bash_complete",
            "COMP_WORDS": "understudy sw",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["plain,switchover"]
