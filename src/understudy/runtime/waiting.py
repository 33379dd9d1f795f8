"""What a node waits for: why it does not do more than it does.  Pure; asks the core's own conditions.

`now` is boot time of that node's machine and `wall` its wall clock, both in seconds.
"""

import time
from collections.abc import Sequence

from understudy.core import when
from understudy.core.model import NEVER, SERVING, Phase, State
from understudy.core.observations import NOTHING, Pbx, Ready
from understudy.core.policy import Policy
from understudy.core.runbooks import RUNBOOKS
from understudy.core.votes import Verdict
from understudy.core.when import Facts

from .journal_news import NOT_READ
from .journal_rows import POINTING, WRITING, Failing


def waiting_for(
    state: State,
    policy: Policy,
    now: float,
    wall: float,
    *,
    failing: Sequence[Failing] = (),
    stale: str = "",
) -> str:
    """One clause, for after a colon; empty when this node has nothing to wait for.

    `stale` is what runtime.stale.keeps says about the copy here.
    """
    facts = Facts(state, NOTHING, now, wall, policy)
    match state.phase:
        case Phase.STANDBY:
            kept = f"; {by_itself(stale)}" if stale else ""
            return _standby(facts) + kept
        case Phase.SUSPECTING:
            return _suspecting(facts, failing, stale)
        case Phase.SILENT:
            return _silent(facts)
        case Phase.ACTIVE | Phase.DOUBTED:
            return _serving(facts)
        case Phase.OUTDATED:
            return _outdated(facts)
        case Phase.HALTED:
            return "a person decides: understudy set-active NODE, or understudy rejoin"
    return f"the step under way: {step_of(state)}"


def by_itself(stale: str) -> str:
    return f"it would not take over by itself: {stale}"


def obstacle(f: Facts) -> str:
    """Why nothing may move automatically, whatever the check points say; empty if nothing keeps it."""
    claim, policy = f.claim, f.policy
    if not when.claim_is_fresh_enough(f) or claim is None:
        return unreadable(f.state)
    if not claim.announced and claim.node == policy.peer and claim.digest != policy.digest:
        return f"{policy.me} has another configuration than the claim names [C6]"
    if f.wall < claim.pause:
        return f"automatic failover is paused until {clock(claim.pause)} [C7]"
    if not when.automatic_is_on(f):
        left = span(claim.settle - f.wall)
        return f"an automatic change has just been made: no second one for {left} more"
    return ""


def unreadable(state: State) -> str:
    """Why the newest reading of the claim does not count."""
    trouble = state.evidence.claim_trouble
    if not trouble or trouble.startswith(NOT_READ):
        return "the claim has not been read yet"
    return trouble if trouble.startswith("the claim") else f"the claim cannot be read: {trouble}"


def step_of(state: State) -> str:
    """The name of the step that a moving phase stands at; empty in the others."""
    if state.runbook is None:
        return ""
    entries = RUNBOOKS[state.runbook]
    return str(entries[min(state.step, len(entries) - 1)].step)


def still_failing(
    failing: Sequence[Failing], state: State, policy: Policy, wall: float
) -> tuple[Failing, ...]:
    """Those that are still tried: once is an accident, and what is not tried any more is history."""
    claim = state.evidence.claim
    behind = claim is not None and claim.node == policy.me and state.pointed < claim.epoch
    recent = wall - policy.late
    return tuple(
        each
        for each in failing
        if (behind if each.action == POINTING else each.times > 1) and each.last >= recent
    )


def in_short(failing: Failing) -> str:
    """How often, since when, and why."""
    times = f"{failing.times} times since" if failing.times > 1 else "at"
    return f"{verb_of(failing)} failed {times} {clock(failing.since)}: {failing.why}"


def verb_of(failing: Failing) -> str:
    if failing.action == POINTING:
        return "leading the name here"
    if failing.action.endswith("is about to take over") and "strike" not in failing.action:
        return "announcing"
    return f"writing the claim ({failing.action.removeprefix(WRITING)})"


def announces_in(f: Facts) -> float:
    """Seconds until patience allows the announcement."""
    return max(f.evidence.down_since + f.policy.announce_after - f.now, 0.0)


def takes_in(f: Facts) -> float:
    """Seconds until the take is allowed at the earliest: patience over, and `announce` has run (T1)."""
    evidence, policy = f.evidence, f.policy
    announced = evidence.announced_at if when.we_announced(f) else f.now + announces_in(f)
    return max(max(evidence.down_since + policy.patience, announced + policy.announce) - f.now, 0.0)


