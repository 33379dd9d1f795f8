"""A PBX's data, one item at a time: written as Asterisk and its administrator write it, and counted afterwards.

Every item has a name of its own, so that each can be looked for where it should be: at the node that serves, once; or
in what a node has kept aside.
"""

import itertools
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import machines, pair
from lab.hosts import HOSTS, NODES

from end_to_end.lab.stage import Stage, until

KINDS = ("voicemail", "recordings", "rows", "astdb", "settings")
MERGED = ("voicemail", "recordings", "rows")  # What a rule adds at the node that serves.
CLASSES = {
    "voicemail": "voicemail",
    "recordings": "recordings",
    "rows": "database",
    "astdb": "astdb",
    "settings": "config",
}
INBOX = "var/spool/asterisk/voicemail/default/6001/INBOX"
MONITOR = "var/spool/asterisk/monitor"
SETTINGS = "etc/asterisk"
ASTDB = "var/lib/asterisk/astdb.sqlite3"
COPIES = "var/lib/understudy/copies"
ROWS = ("mariadb", "-uasterisk", "-pcdr", "cdr")
LATEST = 1.2  # Seconds: Asterisk commits what is in astdb once in a second.
CURRENT_WITHIN = 90.0  # Seconds; a new standby's database is filled in them.
BACK_WITHIN = 240.0
# One message, as app_voicemail leaves it: the sound first, and what makes it count last.
_MESSAGE = """
cd {inbox}; n=0; while test -e $(printf msg%04d.txt $n); do n=$((n+1)); done; name=$(printf msg%04d $n)
printf '%s' '{name}' >$name.wav; chown asterisk: $name.wav
printf '[message]\\norigmailbox=6001\\norigtime=1795400000\\nduration=3\\nmsg_id={name}\\n' >.{name}
chown asterisk: .{name}; mv .{name} $name.txt
"""


@dataclass
class Ledger:
    """What was written and acknowledged, by kind."""

    stage: Stage
    prefix: str = "item"
    written: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def write(self, node: str, *kinds: str) -> dict[str, str]:
        """One of each kind (or of these) at `node`; its names by kind."""
        return {kind: self._write(node, kind) for kind in kinds or KINDS}

    def _write(self, node: str, kind: str) -> str:
        name = f"{self.prefix}-{next(self._numbers)}-{node}"
        WRITERS[kind](self.stage, node, name)
        self.written[kind].append(name)
        return name

    def forget_uncommitted(self, node: str) -> None:
        """After a power cut: what Asterisk has said yes to and not written yet, as it does once a second, is gone."""
        held = set(keys(root(node) / ASTDB))
        mine = [name for name in self.written["astdb"] if name.endswith(node)]
        gone = [name for name in mine if name not in held and name not in kept_aside("astdb")]
        for name in gone:
            self.written["astdb"].remove(name)
        if gone:
            print(f"Asterisk had not written {', '.join(gone)} yet when the power went")

    def missing(self, node: str, *kinds: str) -> dict[str, list[str]]:
        """What is not at `node`, of all that was written."""
        found = {kind: found_at(node, kind) for kind in kinds or KINDS}
        return {
            kind: [name for name in self.written[kind] if not found[kind][name]] for kind in found
        }

    def check(self, node: str) -> None:
        """Every item is at `node` once, or kept aside by some node; said with numbers."""
        lost: list[str] = []
        twice: list[str] = []
        lines: list[str] = []
        for kind in KINDS:
            here, aside = found_at(node, kind), kept_aside(kind)
            names = self.written[kind]
            kept = [name for name in names if not here[name] and name in aside]
            lost += [f"{kind} {name}" for name in names if not here[name] and name not in aside]
            twice += [f"{kind} {name}" for name in names if here[name] > 1]
            lines.append(
                f"{kind}: {len(names)} written, {len(names) - len(kept)} at {node}, {len(kept)} aside"
            )
            if kind in MERGED:
                assert not kept, f"{kind}: not merged but kept aside alone: {kept}\n{reports()}"
        print("; ".join(lines))
        assert not lost, f"lost: {lost}\n{reports()}{self.stage.said()}"
        assert not twice, f"twice: {twice}\n{reports()}{self.stage.said()}"


