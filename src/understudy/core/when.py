"""The conditions that a row may name.  Each answers one yes-or-no question."""

from .claim import Claim, How
from .model import NEVER, Evidence, Runbook, State
from .observations import Order, Outcome, Pbx, Ready, Result, Seen, Verb
from .policy import Isolation, Policy
from .runbooks import NEED_THE_CLAIM, RUNBOOKS, Entry, OnFailure, Step
from .votes import Verdict

MOST_RETURNS = 2  # T5.
BY_A_PERSON = frozenset({How.SET, How.MOVED, How.FORCED})


class Facts:
    """All that a decision depends on.  `now` is boot time, `wall` wall clock time, both in seconds."""

    __slots__ = ("claim", "evidence", "now", "policy", "seen", "state", "wall")

    def __init__(self, state: State, seen: Seen, now: float, wall: float, policy: Policy) -> None:
        self.state, self.seen, self.now, self.wall, self.policy = state, seen, now, wall, policy
        self.evidence: Evidence = state.evidence
        self.claim: Claim | None = state.evidence.claim


# The claim


def claim_is_ours(f: Facts) -> bool:
    return f.claim is not None and f.claim.node == f.policy.me


def claim_is_theirs(f: Facts) -> bool:
    return f.claim is not None and f.claim.node == f.policy.peer


def claim_is_fresh(f: Facts) -> bool:
    """Read since this phase began, and the newest reading counts."""
    evidence = f.evidence
    return evidence.claim_at >= f.state.since and not evidence.claim_trouble


def they_announced(f: Facts) -> bool:
    return f.claim is not None and f.claim.announced == f.policy.peer


def we_announced(f: Facts) -> bool:
    return f.claim is not None and f.claim.announced == f.policy.me


def claim_is_free_for_us(f: Facts) -> bool:
    """Ours and not announced, by a reading of this phase (T7)."""
    return claim_is_ours(f) and claim_is_fresh(f) and f.claim is not None and not f.claim.announced


def claim_was_given(f: Facts) -> bool:
    """H1: the other node gave it to us with its PBX proved stopped."""
    return (
        claim_is_free_for_us(f)
        and f.claim is not None
        and f.claim.how in (How.HANDED, How.RETURNED)
        and not f.claim.served
        and start_may_be_tried(f)
    )


def claim_is_ours_to_resume(f: Facts) -> bool:
    """T7: ours, not announced, and the check points do not report the other node up."""
    return (
        claim_is_free_for_us(f)
        and f.evidence.round_at >= f.state.since
        and f.evidence.theirs is not Verdict.UP
        and start_may_be_tried(f)
        and _former_holder_has_stopped(f)
    )


def _former_holder_has_stopped(f: Facts) -> bool:
    """A person named this node, not the other one's own hand: give its proof the time to grow old (S1)."""
    claim = f.claim
    declared = claim is not None and claim.how is How.MOVED and not claim.served
    return not declared or f.now - f.evidence.epoch_at >= f.policy.outlives


def start_may_be_tried(f: Facts) -> bool:
    """A PBX that could not be started is not tried again and again without a breath."""
    return f.now - f.evidence.start_failed_at >= 3 * f.policy.restart_grace


def they_hold_it(f: Facts) -> bool:
    """S3: another node in the claim, in an epoch that is not older than anything we know."""
    return claim_is_theirs(f)


def we_are_outdated(f: Facts) -> bool:
    """Another node took the claim without a hand-over from us."""
    lineage = f.state.lineage
    return claim_is_theirs(f) and lineage is not None and lineage.node == f.policy.me


def we_are_current(f: Facts) -> bool:
    return claim_is_theirs(f) and not we_are_outdated(f)


def person_said_who(f: Facts) -> bool:
    """Since this phase began, a person has declared the active node."""
    claim = f.claim
    return (
        claim is not None
        and claim.how in BY_A_PERSON
        and claim.epoch > f.state.phase_epoch
        and claim_is_fresh(f)
    )