def span(seconds: float) -> str:
    """A duration in two units at most: 45s, 3m10s, 1m05s, 2h, 12d."""
    whole = max(int(seconds), 0)
    for size, unit, below, small in _UNITS:
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size}{unit}" + (f"{rest:02}{small}" if rest else "")
    return f"{whole}s"


def clock(wall: float) -> str:
    """A moment, in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def _standby(f: Facts) -> str:
    peer = f.policy.peer
    if f.evidence.claim_trouble:
        return unreadable(f.state)
    match f.evidence.theirs:
        case Verdict.UP:
            return f"nothing: {peer} answers"
        case Verdict.UNCLEAR if f.evidence.round_at == NEVER:
            return "the check points have not been asked yet"
        case Verdict.UNCLEAR if f.evidence.round_at < f.evidence.epoch_at:
            return "the first round of the check points since this claim was read"
        case Verdict.UNCLEAR:
            return f"the check points do not agree that {peer} is down"
    return f"the next round: {peer} does not answer"


def _suspecting(f: Facts, failing: Sequence[Failing], stale: str) -> str:
    reason = obstacle(f)
    if stale:
        if reason:
            return f"{reason}; {by_itself(stale)}"
        return f"a person: {by_itself(stale)}; understudy failover says what that would cost"
    if reason:
        return reason
    if when.we_announced(f):
        left = takes_in(f)
        if left:
            return f"patience: it has announced, and takes over in {span(left)} at the earliest"
        return f"the next round that says {f.policy.peer} is down: then it takes over"
    left = announces_in(f)
    if left:
        return f"patience: it will announce in {span(left)}"
    tried = next((each for each in failing if each.action != POINTING), None)
    return "its announcement is due" if tried is None else f"its announcement: {in_short(tried)}"


def _silent(f: Facts) -> str:
    me, peer, claim = f.policy.me, f.policy.peer, f.claim
    if not when.claim_is_fresh(f) or claim is None:
        return unreadable(f.state)
    if not when.claim_is_ours(f):
        return f"a moment: the claim names {claim.node}"
    if claim.announced:
        return f"{claim.announced} has announced that it is about to take over [T7]"
    if not when.start_may_be_tried(f):
        left = f.evidence.start_failed_at + 3 * f.policy.restart_grace - f.now
        return f"the PBX here could not be started: it is tried again in {span(left)}"
    if when.claim_was_given(f):
        return "a moment: it is about to start the PBX"
    if f.evidence.round_at < f.state.since:
        return f"a round of the check points: do they see {peer} up? [T7]"
    if f.evidence.theirs is Verdict.UP:
        return (
            f"the claim names {me}, but the check points still see {peer} up: stop the PBX on"
            f" {peer}, or say who is active: understudy set-active NODE [T7]"
        )
    return "a moment: it is about to start the PBX"


def _serving(f: Facts) -> str:
    evidence, peer = f.evidence, f.evidence.peer
    if evidence.pbx not in (Pbx.DEAD, Pbx.DEAF) or evidence.pbx_bad_since == NEVER:
        return ""
    if evidence.restarted_at < evidence.pbx_bad_since:
        return f"the PBX here is {evidence.pbx}: a restart is tried first"
    reason = obstacle(f)
    if reason:
        return f"the PBX here is {evidence.pbx}, but {reason}"
    if peer is not None and peer.ready is Ready.NO:
        return f"the PBX here is {evidence.pbx}, but {f.policy.peer} is not ready: {peer.why}"
    return f"the PBX here is {evidence.pbx}: is {f.policy.peer} ready to take over? [H2]"


def _outdated(f: Facts) -> str:
    if when.taker_has_served(f) and when.peer_is_down(f):
        return (
            "a person: understudy set-active NODE, or understudy failover --accept-loss all"
            " (what the other node recorded is lost) [T6]"
        )
    return "a person: understudy rejoin, which renews our copy from the active node"


def facts_of(state: State, policy: Policy, now: float, wall: float) -> Facts:
    return Facts(state, NOTHING, now, wall, policy)


def serves(state: State) -> bool:
    """Does this node's own PBX answer calls, as far as it knows?"""
    return state.phase in SERVING and state.evidence.pbx not in (Pbx.DEAD, Pbx.DEAF, Pbx.STOPPED)


_UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
