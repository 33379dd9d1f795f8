"""The claim, the agent, its journal and the PBX, on this node."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from understudy.config import durations
from understudy.core.claim import Claim
from understudy.core.model import Phase, State
from understudy.core.observations import Pbx
from understudy.errors import ClaimMissing, JournalError, told
from understudy.runtime.daemon import Node
from understudy.runtime.status import MUTE

from . import catalogue as c
from .finding import PAIR, Finding, Level
from .here import Here

BAD_PHASES = {
    Phase.HALTED: (Level.CRITICAL, "understudy why; then understudy set-active NODE"),
    Phase.OUTDATED: (Level.WARNING, "understudy rejoin"),
    Phase.DOUBTED: (Level.WARNING, "understudy status"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Journalled:
    state: State | None
    heartbeat: float | None = None  # Wall clock.
    trouble: str = ""


async def claim(here: Here) -> list[Finding]:
    """What the server that decides says, and what follows for this node."""
    found = here.claim
    if found is None:
        return [_unread(here)]
    names = f"the claim names {found.node}, epoch {found.epoch}"
    return [
        c.CLAIM.well(here.me, f"{here.node.store.where} can be read: it names {found.node}"),
        _announced(found),
        _pause(here, found),
        _digest(here, found),
        _epoch(here, found, names),
    ]


def _unread(here: Here) -> Finding:
    error = here.claim_trouble
    if here.hidden:
        return c.CLAIM.unknown(here.me, str(error), mend=c.AS_ROOT)
    if isinstance(error, ClaimMissing):
        return c.CLAIM.bad(here.me, str(error), mend="understudy set-active NODE")
    return c.CLAIM.bad(here.me, str(error), mend=error.hint if error is not None else "")


def _announced(found: Claim) -> Finding:
    if found.announced:
        return c.CLAIM_ANNOUNCED.bad(
            PAIR, f"{found.announced} has announced that it is about to take over"
        )
    return c.CLAIM_ANNOUNCED.well(PAIR, "nobody has announced a take-over")


def _pause(here: Here, found: Claim) -> Finding:
    left = found.pause - here.node.clock.now().wall
    if left > 0:
        return c.PAUSE.bad(PAIR, f"paused for another {durations.show(max(round(left), 1))}")
    return c.PAUSE.well(PAIR, "automatic failover is on")


def _digest(here: Here, found: Claim) -> Finding:
    ours = here.node.policy.digest
    if found.digest != ours:
        return c.CLAIM_DIGEST.bad(
            here.me, f"the claim names the configuration {found.digest}, and this one is {ours}"
        )
    return c.CLAIM_DIGEST.well(here.me, "the claim names this configuration")


def _epoch(here: Here, found: Claim, names: str) -> Finding:
    try:
        state = _read(here.node).state
    except PermissionError as error:
        return c.CLAIM_EPOCH.unknown(here.me, f"{error.filename} may not be read", mend=c.AS_ROOT)
    if state is not None and found.epoch < state.epoch:
        return c.CLAIM_EPOCH.bad(
            here.me, f"{names}, and this node has seen epoch {state.epoch}", active="NODE"
        )
    return c.CLAIM_EPOCH.well(here.me, f"{names}: none higher was seen here")


async def glass(here: Here) -> list[Finding]:
    if here.node.glass_is_broken():
        said = f"the glass is broken: {here.node.glass} is there"
        return [c.BREAK_GLASS.bad(here.me, said, file=here.node.glass)]
    return [c.BREAK_GLASS.well(here.me, "the glass is whole")]


async def agent(here: Here) -> list[Finding]:
    """Does somebody look after this node, and what does that say of itself?"""
    try:
        found = _read(here.node)
    except PermissionError as error:
        return [
            each.unknown(here.me, f"{error.filename} may not be read", mend=c.AS_ROOT)
            for each in (c.AGENT, c.JOURNAL)
        ]
    return [_lives(here, found), *_phase(here, found), _journal_is_well(here, found)]


async def pbx(here: Here) -> list[Finding]:
    """Is the PBX here where the claim says, and nowhere else?"""
    seen = await here.node.service.look()
    if seen is Pbx.UNKNOWN:
        return [c.PBX.unknown(here.me, "cannot tell whether the PBX runs", mend=c.AS_ROOT)]
    if here.claim is None:
        said = f"the PBX is {seen}; without a claim nobody says whether it should be"
        return [c.PBX.unknown(here.me, said)]
    active = here.claim.node
    if active == here.me:
        return [_of_the_active(here, seen)]
    if seen in (Pbx.STOPPED, Pbx.DEAD):
        return [c.PBX.well(here.me, f"the PBX is {seen}, and {active} is active")]
    return [c.PBX.bad(here.me, f"the PBX is {seen} here, and the claim names {active}")]


def _of_the_active(here: Here, seen: Pbx) -> Finding:
    match seen:
        case Pbx.ANSWERING:
            return c.PBX.well(here.me, "the PBX answers SIP, and the claim names this node")
        case Pbx.STARTING:
            return c.PBX.bad(here.me, "the PBX is starting or stopping", level=Level.WARNING)
    return c.PBX.bad(here.me, f"the PBX is {seen}, and the claim names this node")


def _lives(here: Here, found: Journalled) -> Finding:
    node = here.node
    if found.heartbeat is None:
        if node.agent_pid is not None:
            return c.AGENT.well(here.me, "an agent runs")
        return c.AGENT.bad(here.me, "no agent has ever run here")
    now = node.clock.now().wall
    ago = durations.show(max(round(now - found.heartbeat), 0))
    if node.agent_pid is not None:
        if now - found.heartbeat > MUTE and not found.trouble:
            said = f"an agent runs, and has given no sign of life for {ago}: it hangs"
            return c.AGENT.bad(here.me, said, mend="systemctl restart understudy")
        return c.AGENT.well(here.me, "an agent runs")
    if abs(now - found.heartbeat) > node.policy.late:
        return c.AGENT.bad(here.me, f"no agent runs; the last one was seen {ago} ago")
    said = f"no daemon runs, but one from cron did {ago} ago"
    if here.claim is not None and here.claim.node == here.me:
        return c.AGENT.bad(
            here.me,
            f"{said}, on the active node: nothing watches the claim between two rounds, and a "
            "PBX that dies is noticed a round later",
            level=Level.WARNING,
        )
    return c.AGENT.well(here.me, f"{said}: enough for a standby")


def _phase(here: Here, found: Journalled) -> Iterator[Finding]:
    if found.state is None:
        return
    phase = found.state.phase
    if phase in BAD_PHASES:
        level, mend = BAD_PHASES[phase]
        yield c.PHASE.bad(here.me, f"this node is {phase}", level=level, mend=mend)
    else:
        yield c.PHASE.well(here.me, f"this node is {phase}")


def _journal_is_well(here: Here, found: Journalled) -> Finding:
    path = here.node.journal_path
    if found.trouble:
        return c.JOURNAL.bad(here.me, found.trouble, file=path)
    return c.JOURNAL.well(here.me, f"{path} is well")


def _read(node: Node) -> Journalled:
    """Raises PermissionError."""
    try:
        node.journal_path.open("rb").close()
    except PermissionError:
        raise
    except FileNotFoundError:
        return Journalled(state=None)
    except OSError as error:
        return Journalled(state=None, trouble=f"{node.journal_path}: {error.strerror}")
    try:
        with closing(node.journal()) as journal:
            return Journalled(
                state=journal.state,
                heartbeat=journal.heartbeat,
                trouble=journal.trouble or node.noted_trouble(),
            )
    except JournalError as error:
        return Journalled(state=None, trouble=told(error))
