"""Asks the other node's agent by a command: one line there, one JSON object back.

Over SSH the far side is `understudy answer` as the forced command of a user of its own (sshd(8),
AUTHORIZED_KEYS FILE FORMAT, command=), which finds the line in SSH_ORIGINAL_COMMAND.  Where both
nodes are on one machine the line is the last arguments of `understudy --node OTHER answer`.
What may be asked: requests.py.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from understudy.adapters.peers.requests import (
    Ask,
    Calls,
    Compare,
    Examine,
    Fence,
    Fetch,
    PlaceOrder,
    Request,
    Status,
    Trial,
    Wake,
    render_request,
)
from understudy.adapters.processes import LIMIT, Finished, run
from understudy.core.observations import Order, PeerAnswer, Ready
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for a whole request: way there, work there, way back."""

    ask: float = 8.0
    fence: float = 40.0  # Above the other node's stop_within: it answers when its PBX is gone.
    order: float = 15.0
    wake: float = 8.0
    status: float = 15.0
    doctor: float = 60.0  # Its own deadline is shorter: doctor.examine.WITHIN.
    trial: float = 80.0  # The same: doctor.mail.WITHIN.
    calls: float = 10.0  # Above the 5 s that counting them may take there.
    fetch: float = 60.0  # Nobody serves meanwhile.


class Door:
    """A ports.Peer.  `clock` gives boot-time seconds; `greets` raises Unreachable where nobody lives."""

    def __init__(
        self,
        node: str,
        argv_prefix: tuple[str, ...],
        timeouts: Timeouts | None = None,
        *,
        clock: Callable[[], float],
        greets: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.node = node
        self._prefix = argv_prefix
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._greets = greets

    async def ask(self, epoch: int) -> PeerAnswer:
        """Raises Unreachable, Denied."""
        asked_at = self._clock()  # Before the question is sent: what it says may be that old.
        answer = await self._question(Ask(epoch=epoch), self._timeouts.ask)
        try:
            return PeerAnswer(
                asked_at=asked_at,
                ready=Ready(answer["ready"]),
                epoch=_whole(answer["epoch"]),
                why=str(answer.get("why", "")),
            )
        except (KeyError, ValueError) as error:
            raise Unreachable(
                f"{self.node} did not say whether it is ready: {_short(str(answer))}",
                hint="Do both nodes run the same version?",
            ) from error

    async def fence(self, node: str, epoch: int, *, hurry: bool) -> None:
        """Raises Denied when it refuses, Unreachable when it was not asked, else Unanswered."""
        if hurry and self._greets is not None:
            await self._greets()
        answer = await self._change(Fence(node=node, epoch=epoch), self._timeouts.fence)
        if answer.get("stopped") is not True:
            raise Denied(f"{self.node} did not confirm that its PBX is stopped: {answer}")

    async def order(self, order: Order) -> str:
        """Raises as fence."""
        answer = await self._change(PlaceOrder(order=order), self._timeouts.order)
        return str(answer.get("said", ""))

    async def wake(self) -> None:
        try:
            await self._question(Wake(), self._timeouts.wake)
        except AdapterError:
            return  # It reads the claim by itself soon.

    async def status(self) -> dict[str, Any]:
        """Raises Unreachable, Denied."""
        return await self._question(Status(), self._timeouts.status)

    async def examine(self) -> dict[str, Any]:
        """Raises Unreachable, Denied."""
        return await self._question(Examine(), self._timeouts.doctor)

    async def trial(self) -> dict[str, Any]:
        """Raises Unreachable, Denied."""
        return await self._question(Trial(), self._timeouts.trial)

    async def calls(self) -> int:
        """How many are in progress on its PBX.  Raises Unreachable, Denied with the reason why nobody knows."""
        answer = await self._question(Calls(), self._timeouts.calls)
        try:
            return _whole(answer["calls"])
        except (KeyError, ValueError) as error:
            why = str(answer.get("why") or f"{self.node} does not say how many calls it has")
            raise Denied(why) from error

    async def fetch(self, epoch: int) -> None:
        """Raises Unreachable, Denied."""
        await self._question(Fetch(epoch=epoch), self._timeouts.fetch)

    async def compare(self, epoch: int) -> None:
        """Raises Unreachable, Denied."""
        await self._question(Compare(epoch=epoch), self._timeouts.fetch)

    async def _question(self, request: Request, within: float) -> dict[str, Any]:
        """For what changes nothing: whatever goes wrong, it could not be asked."""
        try:
            return await self._change(request, within)
        except Unanswered as error:
            raise Unreachable(str(error), hint=error.hint) from error

    async def _change(self, request: Request, within: float) -> dict[str, Any]:
        line = render_request(request)
        try:
            done = await run((*self._prefix, *line.split(" ", 1)), within=within)
        except Unanswered as error:
            raise Unanswered(f"{self.node} gave no answer within {within:g} s") from error
        return answer_of(self.node, done)


def answer_of(node: str, done: Finished) -> dict[str, Any]:
    """What the far side said.  Raises Denied when it refuses, Unreachable when it was not asked, else Unanswered."""
    answer = _read(node, done)
    if answer["ok"] is not True:
        raise Denied(f"{node} refuses: {_short(str(answer.get('why', 'no reason given')))}")
    if done.code != 0:
        raise Unanswered(f"{node} answered, then failed: {_complaint(done)}")
    return answer


def _read(node: str, done: Finished) -> dict[str, Any]:
    if done.cut:
        raise Unanswered(f"{node} answered more than {LIMIT // 1024} KiB: that is no agent")
    if not done.out.strip() and done.code != 0:
        if _NOT_CONNECTED.search(done.err):
            raise Unreachable(f"{node} cannot be reached: {_complaint(done)}")
        raise Unanswered(f"{node} gave no answer: {_complaint(done)}")
    try:
        answer = json.loads(done.out)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("ok"), bool):
        return answer
    raise Unanswered(
        f"{node} answered no JSON object but {_short(done.out) or 'nothing'}",
        hint="Is `understudy answer` the forced command there, and does its shell keep quiet?",
    )


# What ssh(1) says when it gave up before the other side had read our line.
_NOT_CONNECTED = re.compile(
    r"^ssh: |Permission denied \(|Host key verification failed|^kex_exchange_identification: ",
    re.MULTILINE,
)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(value)
    return value


def _complaint(done: Finished) -> str:
    return f"{_short(done.err) or 'nothing on its standard error'} (exit status {done.code})"


def _short(text: str) -> str:
    """Fit for a sentence: the last line, without what a terminal would obey."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else ""
