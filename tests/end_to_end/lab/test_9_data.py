"""What is in the PBX survives: agents, phones, messages, calls and settings are there after a failover, and nothing is
lost or doubled on the way home.
"""

import asyncio
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable

import pytest
from lab import callers, machines, network, pair
from lab.hosts import HOSTS

from end_to_end.lab import data
from end_to_end.lab.data import Ledger, asterisk, go_home, shell, wait_for_copies, wait_for_trouble
from end_to_end.lab.stage import Stage, until

pytestmark = [pytest.mark.profile("data"), pytest.mark.timeout(900)]

AGENTS = ("6001", "6002")
RINGS_WITHIN = (
    1.0  # Seconds from Asterisk's first word to a ringing agent, on a machine that has time.
)
SPARE = 2.0  # And more of them on this one.
ROUNDS = int(os.environ.get("LAB_ROUNDS", "5"))
WRITER = """
import sys, threading, pymysql
def write(number):
    db = pymysql.connect(user="asterisk", password="cdr", database="cdr", unix_socket="/run/mariadbd/mysqld.sock",
                         autocommit=True)
    cursor, count = db.cursor(), 0
    while True:
        count += 1
        name = f"stream-{number}-{count}-pbx01"
        cursor.execute("INSERT INTO cdr (calldate, uniqueid) VALUES (NOW(), %s)", (name,))
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()
for number in range(6):
    threading.Thread(target=write, args=(number,)).start()
"""
STREAM = 6.0  # Seconds of it.
SEED = int(os.environ.get("LAB_SEED", str(random.randrange(10**6))))


def has_taken_over(stage: Stage) -> None:
    stage.wait_for_failover()
    assert stage.phase("pbx02") == "active", stage.said()


# A power cut


def test_agents_phones_and_messages_are_there_after_a_power_cut(stage: Stage) -> None:
    pair.settle()
    asyncio.run(log_in())
    pause("6002", "lunch", stage)
    asyncio.run(leave_message())
    shell(
        stage, "pbx01",
        "sed -i '/^\\[from-phones\\]/a exten => 655,1,Answer()' /etc/asterisk/extensions.conf; "
        "asterisk -rx 'dialplan reload'",
    )  # fmt: skip
    ledger = Ledger(stage)
    ledger.write("pbx01")
    calls = data.rows("pbx01")
    assert sum(calls.values()) > 1, f"no call was recorded: {calls}"
    wait_for_copies(stage)
    young = Ledger(stage, prefix="young")
    young.write("pbx01")
    machines.power_cut(["pbx01"])

    first, rang = asyncio.run(queue_call("pbx02", within=stage.failover_within))
    stage.wait_for_service("pbx02", within=10)
    print(f"an agent answered {rang - first:.2f} s after Asterisk's first word at pbx02")
    assert rang - first < RINGS_WITHIN + SPARE

    members = asterisk(stage, "pbx02", "queue show support")
    assert "PJSIP/6001" in members, members
    assert re.search(r"PJSIP/6002.*paused:lunch", members), members
    contacts = asterisk(stage, "pbx02", "pjsip show contacts")
    assert all(f" {number}/sip:" in contacts for number in AGENTS), contacts
    assert "655" in asterisk(stage, "pbx02", "dialplan show 655@from-phones")
    # The one that was left by telephone, and the ledger's.
    box = [path.read_text() for path in (data.root("pbx02") / data.INBOX).glob("msg*.txt")]
    assert any("callerchan=PJSIP/6002" in text for text in box), box
    assert not any(ledger.missing("pbx02").values()), f"{ledger.missing('pbx02')}{data.more(stage)}"
    lost = young.missing("pbx02")
    print(f"of what was written within 2 s before the power cut, pbx02 has not: {lost}")
    assert not lost["rows"], "an acknowledged row was lost, with semi-synchronous replication"
    missing = calls - data.rows("pbx02")
    assert not missing, f"calls that pbx02 does not know: {missing}"


async def log_in() -> None:
    """Each agent from his own phone."""
    for number in AGENTS:
        await dial(number, "702")


async def leave_message() -> None:
    await dial("6002", "800", hold=4.0)


async def dial(number: str, to: str, *, hold: float = 0.5) -> None:
    phone = callers.Phone(number)
    try:
        why = await phone.dial(to, 10.0, hold=hold)
        assert not why, f"{number} dialled {to}: {why}"
    finally:
        await phone.close()


