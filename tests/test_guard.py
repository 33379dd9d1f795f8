"""The guard outside the agent (PROTOCOL S2): it stops a PBX that no agent proves, then and not before."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli.pair import CliPair, pair, until
from understudy.core.model import NEVER, Evidence, Phase, Runbook, State
from understudy.core.observations import Pbx
from understudy.core.policy import Isolation, Policy
from understudy.guard import Guard, Times, Word, boot_id, parse, plan_from, read
from understudy.runtime.guard_file import GuardFile, allow, place, told, write

POLICY = Policy(me="pbx01", peer="pbx02")
BOOT = boot_id()
NOW = 1000.0
STOPPED = Word(BOOT, "pbx01", stopped=True)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# What the agent tells


def serving(phase: Phase = Phase.ACTIVE, **evidence: object) -> State:
    found = replace(Evidence(proved_at=NOW - 3, up_at=NOW - 40, pbx=Pbx.ANSWERING), **evidence)  # type: ignore[arg-type]
    return State(phase=phase, since=NOW - 5, evidence=found)


def word(state: State, before: Word | None = None, *, voided: bool = False) -> Word | None:
    return told(state, POLICY, BOOT, NOW, before, voided=voided)


def test_it_is_told_the_instant_at_which_the_later_proof_ends() -> None:
    assert word(serving()) == Word(BOOT, "pbx01", ends=NOW - 40 + 90)
    assert word(serving(up_at=NEVER)) == Word(BOOT, "pbx01", ends=NOW - 3 + 15)


def test_under_keep_there_is_no_limit() -> None:
    keep = replace(POLICY, isolation=Isolation.KEEP)
    assert told(serving(), keep, BOOT, NOW, None, voided=False) == Word(BOOT, "pbx01")


@pytest.mark.parametrize("phase", [Phase.STANDBY, Phase.SILENT, Phase.OUTDATED, Phase.HALTED])
def test_a_stopped_pbx_needs_no_guard(phase: Phase) -> None:
    assert word(serving(phase, pbx=Pbx.STOPPED)) == STOPPED
    # Until it is known to be stopped, the last instant holds.
    assert word(serving(phase, pbx=Pbx.UNKNOWN)) is None
    assert word(serving(phase, pbx=Pbx.ANSWERING)) is None


def test_a_take_over_is_guarded_from_its_start_of_the_pbx_on() -> None:
    taking = replace(serving(Phase.TAKING_OVER, pbx=Pbx.STOPPED), runbook=Runbook.TAKE)
    assert [word(replace(taking, step=step)) for step in range(3)] == [STOPPED] * 3
    assert word(replace(taking, step=3)) == Word(BOOT, "pbx01", ends=NOW + 50)


def test_an_agent_that_stops_the_pbx_is_given_a_moment_and_no_more() -> None:
    down = replace(serving(Phase.STEPPING_DOWN), runbook=Runbook.STOP)
    assert word(down) == Word(BOOT, "pbx01", ends=NOW - 5 + 2)


def test_after_a_standstill_there_is_first_proof_once_however_often_the_agent_dies() -> None:
    void = serving(proved_at=NEVER, up_at=NEVER)
    given = word(void, Word(BOOT, "pbx01", ends=NOW - 7), voided=True)
    assert given == Word(BOOT, "pbx01", ends=NOW + 15)
    assert word(void, given) is None


def test_the_file_is_told_of_a_standstill_by_its_evidence(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    first = GuardFile(path, BOOT)
    first.tell(serving(void_since=NOW - 100), POLICY, NOW)
    assert read(path).ends == NOW + 50
    first.tell(serving(proved_at=NEVER, up_at=NEVER, void_since=NOW), POLICY, NOW)
    assert read(path).ends == NOW + 15
    # Another process has no newer proof either: it keeps to what was said.
    again = GuardFile(path, BOOT)
    again.tell(serving(proved_at=NEVER, up_at=NEVER, void_since=NOW + 9), POLICY, NOW + 9)
    assert read(path).ends == NOW + 15


def test_a_round_by_cron_leaves_time_until_the_next(tmp_path: Path) -> None:
    file = GuardFile(tmp_path / "serving.json", BOOT)
    state = serving(up_at=NEVER)
    file.tell(state, POLICY, NOW)
    file.leave(state, POLICY, NOW)
    assert read(file.path).ends == NOW + 60 + 15
    file.tell(serving(Phase.SILENT, pbx=Pbx.STOPPED), POLICY, NOW)
    file.leave(state, POLICY, NOW)
    assert read(file.path) == STOPPED


def test_a_full_disk_does_not_keep_it_from_being_told(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    write(path, Word(BOOT, "pbx01", ends=NOW))
    (tmp_path / f".serving.json.{os.getpid()}").mkdir()  # As if no second file could be made.
    write(path, Word(BOOT, "pbx01", ends=NOW + 1))
    assert read(path).ends == NOW + 1


def test_a_file_that_cannot_be_written_is_trouble_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("a file")
    file = GuardFile(tmp_path / "here" / "serving.json", BOOT)
    file.tell(serving(), POLICY, NOW)
    assert f"Create {tmp_path / 'here'}, writable for the agent's user" in file.trouble


def test_a_start_by_a_person_never_shortens_what_an_agent_said(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    for held in (Word(BOOT, "pbx01", ends=NOW + 90), Word(BOOT, "pbx01")):
        write(path, held)
        allow(path, Word(BOOT, "pbx01", ends=NOW + 15))
        assert read(path) == held
    for past in (STOPPED, Word(BOOT, "pbx01", ends=NOW - 1), Word("0-0", "pbx01", ends=NOW + 99)):
        write(path, past)
        allow(path, Word(BOOT, "pbx01", ends=NOW + 15))
        assert read(path).ends == NOW + 15


# What the guard takes for a word

NONSENSE = {
    "nothing": "",
    "no JSON": "root:x:0:0",
    "a list": "[]",
    "deep": "[" * 3000,
    "no state": json.dumps({"ends": 1.0, "node": "pbx01", "boot_id": BOOT}),
    "no number": json.dumps({"state": "serving", "ends": "1", "node": "a", "boot_id": BOOT}),
    "true": json.dumps({"state": "serving", "ends": True, "node": "a", "boot_id": BOOT}),
    "endless": '{"state": "serving", "ends": Infinity, "node": "a", "boot_id": "0"}',
    "large": f'{{"state": "serving", "ends": 1{"0" * 400}, "node": "a", "boot_id": "0"}}',
    "a command": json.dumps({"state": "serving", "ends": 1, "node": "$(reboot)", "boot_id": BOOT}),
    "a path": json.dumps({"state": "serving", "ends": 1, "node": "a", "boot_id": "../../x"}),
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=list(NONSENSE))
def test_nonsense_is_no_word_and_is_not_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert "root" not in str(caught.value)
    assert "reboot" not in str(caught.value)


def test_a_word_survives_its_file(tmp_path: Path) -> None:
    for each in (STOPPED, Word(BOOT, "pbx01"), Word(BOOT, "pbx-2.b", ends=12.345)):
        write(tmp_path / "file", each)
        assert read(tmp_path / "file") == each


def test_neither_a_link_nor_a_pipe_is_read(tmp_path: Path) -> None:
    write(tmp_path / "file", STOPPED)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"):
        read(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no plain file"):
        read(tmp_path / "pipe")


# Real processes


class Guarded:
    """pbx01 of a pair, and its guard."""

    def __init__(self, two: CliPair) -> None:
        self.two, self.folder = two, two.folder / "pbx01"
        self.file = self.folder / "serving.json"
        self.agent: subprocess.Popen[str] | None = None
        self.guard = self.start_guard()

    def start_guard(self) -> "subprocess.Popen[str]":
        with (self.folder / "guard").open("a") as said:
            self.guard = subprocess.Popen(
                [
                    *(sys.executable, "-m", "understudy.guard"),
                    *("--config", str(self.two.config("pbx01")), "--node", "pbx01"),
                ],
                text=True,
                stdin=subprocess.DEVNULL,
                stderr=said,
            )
        self.two.running.append(self.guard)
        until(lambda: "guarding the PBX of pbx01" in self.said, within=15, what="a guard")
        return self.guard

    def start_agent(self) -> "subprocess.Popen[str]":
        self.agent = self.two.start("pbx01", "run")
        until(lambda: self.pbx, within=15, what="the PBX runs")
        until(lambda: self.ends > now() - 5, within=15, what="an instant")
        return self.agent

    def start_pbx(self, seconds: float) -> float:
        """As left behind by an agent whose proofs end in so many seconds."""
        subprocess.run([self.folder / "start"], check=True)
        until(lambda: self.pbx, within=5, what="the PBX runs")
        write(self.file, Word(BOOT, "pbx01", ends=now() + seconds))
        return now() + seconds

    def stops_at(self, within: float = 40) -> float:
        """Boot time."""
        ends = now() + within
        while self.pbx:
            assert now() < ends, f"the PBX still runs\n{self.said}"
            time.sleep(0.02)
        return now()

    @property
    def pbx(self) -> int:
        try:
            return self.two.pbx_pid("pbx01")
        except FileNotFoundError:  # Just now.
            return 0

    @property
    def ends(self) -> float:
        try:
            return read(self.file).ends or 0.0
        except FileNotFoundError:
            return 0.0

    @property
    def said(self) -> str:
        return (self.folder / "guard").read_text()

    def events(self) -> str:
        return self.two.here("pbx01", "events").out


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Guarded]:
    with pair(tmp_path, checkpoints_stale="6s", patience="12s") as made:
        made.begin("pbx01")
        yield Guarded(made)


def test_a_pbx_whose_agent_was_killed_goes_on_until_its_proofs_end(here: Guarded) -> None:
    agent = here.start_agent()
    until(lambda: here.ends > now() + 2, within=15, what="the check points prove it too")
    agent.kill()
    agent.wait()
    ends = here.ends
    stopped = here.stops_at()
    assert stopped >= ends  # By a second or so; a loaded machine takes its time.
    assert "it is stopped" in here.said
    # The guard's command tells it when the PBX has stopped, thus a moment later.
    until(lambda: "the guard stopped the PBX at" in here.events(), within=15, what="its event")

    # The next agent starts it again as soon as the claim allows.
    here.start_agent()
    assert "[pbx-stopped-unseen]" in here.two.said("pbx01")


def test_an_agent_that_is_back_in_time_is_no_event(here: Guarded) -> None:
    agent = here.start_agent()
    pbx = here.pbx
    until(lambda: here.ends > now() + 2, within=15, what="the check points prove it too")
    agent.kill()
    agent.wait()
    ends = here.ends
    here.two.start("pbx01", "run")
    until(lambda: here.ends > ends or now() > ends, within=15, what="another instant")
    if now() > ends:
        pytest.skip("this machine took longer to start an agent than its proofs last")
    until(lambda: now() > ends + 2, within=15, what="the old instant has passed")
    assert here.pbx == pbx
    assert "stopped" not in here.said


def test_an_agent_that_hangs_is_noticed_and_finds_its_pbx_stopped(here: Guarded) -> None:
    agent = here.start_agent()
    agent.send_signal(signal.SIGSTOP)
    try:
        ends = here.ends
        assert here.stops_at() >= ends
    finally:
        agent.send_signal(signal.SIGCONT)
    until(lambda: "-> silent" in here.two.said("pbx01"), within=15, what="the agent is silent")
    until(lambda: here.pbx, within=15, what="and starts the PBX again")
    assert here.two.json("pbx01", "status")["phase"] in ("taking-over", "active", "doubted")


def test_broken_glass_is_honoured_and_said_once(here: Guarded) -> None:
    (here.two.folder / "break-glass").touch()
    ends = here.start_pbx(0.5)
    until(lambda: "the glass is broken" in here.said, within=10, what="a word")
    until(lambda: now() > ends + 3, within=10, what="some looks")
    assert here.pbx
    assert here.said.count("the glass is broken") == 1
    (here.two.folder / "break-glass").unlink()
    here.stops_at()


def test_a_guard_that_was_killed_holds_the_same_instant(here: Guarded) -> None:
    ends = here.start_pbx(4.0)
    here.guard.kill()
    here.guard.wait()
    (here.folder / "guard").unlink()
    here.start_guard()
    assert here.stops_at() >= ends


def test_a_stop_that_fails_is_tried_again(here: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, pid_file = here.folder / "stop", here.folder / "pid"
    works = stop.read_text()
    stop.write_text("#!/bin/sh\necho no >&2; exit 1\n")
    config = here.two.config("pbx01")
    config.write_text(config.read_text().replace(f'pid_file = "{pid_file}"\n', ""))
    nft = here.two.folder / "nft"  # There is none here that could shut SIP off.
    nft.write_text("#!/bin/sh\nexit 1\n")
    nft.chmod(0o755)
    here.guard.kill()
    here.guard.wait()
    (here.folder / "guard").unlink()
    monkeypatch.setenv("PATH", f"{here.two.folder}:{os.environ['PATH']}")
    here.start_guard()
    here.start_pbx(0.5)
    until(lambda: "the PBX still runs: once more" in here.said, within=40, what="a failure")
    assert "by plain commands" in here.said
    assert here.pbx
    stop.write_text(works)
    here.stops_at(within=40)
    assert "the guard cannot stop the PBX" in here.events()


def test_it_stops_the_pbx_when_the_program_is_broken(here: Guarded) -> None:
    config = here.two.config("pbx01")
    config.write_text("nonsense")
    here.start_pbx(0.5)
    here.stops_at()
    until(lambda: "guard: the PBX is stopped" in here.said, within=10, what="a word")
    until(lambda: "what it said before holds" in here.said, within=15, what="and why")
    assert "by plain commands" in here.said


def test_garbage_in_the_file_changes_nothing(here: Guarded) -> None:
    ends = here.start_pbx(6.0)
    time.sleep(2.5)  # It has read that.
    here.file.write_text("rm -rf /")
    until(lambda: "makes no sense (no JSON)" in here.said, within=10, what="a word")
    assert here.stops_at() >= ends
    assert "rm -rf" not in here.said


def test_a_word_of_another_boot_or_another_node_is_none(here: Guarded) -> None:
    here.start_pbx(100)
    write(here.file, Word("0-0", "pbx01", ends=now() - 5))
    time.sleep(1.5)
    write(here.file, Word(BOOT, "pbx02", ends=now() - 5))
    time.sleep(1.5)
    assert here.pbx
    assert "stopped" not in here.said


def test_a_pbx_that_a_person_starts_without_an_agent_is_held_to_first_proof(here: Guarded) -> None:
    assert here.two.here("pbx01", "may-start").code == 0
    ends = here.ends
    assert now() < ends < now() + 2.1
    subprocess.run([here.folder / "start"], check=True)
    assert here.stops_at() >= ends


def test_it_is_small_and_knows_little(here: Guarded) -> None:
    rollup = Path(f"/proc/{here.guard.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 10_000  # kB; the interpreter itself is shared with the agent.


# Asleep


class Asleep:
    """A guard in this process, whose clocks are the test's.  `program` explains, and notes that it stopped the PBX."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = Times(NOW, NOW, 1e9)
        self.stopped = folder / "stopped"
        self.file = folder / "serving.json"
        plan = {"node": "pbx01", "file": str(self.file), "glass": "/nonexistent", "stop_within": 5}
        plan |= {"stop": ["touch", str(self.stopped)], "plain": [], "gone": [], "gone_codes": []}
        plan |= {"shut": [], "shut_input": ""}
        (folder / "plan").write_text(json.dumps(plan))
        monkeypatch.setattr("understudy.guard.now", lambda: self.at)
        self.said: list[str] = []
        program = ["sh", "-c", f"cat {folder}/plan"]
        self.guard = Guard(program, folder / "config", lambda _, text: self.said.append(text))
        until(self._explained, within=10, what="a plan")

    def _explained(self) -> bool:
        self.guard.turn()
        return bool(self.said)

    def turn(self, *, boot: float = 0.0, asleep: float = 0.0, frozen: float = 0.0) -> bool:
        """Seconds pass, awake, asleep, or with all clocks standing still; is the PBX stopped after a look?"""
        boot_time, monotonic, wall = self.at
        self.at = Times(boot_time + boot + asleep, monotonic + boot, wall + boot + asleep + frozen)
        self.guard.turn()
        return self.stopped.exists()


