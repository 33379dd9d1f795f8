"""One turn of the loop, shared by cron, the daemon and the simulator."""

from typing import Protocol

from understudy.core.decide import Decision, decide
from understudy.core.model import State
from understudy.core.observations import Seen
from understudy.core.policy import Policy
from understudy.ports import Moment

MOST_TURNS = 10  # The longest way through phases without an action is four.


class Journal(Protocol):
    """What survives a crash: the state, and why it is so."""

    @property
    def state(self) -> State: ...

    def record(self, decision: Decision, seen: Seen, at: Moment) -> None:
        """Write down what was seen and decided, in one transaction, before anything is done.

        Never raises: a node that serves goes on serving with a journal that cannot be written, and says so.
        """


def tick(journal: Journal, seen: Seen, at: Moment, policy: Policy) -> Decision:
    """Decide until there is something to do, or nothing new to decide."""
    for _ in range(MOST_TURNS):
        decision = decide(journal.state, seen, at.boot, at.wall, policy)
        journal.record(decision, seen, at)  # Before acting: a crash must not forget the question.
        if decision.action is not None or decision.rule is None:
            return decision
        order = seen.order if decision.order is None else None
        seen = Seen(
            order=order,
            busy=seen.busy,
            break_glass=seen.break_glass,
            stale_from=seen.stale_from,
        )
    raise AssertionError(f"no end of decisions in {journal.state}")
