#!/usr/bin/env python3
"""How long is nobody answered on the way home?  Understudy's failback, and the article's, in the laboratory.

    .venv/bin/python benchmarks/failback.py [--rows 200000] [--megabytes 200] [--json FILE]

ours          everything has been copied ahead: `understudy failback apply`, from pbx02 to pbx01
article       the PBX stops; mariadb-dump | ssh mariadb, and rsync of the voicemail, of which the other node has
              nothing; the other PBX starts; nsupdate
article-best  the same where all of the voicemail is at the other node already

Callers of every kind call all the time; `gap` is what benchmarks/outage.py calls an outage.
"""

# ruff: noqa: E402 (sys.path first)

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # `import lab` means the folder.
sys.path.insert(1, f"{sys.path[0]}/src")

from benchmarks import outage
from lab import callers, machines, pair
from lab.callers import KINDS
from lab.hosts import HOSTS, NODES, LabError
from lab.profile import SERVICE

PROFILE = "data"
LEAD = 5.0  # Seconds of calls before it begins.
AGAIN_WITHIN = (
    180.0  # Seconds after its end, until who asks the authoritative server is answered again.
)
COPIED_WITHIN = 600.0
VOICEMAIL = "/var/spool/asterisk/voicemail"
MESSAGE = 500_000  # Bytes of a message.
SSH = "ssh -o StrictHostKeyChecking=no -o BatchMode=yes"
WAITED_FOR = ("dispatcher", "registrar", "name0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of going home."""

    name: str
    took: float  # Seconds, of the whole command or script.
    callers: outage.Run

    @property
    def gap(self) -> float | None:
        return self.callers["name0"].outage


def fill(rows: int, megabytes: int) -> None:
    """On pbx01."""
    insert = (
        "INSERT INTO cdr.cdr (calldate, clid, src, dst, channel, lastapp, duration, uniqueid)"
        " SELECT NOW() - INTERVAL seq SECOND, '\"Somebody\" <03012345678>', '03012345678', '6001',"
        " 'PJSIP/prov-00000001', 'Dial', seq % 600, CONCAT('bench-', seq) FROM seq_{}_to_{}"
    )
    step = 20_000  # A transaction of all of them would be one of its kind.
    for first in range(1, rows + 1, step):
        last = min(rows, first + step - 1)
        _on("pbx01", "mariadb", "cdr", "-e", insert.format(first, last))
    folder = f"{VOICEMAIL}/default/6001/INBOX"
    count = megabytes * 1_000_000 // MESSAGE
    _on(
        "pbx01", "sh", "-ec",
        f"umask 022; mkdir -p {folder}; cd {folder}; for n in $(seq 0 {count - 1}); do f=msg$(printf %04d $n); "
        f"head -c {MESSAGE} /dev/urandom >$f.wav; printf '[message]\\nmsg_id=%s\\n' $f >$f.txt; done; "
        f"chown -R asterisk: {VOICEMAIL}/default",
    )  # fmt: skip


def wait_until_copied(node: str) -> None:
    """Everything there is by now is at `node`."""
    began = time.time()

    def is_copied() -> bool:
        found = (pair.status(node).get("copies") or {}).get("classes", ())
        return bool(found) and all(each["as_of"] > began for each in found)

    machines.until(is_copied, within=COPIED_WITHIN, what=f"{node} has copied all")


# The ways


def ours() -> None:
    said = _on("pbx02", "understudy", "failback", "plan")
    found = re.search(r"failback apply (\w+)", said)
    if found is None:
        raise LabError(f"there is no plan: {said}")
    _on("pbx02", "understudy", "failback", "apply", found[1], "--yes")


def article(source: str, target: str) -> None:
    """As its script does it, with the fastest of everything it names."""
    there = f"root@{HOSTS[target].address}"
    _on(source, "systemctl", "stop", "asterisk")
    _on(
        source, "sh", "-ec",
        f"mariadb-dump --databases cdr --add-drop-database --single-transaction | {SSH} {there} mariadb; "
        f"rsync -a --delete -e '{SSH}' {VOICEMAIL}/ {there}:{VOICEMAIL}/; "
        f"rsync -a -e '{SSH}' /var/lib/asterisk/astdb.sqlite3 {there}:/var/lib/asterisk/",
    )  # fmt: skip
    _on(target, "systemctl", "start", "asterisk")
    pair.nsupdate(
        f"update delete {SERVICE} CNAME",
        f"update add {SERVICE} 30 CNAME {target}.example.test.",
    )


def leave_understudy() -> None:
    """Two PBXs with nothing of ours: pbx01 serves, pbx02 has neither database nor voicemail."""
    for node in NODES:
        _on(node, "touch", "/etc/understudy/break-glass")
        _on(node, "systemctl", "stop", "understudy", "understudy-copier", "understudy-guard")
    _on(
        "pbx02",
        "mariadb",
        "-e",
        "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0; DROP DATABASE cdr",
    )
    _on("pbx01", "mariadb", "-e", "SET GLOBAL read_only=0, GLOBAL rpl_semi_sync_master_enabled=0")
    _on("pbx02", "sh", "-c", f"systemctl stop asterisk; rm -rf {VOICEMAIL}/*")
    _on("pbx01", "systemctl", "start", "asterisk")


# Measuring


async def measured(name: str, way: Callable[[], None]) -> Way:
    async with callers.calling() as calling:
        begun = time.time()
        await asyncio.sleep(LEAD)
        at = time.monotonic()
        await asyncio.to_thread(way)
        took = time.monotonic() - at
        ends = time.time() + AGAIN_WITHIN
        while time.time() < ends:
            await asyncio.sleep(0.5)
            if all(_is_well(calling, kind) for kind in WAITED_FOR):
                break
        until = time.time()
        found = {kind: outage.measure(calling.attempts[kind], begun, until) for kind in KINDS}
    print(f"{name}: took {took:.1f} s", file=sys.stderr)
    return Way(name=name, took=took, callers=found)


def _is_well(calling: callers.Callers, kind: str) -> bool:
    over = [each for each in calling.recent(kind, 7.0) if each.why != "not over"][-8:]
    return len(over) == 8 and all(each.answered for each in over)


def run(rows: int, megabytes: int) -> list[Way]:
    """Raises LabError."""
    if pair.is_up(PROFILE):
        pair.reset_pair("prov")
    else:
        pair.down()
        pair.up(PROFILE)
    pair.settle()
    fill(rows, megabytes)
    wait_until_copied("pbx02")
    _on("pbx01", "understudy", "switchover", "--yes")
    machines.until(
        lambda: (pair.phase("pbx01"), pair.phase("pbx02")) == ("standby", "active"),
        within=60, what="pbx02 is active",
    )  # fmt: skip
    wait_until_copied("pbx01")
    time.sleep(10)  # Providers and phones have found it.
    ways = [asyncio.run(measured("ours", ours))]
    leave_understudy()
    time.sleep(10)
    ways.append(asyncio.run(measured("article", lambda: article("pbx01", "pbx02"))))
    time.sleep(10)
    ways.append(asyncio.run(measured("article-best", lambda: article("pbx02", "pbx01"))))
    return ways


def table(ways: Sequence[Way]) -> str:
    lines = [
        f"| caller | {' | '.join(way.name for way in ways)} |",
        f"|---|{'---|' * len(ways)}",
    ]
    for kind in WAITED_FOR:  # The others come when they ask again: see the JSON.
        row = (outage.spread([way.callers[kind].outage]) for way in ways)
        lines.append(f"| {kind} | {' | '.join(row)} |")
    lines.append(f"| the whole took, s | {' | '.join(f'{way.took:.1f}' for way in ways)} |")
    first, *others = ways
    for way in others:
        if first.gap and way.gap:
            lines.append(
                f"\n{way.name}: {way.gap / first.gap:.1f} times the gap of {first.name} (name0)"
            )
    return "\n".join(lines)


def as_json(rows: int, megabytes: int, ways: Sequence[Way]) -> str:
    found = {
        way.name: {
            "took": way.took,
            "callers": {kind: asdict(seen) for kind, seen in way.callers.items()},
        }
        for way in ways
    }
    return json.dumps({"rows": rows, "megabytes": megabytes, "ways": found}, indent=2) + "\n"


def _on(node: str, *argv: str) -> str:
    return machines.execute(node, *argv, check=True, timeout=900).stdout


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    try:
        ways = run(given.rows, given.megabytes)
    except LabError as error:
        print(f"failback: {error}", file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(as_json(given.rows, given.megabytes, ways))
    print(table(ways))
    return 0


if __name__ == "__main__":
    sys.exit(main())