def our_announcement_is_left(f: Facts) -> bool:
    return we_announced(f) and claim_is_fresh_enough(f) and not f.seen.busy


def our_announcement_is_early(f: Facts) -> bool:
    """H3: left by an ordered failover that was not confirmed; patience has not come that far by itself."""
    early = f.evidence.announced_at - f.evidence.down_since < f.policy.announce_after
    return our_announcement_is_left(f) and (early or _is_ordered(f))


def claim_is_fresh_enough(f: Facts) -> bool:
    """The newest reading counts, and was made by this process."""
    return f.evidence.claim_at != NEVER and not f.evidence.claim_trouble


def their_announcement_is_refuted(f: Facts) -> bool:
    """S4: the check points have proved us up since we read the announcement."""
    evidence = f.evidence
    return (
        claim_is_ours(f)
        and they_announced(f)
        and evidence.up_at >= evidence.announced_at
        and not _a_fence_is_coming(f)
        and not f.seen.busy
    )


def their_announcement_is_left(f: Facts) -> bool:
    """S4: it has stood for so long that its author must be dead."""
    limit = f.policy.patience + 2 * f.policy.interval
    return (
        claim_is_ours(f)
        and they_announced(f)
        and f.now - f.evidence.announced_at >= limit
        and not f.seen.busy
    )


def _is_ordered(f: Facts) -> bool:
    return f.claim is not None and f.claim.ordered


def _a_fence_is_coming(f: Facts) -> bool:
    """H3: who ordered a failover knows how we are; the order to stop must have time to come."""
    return _is_ordered(f) and f.now - f.evidence.announced_at < f.policy.announce


def person_stopped_the_pbx(f: Facts) -> bool:
    """A stop by a person is no death: while our agent lives, no failover answers it."""
    evidence = f.evidence
    stopped = evidence.pbx is Pbx.STOPPED and evidence.stop_seen
    announced = they_announced(f) and not _a_fence_is_coming(f)
    return claim_is_ours(f) and announced and stopped and not f.seen.busy


def pbx_stopped_unseen(f: Facts) -> bool:
    """S2: the guard stopped it while no agent lived, or it never came up."""
    return f.evidence.pbx is Pbx.STOPPED and not f.evidence.stop_seen and not f.seen.busy


def claim_lacks_our_digest(f: Facts) -> bool:
    """C6: the active node says which configuration holds."""
    return _may_write_ours(f) and f.claim is not None and f.claim.digest != f.policy.digest


def name_is_behind(f: Facts) -> bool:
    """The name has not been led here for this claim: it could not be, or a person has declared us."""
    return _may_write_ours(f) and f.claim is not None and f.state.pointed < f.claim.epoch


def claim_has_settled(f: Facts) -> bool:
    """The PBX has answered for `settle_down`: earlier moves in a row are forgotten."""
    evidence = f.evidence
    return (
        _may_write_ours(f)
        and f.claim is not None
        and f.claim.returns > 0
        and evidence.pbx is Pbx.ANSWERING
        and f.now - evidence.pbx_good_since >= f.policy.settle_down
    )


def claim_lacks_served(f: Facts) -> bool:
    """T5: we answer calls, and the claim does not say so yet."""
    return _may_write_ours(f) and f.claim is not None and not f.claim.served


def _may_write_ours(f: Facts) -> bool:
    claim = f.claim
    return (
        claim is not None
        and claim.node == f.policy.me
        and not claim.announced
        and f.evidence.proved_at != NEVER
        and not f.evidence.claim_trouble
        and not f.seen.busy
    )


# Staying active


def claim_proof_is_old(f: Facts) -> bool:
    """S1, proof 1."""
    return f.now - f.evidence.proved_at > f.policy.claim_stale


def checkpoint_proof_is_old(f: Facts) -> bool:
    """S1, proof 2."""
    return f.now - f.evidence.up_at > f.policy.checkpoints_stale


