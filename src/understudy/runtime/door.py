"""What a node answers when the other one asks (PROTOCOL H2, T4)."""

from math import inf

from understudy.core.claim import Claim
from understudy.core.model import SERVING, Phase, State
from understudy.core.observations import PeerAnswer, Ready
from understudy.core.policy import Policy
from understudy.core.when import MOST_RETURNS

STOPPED = frozenset(
    {Phase.STANDBY, Phase.SUSPECTING, Phase.SILENT, Phase.OUTDATED, Phase.REJOINING}
)
WILLING = frozenset({Phase.STANDBY, Phase.SUSPECTING})


def is_stopped(state: State) -> bool:
    """In this phase no PBX of ours runs, or no SIP can reach it: a fence has nothing left to do (T4, S5)."""
    return state.phase in STOPPED or (state.phase is Phase.HALTED and state.runbook is None)


def readiness(
    state: State, policy: Policy, epoch: int, now: float, *, stale_from: float = inf
) -> PeerAnswer:
    """H2: could this node take over from the active one now, for this epoch?"""
    why = _objection(state, policy, epoch, now)
    if not why and now >= stale_from:
        why = f"the copy on {policy.me} is too old to serve with (understudy status there)"
    return PeerAnswer(
        asked_at=now, ready=Ready.NO if why else Ready.YES, epoch=state.epoch, why=why
    )


def _objection(state: State, policy: Policy, epoch: int, now: float) -> str:
    evidence, claim = state.evidence, state.evidence.claim
    if state.phase not in WILLING:
        return f"{policy.me} is {state.phase}"
    if claim is None or evidence.claim_trouble:
        return f"{policy.me} cannot read the claim: {evidence.claim_trouble}"
    if state.epoch != epoch:
        return f"{policy.me} knows epoch {state.epoch}, not {epoch}"
    if now - evidence.claim_at > policy.claim_stale:
        return f"{policy.me} has not read the claim for {now - evidence.claim_at:.0f} s"
    if claim.digest != policy.digest:
        return f"{policy.me} has another configuration than the claim names"
    if claim.returns >= MOST_RETURNS and not claim.served:
        return "two moves in a row have not helped: a person must look at both PBXs first"
    if now - evidence.start_failed_at < policy.settle_down:
        return f"the PBX of {policy.me} could not be started a moment ago"
    return ""


def source_refusal(state: State, policy: Policy, claim: Claim | None, epoch: int) -> str:
    """Why the other node may not copy from this one; empty if it may.

    `claim` was read just now: a node that was active once, and does not know better yet, is never a source.
    """
    if claim is None:
        return (
            f"{policy.me} cannot read the claim, so it does not know whether its data is the newest"
        )
    if claim.node != policy.me:
        return f"{policy.me} is not active: {claim.node} is, in epoch {claim.epoch}"
    if claim.epoch != epoch:
        return f"{policy.me} is active in epoch {claim.epoch}, not {epoch}"
    if state.phase not in SERVING and state.phase is not Phase.HANDING_OVER:
        return f"{policy.me} is {state.phase}"
    return ""


def fence_refusal(state: State, policy: Policy, node: str, epoch: int) -> str:
    """T4: why a fence is not obeyed; empty if it is."""
    if node != policy.me:
        return f"this is {policy.me}, not {node}"
    claim = state.evidence.claim
    if claim is not None and claim.node == policy.me and claim.epoch >= epoch:
        return f"{policy.me} holds the claim in epoch {claim.epoch}; the fence is for {epoch}"
    return ""
