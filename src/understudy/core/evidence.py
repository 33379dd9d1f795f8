"""From observations to evidence: what each new sight proves, and for how long it counts.

This is the only place that makes new Evidence.  Ages count from the *sending* of a question (V1), so whatever
happened while the answer was on its way is already counted against it.
"""

from dataclasses import replace

from .claim import Claim, How
from .model import NEVER, Evidence, Lineage, Phase, State
from .observations import ClaimReading, Pbx, Round, Seen
from .policy import Policy
from .runbooks import RUNBOOKS, Step
from .votes import Verdict, verdict

HOUR = 3600.0


def absorb(state: State, seen: Seen, now: float, policy: Policy) -> State:
    """The state with everything that is new in `seen` taken into account.  Decides nothing."""
    if seen.booted:
        state = _booted(state, now)
    if seen.voided:
        state = _voided(state, seen.voided, now)
    if seen.started:
        state = _started(state, now)
    if seen.claim is not None:
        state = _read(state, seen.claim, now, policy)
    if seen.round is not None:
        state = replace(state, evidence=_counted(state.evidence, seen.round, policy))
    if seen.pbx is not None and seen.pbx is not state.evidence.pbx:
        state = replace(state, evidence=_looked(state.evidence, seen.pbx, now, policy))
    if seen.pointed is not None:
        state = replace(state, pointed=seen.pointed)
    if seen.peer is not None:
        state = replace(state, evidence=replace(state.evidence, peer=seen.peer))
    return state


def _booted(state: State, now: float) -> State:
    """The machine has booted: no instant of before means anything, and nothing of ours runs."""
    halted = state.phase is Phase.HALTED
    return State(
        phase=Phase.HALTED if halted else Phase.SILENT,
        since=now,
        epoch=state.epoch,
        phase_epoch=state.phase_epoch if halted else state.epoch,
        lineage=state.lineage,
        evidence=Evidence(void_since=now, void_why="the machine booted"),
    )


def _voided(state: State, why: str, now: float) -> State:
    """V5: this machine stood still or its clocks jumped: no proof counts, patience starts anew."""
    void = replace(
        state.evidence,
        void_since=now,
        void_why=why,
        claim=None,
        claim_at=NEVER,
        claim_trouble="not read since",
        proved_at=NEVER,
        announced_at=NEVER,
        mine=Verdict.UNCLEAR,
        theirs=Verdict.UNCLEAR,
        up_since=NEVER,
        up_at=NEVER,
        down_since=NEVER,
        peer=None,
    )
    return replace(state, evidence=void)


def _started(state: State, now: float) -> State:
    """S2: a process that has just started knows what its journal holds, no younger than it is.

    A reading counts only when it is a new one.  The proofs keep their true age, so neither a crash nor a restart makes
    them last longer.  What was written down of earlier rounds stays: a timely round goes on with patience (cron is
    many processes) and with the time for which the check points have seen us; a late one starts both anew.
    """
    evidence = replace(
        state.evidence,
        void_since=now,
        void_why="the agent started",
        claim_at=NEVER,
        claim_trouble="not read yet",
        peer=None,
        # What stopped the PBX while nobody looked was no person's decision, as far as we can tell.
        pbx=state.evidence.pbx if state.evidence.stop_seen else Pbx.UNKNOWN,
    )
    return replace(state, step=_step_to_resume(state), evidence=evidence)


def _step_to_resume(state: State) -> int:
    """A PBX that was starting may have been stopped meanwhile: to prove it is to start it again."""
    book = RUNBOOKS[state.runbook] if state.runbook is not None else ()
    proving = state.step < len(book) and book[state.step].step is Step.PROVE
    return state.step - 1 if proving else state.step


def _read(state: State, reading: ClaimReading, now: float, policy: Policy) -> State:
    old, claim = state.evidence, reading.claim
    if reading.asked_at < old.void_since:
        return state  # Asked before the machine stood still: proves nothing (V5).
    trouble = reading.trouble if claim is None else _distrust(state, claim)
    if claim is None or trouble:
        if trouble == old.claim_trouble:
            return state
        return replace(state, evidence=replace(old, claim_trouble=trouble))
    ours = claim.node == policy.me and not claim.is_announced
    evidence = replace(
        old,
        claim=claim,
        epoch_at=now if old.claim is None or old.claim.epoch != claim.epoch else old.epoch_at,
        claim_at=max(old.claim_at, reading.asked_at),
        claim_trouble="",
        proved_at=max(old.proved_at, reading.asked_at) if ours else old.proved_at,
        announced_at=_standing_since(old, claim, now),
    )
    if old.claim is None:
        # Asked before we knew of an active node: that says whether the other one serves (T7), and is no suspicion yet.
        evidence = replace(evidence, down_since=NEVER)
    elif _starts_anew(old.claim, claim, policy):
        evidence = replace(evidence, theirs=Verdict.UNCLEAR, down_since=NEVER)
    return replace(
        state,
        evidence=evidence,
        epoch=claim.epoch,
        lineage=_lineage(state.lineage, claim, policy),
    )