def both_proofs_are_old(f: Facts) -> bool:
    """S1, S2: an agent without any proof has a moment to find its first."""
    return (
        claim_proof_is_old(f)
        and checkpoint_proof_is_old(f)
        and f.now - f.evidence.void_since > f.policy.first_proof
    )


def we_must_stop(f: Facts) -> bool:
    stops = f.policy.isolation is Isolation.STOP and not f.seen.break_glass
    return stops and both_proofs_are_old(f)


def one_proof_is_old(f: Facts) -> bool:
    # Right after a take-over the check points cannot have seen us twice yet: that is no doubt.
    policy = f.policy
    unseen = f.evidence.up_at < f.state.since
    too_young = unseen and f.now - f.state.since <= 2 * policy.span + policy.interval
    return claim_proof_is_old(f) or (checkpoint_proof_is_old(f) and not too_young)


def proofs_are_fresh(f: Facts) -> bool:
    return not claim_proof_is_old(f) and not checkpoint_proof_is_old(f)


# Our own PBX


def stray_pbx_runs(f: Facts) -> bool:
    """A PBX runs here though this phase has it stopped, and nobody broke the glass."""
    runs = f.evidence.pbx in (Pbx.ANSWERING, Pbx.DEAF, Pbx.STARTING)
    return runs and not f.seen.break_glass


def stray_pbx_runs_on(f: Facts) -> bool:
    """S5: never halted with a PBX that serves.  One that cannot be stopped is tried again now and then."""
    started_since = f.evidence.pbx_good_since > f.state.since
    due = started_since or f.now - f.state.since >= f.policy.settle_down
    return f.state.runbook is None and due and stray_pbx_runs(f)


def pbx_wants_a_restart(f: Facts) -> bool:
    evidence, grace = f.evidence, f.policy.restart_grace
    return (
        f.claim is not None
        and evidence.pbx in (Pbx.DEAD, Pbx.DEAF)
        and evidence.pbx_bad_since != NEVER
        and f.now - evidence.pbx_bad_since >= grace / 2
        and f.now - evidence.restarted_at >= 3 * grace
        and not f.seen.busy
    )


def pbx_is_lost(f: Facts, ahead: float = 0.0) -> bool:
    """Dead or deaf for longer than `restart_grace`, and a restart has been tried.

    With `ahead`: so many seconds before that.
    """
    evidence, grace = f.evidence, f.policy.restart_grace
    return (
        evidence.pbx in (Pbx.DEAD, Pbx.DEAF)
        and evidence.pbx_bad_since != NEVER
        and f.now - evidence.pbx_bad_since >= grace - ahead
        and evidence.restarted_at >= evidence.pbx_bad_since
        and f.claim is not None
        and f.claim.returns < MOST_RETURNS
        and not f.seen.busy
        and automatic_is_on(f)
    )


def pbx_is_lost_and_peer_is_ready(f: Facts) -> bool:
    return pbx_is_lost(f) and peer_is_ready(f)


def peer_is_ready(f: Facts) -> bool:
    """H2: it said so just now, for this epoch."""
    peer, claim = f.evidence.peer, f.claim
    return (
        peer is not None
        and claim is not None
        and peer.ready is Ready.YES
        and peer.epoch == claim.epoch
        and f.now - peer.asked_at <= f.policy.claim_stale
    )


def pbx_is_lost_and_peer_is_unasked(f: Facts) -> bool:
    """Asked a little before a failover may be due, so that callers do not wait for the answer."""
    peer = f.evidence.peer
    unasked = peer is None or f.now - peer.asked_at > f.policy.claim_stale
    return unasked and pbx_is_lost(f, f.policy.ask_ahead)


# Taking over


def automatic_is_on(f: Facts) -> bool:
    """C7 and `settle_down`: neither paused, nor is an automatic change still settling."""
    claim = f.claim
    if claim is None or f.wall < claim.pause:
        return False
    # A claim that was taken and has not served is no change that could settle (T6).
    settles = claim.served or claim.how is not How.TAKEN
    return not (settles and f.wall < claim.settle)


