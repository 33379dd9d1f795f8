"""crashing_agent.py MOMENT STEP CONFIG NODE: the real agent, which SIGKILLs itself once at STEP.

MOMENT is where: before-record (the decision is made, the journal does not know it), after-record (the
journal knows it, nothing was done), after-effect (it was done, and nobody knows how it went).  The
agent is put together as `understudy run` does it; only the journal and what performs an action are
wrapped, here and not in the product.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from understudy import wiring
from understudy.core.decide import Decision
from understudy.core.observations import Seen
from understudy.core.runbooks import RUNBOOKS
from understudy.ports import Moment
from understudy.runtime import agent, daemon
from understudy.runtime.journal import SqliteJournal
from understudy.runtime.perform import Performed, perform

MOMENTS = ("before-record", "after-record", "after-effect")


class Crash:
    def __init__(self, moment: str, step: str) -> None:
        self._moment, self._step = moment, step
        self._under_way = False  # The step.

    def is_due(self, moment: str, decision: Decision) -> bool:
        return moment == self._moment and step_of(decision) == self._step

    def watch(self, decision: Decision) -> None:
        if decision.action is not None:
            self._under_way = self.is_due("after-effect", decision)

    async def perform(self, *given: Any, **named: Any) -> Performed:
        performed = await perform(*given, **named)
        if self._under_way:
            die()
        return performed


def step_of(decision: Decision) -> str:
    """The step that a decision asks for; empty if it asks for nothing."""
    if decision.action is None:
        return ""
    if decision.state.runbook is not None:
        return str(RUNBOOKS[decision.state.runbook][decision.state.step].step)
    return str(decision.rule.do or "") if decision.rule is not None else ""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def main() -> int:
    moment, step, config, name = sys.argv[1:]
    assert moment in MOMENTS
    crash = Crash(moment, step)

    class Journal(SqliteJournal):
        def record(self, decision: Decision, seen: Seen, at: Moment) -> None:
            if crash.is_due("before-record", decision):
                die()
            super().record(decision, seen, at)
            if crash.is_due("after-record", decision):
                die()
            crash.watch(decision)

    setattr(daemon, "SqliteJournal", Journal)  # noqa: B010
    setattr(agent, "perform", crash.perform)  # noqa: B010
    return daemon.run_daemon(wiring.build(wiring.load_config(Path(config)), name))


if __name__ == "__main__":
    sys.exit(main())
