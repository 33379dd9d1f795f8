"""The PBX by commands that the operator names: where systemd does not manage it."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from understudy.adapters.processes import Finished, run
from understudy.config.settings import Command, setting
from understudy.core.observations import Pbx
from understudy.errors import AdapterError, Denied, NotStopped

from .main_process import MainProcess
from .settings import PbxSettings
from .shutoff import ShutOff
from .sip_here import Deadline, SipHere

ASK_WITHIN = 5.0  # Seconds for the status command.
GRACE = 0.7  # The part of stop_within in which the PBX may end by itself.
BETWEEN = 0.2  # Seconds between two questions to the status command.
GONE_FOR = 2.0  # Seconds of "not running" in a row end our hope: a pid file may come late.


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(PbxSettings):
    start: Command = setting(
        "Starts the PBX and returns; success when it runs already.  What it starts must outlive "
        "it, and a restart of the agent too (systemd-run, a container).",
        example=["/etc/init.d/pbx", "start"],
    )
    stop: Command = setting(
        "Stops it; success when it is stopped already.", example=["/etc/init.d/pbx", "stop"]
    )
    status: Command = setting(
        "Exits with 0 when it runs, 3 when it is stopped, 1 or 2 when it is dead and a pid or "
        "lock file was left; anything else means: cannot tell.",
        example=["/etc/init.d/pbx", "status"],
    )
    kill: Command | None = setting(
        "Ends it by force, when it lingers; else the process group of pid_file gets SIGKILL.",
        default=None,
        example=["docker", "kill", "pbx"],
    )
    pid_file: Path | None = setting(
        "Holds the process id of the PBX while it runs.", default=None, example="/run/pbx.pid"
    )


class _Status(StrEnum):
    """Linux Standard Base core 5.0, section 22.2: what an init script's `status` exits with."""

    RUNNING = "running"
    DEAD = "dead"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


_BY_EXIT = {0: _Status.RUNNING, 1: _Status.DEAD, 2: _Status.DEAD, 3: _Status.STOPPED}
_GONE = (_Status.DEAD, _Status.STOPPED)