def pause(number: str, reason: str, stage: Stage) -> None:
    said = asterisk(
        stage, "pbx01", f"queue pause member PJSIP/{number} queue support reason {reason}"
    )
    assert "paused interface" in said.lower(), said


async def queue_call(node: str, *, within: float) -> tuple[float, float]:
    """Calls the queue until an agent answers: when the PBX said its first word, and when he answered."""
    line = callers.Line("probeI")
    them = (HOSTS[node].address, 5060)
    ends = time.monotonic() + within
    first = 0.0
    try:
        while time.monotonic() < ends:
            heard, code = await line.insist("700", them, limit=30.0)
            first = first or heard
            if code == 200:
                return first, time.time()
    finally:
        line.close()
    raise AssertionError(f"no agent of {node} has answered within {within:g} s")


# What only pbx01 had


def test_what_only_pbx01_had_comes_home(stage: Stage) -> None:
    """The nodes are cut apart for the last seconds, and nobody waits for the standby to have a row."""
    ledger = Ledger(stage)
    ledger.write("pbx01")
    wait_for_copies(stage)
    stage.run("pbx01", "mariadb", "-e", "SET GLOBAL rpl_semi_sync_master_enabled=0")
    network.cut("pbx01", "pbx02")
    for _ in range(3):
        ledger.write("pbx01")
    time.sleep(data.LATEST)
    rows = stream_until_power_cut(2.0)
    has_taken_over(stage)
    for _ in range(2):
        ledger.write("pbx02")
    missing = ledger.missing("pbx02")
    assert all(len(missing[kind]) == 3 for kind in data.KINDS), missing
    here = data.rows("pbx02")
    late = [name for name in rows if not here[name]]
    print(f"{len(late)} of {len(rows)} acknowledged rows are not at pbx02 yet")
    assert late == rows
    network.heal_all()
    machines.start(["pbx01"])
    said, took = go_home(stage)
    print(f"{said}\nfailback apply took {took:.1f} s")
    ledger.written["rows"] += rows
    ledger.check("pbx01")
    wait_for_copies(stage)
    again = ledger.missing("pbx02", *data.MERGED)
    assert not any(again.values()), f"what was merged is not at the standby: {again}"


# Anything at any moment


def kill_agent(stage: Stage, dice: random.Random) -> None:
    shell(stage, dice.choice(["pbx01", "pbx02"]), "systemctl kill -s KILL understudy")


def kill_copier(stage: Stage, dice: random.Random) -> None:
    shell(stage, dice.choice(["pbx01", "pbx02"]), "systemctl kill -s KILL understudy-copier")


def cut_nodes(stage: Stage, dice: random.Random) -> None:
    del stage, dice
    network.cut("pbx01", "pbx02")


def lose_packets(stage: Stage, dice: random.Random) -> None:
    del stage, dice
    network.lose("pbx01", "pbx02", 20.0)


FAULTS: dict[str, Callable[[Stage, random.Random], None]] = {
    "agent": kill_agent,
    "copier": kill_copier,
    "cut": cut_nodes,
    "loss": lose_packets,
}


@pytest.mark.timeout(300 + 200 * ROUNDS)
def test_rounds_of_anything(stage: Stage) -> None:
    print(f"LAB_SEED={SEED} LAB_ROUNDS={ROUNDS}")
    dice = random.Random(SEED)
    ledger = Ledger(stage)
    wait_for_copies(stage)
    for number in range(ROUNDS):
        fault = dice.choice(sorted(FAULTS))
        power = fault == "cut" or dice.random() < 0.5
        began = time.monotonic()
        for _ in range(dice.randint(1, 3)):
            ledger.write("pbx01")
        time.sleep(dice.uniform(0.0, 4.0))
        FAULTS[fault](stage, dice)
        for _ in range(dice.randint(1, 3)):
            ledger.write("pbx01")
        if power:
            time.sleep(dice.uniform(0.0, 2.0))
            machines.power_cut(["pbx01"])
            ledger.forget_uncommitted("pbx01")
            has_taken_over(stage)
        else:
            switch_over(stage)
        moved = time.monotonic()
        ledger.write("pbx02")
        network.heal_all()
        machines.start(["pbx01"])
        _, took = go_home(stage)
        what = "power cut" if power else "switchover"
        print(
            f"round {number + 1}: {fault}, {what}: {time.monotonic() - began:.0f} s;"
            f" at pbx02 after {moved - began:.0f} s; failback apply took {took:.1f} s",
            flush=True,
        )
        ledger.check("pbx01")
        wait_for_copies(stage)


