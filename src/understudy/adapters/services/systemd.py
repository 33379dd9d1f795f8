"""The PBX as a systemd unit: systemctl(1) starts, stops and looks at it."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from understudy.adapters.processes import Finished, run
from understudy.config.settings import setting
from understudy.core.observations import Pbx
from understudy.errors import AdapterError, Denied, NotStopped, Unreachable

from .main_process import MainProcess
from .settings import PbxSettings
from .shutoff import ShutOff
from .sip_here import Deadline, SipHere

ASK_WITHIN = 5.0  # Seconds for a question to systemd, or a request that does not wait.
GRACE = 0.7  # The part of stop_within in which the PBX may end by itself.
BETWEEN = 0.1  # Seconds between two looks at a unit that has been killed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(PbxSettings):
    unit: str = setting("The unit of the PBX; .service may be left out.", example="asterisk")
    active_only: tuple[str, ...] = setting(
        "Further units that run on the active node alone: started once the PBX answers, stopped "
        "with it.  Trouble with them is reported and never stands in the way of calls.",
        default=(),
        example=["cron-backup.timer"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """What `systemctl show` says; the words are those of org.freedesktop.systemd1(5)."""

    load: str = ""
    active: str = ""
    sub: str = ""
    result: str = ""
    group: str = (
        ""  # The control group below which all its processes are, those that outlived a stop too.
    )
    job: bool = False  # A start or stop of it is queued.
    status: str = ""  # How its main process ended: exit status or number of the signal.
    refused: str = ""  # The ExecStartPre= that failed, and with what exit status.
    main: int = 0  # Process id of its main process; 0 if it has none.

    @property
    def missing(self) -> bool:
        return self.load == "not-found" and self.active in _OVER

    @property
    def state(self) -> str:
        return f"{self.active} ({self.sub})" + (", a job is queued" if self.job else "")

    @property
    def ending(self) -> str:
        return self.refused or f"{self.result}, status {self.status or '?'}"


_OVER = ("inactive", "failed")


def _report(sentence: str) -> None:
    logging.getLogger(__name__).warning("%s", sentence)


class Systemd:
    """A ports.Service.

    Starting does not wait: a refusal that systemd knows at once (no such unit, masked) is raised by
    `start`, all that happens later (an ExecStartPre that fails, a crash) by `prove`, with the
    unit's Result.

    `prefix` and `root` are for tests: what runs systemctl elsewhere, and where that machine's files
    are.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        report: Callable[[str], None] = _report,
        others: Mapping[str, str] = MappingProxyType({}),
        prefix: tuple[str, ...] = (),
        root: Path = Path("/"),
    ) -> None:
        self._settings = settings
        self._report = report
        self._root = root
        self._prefix = (*prefix, "sudo", "-n") if settings.use_sudo else prefix
        self._unit = full_name(settings.unit)
        self._companions = tuple(full_name(unit) for unit in settings.active_only)
        self._sip = SipHere(
            settings.sip,
            settings.sip_transport,
            settings.sip_timeout,
            settings.sip_ca_file,
            others=others,
            report=report,
        )
        self._shut_off = ShutOff(settings.all_ports, prefix=self._prefix)
        self._main = MainProcess()

    async def start(self) -> None:
        """Queue the start.  Raises Denied, Unreachable, Unanswered.

        First the count of failed starts is reset: StartLimitBurst= (systemd.unit(5)) must not
        refuse a failover because of what was tried before.  SIP is let through again last, when the
        start has been accepted.
        """
        await self._attempt("reset-failed", self._unit)
        done = await self._systemctl("start", "--no-block", "--", self._unit)
        if done.code != 0:
            raise Denied(f"systemd does not start {self._unit}: {done.said}", hint=self._advice)
        try:
            await self._shut_off.open()
        except AdapterError as error:
            # Without nft nothing can be shut.  If it is, `prove` gets no answer and says so.
            self._report(str(error))

    async def stop(self) -> None:
        """Raises NotStopped: what is left, by process id, or that something else answers SIP."""
        deadline = Deadline(self._settings.stop_within)
        before = await self._before_stop(deadline)
        await self._stop_companions(deadline)
        trouble = await self._attempt("stop", self._unit, within=GRACE * deadline.left())
        while left := await self._left(before, deadline):
            if deadline.passed:
                raise NotStopped(
                    f"{self._unit} could not be stopped within {self._settings.stop_within:g} s: "
                    f"{left}" + (f" (systemctl stop: {trouble})" if trouble else ""),
                    hint=self._advice,
                )
            # A stop again, because without one in progress a kill is a crash to systemd, and
            # Restart= answers it.
            await self._attempt("stop", "--no-block", self._unit, within=_rest(deadline))
            await self._attempt("kill", "--signal=KILL", self._unit, within=_rest(deadline))
            await asyncio.sleep(min(BETWEEN, deadline.left()))
        await self._no_other(deadline)
        # A unit that had to be killed is "failed" to systemd.  We asked it to go: that is no death.
        await self._attempt("reset-failed", self._unit, within=_rest(deadline))
        await self._report_companions(deadline)

    async def shut_off(self) -> None:
        """Raises NotStopped."""
        await self._shut_off.shut()

    async def look(self) -> Pbx:
        """What systemd knows, and, where that says "runs", whether SIP is answered.

        ActiveState, SubState and Result as systemctl(1) `show` prints them, by
        org.freedesktop.systemd1(5), UNIT OBJECTS and SERVICE UNIT OBJECTS:

        - active: ANSWERING or DEAF; also active (exited), as units are that only run a script.
        - reloading: ANSWERING, else STARTING.
        - activating, deactivating: STARTING; after a crash too, where Restart= of systemd.service(5)
          answers it (auto-restart).
        - another one with a job queued: STARTING; it waits for other units.
        - failed, or inactive with a Result that is not success: DEAD.
        - inactive, success: STOPPED, by systemctl stop, by the PBX's own console or by SIGTERM (to
          systemd.service(5) a clean end); or never started.
        - no such unit, a word unknown to us, or systemctl failed: UNKNOWN.
        """
        try:
            unit = await self._show()
        except AdapterError:
            return Pbx.UNKNOWN
        self._main.saw(unit.main)
        match unit:
            case _ if unit.missing:
                return Pbx.UNKNOWN
            case _Unit(active="active"):
                return await self._sip.look()
            case _Unit(active="reloading"):
                return await self._sip.look(deaf=Pbx.STARTING)
            case _Unit(active="activating" | "deactivating") | _Unit(job=True):
                return Pbx.STARTING
            case _Unit(active="inactive", result="success"):
                return Pbx.STOPPED
            case _Unit(active="inactive" | "failed"):
                return Pbx.DEAD
        return Pbx.UNKNOWN

    async def ended(self) -> None:
        await self._main.ended()

    async def prove(self) -> None:
        """Return when SIP is answered, the other units started.  Raises Denied when the unit failed."""
        await self._sip.prove(self._settings.start_within, self._still_coming)
        await self._start_companions()

    @property
    def _advice(self) -> str:
        return f"See: systemctl status {self._unit}"

    async def _before_stop(self, deadline: Deadline) -> _Unit:
        try:
            unit = await self._show(within=_rest(deadline))
        except AdapterError:
            return _Unit()  # It may yet be stopped; whether it was will show.
        if unit.missing:
            raise NotStopped(
                f"there is no unit {self._unit}, so nothing proves that the PBX is stopped",
                hint="Correct [service] unit.",
            )
        return unit

    async def _left(self, before: _Unit, deadline: Deadline) -> str:
        """What is left of the unit, in words; "" when it is proved gone."""
        try:
            unit = await self._show(within=_rest(deadline))
        except AdapterError as error:
            return f"cannot tell what is left: {error}"
        groups = {unit.group, before.group} - {"", "/"}
        pids = sorted(pid for group in groups for pid in self._processes(group))
        if unit.active in _OVER and not unit.job and not pids:
            return ""
        return f"it is {unit.state}" + (f", processes {', '.join(map(str, pids))}" if pids else "")

    def _processes(self, group: str) -> set[int]:
        """All in the control group and below: cgroups(7), the unified and the old hierarchy."""
        pids: set[int] = set()
        for hierarchy in ("", "unified", "systemd"):
            top = self._root / "sys/fs/cgroup" / hierarchy / group.lstrip("/")
            try:
                for procs in [top / "cgroup.procs", *top.rglob("*/cgroup.procs")]:
                    pids.update(int(pid) for pid in procs.read_text().split())
            except OSError:
                continue  # A group that has gone holds nobody.
        return pids

    async def _no_other(self, deadline: Deadline) -> None:
        if deadline.passed or not await self._sip.answers(at_most=deadline.left()):
            return
        raise NotStopped(
            f"{self._unit} is stopped, but something else answers SIP at {self._settings.sip}",
            hint="A PBX that was started by hand?  See: ss -lnptu",
        )

    async def _still_coming(self) -> str:
        try:
            unit = await self._show()
        except AdapterError as error:
            return str(error)
        gone = unit.active in _OVER and not unit.job
        if gone and unit.result == "success" and not unit.missing:
            raise Denied(
                f"{self._unit} is stopped: it ended by itself, or was stopped", hint=self._advice
            )
        # A refusal by ExecStartPre is an answer; that Restart= asks again and again does not change
        # it.
        if gone or (unit.sub == "auto-restart" and unit.refused):
            raise Denied(f"{self._unit} failed: {unit.ending}", hint=self._advice)
        return f"{self._unit} is {unit.state}"

    async def _start_companions(self) -> None:
        if not self._companions:
            return
        if trouble := await self._attempt("start", "--no-block", *self._companions):
            self._report(f"not all of {', '.join(self._companions)} could be started: {trouble}")

    async def _stop_companions(self, deadline: Deadline) -> None:
        if not self._companions:
            return
        within = min(ASK_WITHIN, 0.1 * deadline.left())
        if trouble := await self._attempt("stop", "--no-block", *self._companions, within=within):
            self._report(f"not all of {', '.join(self._companions)} could be stopped: {trouble}")

    async def _report_companions(self, deadline: Deadline) -> None:
        if not self._companions:
            return
        try:
            # Its exit status only repeats the states, of which it prints one a line.
            done = await self._systemctl(
                "is-active", "--", *self._companions, within=_rest(deadline)
            )
        except AdapterError as error:
            self._report(f"cannot tell whether {', '.join(self._companions)} run: {error}")
            return
        for unit, state in zip(self._companions, done.out.split(), strict=False):
            if state not in (*_OVER, "unknown", "deactivating"):
                self._report(f"{unit} should run on the active node alone, and is {state} here")

    async def _show(self, *, within: float = ASK_WITHIN) -> _Unit:
        done = await self._systemctl(
            "show", f"--property={','.join(PROPERTIES)}", "--", self._unit, within=within
        )
        if done.code != 0 or "ActiveState=" not in done.out:
            raise Unreachable(f"systemctl show {self._unit}: {done.said}")
        return _parse(done.out)

    async def _attempt(self, verb: str, *words: str, within: float = ASK_WITHIN) -> str:
        """Returns why it did not work, or ""."""
        options = [word for word in words if word.startswith("--")]
        units = [word for word in words if not word.startswith("--")]
        try:
            done = await self._systemctl(verb, *options, "--", *units, within=within)
        except AdapterError as error:
            return str(error)
        return "" if done.code == 0 else done.said

    async def _systemctl(self, *words: str, within: float = ASK_WITHIN) -> Finished:
        argv = (*self._prefix, "systemctl", "--no-pager", "--no-ask-password", *words)
        return await run(argv, within=within)


PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ControlGroup",
    "MainPID",
    "Job",
    "ExecMainStatus",
    "ExecStartPre",
)
_TYPES = (
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
)


def _rest(deadline: Deadline) -> float:
    """For one step of a stop.  The last look comes at the deadline, and needs a moment."""
    return min(ASK_WITHIN, max(0.5, deadline.left()))


def full_name(unit: str) -> str:
    """asterisk.service for asterisk; what has a type keeps it."""
    return unit if unit.endswith(_TYPES) else f"{unit}.service"


def _parse(text: str) -> _Unit:
    lines = [line.partition("=")[::2] for line in text.splitlines()]
    said = dict(lines)
    return _Unit(
        load=said.get("LoadState", ""),
        active=said["ActiveState"],
        sub=said.get("SubState", ""),
        result=said.get("Result", ""),
        group=said.get("ControlGroup", ""),
        main=int(said.get("MainPID", "0")),
        job=said.get("Job", "") not in ("", "0"),
        status=said.get("ExecMainStatus", ""),
        refused=_refused([value for name, value in lines if name == "ExecStartPre"]),
    )


def _refused(commands: list[str]) -> str:
    for command in commands:
        program = re.search(r"path=(\S+)", command)
        status = re.search(r"; code=exited ; status=([1-9]\d*)", command)
        if program and status and "; ignore_errors=yes ;" not in command:
            return f"its ExecStartPre={program[1]} refused with exit status {status[1]}"
    return ""