# Writing


def shell(stage: Stage, node: str, script: str, *, timeout: float = 60.0) -> str:
    return stage.run(node, "sh", "-ec", script, timeout=timeout)


def asterisk(stage: Stage, node: str, command: str) -> str:
    return stage.run(node, "asterisk", "-rx", command)


def write_voicemail(stage: Stage, node: str, name: str) -> None:
    inbox = f"/{INBOX}"
    parts = " ".join(str(each) for each in reversed(Path(inbox).parents[:3]))
    made = f"for d in {parts} {inbox}; do test -d $d || install -d -o asterisk -g asterisk $d; done"
    shell(stage, node, made + _MESSAGE.format(inbox=inbox, name=name))


def write_recording(stage: Stage, node: str, name: str) -> None:
    path = f"/{MONITOR}/{name}.wav"
    shell(
        stage,
        node,
        f"printf '%s' {name} >{path}.part; chown asterisk: {path}.part; mv {path}.part {path}",
    )


def write_row(stage: Stage, node: str, name: str) -> None:
    """As Asterisk's user; acknowledged when it returns."""
    stage.run(node, *ROWS, "-e", f"INSERT INTO cdr (calldate, uniqueid) VALUES (NOW(), '{name}')")


def write_astdb(stage: Stage, node: str, name: str) -> None:
    said = asterisk(stage, node, f"database put lab {name} 1")
    assert "successfully" in said, said


def write_setting(stage: Stage, node: str, name: str) -> None:
    """A file of the administrator's."""
    path = f"/{SETTINGS}/{name}.conf"
    shell(stage, node, f"echo '; {name}' >{path}; chown asterisk: {path}; chmod 640 {path}")


WRITERS: Mapping[str, Callable[[Stage, str, str], None]] = {
    "voicemail": write_voicemail,
    "recordings": write_recording,
    "rows": write_row,
    "astdb": write_astdb,
    "settings": write_setting,
}


# Counting.  Files are looked at from outside: through the overlay of the host, whether it is on or not.


def root(node: str) -> Path:
    return HOSTS[node].folder / "root"


def found_at(node: str, kind: str) -> Counter[str]:
    """How often each item is in place."""
    match kind:
        case "voicemail":
            return messages(root(node) / "var/spool/asterisk/voicemail")
        case "recordings":
            return Counter(path.stem for path in (root(node) / MONITOR).rglob("*.wav"))
        case "rows":
            return rows(node)
        case "astdb":
            time.sleep(LATEST)
            return Counter(keys(root(node) / ASTDB))
    return Counter(path.stem for path in (root(node) / SETTINGS).glob("*.conf"))


def messages(top: Path) -> Counter[str]:
    """Whole ones, by msg_id."""
    found: Counter[str] = Counter()
    for path in top.rglob("msg*.txt"):
        told = re.search(r"^msg_id=(.+)$", path.read_text(errors="replace"), re.MULTILINE)
        if told and path.with_suffix(".wav").exists():
            found[told[1]] += 1
    return found


def rows(node: str) -> Counter[str]:
    """Of cdr, by uniqueid and sequence where that is not 0."""
    ask = "SELECT uniqueid, sequence FROM cdr.cdr"
    said = machines.execute(node, "mariadb", "-N", "-B", "-e", ask, check=True).stdout
    pairs = (line.split("\t") for line in said.splitlines())
    return Counter(name if number == "0" else f"{name}/{number}" for name, number in pairs)