def peer_is_down(f: Facts) -> bool:
    return f.evidence.theirs is Verdict.DOWN and f.evidence.down_since != NEVER


def peer_is_not_down(f: Facts) -> bool:
    return not peer_is_down(f)


def taker_is_down_unserved(f: Facts) -> bool:
    """T6: the other node took the claim and died before it answered a call: nothing is newer than our data."""
    claim = f.claim
    unserved = claim is not None and claim.how is How.TAKEN and not claim.served
    return claim_is_theirs(f) and unserved and peer_is_down(f)


def taker_has_served(f: Facts) -> bool:
    return we_are_outdated(f) and not (
        f.claim is not None and f.claim.how is How.TAKEN and not f.claim.served
    )


def announcing_is_due(f: Facts) -> bool:
    """T1, C6, C7."""
    claim, policy = f.claim, f.policy
    return (
        claim is not None
        and claim.node == policy.peer
        and not claim.announced
        and claim.digest == policy.digest
        and automatic_is_on(f)
        and peer_is_down(f)
        and claim_is_fresh_enough(f)
        and f.now - f.evidence.down_since >= _announcing_begins(claim, policy)
        and not copy_is_stale(f)
        and not f.seen.busy
    )


def _announcing_begins(claim: Claim, policy: Policy) -> float:
    """Seconds of suspicion.  A node that a person has declared may wait before it starts (T7)."""
    waits = claim.how is How.MOVED and not claim.served
    return policy.announce_after + (2 * policy.outlives if waits else 0.0)


def patience_is_spent(f: Facts) -> bool:
    """T1: down for all of patience; and the last round was asked after `announce` had run.

    Patience is measured to now, when the other node must have stopped (T2), not to the asking of the last question: a
    question about a dead machine takes its whole deadline.
    """
    evidence, policy = f.evidence, f.policy
    return (
        claim_is_theirs(f)
        and we_announced(f)
        and automatic_is_on(f)
        and peer_is_down(f)
        and claim_is_fresh_enough(f)
        and f.now - evidence.down_since >= policy.patience
        and evidence.round_at - evidence.announced_at >= policy.announce
        and f.now - evidence.round_at <= policy.late
        and not copy_is_stale(f)
        and not f.seen.busy
    )


# Orders


def copy_is_stale(f: Facts) -> bool:
    """A class of data that refuses is too old.  Measured to the last moment at which the other node was not down.

    What happened there after that, no copy could have: patience must not make a good copy stale.
    """
    down_since = f.evidence.down_since
    return (f.now if down_since == NEVER else down_since) >= f.seen.stale_from


def failover_is_ordered(f: Facts) -> bool:
    order = _ordered(f, Verb.FAILOVER)
    may = order is not None and (order.accept_loss or not copy_is_stale(f))
    return may and _may_be_taken_by_order(f)


def failover_is_forced(f: Facts) -> bool:
    order = _ordered(f, Verb.FAILOVER)
    return order is not None and order.accept_two_active and failover_is_ordered(f)


def loss_is_accepted(f: Facts) -> bool:
    order = _ordered(f, Verb.FAILOVER)
    return order is not None and order.accept_loss and _may_be_taken_by_order(f)


def loss_is_accepted_and_forced(f: Facts) -> bool:
    return loss_is_accepted(f) and failover_is_forced(f)


def switchover_is_ordered(f: Facts) -> bool:
    return _ordered(f, Verb.SWITCHOVER) is not None and claim_is_ours(f) and not f.seen.busy


def rejoin_is_ordered(f: Facts) -> bool:
    served = f.claim is not None and f.claim.served  # Else nothing is newer than our own data (T6).
    return (
        _ordered(f, Verb.REJOIN) is not None and claim_is_theirs(f) and served and not f.seen.busy
    )


