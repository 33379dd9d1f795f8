"""When to look again.  The loops around the core ask here, so that cron, daemon and simulator keep the same time.

All answers are seconds from `now`.  A caller adds jitter to rounds (V4); deadlines are met to the moment.
"""

from .model import NEVER, SERVING, Phase, State
from .policy import Policy

WAITING = frozenset({Phase.SILENT, Phase.DOUBTED})


def next_round(state: State, now: float, policy: Policy, jitter: float = 1.0) -> float:
    """V4: until the next round of questions to the check points.  `jitter` is a factor, 0.9 to 1.1."""
    evidence = state.evidence
    interval = policy.quick if is_attentive(state, now, policy) else policy.interval
    due = evidence.round_at + interval * jitter
    if state.phase is Phase.SUSPECTING:
        # Be there when something is due: not a round later, and not with a question that is still on its way.
        for instant in _turning_points(state, policy):
            if evidence.round_at < instant < due + policy.question:
                due = instant + TICK
    return max(due - now, 0.0)


def is_attentive(state: State, now: float, policy: Policy) -> bool:
    """Is something about to happen that a full interval would be too long for?"""
    evidence = state.evidence
    if state.phase in WAITING or (evidence.claim is not None and evidence.claim.is_announced):
        return True
    if state.phase is Phase.ACTIVE:  # Proof 2 is due, or has just been missed.
        return (
            now - evidence.up_at > 1.2 * policy.interval + policy.question
            and evidence.up_since == NEVER
        )
    suspects = state.phase is Phase.SUSPECTING and evidence.down_since != NEVER
    return suspects and now - evidence.down_since >= policy.announce_after


def _turning_points(state: State, policy: Policy) -> tuple[float, ...]:
    """When to ask the round that may lead to an announcement, and the one that may lead to a take (T1)."""
    evidence = state.evidence
    return (
        evidence.down_since + policy.announce_after,
        max(
            evidence.down_since + policy.patience - policy.question,
            evidence.announced_at + policy.announce,
        ),
    )


def next_reading(state: State, now: float, policy: Policy) -> float:
    """Until the claim is read again: three readings within `claim_stale`, so that one may fail."""
    return max(state.evidence.claim_at + policy.claim_stale / 3 - now, 0.0)


def serving_ends(state: State, policy: Policy) -> float:
    """S1, S2: the instant at which both proofs are too old.

    Whatever guards the PBX when the agent is dead or hangs holds this instant, not a time of its own: an agent's death
    gives its PBX not a second more than its life would have given it.
    """
    evidence = state.evidence
    return max(evidence.proved_at + policy.claim_stale, evidence.up_at + policy.checkpoints_stale)


def next_look(state: State, policy: Policy) -> float:
    """Between two looks at our own PBX: one that should serve and does not is looked at more often."""
    if state.phase not in SERVING:
        return max(1.0, policy.restart_grace / 2)
    if state.evidence.pbx_good_since == NEVER:
        return max(0.25, policy.restart_grace / 20)
    return max(1.0, policy.restart_grace / 4)


def next_turn(state: State, now: float, policy: Policy) -> float:
    """Until the next instant at which time alone may change the decision."""
    evidence = state.evidence
    soonest = now + policy.interval
    for instant in (
        evidence.proved_at + policy.claim_stale,
        evidence.up_at + policy.checkpoints_stale,
        evidence.void_since + policy.first_proof,
        evidence.epoch_at + policy.outlives,
        evidence.pbx_good_since + policy.settle_down,
        evidence.announced_at + policy.announce,
        evidence.announced_at + policy.patience + 2 * policy.interval,
        evidence.start_failed_at + 3 * policy.restart_grace,
        evidence.down_since + policy.announce_after,
        evidence.down_since + policy.patience,
        evidence.pbx_bad_since + policy.restart_grace / 2,
        evidence.pbx_bad_since + policy.restart_grace - policy.ask_ahead,
        evidence.pbx_bad_since + policy.restart_grace,
        evidence.restarted_at + 3 * policy.restart_grace,
    ):
        if now - TICK < instant < soonest:
            soonest = instant
    return max(soonest - now, 0.0) + TICK


TICK = 0.001  # Just after an instant, so that "older than" holds.
