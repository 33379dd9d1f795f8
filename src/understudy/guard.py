"""The guard: outside the agent, stops the PBX when both proofs have ended and no agent has moved that instant (S2).

A process of its own, small, and of the standard library only: what breaks the agent is not to break it too.  The
agent writes the instant into a file (runtime.guard_file).  A short-lived process, `understudy guard --explain`, says
how the PBX is stopped here, so that this one holds no more than that.  See docs/explanation/guard.md.

The file belongs to the agent's user and this process to root: nothing in it is run, believed without a check, or told.
"""

import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

PACE = 1.0  # Seconds between two looks at the file, at most.
AGAIN = 3.0  # Seconds between two attempts to stop a PBX.
WAKE = 3.0  # Seconds that a living agent has to say so after the machine has slept (V5).
SLEPT = (
    2.0  # Seconds by which two clocks may differ between two looks, or by which a look may be late.
)
EXPLAIN_WITHIN = 30.0  # Seconds for `understudy guard --explain`,
EXPLAIN_AGAIN = 30.0  # and until it is asked again when it failed.
PROGRAM = 20.0  # Seconds that `understudy guard --stop` may take beyond stop_within.
LARGEST = 4096  # Bytes.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)
CONFIG = Path("/etc/understudy/understudy.toml")
GONE = ("inactive", "failed", "unknown")  # What systemctl(1) `is-active` prints then.


class Word(NamedTuple):
    """What the agent last told the guard."""

    boot_id: str  # In which life of the machine `ends` counts.
    node: str
    stopped: bool = False  # The PBX is proved stopped.
    ends: float | None = (
        None  # Boot-time seconds: both proofs are too old then.  None: there is no limit.
    )

    def text(self) -> str:
        state = "stopped" if self.stopped else "serving"
        ends = None if self.ends is None else round(self.ends, 3)
        return json.dumps(
            {"state": state, "ends": ends, "node": self.node, "boot_id": self.boot_id}
        )


