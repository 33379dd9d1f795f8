"""Run by the tests as a process of its own: `python journal_child.py PATH LOG SEED records|orders|lock`."""

import json
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from runtime.journal_world import BOOT_ID, WALL, HandClock, asked, decided, rule
from understudy.core.actions import Start
from understudy.core.model import Phase
from understudy.core.observations import Outcome, Result, Seen, Verb
from understudy.runtime import statecodec
from understudy.runtime.journal import SqliteJournal


def main() -> None:
    path, log, seed, what = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    {"records": records, "orders": orders, "lock": lock}[what](path, log, random.Random(seed))


def records(path: Path, log: Path, dice: random.Random) -> None:
    """Write whatever an agent writes, for ever; say before and after each record what it is."""
    clock = HandClock(wall=WALL)
    journal = SqliteJournal(path, clock)
    journal.begin(BOOT_ID, node="pbx02")
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    say(out, kind="begin", state=statecodec.to_json(journal.state), unsettled=journal.unsettled)
    while True:
        clock.boot += 1.0
        state = replace(journal.state, epoch=journal.state.epoch + 1)
        kind = dice.choice(["round", "rule", "action", "outcome", "order", "unsettled"])
        if kind == "unsettled":
            wanted = not journal.unsettled
            say(out, kind="try-unsettled", unsettled=wanted)
            journal.unsettled = wanted
            say(out, kind="did-unsettled", unsettled=wanted)
            continue
        if kind == "order":
            journal.place(Verb.FAILOVER)
        order = journal.next_order()
        by = rule(Phase.STANDBY, "failover-ordered") if order else None
        seen = Seen(
            round=asked(clock.boot, "ddd", "uuu") if kind == "round" else None,
            outcome=Outcome(Result.FAILED, "no") if kind == "outcome" else None,
        )
        if kind == "rule" and by is None:
            by = rule(Phase.STANDBY, "peer-down")
        action = Start() if kind == "action" else None
        written = statecodec.to_json(state)
        say(out, kind="try", state=written, order=order.id if order else None)
        journal.record(decided(state, by=by, action=action, order=order), seen, clock.now())
        say(out, kind="did", state=written, order=order.id if order else None)


def orders(path: Path, log: Path, dice: random.Random) -> None:
    """A person who orders a lot, beside the agent."""
    journal = SqliteJournal(path, HandClock(wall=WALL), owner=False)
    for _ in range(100):
        journal.place(Verb.REJOIN, by="child")
        time.sleep(dice.uniform(0, 0.005))


def lock(path: Path, log: Path, dice: random.Random) -> None:
    with SqliteJournal(path, HandClock()).lock():
        log.write_text("locked")
        time.sleep(60)


def say(out: int, **what: object) -> None:
    os.write(out, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
