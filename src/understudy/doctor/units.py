"""The units of the PBX and of Understudy itself, as systemd has them.  Nothing is changed."""

import re
from collections.abc import Callable, Iterator, Mapping

from understudy.adapters.services.shutoff import TABLE
from understudy.adapters.services.systemd import GRACE
from understudy.adapters.services.systemd import Settings as Systemd
from understudy.adapters.services.systemd import full_name as full
from understudy.config import durations
from understudy.config.schema import stop_within
from understudy.errors import AdapterError

from . import catalogue as c
from .finding import Finding, Level
from .here import UNIT, Here, show

GUARD_UNIT = "understudy-guard.service"
TIMER = "understudy-tick.timer"
AT_BOOT = ("enabled", "enabled-runtime", "linked", "linked-runtime", "generated")
RUNS = ("active", "activating", "reloading")
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "WantedBy",
    "RequiredBy",
    "TriggeredBy",
    "ExecStartPre",
    "Restart",
    "RestartUSec",
    "TimeoutStopUSec",
)

Shown = Mapping[str, str]


async def pbx(here: Here) -> list[Finding]:
    """The units that the configuration names."""
    settings = here.config.service.settings
    if not isinstance(settings, Systemd):
        return []
    unit = full(settings.unit)
    shown = await show(here, unit, *PROPERTIES)
    if not shown:
        return [c.UNIT.unknown(here.me, f"systemctl says nothing about {unit}", mend=c.AS_ROOT)]
    found = list(_named(here, unit, shown, _pbx))
    for other in map(full, settings.active_only):
        found += _named(here, other, await show(here, other, *PROPERTIES), _active_only)
    return found


async def ours(here: Here) -> list[Finding]:
    """The agent and its guard, where systemd starts them."""
    agent = await show(here, UNIT, *PROPERTIES)
    if not agent:
        return []  # No systemd here: whether an agent runs is another check.
    timer = await show(here, TIMER, *PROPERTIES)
    guard = await show(here, GUARD_UNIT, *PROPERTIES)
    return [_agent(here, agent, timer), _guard(here, guard)]


async def last_resort(here: Here) -> list[Finding]:
    """S5: could the agent shut SIP off?"""
    use_sudo = getattr(here.config.service.settings, "use_sudo", False)
    sudo = ("sudo", "-n") if use_sudo and not here.is_root else ()
    try:
        done = await here.run(*sudo, "nft", "list", "table", *TABLE.split())
    except AdapterError as error:
        return [c.LAST_RESORT.bad(here.me, str(error))]
    if done.code != 0 and "Error: No such file" not in done.err:
        if sudo or here.is_root:
            return [c.LAST_RESORT.bad(here.me, f"nft: {done.said}")]
        if not await _has_right(here):
            said = "whether the agent may use nft cannot be told"
            return [c.LAST_RESORT.unknown(here.me, f"{said}: {done.said}", mend=c.AS_ROOT)]
        return [c.LAST_RESORT.well(here.me, "nft is there, and the agent may use it")]
    if here.is_root and here.as_agent and not use_sudo and not await _has_right(here):
        said = f"nft works, and {UNIT} does not have the right to use it"
        return [c.LAST_RESORT.bad(here.me, said)]
    return [c.LAST_RESORT.well(here.me, "nft works: SIP could be shut off")]


async def _has_right(here: Here) -> bool:
    """Does the agent's unit give it CAP_NET_ADMIN (systemd.exec(5), AmbientCapabilities=)?"""
    shown = await show(here, UNIT, "AmbientCapabilities")
    return "cap_net_admin" in shown.get("AmbientCapabilities", "")


Look = Callable[[Here, str, Shown], Iterator[Finding]]


def _named(here: Here, unit: str, shown: Shown, look: Look) -> Iterator[Finding]:
    """Is it there, and does nothing but Understudy start it; and what else is to be seen."""
    missing = _missing(here, unit, shown)
    if missing is not None:
        yield missing
        return
    yield c.UNIT.well(here.me, f"{unit} exists")
    yield _disabled(here, unit, shown)
    yield from look(here, unit, shown)


def _pbx(here: Here, unit: str, shown: Shown) -> Iterator[Finding]:
    yield _guarded(here, unit, shown)
    yield _restart(here, unit, shown)
    yield _stop(here, unit, shown)


def _active_only(here: Here, unit: str, shown: Shown) -> Iterator[Finding]:
    if here.claim is None:
        return
    if here.claim.node != here.me and shown.get("ActiveState") in RUNS:
        said = f"{unit} should run on the active node alone, and is {shown['ActiveState']} here"
        yield c.UNIT_PLACE.bad(here.me, said, unit=unit)
    else:
        yield c.UNIT_PLACE.well(here.me, f"{unit} is where it should be")


