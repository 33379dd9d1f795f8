"""Does the PBX of this machine answer SIP?  Shared by all kinds of service."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from understudy.adapters.probes import sip
from understudy.config.settings import HostPort
from understudy.core.observations import Pbx
from understudy.errors import AdapterError, Unreachable
from understudy.plugins.check_sip import Reply

BETWEEN = 0.1  # Seconds between two questions to a PBX that is starting: callers wait for it.


class Deadline:
    """One bound for several steps, in seconds from now."""

    def __init__(self, within: float) -> None:
        self._ends = time.monotonic() + within

    def left(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left() <= 0.0


class SipHere:
    """Where the PBX is asked.  Any final answer counts, 401 and 404 too (RFC 3261, section 11.2)."""

    def __init__(
        self,
        where: HostPort,
        transport: sip.Transport,
        timeout: float,
        ca_file: Path | None = None,
        *,
        others: Mapping[str, str] = MappingProxyType({}),
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`others` has the other node's name by its addresses: an answer that names one is reported."""
        self._others, self._report = others, report
        self.where = where
        self._ca_file = ca_file
        self.host, self.port = _split(where)
        self._transport = transport
        self._timeout = timeout

    async def ask(self, *, at_most: float | None = None) -> Reply:
        """What it answers within its timeout, and within `at_most` seconds.

        Raises sip.NoAnswer when it does not, another Unreachable when it could not be asked.
        """
        timeout = self._timeout if at_most is None else min(self._timeout, at_most)
        try:
            return await sip.options(
                self.host, self.port, self._transport, timeout, ca_file=self._ca_file
            )
        except OSError as error:  # No file descriptors left, and such.
            raise Unreachable(f"cannot ask {self.where}: {error}") from error

    async def look(self, deaf: Pbx = Pbx.DEAF) -> Pbx:
        """What a PBX that runs is: ANSWERING, `deaf`, or UNKNOWN when it could not be asked."""
        try:
            await self.ask()
        except sip.NoAnswer:
            return deaf
        except AdapterError:
            return Pbx.UNKNOWN
        return Pbx.ANSWERING

    async def answers(self, *, at_most: float) -> bool:
        try:
            await self.ask(at_most=at_most)
        except AdapterError:
            return False
        return True

    async def prove(self, within: float, check: Callable[[], Awaitable[str]]) -> None:
        """Ask until it answers, `within` seconds.

        Before each question `check` may raise, when it is clear that no answer can come, or say
        what it sees: that goes into the sentence of the Unreachable at the deadline.
        """
        deadline = Deadline(within)
        sees, why = "", ""
        while not deadline.passed:
            sees = await check()
            try:
                return self._look_at(await self.ask(at_most=max(0.05, deadline.left())))
            except AdapterError as error:
                why = str(error)
            await asyncio.sleep(min(BETWEEN, deadline.left()))
        raise Unreachable(
            f"the PBX did not answer SIP at {self.where} within {within:g} s: {why} ({sees})",
            hint=f"Is [service] sip = {str(self.where)!r} an address that it listens on?",
        )

    def _look_at(self, reply: Reply) -> None:
        """It serves, but phones would send their calls elsewhere: nothing that a return to the other node mends."""
        for address in dict.fromkeys(each for each in reply.names if each in self._others):
            self._report(
                f"the PBX here tells callers to reach it at {address}, which is {self._others[address]}: a value that "
                "was copied from there?  Write both nodes' own into `node_values` of [copies.NAME]"
            )


def _split(where: HostPort) -> tuple[str, int]:
    host, _, port = str(where).rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
