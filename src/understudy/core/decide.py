"""decide(): one pure step of the machine."""

from dataclasses import dataclass, replace

from . import claim as records
from .actions import (
    Action,
    AskPeer,
    CopyRest,
    Demote,
    Fence,
    Point,
    Promote,
    Prove,
    Renew,
    Restart,
    ShutOff,
    Start,
    Stop,
    Verify,
    WakePeer,
    WriteClaim,
)
from .evidence import absorb, struck
from .model import NEVER, Lineage, Phase, Runbook, State
from .observations import Order, Seen
from .policy import Policy
from .rules import RULES, Do, Rule
from .runbooks import NEED_THE_CLAIM, RUNBOOKS, Step
from .when import Facts, entry, start_failed, step_is_done, step_is_so_already


@dataclass(frozen=True, slots=True)
class Decision:
    """The next state, the one action it asks for, and the row that said so."""

    state: State
    rule: Rule | None = None
    action: Action | None = None
    order: Order | None = None  # Used up by this decision.
    guarded: bool = False  # T3: the action begins with a fresh reading: ours, not announced.


def decide(state: State, seen: Seen, now: float, wall: float, policy: Policy) -> Decision:
    """Take in what was seen, then follow the first row that holds.

    `now` is boot time, `wall` the time of day, both in seconds.
    """
    facts = Facts(absorb(state, seen, now, policy), seen, now, wall, policy)
    for rule in RULES[facts.state.phase]:
        if rule.when(facts):
            return _follow(rule, facts)
    if facts.state.runbook is not None and step_is_done(facts):
        return _ask(replace(facts.state, step=facts.state.step + 1), facts)
    return Decision(facts.state)


def _follow(rule: Rule, facts: Facts) -> Decision:
    order = facts.seen.order if rule.takes_order else None
    if rule.do is None:
        return _ask(_enter(rule, facts, order), facts, rule, order)
    if rule.do is Do.STEP:
        return _ask(facts.state, facts, rule)
    if rule.do is Do.NEXT:
        return _ask(replace(facts.state, step=facts.state.step + 1), facts, rule)
    return _once(rule, facts)


def _enter(rule: Rule, facts: Facts, order: Order | None) -> State:
    old = facts.state
    if rule.then is old.phase and rule.runbook is old.runbook:
        return old
    evidence = old.evidence
    if start_failed(facts):
        evidence = replace(evidence, start_failed_at=facts.now)
    moved = replace(
        old,
        phase=rule.then,
        since=_since(rule.then, facts),
        runbook=rule.runbook,
        step=0,
        phase_epoch=old.epoch,
        automatic=order is None,
        evidence=evidence,
    )
    if rule.name == "rejoin-done" and facts.claim is not None:
        return replace(moved, lineage=Lineage(facts.claim.node, facts.claim.epoch))
    return moved


def _since(phase: Phase, facts: Facts) -> float:
    """Suspicion began with the first round of it; everything else begins now."""
    down_since = facts.evidence.down_since
    return down_since if phase is Phase.SUSPECTING and down_since != NEVER else facts.now


def _ask(
    state: State, facts: Facts, rule: Rule | None = None, order: Order | None = None
) -> Decision:
    """Ask for the step that `state` stands at, if it is in a runbook."""
    if state.runbook is None:
        return Decision(state, rule, order=order)
    at = Facts(state, Seen(), facts.now, facts.wall, facts.policy)
    if entry(at).step in (Step.SERVE, Step.ASK) and step_is_so_already(at):
        return _ask(replace(state, step=state.step + 1), facts, rule, order)
    if facts.claim is None and entry(at).step in NEED_THE_CLAIM:
        return Decision(state, rule, order=order)  # The next reading lets it be asked for.
    return Decision(state, rule, _action(at), order, guarded=entry(at).guarded)


def _action(f: Facts) -> Action:
    """The action of the step that the state stands at."""
    assert f.state.runbook is not None
    step = RUNBOOKS[f.state.runbook][f.state.step].step
    if step in _PLAIN:
        return _PLAIN[step]
    claim, me, peer = f.claim, f.policy.me, f.policy.peer
    assert claim is not None, f"{step} before the claim was ever read"
    settle = int(f.wall + f.policy.settle_down) if f.state.automatic else 0
    match step:
        case Step.ANNOUNCE:
            return WriteClaim(claim, records.announce(claim, me, ordered=True))
        case Step.CLAIM:
            return WriteClaim(claim, records.take(claim, me, settle=settle))
        case Step.FENCE:
            ours = claim.epoch if claim.node == me else claim.epoch + 1
            return Fence(peer, ours, hurry=f.state.runbook is Runbook.TAKE)
        case Step.SERVE:
            return WriteClaim(claim, records.serve(claim))
        case Step.POINT:
            return Point(claim)
        case Step.ASK:
            return AskPeer(claim.epoch)
        case Step.COPY:
            return CopyRest(claim.epoch)
        case Step.RENEW:
            return Renew(claim.epoch)
        case Step.HAND:
            return WriteClaim(claim, records.hand(claim, peer, settle=settle))
        case Step.RETURN:
            return WriteClaim(claim, records.give_back(claim, peer))
    raise AssertionError(f"no action for step {step}")


_PLAIN: dict[Step, Action] = {
    Step.PROMOTE: Promote(),
    Step.DEMOTE: Demote(),
    Step.START: Start(),
    Step.PROVE: Prove(),
    Step.VERIFY: Verify(),
    Step.STOP: Stop(),
    Step.WAKE: WakePeer(),
    Step.SHUT_OFF: ShutOff(),
}


def _once(rule: Rule, f: Facts) -> Decision:
    """One action without leaving the phase."""
    claim = f.claim
    assert claim is not None, f"{rule.name} before the claim was ever read"
    state = f.state
    match rule.do:
        case Do.ANNOUNCE:
            action: Action = WriteClaim(claim, records.announce(claim, f.policy.me))
        case Do.STRIKE:
            action = WriteClaim(claim, records.strike(claim))
            if claim.announced == f.policy.peer:
                state = replace(state, evidence=struck(state.evidence, f.now))
        case Do.ADOPT:
            action = WriteClaim(claim, records.adopt(claim, f.policy.digest))
        case Do.SETTLE:
            action = WriteClaim(claim, records.settle(claim))
        case Do.POINT:
            return Decision(state, rule, Point(claim), guarded=True)
        case Do.SERVE:
            action = WriteClaim(claim, records.serve(claim))
        case Do.ASK:
            action = AskPeer(claim.epoch)
        case Do.RESTART:
            state = replace(state, evidence=replace(state.evidence, restarted_at=f.now))
            return Decision(state, rule, Restart(), guarded=True)
        case _:
            raise AssertionError(f"{rule.name} asks for nothing")
    return Decision(state, rule, action)