def _distrust(state: State, claim: Claim) -> str:
    """C5: the highest epoch ever seen is remembered; what is older than that proves nothing."""
    if claim.epoch < state.epoch:
        return (
            f"the claim says epoch {claim.epoch}, but this node has seen {state.epoch}:"
            " was the zone restored from an old backup?"
        )
    known = state.evidence.claim
    if known is not None and claim.epoch == known.epoch and claim.node != known.node:
        return f"the claim names {claim.node} in epoch {claim.epoch}, which was {known.node}'s"
    return ""


def _standing_since(old: Evidence, claim: Claim, now: float) -> float:
    if not claim.is_announced:
        return NEVER
    known = old.claim
    same = known is not None and (known.announced, known.epoch) == (claim.announced, claim.epoch)
    return old.announced_at if same and old.announced_at != NEVER else now


def _starts_anew(known: Claim, claim: Claim, policy: Policy) -> bool:
    """Patience is with one active node in one epoch; and who strikes an announcement out is alive."""
    struck_out = known.announced == policy.me and not claim.announced
    return claim.epoch != known.epoch or struck_out


def _lineage(lineage: Lineage | None, claim: Claim, policy: Policy) -> Lineage:
    """Whose data is here now.  Unchanged (so: older than the claim) when the other node took it from us."""
    if lineage is None or claim.node == policy.me or lineage.node != policy.me:
        return Lineage(claim.node, claim.epoch)
    given = claim.how in (How.HANDED, How.RETURNED) and claim.epoch == lineage.epoch + 1
    return Lineage(claim.node, claim.epoch) if given else lineage


def _counted(old: Evidence, asked: Round, policy: Policy) -> Evidence:
    if asked.asked_at < old.void_since or asked.asked_at <= old.round_at:
        return old  # V5; and an answer that was overtaken by a newer one.
    timely = asked.asked_at - old.round_at <= policy.late
    mine = verdict(asked.reports.get(policy.me, ()), policy)
    theirs = verdict(asked.reports.get(policy.peer, ()), policy)
    if asked.asked_at < old.epoch_at:
        theirs = (
            Verdict.UNCLEAR
        )  # Asked while another node was active: says nothing of this one's health.
    up_since = _since(old.up_since, asked.asked_at, holds=mine is Verdict.UP, goes_on=timely)
    return replace(
        old,
        round_at=asked.asked_at,
        mine=mine,
        theirs=theirs,
        up_since=up_since,
        up_at=asked.asked_at
        if up_since != NEVER and asked.asked_at - up_since >= policy.span
        else old.up_at,
        down_since=_since(
            old.down_since, asked.asked_at, holds=theirs is Verdict.DOWN, goes_on=timely
        ),
    )


def _since(old: float, asked_at: float, *, holds: bool, goes_on: bool) -> float:
    """Since when something holds in every round; NEVER if it does not hold in this one."""
    if not holds:
        return NEVER
    return old if goes_on and old != NEVER else asked_at


def _looked(old: Evidence, pbx: Pbx, now: float, policy: Policy) -> Evidence:
    good, bad = old.pbx_good_since, old.pbx_bad_since
    match pbx:
        case Pbx.ANSWERING:
            good = good if old.pbx is Pbx.UNKNOWN and good != NEVER else now
        case Pbx.DEAD | Pbx.DEAF:
            # A PBX that dies again a moment after each restart has been bad all the time.
            recovered = good != NEVER and now - good >= policy.restart_grace
            bad = now if recovered or bad == NEVER else bad
            good = NEVER
        case Pbx.STOPPED:
            good = bad = NEVER
    # Just after the agent's start it may be the guard's stop that ends: no person's doing (S2).
    guards = now - old.void_since <= policy.first_proof + policy.stop_within
    # Between the two it may have been seen stopping, which is on its way too.
    on_its_way = old.pbx is Pbx.STARTING and old.pbx_good_since != NEVER
    ran = (old.pbx in (Pbx.ANSWERING, Pbx.DEAF) or on_its_way) and not guards
    stop_seen = pbx is Pbx.STOPPED and (ran or old.stop_seen)
    return replace(old, pbx=pbx, pbx_good_since=good, pbx_bad_since=bad, stop_seen=stop_seen)


def struck(evidence: Evidence, now: float) -> Evidence:
    """Remember that we struck an announcement out (S4: three in an hour are told)."""
    return replace(
        evidence, strikes=(*(at for at in evidence.strikes if now - at < HOUR), now)[-9:]
    )