def fence_is_ordered(f: Facts) -> bool:
    """T4: refused by a node that knows an equal or higher epoch of its own."""
    order = _ordered(f, Verb.FENCE)
    ours = f.claim.epoch if f.claim is not None and f.claim.node == f.policy.me else 0
    return order is not None and ours < order.epoch


def order_is_left(f: Facts) -> bool:
    """No row above took it: it is refused, with the reason, rather than kept for later."""
    return f.seen.order is not None and not f.seen.busy


def _ordered(f: Facts, verb: Verb) -> Order | None:
    order = f.seen.order
    return order if order is not None and order.verb is verb else None


def _may_be_taken_by_order(f: Facts) -> bool:
    claim = f.claim
    return (
        claim_is_theirs(f)
        and claim is not None
        and claim.announced in ("", f.policy.me)
        and claim_is_fresh_enough(f)
        and not f.seen.busy
    )


# Steps


def entry(f: Facts) -> Entry:
    assert f.state.runbook is not None, f"{f.state.phase} has no runbook"
    return RUNBOOKS[f.state.runbook][f.state.step]


def step_is(f: Facts, *steps: Step) -> bool:
    return f.state.runbook is not None and entry(f).step in steps


def step_is_done(f: Facts) -> bool:
    """It succeeded, or nothing that follows depends on it."""
    match f.seen.outcome:
        case Outcome(Result.DONE):
            return True
        case Outcome(Result.FAILED):
            return entry(f).on_failure is OnFailure.SKIP
    return False


def last_step_is_done(f: Facts) -> bool:
    runbook = f.state.runbook
    return (
        runbook is not None
        and f.state.step + 1 == len(RUNBOOKS[runbook])
        and (step_is_done(f) or step_is_so_already(f))
    )


def step_is_so_already(f: Facts) -> bool:
    """What the step is for is so already: a crash ate its outcome, not its effect."""
    if f.seen.busy or f.seen.outcome is not None or not claim_is_fresh_enough(f):
        return False
    claim = f.claim
    assert claim is not None
    match entry(f).step if f.state.runbook is not None else None:
        case Step.ANNOUNCE:
            return we_announced(f) or claim_is_ours(f)
        case Step.CLAIM:
            return claim_is_ours(f)
        case Step.SERVE:
            return claim_is_ours(f) and claim.served
        case Step.HAND:
            return claim_is_theirs(f) and claim.how is How.HANDED
        case Step.RETURN:
            return claim_is_theirs(f)
        case Step.ASK:
            return peer_is_ready(f)
    return False


def step_wants_asking(f: Facts) -> bool:
    """Nothing runs and no outcome is recorded: a crash ate it, or it failed and may be tried again."""
    if f.seen.busy or f.seen.outcome is not None or f.state.runbook is None:
        return False
    return entry(f).step not in NEED_THE_CLAIM or claim_is_fresh_enough(f)


def step_lost_the_claim(f: Facts) -> bool:
    """T3: a step began with a fresh reading, and that said: not ours, or announced."""
    return f.seen.outcome is not None and f.seen.outcome.result is Result.LOST


def take_was_interrupted(f: Facts) -> bool:
    """A crash came between the decision to take and the take: the next round decides anew (T1)."""
    return f.state.runbook is Runbook.TAKE and step_is(f, Step.CLAIM) and step_wants_asking(f)


def announcement_is_gone(f: Facts) -> bool:
    """H3: struck out while the fence was being asked for: the other node is well, and may have started again."""
    asked = f.state.runbook is Runbook.ORDERED and step_is(f, Step.FENCE, Step.CLAIM)
    return asked and claim_is_theirs(f) and claim_is_fresh_enough(f) and not we_announced(f)


def order_was_interrupted(f: Facts) -> bool:
    """The same for a person's failover: hours may have passed, and the person can say it again (S4)."""
    ordered = f.state.runbook in (Runbook.ORDERED, Runbook.FORCED)
    return ordered and step_is(f, Step.ANNOUNCE, Step.FENCE, Step.CLAIM) and step_wants_asking(f)