def _report(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s", sentence)


class CommandService:
    """A ports.Service."""

    def __init__(
        self,
        settings: Settings,
        *,
        report: Callable[[str], None] = _report,
        others: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._report = report
        self._sip = SipHere(
            settings.sip,
            settings.sip_transport,
            settings.sip_timeout,
            settings.sip_ca_file,
            others=others,
            report=report,
        )
        prefix = ("sudo", "-n") if settings.use_sudo else ()
        self._shut_off = ShutOff(settings.all_ports, prefix=prefix)
        self._main = MainProcess()

    async def start(self) -> None:
        """Run the start command.  Raises Denied with its complaint, Unreachable, Unanswered."""
        done = await run(
            self._settings.start, within=self._settings.start_within, leaves_running=True
        )
        if done.code != 0:
            raise Denied(f"the PBX was not started: {_name(self._settings.start)}: {done.said}")
        try:
            await self._shut_off.open()
        except AdapterError as error:
            # Without nft nothing can be shut.  If it is, `prove` gets no answer and says so.
            self._report(str(error))

    async def stop(self) -> None:
        """Raises NotStopped: what the status command says, and the process that is left."""
        deadline = Deadline(self._settings.stop_within)
        grace = Deadline(GRACE * self._settings.stop_within)
        trouble = await self._attempt(self._settings.stop, grace.left())
        # A stop command that failed will not stop it later.
        left = await self._wait(Deadline(0) if trouble else grace)
        if left:
            killed = await self._kill(deadline)
            left = await self._wait(deadline, pid=killed)
        if left:
            raise NotStopped(
                f"the PBX could not be stopped within {self._settings.stop_within:g} s: {left}"
                + (f" (stop: {trouble})" if trouble else ""),
                hint="Stop it by hand.",
            )
        if not deadline.passed and await self._sip.answers(at_most=deadline.left()):
            raise NotStopped(
                f"the PBX is stopped, but something else answers SIP at {self._settings.sip}",
                hint="A PBX that was started by hand?  See: ss -lnptu",
            )

    async def shut_off(self) -> None:
        """Raises NotStopped."""
        await self._shut_off.shut()

    async def look(self) -> Pbx:
        """By the exit status of the status command (LSB): 0 is ANSWERING or DEAF, 3 STOPPED, 1 and
        2 DEAD.

        A status command that fails otherwise, hangs or is not there: UNKNOWN.
        """
        status, _ = await self._ask(ASK_WITHIN)
        self._main.saw(self._pid() if status is _Status.RUNNING else 0)
        match status:
            case _Status.RUNNING:
                return await self._sip.look()
            case _Status.STOPPED:
                return Pbx.STOPPED
            case _Status.DEAD:
                return Pbx.DEAD
        return Pbx.UNKNOWN

    async def ended(self) -> None:
        """Never where no `pid_file` is named."""
        await self._main.ended()

    async def prove(self) -> None:
        """Return when SIP is answered.  Raises Denied when it stays gone, Unreachable."""
        hope = Deadline(GONE_FOR)

        async def still_coming() -> str:
            nonlocal hope
            status, words = await self._ask(ASK_WITHIN)
            if status not in _GONE:
                hope = Deadline(GONE_FOR)
            if hope.passed:
                raise Denied(f"the PBX does not run: {words}")
            return words

        await self._sip.prove(self._settings.start_within, still_coming)

    async def _attempt(self, command: Command, within: float) -> str:
        """Returns why it did not work, or ""."""
        try:
            done = await run(command, within=within)
        except AdapterError as error:
            return str(error)
        return "" if done.code == 0 else f"{_name(command)}: {done.said}"

    async def _wait(self, until: Deadline, *, pid: int = 0) -> str:
        """Until the status command says that it is gone, and `pid` is.  Returns what is left."""
        while True:
            status, words = await self._ask(max(0.5, until.left()))
            if status in _GONE and not _lives(pid):
                return ""
            if until.passed:
                return f"process {pid} is still there, and {words}" if _lives(pid) else words
            await asyncio.sleep(min(BETWEEN, until.left()))

    async def _kill(self, deadline: Deadline) -> int:
        """The kill command, or else SIGKILL; returns the process id of the PBX, or 0."""
        pid = self._pid()
        if self._settings.kill is not None:
            if trouble := await self._attempt(self._settings.kill, deadline.left() / 2):
                self._report(f"the PBX was not killed: {trouble}")
            return pid
        try:
            group = os.getpgid(pid) if pid else 0
            # Never our own group; and a PBX that was not made leader of one must not take strangers
            # with it.
            if group == pid and group not in (0, os.getpgrp()):
                os.killpg(group, signal.SIGKILL)
            elif pid:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return 0
        except PermissionError:
            self._report(f"process {pid} was not killed: not permitted; name a kill command")
        return pid

    def _pid(self) -> int:
        if self._settings.pid_file is None:
            return 0
        try:
            pid = int(self._settings.pid_file.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return 0
        return pid if pid > 1 and pid != os.getpid() else 0

    async def _ask(self, within: float) -> tuple[_Status, str]:
        """What the status command says, and the sentence for it."""
        try:
            done = await run(self._settings.status, within=min(ASK_WITHIN, within))
        except AdapterError as error:
            return _Status.UNKNOWN, f"status: {error}"
        status = _BY_EXIT.get(done.code, _Status.UNKNOWN)
        return status, f"status says {status} ({_words(done)})"


def _name(command: Command) -> str:
    return Path(command[0]).name


def _words(done: Finished) -> str:
    return f"exit status {done.code}" if not (done.out or done.err).strip() else done.said


def _lives(pid: int) -> bool:
    """Is that process there, and no zombie?"""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