@pytest.fixture
def asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asleep:
    made = Asleep(tmp_path, monkeypatch)
    write(made.file, Word(BOOT, "pbx01", ends=NOW + 10))
    return made


def test_awake_it_stops_the_pbx_at_the_instant(asleep: Asleep) -> None:
    assert not asleep.turn(boot=10)
    assert asleep.turn(boot=0.02)


def test_a_living_agent_has_a_moment_after_a_sleep_to_say_so(asleep: Asleep) -> None:
    assert not asleep.turn(asleep=100)
    write(asleep.file, Word(BOOT, "pbx01", ends=NOW + 115))
    assert not asleep.turn(boot=14)
    assert asleep.turn(boot=2)


@pytest.mark.parametrize("how", ["asleep", "frozen"])
def test_after_a_sleep_a_dead_agent_gets_no_more_than_that(asleep: Asleep, how: str) -> None:
    assert not asleep.turn(boot=9.5)
    assert not asleep.turn(**{how: 100})
    assert not asleep.turn(boot=2.9)
    assert asleep.turn(boot=0.2)


def test_what_was_stopped_is_left_alone_until_an_agent_speaks_again(asleep: Asleep) -> None:
    assert asleep.turn(boot=11)
    asleep.stopped.unlink()
    assert not asleep.turn(boot=100)
    write(asleep.file, Word(BOOT, "pbx01", ends=NOW + 112))
    assert asleep.turn(boot=2)


# What it is told to run


def test_a_unit_of_systemd_is_stopped_by_plain_systemctl(tmp_path: Path) -> None:
    made = CliPair(tmp_path, patience="1m", announce="40s")
    config = made.config("pbx01")
    text = config.read_text()
    service = text[text.index("[service]") : text.index("[journal]")]
    config.write_text(text.replace(service, '[service]\nkind = "systemd"\nunit = "asterisk"\n'))
    plan = plan_from(made.here("pbx01", "guard", "--explain").out)
    assert plan.file == tmp_path / "pbx01" / "serving.json"
    assert plan.glass == tmp_path / "break-glass"
    assert [argv[-1] for argv in (*plan.plain, plan.gone)] == ["asterisk"] * 3
    assert plan.stop[-2:] == ["guard", "--stop"]
    assert "5060" in plan.shut_input


def test_the_file_lies_in_memory_where_the_journal_is_in_its_usual_place() -> None:
    assert str(place(Path("/var/lib/understudy/journal.sqlite3"))) == "/run/understudy/serving.json"
    assert str(place(Path("/srv/x/journal.sqlite3"))) == "/srv/x/serving.json"


def test_a_wrong_call_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy.guard", "--stop"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