def _missing(here: Here, unit: str, shown: Shown) -> Finding | None:
    state = shown.get("LoadState", "not-found")
    if state == "loaded":
        return None
    if state == "masked":
        return c.UNIT.bad(here.me, f"{unit} is masked", mend=f"systemctl unmask {unit}")
    return c.UNIT.bad(here.me, f"systemd cannot load {unit} ({state})", unit=unit)


def _disabled(here: Here, unit: str, shown: Shown) -> Finding:
    state = shown.get("UnitFileState", "")
    by = shown.get("WantedBy", "") or shown.get("RequiredBy", "") or shown.get("TriggeredBy", "")
    if state in AT_BOOT:
        return c.UNIT_DISABLED.bad(here.me, f"{unit} starts at boot ({state})", unit=unit)
    if by:
        said = f"{unit} is started by {by.split()[0]}"
        return c.UNIT_DISABLED.bad(
            here.me, said, mend=f"systemctl disable {by.split()[0]} {unit}, or cut the two apart"
        )
    return c.UNIT_DISABLED.well(here.me, f"{unit} does not start at boot")


def _guarded(here: Here, unit: str, shown: Shown) -> Finding:
    guards = [line for line in shown.get("ExecStartPre", "").splitlines() if "may-start" in line]
    if not guards:
        return c.UNIT_GUARDED.bad(
            here.me,
            f"{unit} starts without asking: may-start is not in its ExecStartPre=",
            unit=unit,
        )
    if all("ignore_errors=yes" in line for line in guards):
        return c.UNIT_GUARDED.bad(
            here.me,
            f"{unit} asks may-start and starts whatever it says: ExecStartPre= begins with -",
            mend=f"systemctl edit {unit}: take the - away",
        )
    return c.UNIT_GUARDED.well(here.me, f"may-start guards {unit}")


def _restart(here: Here, unit: str, shown: Shown) -> Finding:
    grace = here.node.policy.restart_grace
    way, pause = shown.get("Restart", "no"), seconds(shown.get("RestartUSec", ""))
    if way not in ("no", "on-success") and pause is not None and pause >= grace:
        waits = f"{unit} waits {durations.show(pause)} before it restarts"
        said = f"{waits}, and the node hands over after {durations.show(grace)}"
        return c.UNIT_RESTART.bad(here.me, said, unit=unit)
    if way in ("no", "on-success"):
        said = f"systemd does not restart {unit} after a crash: the agent does, {durations.show(grace / 2)} later"
        return c.UNIT_RESTART.bad(here.me, said, unit=unit, level=Level.NOTE)
    return c.UNIT_RESTART.well(
        here.me, f"{unit} restarts by itself after {durations.show(pause or 0)}"
    )


def _stop(here: Here, unit: str, shown: Shown) -> Finding:
    ours = GRACE * stop_within(here.config)
    theirs = seconds(shown.get("TimeoutStopUSec", ""))
    if theirs is None or theirs > ours:
        allowed = "any time" if theirs is None else durations.show(theirs)
        said = f"{unit} may take {allowed} to stop, and is killed after {durations.show(ours)}"
        return c.UNIT_STOP.bad(here.me, said, unit=unit)
    return c.UNIT_STOP.well(here.me, f"{unit} has {durations.show(theirs)} to stop")


def _agent(here: Here, agent: Shown, timer: Shown) -> Finding:
    for unit, shown in ((UNIT, agent), (TIMER, timer)):
        if shown.get("UnitFileState", "") in AT_BOOT:
            return c.AGENT_AT_BOOT.well(here.me, f"{unit} is enabled")
    if agent.get("LoadState") != "loaded":
        said = f"there is no {UNIT}: systemd does not start the agent"
        return c.AGENT_AT_BOOT.bad(here.me, said, unit=UNIT, level=Level.WARNING)
    return c.AGENT_AT_BOOT.bad(here.me, f"{UNIT} is not enabled", unit=UNIT)


def _guard(here: Here, shown: Shown) -> Finding:
    if shown.get("LoadState") != "loaded":
        return c.GUARD.bad(here.me, f"there is no {GUARD_UNIT}", unit=GUARD_UNIT)
    if shown.get("ActiveState") not in RUNS:
        said = f"{GUARD_UNIT} is {shown.get('ActiveState', 'not running')}"
        return c.GUARD.bad(here.me, said, unit=GUARD_UNIT)
    if shown.get("UnitFileState", "") not in AT_BOOT:
        said = f"{GUARD_UNIT} runs, and does not start at boot"
        return c.GUARD.bad(here.me, said, unit=GUARD_UNIT)
    return c.GUARD.well(here.me, f"{GUARD_UNIT} runs")


_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 7 * 86_400.0,
}


def seconds(text: str) -> float | None:
    """A time span as systemctl prints it: "1min 30s", "100ms" (systemd.time(7)).  None for infinity."""
    parts = re.findall(r"([0-9.]+)([a-z]+)", text)
    if not parts or any(unit not in _UNITS for _, unit in parts):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