def parse(text: str) -> Word:
    """Raises ValueError, which tells nothing of the text: it may be any file of this machine."""
    try:
        found = json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # noqa: TRY004
    state, ends = found.get("state"), found.get("ends")
    boot_id, node = found.get("boot_id"), found.get("node")
    if state not in ("serving", "stopped"):
        raise ValueError('its "state" is neither "serving" nor "stopped"')
    if ends is not None and (type(ends) is not float or not math.isfinite(ends)):
        raise ValueError('its "ends" is no number')
    if not isinstance(boot_id, str) or not re.fullmatch(r"[0-9a-f-]{1,64}", boot_id):
        raise ValueError('its "boot_id" is none')
    if not isinstance(node, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", node):
        raise ValueError('its "node" is no name')
    return Word(boot_id, node, state == "stopped", ends)


def read(path: Path) -> Word:
    """Raises OSError, ValueError."""
    # Neither through a link to another file nor waiting at a pipe.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError("it is no plain file")
        text = os.read(file, LARGEST)
    finally:
        os.close(file)
    return parse(text.decode("ascii", "replace"))


def python(module: str) -> list[str]:
    """-P: no module is looked for in the directory that a process happens to be in."""
    return [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module]


def boot_id() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip()


class Plan(NamedTuple):
    """How the PBX of this node is stopped, as `understudy guard --explain` prints it."""

    node: str
    file: Path
    glass: Path
    stop_within: float  # Seconds.
    stop: list[str]  # The house's own way.
    plain: list[list[str]]  # One after the other, when that does not work.
    gone: list[str]  # Prints one of GONE, or ends with one of `gone_codes`, when the PBX is gone.
    gone_codes: list[int]
    shut: list[str]  # When it is not gone: no SIP enters or leaves.
    shut_input: str


def plan_from(text: str) -> Plan:
    """Raises ValueError, KeyError, TypeError."""
    found: dict[str, Any] = json.loads(text)
    found.update({key: Path(found[key]) for key in ("file", "glass")})
    return Plan(**found)


class Times(NamedTuple):
    """Seconds, of clock_gettime(2)."""

    boot: float
    monotonic: float
    wall: float


def now() -> Times:
    return Times(
        time.clock_gettime(time.CLOCK_BOOTTIME),
        time.clock_gettime(time.CLOCK_MONOTONIC),
        time.time(),
    )


class Guard:
    """`program` is how `understudy` is called here, its global options included."""

    def __init__(
        self, program: Sequence[str], config: Path, say: Callable[[int, str], None]
    ) -> None:
        self._program, self._config, self._say = list(program), config, say
        self._boot_id = boot_id()
        self._plan: Plan | None = None
        self._explaining: subprocess.Popen[bytes] | None = None
        self._explained_at = -math.inf  # Monotonic seconds.
        self._explained_for = -1  # When the configuration was changed, of that one.
        self._word: Word | None = None
        self._done: Word | None = None  # For this one the PBX is stopped.
        self._again_at = -math.inf  # Boot-time seconds.
        self._not_before = -math.inf
        self._last: Times | None = None
        self._said = ""

    def turn(self) -> float:
        """Look, and do what is due; returns in how many seconds to look again."""
        at = now()
        if self._has_slept(at):
            self._not_before = at.boot + WAKE
        self._explain(at)
        wait = PACE if self._plan is None else self._guard(self._plan, at.boot)
        self._last = now()
        return min(max(wait, 0.01), PACE)

    def _guard(self, plan: Plan, boot: float) -> float:
        word = self._latest(plan)
        if word is None or word.stopped or word.ends is None or word == self._done:
            return PACE
        due = max(word.ends, self._not_before, self._again_at)
        if boot <= due:
            return due - boot
        if plan.glass.exists():
            self._say_once(
                f"no agent has a proof, but the glass is broken ({plan.glass}): the PBX goes on"
            )
            return PACE
        if self._stops(plan, word, boot - word.ends):
            self._done = word
        self._again_at = now().boot + AGAIN
        return PACE

    def _latest(self, plan: Plan) -> Word | None:
        """What the file says; where that is nothing, what it last said."""
        try:
            word = read(plan.file)
        except FileNotFoundError:
            return self._word
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._say_once(f"{plan.file} makes no sense ({why}): what it said before holds")
            return self._word
        if word.boot_id == self._boot_id and word.node == plan.node:
            self._word = word
        return self._word

    # Stopping

    def _stops(self, plan: Plan, word: Word, late: float) -> bool:
        """Is the PBX stopped, or shut off, or an agent back to see to it?"""
        self._say(4, f"no agent has proved for {late:.1f} s that the PBX may run: it is stopped")
        if self._runs(plan.stop, plan.stop_within + PROGRAM) == 0:
            return True
        if self._latest(plan) != word:
            return True
        if plan.glass.exists():
            return False
        self._say(3, "the program could not stop it: by plain commands")
        for argv in plan.plain:
            self._runs(argv, plan.stop_within)
        if self._is_gone(plan):
            self._say(4, "the PBX is stopped")
            return True
        if plan.shut and self._runs(plan.shut, 10.0, plan.shut_input) == 0:
            self._say(2, "the PBX could not be stopped: SIP is shut off on this machine")
            return True
        self._say(
            2, f"the PBX still runs: once more in {AGAIN:g} s.  Stop it by hand, or unplug it"
        )
        return False

    def _is_gone(self, plan: Plan) -> bool:
        if not plan.gone:
            return False
        try:
            asked = subprocess.run(
                plan.gone,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=10.0,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        said = asked.stdout.decode("utf-8", "replace").strip()
        return said in GONE if not plan.gone_codes else asked.returncode in plan.gone_codes

    def _runs(self, argv: Sequence[str], within: float, text: str = "") -> int:
        """The exit status; -1 when it could not be run, or not in time.  Its words go to standard error."""
        try:
            process = subprocess.Popen(
                list(argv), stdin=subprocess.PIPE, stdout=2, start_new_session=True
            )
        except (OSError, ValueError) as error:
            self._say(3, f"{argv[0]} could not be run: {error}")
            return -1
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.write(text.encode())
            process.stdin.close()
        ends = time.monotonic() + within
        while process.poll() is None:
            if time.monotonic() > ends:
                self._say(3, f"{argv[0]} did not end within {within:g} s: killed")
                _kill(process)
                return -1
            time.sleep(0.05)
        return process.returncode

    # How it is stopped here

    def _explain(self, at: Times) -> None:
        """Ask again when the configuration has changed; never wait for the answer."""
        if self._explaining is not None:
            self._take_explanation(self._explaining, at)
            return
        changed = _changed_at(self._config)
        failed = self._plan is None and at.monotonic - self._explained_at > EXPLAIN_AGAIN
        if changed == self._explained_for and not failed:
            return
        self._explained_for, self._explained_at = changed, at.monotonic
        try:
            self._explaining = subprocess.Popen(
                [*self._program, "guard", "--explain"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._say(3, f"{self._program[0]} could not be run: {error}")

    def _take_explanation(self, asked: "subprocess.Popen[bytes]", at: Times) -> None:
        if asked.poll() is None:
            if at.monotonic - self._explained_at > EXPLAIN_WITHIN:
                _kill(asked)
                self._explaining = None
                self._say(3, "understudy guard --explain does not answer")
            return
        self._explaining = None
        assert asked.stdout is not None
        with asked.stdout as out:
            text = out.read(16 * LARGEST)
        try:
            plan = plan_from(text.decode())
        except (ValueError, KeyError, TypeError):
            keeps = "nothing is guarded" if self._plan is None else "what it said before holds"
            self._say(3, f"understudy guard --explain ended with {asked.returncode}: {keeps}")
            return
        if plan != self._plan:
            self._plan = plan
            self._say(5, f"guarding the PBX of {plan.node}: {plan.file}")

    # Clocks and words

    def _has_slept(self, at: Times) -> bool:
        """Did the machine stand still since the last look ended?  (V5; some hypervisors stop all clocks but one.)"""
        if self._last is None:
            return False
        boot, monotonic, wall = (here - then for here, then in zip(at, self._last, strict=True))
        return boot - monotonic > SLEPT or wall - boot > SLEPT

    def _say_once(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(4, text)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _kill(process: "subprocess.Popen[Any]") -> None:
    """It may not die (a disk that hangs): it is not waited for."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    ends = time.monotonic() + 0.5
    while process.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)


def say(priority: int, text: str) -> None:
    """One line on standard error; with a priority where journald reads (sd-daemon(3))."""
    mark = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else ""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{mark}guard: {text}\n")
        sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    given = list(arguments)
    options: dict[str, str] = {}
    while given:
        name = given.pop(0)
        if name not in ("--config", "--node") or not given:
            sys.stderr.write("usage: python -m understudy.guard [--config FILE] [--node NAME]\n")
            return 2
        options[name] = given.pop(0)
    config = Path(options.get("--config") or os.environ.get("UNDERSTUDY_CONFIG") or CONFIG)
    where = ["--config", str(config)]
    if "--node" in options:
        where += ["--node", options["--node"]]
    guard = Guard([*python("understudy"), *where], config, say)
    while True:
        time.sleep(guard.turn())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