def take_failed(f: Facts) -> bool:
    return step_is(f, Step.ANNOUNCE, Step.CLAIM) and _failed(f)


def fence_failed(f: Facts) -> bool:
    return step_is(f, Step.FENCE) and entry(f).on_failure is OnFailure.FAIL and _failed(f)


def start_failed(f: Facts) -> bool:
    return step_is(f, Step.PROMOTE, Step.START, Step.PROVE) and _failed(f)


def start_failed_unserved(f: Facts) -> bool:
    """T5: nobody was served in this epoch, and the node before us did not give it back twice already."""
    claim = f.claim
    return (
        start_failed(f)
        and claim is not None
        and not claim.served
        and claim.how not in BY_A_PERSON
        and claim.returns < MOST_RETURNS
    )


def ask_failed(f: Facts) -> bool:
    return step_is(f, Step.ASK) and _failed(f)


def stop_failed(f: Facts) -> bool:
    return step_is(f, Step.STOP) and _failed(f)


def copy_failed(f: Facts) -> bool:
    return step_is(f, Step.COPY) and _failed(f)


def copy_failed_of_a_dead_pbx(f: Facts) -> bool:
    return copy_failed(f) and f.state.automatic


def hand_met_an_announcement(f: Facts) -> bool:
    """The write found that the other node had announced meanwhile: it saw us stopped, as we are."""
    reading = f.seen.claim
    return (
        step_is(f, Step.HAND)
        and _failed(f)
        and reading is not None
        and reading.claim is not None
        and reading.claim.node == f.policy.me
        and reading.claim.announced == f.policy.peer
    )


def hand_failed(f: Facts) -> bool:
    outcome = f.seen.outcome
    failed = outcome is not None and outcome.result is not Result.DONE
    return step_is(f, Step.DEMOTE, Step.HAND) and failed


def renew_failed(f: Facts) -> bool:
    return step_is(f, Step.RENEW) and _failed(f)


def returned_too_often(f: Facts) -> bool:
    """T5: after two returns in a row a person must look at both PBXs."""
    claim = f.claim
    return claim is not None and claim.returns >= MOST_RETURNS


def gave_back_too_often(f: Facts) -> bool:
    return last_step_is_done(f) and f.state.runbook is Runbook.GIVE_BACK and returned_too_often(f)


def could_not_start_what_was_returned(f: Facts) -> bool:
    claim, evidence = f.claim, f.evidence
    unserved = claim is not None and claim.node == f.policy.me and not claim.served
    return unserved and returned_too_often(f) and evidence.start_failed_at >= evidence.epoch_at


def they_hold_what_we_took(f: Facts) -> bool:
    """S3, past our `claim` step."""
    return (
        claim_is_theirs(f) and not step_is(f, Step.ANNOUNCE, Step.CLAIM) and not _ordered_fence(f)
    )


def they_hold_it_unhanded(f: Facts) -> bool:
    """S3, but for the hand-over that we wrote ourselves."""
    handed = f.claim is not None and f.claim.how is How.HANDED
    return claim_is_theirs(f) and not (handed and step_is(f, Step.HAND, Step.WAKE))


_QUIET = (
    *(Step.ANNOUNCE, Step.CLAIM, Step.FENCE, Step.PROMOTE),
    *(Step.COPY, Step.DEMOTE, Step.HAND, Step.WAKE),
)


def pbx_may_run_unproved(f: Facts) -> bool:
    """S1 while the PBX starts or has yet to stop."""
    return not step_is(f, *_QUIET) and we_must_stop(f)


def _failed(f: Facts) -> bool:
    return f.seen.outcome is not None and f.seen.outcome.result is Result.FAILED


def _ordered_fence(f: Facts) -> bool:
    """In the runbooks of a person's failover the fence comes before the claim (H3)."""
    return f.state.runbook in (Runbook.ORDERED, Runbook.FORCED) and step_is(f, Step.FENCE)