def switch_over(stage: Stage) -> None:
    """As long as it is refused, as with 20 % loss: again."""
    said = [""]

    def done() -> bool:
        said[0] = stage.run("pbx01", "understudy", "switchover", "--yes", check=False, timeout=120)
        return stage.phase("pbx02") == "active"

    until(done, within=120, what=lambda: f"pbx02 is active: {said[0]}{stage.said()}")
    stage.wait_for_service("pbx02", within=20)


# A power cut in a stream of writes


def stream_until_power_cut(seconds: float = STREAM) -> list[str]:
    """Rows that were acknowledged at pbx01 until its power went."""
    with tempfile.TemporaryFile("w+") as out:
        argv = machines.entering("pbx01", "python3", "-c", WRITER)
        writer = subprocess.Popen(argv, stdout=out, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        assert writer.poll() is None, "the writer has ended"
        machines.power_cut(["pbx01"])
        writer.wait(10)
        out.seek(0)
        lines = out.read().splitlines(keepends=True)
    rows = [line.strip() for line in lines if line.endswith("\n")]
    print(f"{len(rows)} rows acknowledged in {seconds:g} s: {len(rows) / seconds:.0f}/s")
    assert len(rows) > 50 * seconds, "that was no stream"
    return rows


def test_no_acknowledged_row_is_lost_in_a_stream(stage: Stage) -> None:
    wait_for_copies(stage)
    rows = stream_until_power_cut()
    has_taken_over(stage)
    here = data.rows("pbx02")
    lost = [name for name in rows if not here[name]]
    assert not lost, f"{len(lost)} of {len(rows)} acknowledged rows are lost: {lost[:5]}"
    assert max(here.values()) == 1, "a row is there twice"


# The active node's data is gone


def test_what_is_broken_on_the_active_node_is_not_copied(stage: Stage) -> None:
    ledger = Ledger(stage)
    for _ in range(3):
        ledger.write("pbx01")
    wait_for_copies(stage)
    shell(stage, "pbx01", "rm -rf /var/spool/asterisk/voicemail/*")
    wait_for_trouble(stage, "voicemail", "pbx01 has 0 files", "copies accept voicemail")
    shell(stage, "pbx01", "cd /var/lib/asterisk; cp astdb.sqlite3 was; truncate -s 0 astdb.sqlite3")
    wait_for_trouble(stage, "astdb", "0 rows", "copies accept astdb")
    shell(
        stage, "pbx01",
        "cd /var/lib/asterisk; size=$(stat -c %s was); cat was >astdb.sqlite3; "
        "dd if=/dev/urandom of=astdb.sqlite3 bs=1024 seek=3 count=$((size / 1024 - 3)) conv=notrunc",
    )  # fmt: skip
    wait_for_trouble(stage, "astdb", "damaged")
    machines.power_cut(["pbx01"])
    has_taken_over(stage)
    assert not any(ledger.missing("pbx02").values()), ledger.missing("pbx02")


def test_an_empty_disk_empties_nobody_elses(stage: Stage) -> None:
    """It comes back from a power cut with nothing in it."""
    ledger = Ledger(stage)
    for _ in range(2):
        ledger.write("pbx01")
    wait_for_copies(stage)
    machines.power_off(["pbx01"])
    for place in ("etc/asterisk", "var/spool/asterisk/voicemail", "var/spool/asterisk/monitor"):
        for path in sorted((data.root("pbx01") / place).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (data.root("pbx01") / data.ASTDB).unlink()
    machines.start(["pbx01"])
    has_taken_over(stage)
    assert not any(ledger.missing("pbx02").values()), ledger.missing("pbx02")


# The standby cannot copy


def test_the_standby_says_why_it_does_not_copy(stage: Stage) -> None:
    ledger = Ledger(stage)
    ledger.write("pbx01")
    wait_for_copies(stage)
    assert_full_disk(stage)
    assert_unreadable_source(stage)
    assert_errant_row(stage)
    ledger.write("pbx01")
    wait_for_copies(stage)
    assert not any(ledger.missing("pbx02").values()), ledger.missing("pbx02")


def assert_full_disk(stage: Stage) -> None:
    """A file system of its own for the copies, and a recording that is larger."""
    place = f"/{data.COPIES}"
    shell(
        stage, "pbx02",
        f"systemctl stop understudy-copier; cp -a {place} /root/copies; "
        f"mount -t tmpfs -o size=12m,mode=0700 tmpfs {place}; cp -a /root/copies/recordings {place}/; "
        "systemctl start understudy-copier",
    )  # fmt: skip
    shell(
        stage, "pbx01",
        f"cd /{data.MONITOR}; head -c 16000000 /dev/urandom >large.wav; chown asterisk: large.wav",
    )  # fmt: skip
    wait_for_trouble(stage, "recordings", "No space left")
    assert "No space left" in doctor(stage, "pbx02")
    assert not (data.root("pbx02") / data.MONITOR / "large.wav").exists()
    shell(
        stage, "pbx02",
        f"systemctl stop understudy-copier; umount {place}; systemctl start understudy-copier",
    )  # fmt: skip
    shell(stage, "pbx01", f"rm /{data.MONITOR}/large.wav")
    data.wait_for_health(stage)


def assert_unreadable_source(stage: Stage) -> None:
    secret = f"/{data.MONITOR}/secret.wav"
    shell(stage, "pbx01", f"echo 1 >{secret}; chown root:root {secret}; chmod 600 {secret}")
    wait_for_trouble(stage, "recordings", "could be copied from pbx01", "secret.wav")
    said = doctor(stage, "pbx01")
    assert "recordings: the other node cannot read" in said, said
    assert not (data.root("pbx02") / secret.lstrip("/")).exists()
    shell(stage, "pbx01", f"rm {secret}")
    data.wait_for_health(stage)


def assert_errant_row(stage: Stage) -> None:
    """root may write where read_only says no."""
    add = "INSERT INTO cdr.cdr (calldate, uniqueid) VALUES (NOW(), 'errant')"
    stage.run("pbx02", "mariadb", "-e", add)
    data.write_row(stage, "pbx01", "after-errant")
    wait_for_trouble(stage, "database", "has what was written on it", "copies accept database")
    said = doctor(stage, "pbx02")
    assert "MariaDB does not copy" in said, said
    stage.run("pbx02", "understudy", "copies", "accept", "database")
    data.wait_for_health(stage, "database", within=60)
    here = data.rows("pbx02")
    assert (here["errant"], here["after-errant"]) == (0, 1), here
    kept = [
        path.read_text(errors="replace")
        for each in data.asides("rows")
        for path in each.glob("*.sql")
    ]
    assert any("'errant'" in text for text in kept), data.asides("rows")


def doctor(stage: Stage, node: str) -> str:
    return stage.run(node, "understudy", "doctor", check=False, timeout=90)


def test_a_class_that_refuses_keeps_the_standby_from_taking_over(stage: Stage) -> None:
    """The key is revoked: nothing is copied any more.  `config` has on_stale = "refuse"."""
    keys = "/var/lib/understudy/.ssh/authorized_keys"
    shell(stage, "pbx01", f"test -e {keys}; mv {keys} {keys}.revoked")
    trouble = wait_for_trouble(stage, "config", "Permission denied")
    print(f"a revoked key: {trouble}")
    until(
        lambda: stage.status("pbx01").get("protected") is False, within=120,
        what=lambda: f"NOT PROTECTED: {stage.run('pbx01', 'understudy', 'status', check=False)}",
    )  # fmt: skip
    age = float(data.copies("pbx02")["config"]["max_age"])
    until(
        lambda: time.time() - data.copies("pbx02")["config"]["as_of"] > age + 5.0, within=2 * age,
        what=lambda: f"the copy is stale: {data.copies('pbx02')['config']}",
    )  # fmt: skip
    machines.power_cut(["pbx01"])
    ends = time.monotonic() + stage.no_failover_for
    while time.monotonic() < ends:
        assert stage.phase("pbx02") in ("standby", "suspecting"), stage.said()
        time.sleep(1.0)
    assert "config" in stage.why("pbx02"), stage.why("pbx02")
    words = ("--accept-loss", "config", "--accept-two-active", "--yes")
    said = stage.run("pbx02", "understudy", "failover", *words, check=False, timeout=120)
    assert stage.phase("pbx02") == "active", f"{said}{stage.said()}"
    stage.wait_for_service("pbx02", within=20)