def keys(path: Path) -> list[str]:
    """Of astdb, below /lab/.  Without a lock: Asterisk would lose what it writes at that moment."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        found = db.execute("SELECT key FROM astdb WHERE key LIKE '/lab/%'").fetchall()
    return [str(key).removeprefix("/lab/") for (key,) in found]


def asides(kind: str) -> list[Path]:
    """What both nodes have kept aside, in all epochs."""
    return [
        path
        for node in NODES
        for path in sorted((root(node) / COPIES / CLASSES[kind] / "aside").glob("*Z"))
    ]


def kept_aside(kind: str) -> set[str]:
    found: set[str] = set()
    for aside in asides(kind):
        match kind:
            case "voicemail":
                found |= set(messages(aside))
            case "rows":
                text = (aside / "only-here.sql").read_text(errors="replace")
                found |= set(re.findall(r"'([\w-]*-pbx0[12])'", text))
            case "astdb":
                for path in aside.rglob("astdb.sqlite3"):
                    found |= set(keys(path))
            case _:
                found |= {path.stem for path in aside.rglob("*") if path.is_file()}
    return found


def reports() -> str:
    """What became of it, as the copiers have written it."""
    lines = []
    for kind in KINDS:
        for aside in asides(kind):
            report = aside.with_name(f"{aside.name}.merged.json")
            said = report.read_text() if report.exists() else "not merged"
            lines.append(f"{aside}: {said}\n")
    return "".join(lines)


# The copy, and the way home


def copies(node: str) -> dict[str, dict[str, Any]]:
    """What its copier says, by class."""
    found = pair.status(node).get("copies") or {}
    return {each["name"]: each for each in found.get("classes", ())}


def wait_for_copies(stage: Stage, node: str = "pbx02", *, within: float = CURRENT_WITHIN) -> None:
    """Everything that has been written by now is at `node`."""
    time.sleep(1.2)  # Asterisk commits what it has acknowledged to its astdb within a second.
    began = time.time()

    def current() -> bool:
        found = copies(node)
        return bool(found) and all(each["as_of"] > began for each in found.values())

    until(
        current, within=within, what=lambda: f"{node} has copied all: {copies(node)}{more(stage)}"
    )


def wait_for_trouble(stage: Stage, name: str, *words: str, within: float = 30.0) -> str:
    """pbx02 says about that class all of these words; what it says."""
    until(
        lambda: all(word in copies("pbx02").get(name, {}).get("trouble", "") for word in words),
        within=within,
        what=lambda: f"the trouble of {name} has {words}: {copies('pbx02').get(name)}{more(stage)}",
    )
    shown = stage.run("pbx02", "understudy", "status", check=False)
    trouble = str(copies("pbx02")[name]["trouble"])
    assert words[0] in shown, shown
    return trouble


def wait_for_health(stage: Stage, *names: str, within: float = 45.0) -> None:
    until(
        lambda: not any(copies("pbx02")[name]["trouble"] for name in names or CLASSES.values()),
        within=within,
        what=lambda: f"the copies are well: {copies('pbx02')}{more(stage)}",
    )


def more(stage: Stage) -> str:
    parts = [
        f"\n-- {node}'s copier\n{stage.journal(node, 'understudy-copier')}"
        f"\n-- {node}\n{stage.journal(node, 'understudy', 'mariadb')}"
        for node in NODES
    ]
    return "".join(parts)


def go_home(stage: Stage) -> tuple[str, float]:
    """`understudy failback`, as a person types it; what was said, and how many seconds it took."""
    until(
        lambda: stage.phase("pbx01") in ("outdated", "standby"),
        within=60,
        what=lambda: f"pbx01 knows its place: {stage.phase('pbx01')}{stage.said()}",
    )
    planned = [""]

    def is_planned() -> bool:
        planned[0] = stage.run("pbx02", "understudy", "failback", "plan", check=False)
        return "do it with" in planned[0]

    until(is_planned, within=60, what=lambda: f"a plan: {planned[0]}{more(stage)}")
    found = re.search(r"failback apply (\w+)", planned[0])
    assert found, planned[0]
    began = time.monotonic()
    words = ("understudy", "failback", "apply", found[1], "--yes")
    done = machines.execute("pbx02", *words, timeout=BACK_WITHIN)
    took = time.monotonic() - began
    assert done.returncode == 0, (
        f"{planned[0]}\n{done.stdout}{done.stderr}{more(stage)}{stage.said()}"
    )
    stage.wait_for_service("pbx01", within=30)
    assert stage.phase("pbx01") == "active", stage.said()
    return planned[0] + done.stdout + done.stderr, took
