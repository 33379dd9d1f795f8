"""Protected or not: could the standby take over now?  Pure; runtime.watch asks, and keeps what is found here.

What is judged is what the standby's `status` says about itself: on the active node as the other one answered it, on the
standby as it is.  So both speak of it in the same words.  `wall` is wall clock seconds, ages are seconds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.core import when
from understudy.core.claim import Claim
from understudy.core.model import Phase, State
from understudy.core.observations import Health, Pbx
from understudy.core.policy import Policy

from . import statecodec
from .copy_state import ClassState, CopyState
from .door import WILLING
from .status import Code, Status
from .waiting import clock, facts_of, span

CLOCKS = 1.0  # Seconds by which the clocks of both nodes may differ: pause and settle_down are times of the wall clock.
DISK_LOW = 20 * 1024 * 1024  # Bytes.


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why it could not; with the command that mends it."""

    text: str
    certain: bool = (
        True  # Else a moment may pass over it: it is believed when it is found twice in a row.
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What `status --json` says beside the fields of Status.  The keys only grow."""

    version: str = ""
    digest: str = ""  # C6: of the configuration file as it is now.
    adopted: str = ""  # Of the one that its agent works with.
    wall: float = 0.0  # When it said so, by its own clock.
    disk_free: int | None = None  # Bytes that the agent may still write where its journal is.
    journal_failing: str = ""  # Why the living agent cannot write its journal.
    glass: bool = False  # A person runs the PBX there whatever the claim says.
    copies: CopyState | None = None  # None: no class of data is configured.


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a node says of itself."""

    view: Status
    extras: Extras


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a standby is measured by."""

    me: str  # The node that judges.
    active: str
    epoch: int
    digest: str
    version: str
    checkpoints: int
    late: float
    asked: tuple[float, float] | None = (
        None  # Wall clock: when it was asked, and when it had answered.
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """The verdict, as the journal keeps it."""

    standby: str
    epoch: int
    protected: bool
    since: float
    looked: float  # For the last time.
    reasons: tuple[str, ...] = ()
    known: bool = True  # Else it was looked at once, and not found well.
    doubted: bool = False  # What the last look found has yet to be found again.
    copies: tuple[ClassState, ...] = ()  # What the standby holds, as it said then.


def account_of(answer: Mapping[str, Any]) -> Account:
    """Raises JournalError, naming what this version does not understand."""
    found = dict(answer)
    return Account(
        view=statecodec.from_json(Status, found), extras=statecodec.from_json(Extras, found)
    )


def wanted(
    policy: Policy, claim: Claim | None, version: str, asked: tuple[float, float] | None = None
) -> Wanted:
    return Wanted(
        me=policy.me,
        active=claim.node if claim is not None else policy.peer,
        epoch=claim.epoch if claim is not None else 0,
        digest=claim.digest if claim is not None else policy.digest,
        version=version,
        checkpoints=policy.checkpoints,
        late=policy.late,
        asked=asked,
    )


def objections(account: Account, by: Wanted) -> list[Reason]:
    """All that keeps this standby from taking over."""
    agent = list(_agent(account, by))
    # What an agent that does not live has left behind is old.
    old = () if agent else (_phase, _claim, _check_points, _pbx)
    looks = (*old, _same, _disk, _clock, _glass, _copy)
    return agent + [reason for look in looks for reason in look(account, by)]


def rules(state: State, policy: Policy, now: float, wall: float) -> list[Reason]:
    """What keeps any standby from taking over, by the claim as this node last read it."""
    claim, facts = state.evidence.claim, facts_of(state, policy, now, wall)
    if claim is None:
        return []
    if wall < claim.pause:
        text = f"automatic failover is paused until {clock(claim.pause)}: understudy resume"
        return [Reason(text=text)]
    if claim.returns >= when.MOST_RETURNS and not claim.served:
        text = (
            "two moves in a row have not helped: look at both PBXs, then understudy set-active NODE"
        )
        return [Reason(text=text)]
    if not when.automatic_is_on(facts):
        left = span(claim.settle - wall)
        text = (
            f"nothing moves automatically for {left} more, after the last change: understudy resume"
        )
        return [Reason(text=text)]
    return []


def judged(
    before: Protection | None, found: Sequence[Reason], *, standby: str, epoch: int, wall: float
) -> Protection:
    """The verdict after another look."""
    last = of_standby(before, standby, epoch)
    verdict = verdict_of(last, found, standby=standby, epoch=epoch, wall=wall)
    sure = verdict.protected or any(reason.certain for reason in found)
    if sure or (last is not None and (last.doubted or not last.protected)):
        return verdict
    if last is None:
        return replace(verdict, known=False, doubted=True)
    return replace(last, looked=wall, doubted=True)


def of_standby(verdict: Protection | None, standby: str, epoch: int) -> Protection | None:
    """That verdict, if it is one about this standby in this epoch."""
    same = verdict is not None and (verdict.standby, verdict.epoch) == (standby, epoch)
    return verdict if same else None


def verdict_of(
    last: Protection | None, found: Sequence[Reason], *, standby: str, epoch: int, wall: float
) -> Protection:
    """What was found, believed at once.  It goes on from the last verdict that was the same."""
    texts = tuple(dict.fromkeys(reason.text for reason in found))
    same = last is not None and last.protected is not bool(texts)
    return Protection(
        standby=standby,
        epoch=epoch,
        protected=not texts,
        since=last.since if last is not None and same else wall,
        looked=wall,
        reasons=texts,
    )


def news(before: Protection | None, after: Protection) -> str:
    """What a person should be told; empty if nothing is new."""
    if not after.known:
        return ""
    last = of_standby(before, after.standby, after.epoch)
    if last is not None and not last.known:
        last = None
    if after.protected:
        if last is not None and last.protected:
            return ""
        again = f" again after {span(after.since - last.since)}" if last is not None else ""
        return f"PROTECTED{again}: {after.standby} could take over"
    why = "; ".join(after.reasons)
    if last is None or last.protected:
        return f"NOT PROTECTED: {why}"
    return "" if _gist(last.reasons) == _gist(after.reasons) else f"still NOT PROTECTED: {why}"


def _gist(reasons: Sequence[str]) -> str:
    """Two reasons that differ in a number are one."""
    return re.sub(r"\d[\d.:-]*[a-z]?", "", "; ".join(reasons))


_Found = Iterator[Reason]


def _there(account: Account, by: Wanted) -> str:
    return "here" if account.view.node == by.me else "there"


def _agent(account: Account, by: Wanted) -> _Found:
    agent, node, there = account.view.agent, account.view.node, _there(account, by)
    age = agent.heartbeat_age
    if age is None:
        yield Reason(text=f"no agent has run on {node} yet: systemctl start understudy {there}")
    elif agent.pid is None and agent.is_daemon:
        text = f"{node}'s agent has ended, {span(age)} ago: systemctl status understudy {there}"
        yield Reason(text=text, certain=False)
    elif agent.is_mute:
        text = f"{node}'s agent runs, but has written nothing for {span(age)}: df, journalctl -u understudy {there}"
        yield Reason(text=text, certain=False)
    elif agent.is_late:
        text = (
            f"{node}'s agent has said nothing for {span(age)}: systemctl status understudy {there}"
        )
        yield Reason(text=text, certain=False)


def _phase(account: Account, by: Wanted) -> _Found:
    view, there = account.view, _there(account, by)
    match view.phase:
        case phase if phase in WILLING:
            return
        case Phase.OUTDATED:
            yield Reason(
                text=f"{view.node} is outdated, its copy may lack data: understudy rejoin {there}"
            )
        case Phase.HALTED:
            cure = "understudy set-active NODE, or understudy rejoin"
            yield Reason(
                text=f"{view.node} is halted (understudy why {there}); a person decides: {cure}"
            )
        case Phase.SILENT:
            yield Reason(text=f"{view.node} is silent: {view.waiting_for}", certain=False)
        case Phase.REJOINING:
            yield Reason(text=f"{view.node} is rejoining: its copy is being renewed", certain=False)
        case phase:
            text = f"{view.node} is {phase}, and no standby: understudy status {there}"
            yield Reason(text=text, certain=False)


def _same(account: Account, by: Wanted) -> _Found:
    node, extras, there = account.view.node, account.extras, _there(account, by)
    if _release(extras.version) != _release(by.version):
        runs = f"Understudy {extras.version}" if extras.version else "an old Understudy"
        text = f"{node} runs {runs} and {by.me} {by.version}: install the same on both"
        yield Reason(text=text)
    if extras.digest != by.digest:
        text = (
            f"{node} has another configuration than the claim names: put the same file on both nodes,"
            f" then systemctl restart understudy {there}"
        )
        yield Reason(text=text)
    elif extras.adopted not in ("", by.digest):
        text = f"{node}'s agent works with an older configuration: systemctl restart understudy {there}"
        yield Reason(text=text, certain=False)


def _release(version: str) -> list[str]:
    """Nodes whose versions differ in the third number understand each other."""
    return version.split(".")[:2]


def _claim(account: Account, by: Wanted) -> _Found:
    view = account.view
    if view.claim is None or view.claim_trouble:
        trouble = view.claim_trouble or "it was never read"
        yield Reason(text=f"{view.node} cannot read the claim: {trouble}", certain=False)
    elif (view.claim.node, view.claim.epoch) != (by.active, by.epoch):
        text = (
            f"{view.node} reads that {view.claim.node} is active in epoch {view.claim.epoch}, {by.me} that"
            f" {by.active} is in epoch {by.epoch}: do both ask the same server ([claim])?"
        )
        yield Reason(text=text, certain=False)


def _check_points(account: Account, by: Wanted) -> _Found:
    view, there = account.view, _there(account, by)
    if view.round_age is None:
        yield Reason(text=f"{view.node} has not asked the check points yet", certain=False)
        return
    if view.round_age > by.late:
        text = f"{view.node} asked the check points {span(view.round_age)} ago for the last time"
        yield Reason(text=text, certain=False)
        return
    votes = [vote for each in view.nodes if each.node == by.active for vote in each.votes]
    mute = [vote for vote in votes if vote.health is Health.UNKNOWN]
    able = len(votes) - len(mute)
    if able > by.checkpoints // 2:
        return
    why = f" ({mute[0].checkpoint}: {mute[0].text})" if mute and mute[0].text else ""
    yield Reason(
        text=f"only {able} of {by.checkpoints} check points tell {view.node} whether {by.active} answers{why}:"
        f" understudy status {there}",
        certain=False,
    )


def _pbx(account: Account, by: Wanted) -> _Found:
    view, there = account.view, _there(account, by)
    if view.pbx is Pbx.UNKNOWN:
        text = f"{view.node} cannot tell how its PBX is: is [service] right {there}?  understudy doctor"
        yield Reason(text=text, certain=False)
    if any(trouble.code is Code.START_FAILED for trouble in view.troubles):
        text = (
            f"{view.node} could not start its PBX within the last hour: understudy events {there}"
        )
        yield Reason(text=text)


def _disk(account: Account, by: Wanted) -> _Found:
    node, extras, there = account.view.node, account.extras, _there(account, by)
    if extras.disk_free is not None and extras.disk_free < DISK_LOW:
        left = f"{extras.disk_free / 1e6:.1f} MB left"
        yield Reason(
            text=f"the disk of {node} is full where its journal is ({left}): df -h {there}"
        )
    elif extras.journal_failing:
        yield Reason(text=f"{node} cannot write: {extras.journal_failing}", certain=False)


def _clock(account: Account, by: Wanted) -> _Found:
    """Its clock was read at some moment between question and answer: only what lies outside is a difference."""
    if by.asked is None:
        return
    sent, answered = by.asked
    said = account.extras.wall
    off = max(sent - said, said - answered)
    if off <= CLOCKS or not said:
        return
    where = "ahead of" if said > answered else "behind"
    text = f"{account.view.node}'s clock is {span(off)} {where} {by.me}'s: timedatectl on both"
    yield Reason(text=text, certain=False)


def _copy(account: Account, by: Wanted) -> _Found:
    """The data that it would start with."""
    copies, node, there = account.extras.copies, account.view.node, _there(account, by)
    if copies is None:
        return
    wall = account.extras.wall
    if copies.is_silent(wall):
        since = f" for {span(wall - copies.written)}" if copies.written else ""
        text = f"no copier is at work on {node}{since}: systemctl start understudy-copier {there}"
        yield Reason(text=text, certain=False)
    for each in copies.classes:
        if not each.is_stale(wall):
            continue
        age = each.age(wall)
        what = "was never copied" if age is None else f"is a copy {span(age)} old"
        why = f": {each.trouble}" if each.trouble else ""
        yield Reason(text=f"{each.name} on {node} {what}{why}", certain=False)


def _glass(account: Account, by: Wanted) -> _Found:
    if account.extras.glass:
        there = _there(account, by)
        yield Reason(
            text=f"the glass is broken on {account.view.node}: when its PBX is stopped, remove break-glass {there}"
        )
