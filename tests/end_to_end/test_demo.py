"""`understudy demo`, as a person and as continuous integration run it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from understudy.core.observations import Health
from understudy.core.votes import Verdict
from understudy.demo.caller import Attempt
from understudy.demo.ledger import moves, turns
from understudy.demo.picture import draw
from understudy.demo.screen import NodeScene, Scene, Story
from understudy.runtime.journal_rows import Vote
from understudy.runtime.status import NodeView, Patience

DEMO = [sys.executable, "-m", "understudy", "demo"]
# Each in its own order: who looks four times a second sees a thing later than who hears of it at once.
ACTS_AND_CALLS = (
    r"calls are answered by pbx01",
    r"== all is well",
    r"== pbx01 loses power",
    r"calls are lost",
    r"calls are answered by pbx02",
    r"== failover: pbx02 is active",
    r"== pbx01 is back",
    r"pbx01 stays silent: pbx01 is outdated: pbx02 is active \(epoch 2\)",
    r"pbx01 waits for a person: understudy rejoin",
    r"pbx01\$ understudy failback plan",
    r"only here \(.*pbx01-last\.txt\): merged on pbx02",
    r"pbx01\$ understudy failback apply \w+ --yes",
    r"pbx02 is standby, pbx01 is active and serves: down about",
    r"calls are answered by pbx01",
    r"== as before",
    r"failover +\d+\.\d s without service, \d+ calls lost: pbx01 -> pbx02",
    r"switchover +\d\.\d s without service, \d+ calls? lost: pbx02 -> pbx01",
    r"two at once never",
)
AGENTS = (
    r"pbx01: silent -> taking-over",
    r"pbx01: taking-over -> active",
    r"pbx02: standby -> suspecting",
    r"patience: \d s of 9 s; announces in",
    r"pbx02: suspecting: .*announce",
    r"patience: \d s of 9 s; announced, takes over in",
    r"pbx02: suspecting -> taking-over",
    r"pbx02: have pbx01 stop its PBX .*No route to host",
    r"pbx02: taking-over -> active",
    r"pbx01: \S+ -> outdated",
    r"pbx01: outdated -> rejoining",
    r"pbx02: active -> handing-over",
    r"pbx01: taking-over -> active",
)
NAME = tuple(rf"sip\.example\.test leads to {node}" for node in ("pbx01", "pbx02", "pbx01"))


@pytest.fixture(autouse=True)
def keep_the_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_the_demo_tells_its_story_in_a_minute_and_leaves_no_process() -> None:
    began = time.monotonic()
    done = subprocess.run(
        DEMO, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False
    )
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert took < 60
    for order in (ACTS_AND_CALLS, AGENTS, NAME):
        _assert_in_order(order, done.stdout)
    folder = _folder(done.stdout)
    assert _left(folder) == []

    next_ones = re.findall(rf"^  ({re.escape(str(folder))}/.*)$", done.stdout, re.MULTILINE)
    why, events, status = (_run(each) for each in next_ones)
    assert "take-over-done" in why.stdout
    assert "taking-over -> active: this node serves" in events.stdout
    assert "pbx01 (epoch 3" in status.stdout
    assert (why.returncode, events.returncode, status.returncode) == (0, 0, 1)  # No agent runs.
    checked = _run(f"{folder}/pbx01/understudy config check --json")
    assert json.loads(checked.stdout)["ok"] is True


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_everything(sent: signal.Signals) -> None:
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    assert demo.stdout is not None
    told = ""
    try:
        for line in demo.stdout:
            told += line
            if "calls are answered by pbx01" in line:
                break
        folder = _folder(told)
        assert len(_left(folder)) >= 2  # An agent and a PBX.
        demo.send_signal(sent)
        demo.send_signal(sent)
        told += demo.communicate(timeout=15)[0]
    finally:
        _end(demo)
    assert demo.returncode == 1, told
    assert "ended before its end" in told
    assert "Traceback" not in told
    assert _left(folder) == []


def test_on_a_terminal_the_picture_goes_and_the_story_stays() -> None:
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    demo = subprocess.Popen(DEMO, stdin=there, stdout=there, stderr=there, env=environment)
    os.close(there)
    seen = ""
    try:
        seen = _read(here, lambda text: "11111" in text)
        demo.send_signal(signal.SIGINT)
        seen += _read(here, lambda _: False)
        assert demo.wait(15) == 1
    finally:
        _end(demo)
        os.close(here)
    on, off = "\x1b[?1049h", "\x1b[?1049l"  # xterm's other page
    assert on in seen
    picture, _, after = seen.partition(off)
    assert "Ctrl-C ends it" in picture
    assert "calls are answered by pbx01" in after
    assert "ended before its end" in after
    assert _left(_folder(after)) == []


def test_the_picture_fits_into_80_columns_and_24_rows() -> None:
    story = Story()
    for number in range(40):
        story.tell(f"{number} " + "a long sentence about what was decided " * 5)
    scene = Scene(
        seconds=59.0,
        act="pbx01 loses power: kill -9 for its agent and its PBX",
        service="sip.example.test",
        nodes=tuple(_node(name) for name in ("pbx01", "pbx02")),
        claim="pbx01, epoch 12, taken, pbx02 has announced",
        leads_to="pbx01",
        patience=Patience(
            total=9, spent=4, remaining=5, announced=False, announces_in=0.5, takes_in=5
        ),
        reasons=(
            "pbx01 is outdated: pbx02 is active; it waits for a person: understudy rejoin " * 2,
        ),
        calls=("pbx01",) * 100 + ("",) * 10 + ("pbx02",),
        answered=101,
        lost=10,
    )
    out = StringIO()
    console = Console(file=out, width=80, height=24)
    console.print(draw(scene, story.lines))
    lines = out.getvalue().rstrip("\n").split("\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "1111xxxxxxxxxx2" in out.getvalue()
    assert "  0.0 s  39 a long" in out.getvalue()


def test_two_pbxs_that_answer_at_once_are_noticed(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("".join(_answer(at, "pbx01") for at in (1, 2, 5)))
    second.write_text("".join(_answer(at, "pbx02") for at in (3, 4, 6)) + '{"at": 7, "no')
    assert turns([first, second, tmp_path / "none"]) == ["pbx01", "pbx02", "pbx01", "pbx02"]


def test_an_outage_lasts_from_the_last_answered_call_to_the_next() -> None:
    heard = [_call(0, "pbx01"), _call(1, ""), _call(3, "pbx02"), _call(2, ""), _call(4, "pbx02")]
    (move,) = moves(heard)
    assert (move.before, move.after, move.seconds, move.lost) == ("pbx01", "pbx02", 3, 2)


def _assert_in_order(patterns: Sequence[str], told: str) -> None:
    rest = told
    for each in patterns:
        found = re.search(each, rest)
        assert found, f"{each}: not after what should come before it in:\n{told}"
        rest = rest[found.end() :]


def _folder(told: str) -> Path:
    found = re.search(r"its files in (\S+)", told)
    assert found, told
    return Path(found[1])


def _left(folder: Path) -> list[str]:
    """Command lines of living processes that have to do with this demo."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            if str(folder) in words:
                found.append(words)
    return found


def _run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command.split(), capture_output=True, text=True, timeout=30, check=False)


def _read(terminal: int, enough: Callable[[str], bool]) -> str:
    text = ""
    with suppress(OSError):  # EIO: the other side has closed.
        while not enough(text):
            text += os.read(terminal, 4096).decode(errors="replace")
    return text


def _end(demo: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    if demo.poll() is None:
        demo.send_signal(signal.SIGINT)
        demo.wait(15)
    if demo.stdout is not None:
        demo.stdout.close()


def _node(name: str) -> NodeScene:
    votes = tuple(
        Vote(node=name, checkpoint=each, health=Health.UNKNOWN) for each in ("cp1", "cp2", "cp3")
    )
    view = NodeView(node=name, verdict=Verdict.UNCLEAR, votes=votes)
    return NodeScene(name=name, is_on=True, status=None, votes=view, calls=1234)


def _answer(at: float, node: str) -> str:
    return json.dumps({"at": at, "node": node, "method": "OPTIONS"}) + "\n"


def _call(at: float, node: str) -> Attempt:
    return Attempt(number=0, at=at, started=at, ended=at + 0.1, node=node)
