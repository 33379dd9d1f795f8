"""What an order would start, stop, drop and risk: said before anything is done."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from understudy.config import durations
from understudy.core.claim import Claim
from understudy.core.model import Phase
from understudy.core.observations import Ready, Verb
from understudy.core.policy import Policy
from understudy.core.votes import Verdict
from understudy.errors import Refused, Unreachable
from understudy.runtime.copy_state import ClassState
from understudy.runtime.door import readiness
from understudy.runtime.stale import REFUSE, age_of, stale

from .calls import Counted
from .facts import Facts, Standby, standby


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    order: str
    node: str  # Who carries it out.
    waits: tuple[str, ...] = ()  # For what, before it is ordered.
    starts: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    refused: str = ""  # Why it would not be carried out.
    hint: str = ""
    calls: int | None = None  # In progress where it stops a PBX; None: not known.
    accept_loss: bool = (
        False  # What the agent is told: old or missing data is no reason against it.
    )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        rows = (
            ("waits", self.waits),
            ("starts", self.starts),
            ("stops", self.stops),
            ("drops", self.drops),
            ("risks", self.risks),
            ("refused", (self.refused,) if self.refused else ()),
        )
        told = [f"{self.order}, carried out by {self.node}:"]
        for label, sentences in rows:
            told += [f"  {label:<8} {each}" for each in sentences or ("nothing",) if each]
            if label in ("waits", "refused") and not sentences:
                told.pop()
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a person takes upon himself."""

    two_active: bool = False
    loss: frozenset[str] = frozenset()  # Classes of data that may be too old; ALL: all of it.


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the plan of an order is made from, beside the facts of the pair."""

    service: str
    calls: Counted  # On the active node.
    classes: tuple[ClassState, ...] = ()  # As configured.
    drain: float | None = None  # Seconds to wait for a moment without calls.
    asks: bool = True  # What is to be done once they are over.


ALL = "all"


def order_plan(verb: Verb, facts: Facts, known: Known, accepted: Accepted) -> Plan:
    """Raises Unreachable when the claim cannot be read: then nobody knows who is active."""
    claim = claim_of(facts)
    match verb:
        case Verb.FAILOVER:
            return _failover(facts, claim, known, accepted)
        case Verb.SWITCHOVER:
            plan = _switchover(facts, claim, known)
            return plan if known.drain is None else _with_drain(plan, known, known.drain)
        case Verb.REJOIN:
            return _rejoin(facts, known)
    raise AssertionError(f"{verb} is no order of a person")


def declaration(node: str, facts: Facts, service: str, accepted: Accepted) -> Plan:
    """set-active: a person says who is active."""
    policy, claim = facts.policy, facts.reading.claim
    other = policy.peer if node == policy.me else policy.me
    waits = claim is not None and claim.node != node and not accepted.two_active
    starts_in = waits_after_declaration(policy) if waits else "as soon as its agent reads the claim"
    plan = Plan(
        order=f"set-active {node}",
        node=policy.me,
        starts=(
            f"the PBX on {node}, {starts_in}",
            f"{service} leads to {node}",
        ),
        stops=(f"the PBX on {other}, as soon as its agent reads the claim",),
        drops=(f"calls in progress on {other}",),
        risks=_risks_of_declaring(node, other, facts, claim, accepted),
    )
    if claim is not None and claim.node == node:
        return Plan(
            order=plan.order,
            node=plan.node,
            starts=(f"the PBX on {node}, unless it runs already",),
            risks=plan.risks,
        )
    held = claim is not None and claim.node == other
    if held and facts.heard(other) is Verdict.UP and not accepted.two_active:
        return _refuse(
            plan,
            f"the check points say that {other} is up, and the claim names it",
            "Planned: understudy switchover.  To overrule it: understudy failover.  "
            "To insist: --accept-two-active.",
        )
    return plan


def waits_after_declaration(policy: Policy) -> str:
    """T7: when a node starts its PBX that a person has declared in the other one's place."""
    return (
        f"{policy.outlives:.0f} s after its agent has read the claim (by then the other node has"
        " surely stopped)"
    )


def show(plan: Plan) -> None:
    for line in plan.lines():
        click.echo(line, err=True)


def agree(plan: Plan, *, yes: bool) -> None:
    """Return if it is to be done.  Raises Refused."""
    if plan.refused:
        raise Refused(plan.refused, hint=plan.hint)
    confirm(yes=yes)


def confirm(*, yes: bool) -> None:
    """Return if what has been shown is to be done.  Raises Refused."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            "nothing was done: there is no terminal to ask at",
            hint="Look at what it would do with --dry-run; do it with --yes.",
        )
    if not click.confirm("Do it?", err=True):
        raise Refused("nothing was done")


def _failover(facts: Facts, claim: Claim, known: Known, accepted: Accepted) -> Plan:
    old, new = claim.node, facts.standby
    two = accepted.two_active
    risks = []
    match facts.heard(old):
        case Verdict.UP:
            risks.append(f"the check points say that {old} is up: switchover is the gentle way")
        case Verdict.UNCLEAR:
            risks.append(f"the check points do not agree whether {old} is up")
    if two:
        risks.append(
            f"two PBXs may be active until {old} has read the claim: its stop is not waited for"
        )
    plan = Plan(
        order="failover",
        node=new,
        starts=(f"the PBX on {new}", f"{known.service} leads to {new}"),
        stops=(
            f"the PBX on {old}" + ("" if two else ": it must confirm that, or nothing is done"),
        ),
        drops=(known.calls.sentence,),
        calls=known.calls.number,
        risks=tuple(risks),
    )
    if claim.announced == old:
        return _refuse(
            plan, f"{old} has announced that it is about to take over", "Wait, and see status."
        )
    plan = _with_data(plan, facts, old, known, accepted)
    state = facts.state
    willing = (Phase.STANDBY, Phase.SUSPECTING, Phase.OUTDATED, Phase.SILENT)
    if not plan.refused and new == facts.policy.me and state.phase not in willing:
        return _refuse(plan, f"{new} is {state.phase}", "See: understudy status")
    return plan


def _with_data(plan: Plan, facts: Facts, old: str, known: Known, accepted: Accepted) -> Plan:
    """What the PBX would start with.  Data that is too old must be accepted, each class by its name."""
    new, found = plan.node, standby(facts)
    everything = ALL in accepted.loss
    plan = replace(plan, accept_loss=everything)
    if found is None:
        unknown = f"how old the data on {new} is, is not known: {facts.peer_trouble}"
        return replace(plan, risks=(unknown, *plan.risks))
    if found.phase is Phase.OUTDATED:
        lost = f"{old} has served since: all that it recorded is missing on {new}"
        plan = replace(plan, risks=(lost, *plan.risks))
        if everything:
            return plan
        return _refuse(
            plan,
            f"{new} is outdated: its copy may lack what {old} recorded",
            f"Renew it: understudy rejoin.  Or accept the loss: {_command(accepted, (ALL,))}",
        )
    classes = found.copies or known.classes
    plan = replace(plan, risks=(*_ages(new, old, classes, found), *plan.risks))
    old_ones = [each for each in stale(classes, found.measured) if each.refuses]
    names = tuple(each.name for each in old_ones)
    if everything or not old_ones:
        return plan
    if accepted.loss.issuperset(names):
        return replace(plan, accept_loss=True)
    ages = ", ".join(age_of(each, found.wall) for each in old_ones)
    return _refuse(
        plan,
        f"the copy on {new} is too old to serve with ({REFUSE}): {ages}",
        f"Why: understudy status on {new}.  To serve with it all the same: {_command(accepted, names)}",
    )


def _ages(new: str, old: str, classes: tuple[ClassState, ...], found: Standby) -> Iterator[str]:
    if not classes:
        yield f"{new} serves with the data that it has: what was not copied from {old} is missing"
    too_old = stale(classes, found.measured)
    for each in too_old:
        age, most = age_of(each, found.wall), durations.show(each.max_age)
        yield f"{age} on {new}, and {most} at most is right: what {old} recorded since is missing"
    fresh = [age_of(each, found.wall) for each in classes if each not in too_old]
    if fresh:
        yield f"what {old} recorded since the last copy is missing: on {new} {', '.join(fresh)}"


def _command(accepted: Accepted, names: Iterable[str]) -> str:
    """The whole line that would do."""
    words = ["--accept-two-active"] if accepted.two_active else []
    words += [f"--accept-loss {name}" for name in sorted({*names, *accepted.loss})]
    return f"understudy failover {' '.join(words)}"


def _switchover(facts: Facts, claim: Claim, known: Known) -> Plan:
    old, new = claim.node, facts.standby
    risk = f"{new} serves with the data that it has: what was not copied from {old} is missing"
    plan = Plan(
        order="switchover",
        node=old,
        starts=(f"the PBX on {new}", f"{known.service} leads to {new}"),
        stops=(f"the PBX on {old}",),
        drops=(
            known.calls.sentence,
            f"new calls until {new} answers and phones ask again",
        ),
        calls=known.calls.number,
        risks=() if known.classes else (risk,),  # The last difference is copied before it starts.
    )
    ready = facts.peer
    if new == facts.policy.me:
        ready = readiness(facts.state, facts.policy, claim.epoch, facts.at.boot)
        if ready.ready is Ready.YES and facts.stale:
            return _refuse(plan, f"{new} is not ready: {facts.stale}", "See: understudy status")
    if ready is not None and ready.ready is Ready.NO:
        return _refuse(plan, f"{new} is not ready: {ready.why}", f"See understudy status on {new}.")
    if facts.peer_trouble:
        return _refuse(
            plan,
            f"{new} cannot be asked whether it is ready: {facts.peer_trouble}",
            f"If {old} must go nevertheless: understudy failover on {new}.",
        )
    return plan


def _with_drain(plan: Plan, known: Known, within: float) -> Plan:
    then = "asks again" if known.asks else "goes on, and cuts off what is left"
    wait = f"{durations.show(within)} at most for a moment without calls; new ones still come in; then it {then}"
    plan = replace(plan, waits=(wait,))
    if known.calls.number is None and not plan.refused:
        return _refuse(
            plan,
            f"nobody can tell when there is a moment without calls: {known.calls.why}",
            "Without --drain the order goes on, and cuts off the calls in progress.",
        )
    return plan


def _rejoin(facts: Facts, known: Known) -> Plan:
    node = facts.standby
    if known.classes:
        risk = f"what only {node} has is overwritten or deleted there, and kept aside"
    else:
        risk = (
            "no data is copied here: with this order you say that the data on "
            f"{node} is that of the active node"
        )
    return Plan(order="rejoin", node=node, risks=(risk,))


def _risks_of_declaring(
    node: str, other: str, facts: Facts, claim: Claim | None, accepted: Accepted
) -> tuple[str, ...]:
    risks = [f"{node} serves with the data that it has: what only {other} recorded is missing"]
    heard = facts.heard(other)
    if claim is None:
        risks.append("there is no claim yet: nothing says that the other node is not serving")
    if heard is Verdict.UP:
        risks.append(f"the check points say that {other} is up")
    elif heard is Verdict.UNCLEAR:
        risks.append(f"the check points do not agree whether {other} is up")
    if accepted.two_active or (claim is None and heard is not Verdict.DOWN):
        risks.append(f"two PBXs may be active until {other} has read the claim")
    return tuple(risks)


def claim_of(facts: Facts) -> Claim:
    """Raises Unreachable."""
    if facts.reading.claim is None:
        raise Unreachable(
            f"the claim cannot be read, so nobody knows who is active: {facts.reading.trouble}",
            hint="Where there is none: understudy set-active NODE",
        )
    return facts.reading.claim


def _refuse(plan: Plan, why: str, hint: str) -> Plan:
    return replace(plan, refused=why, hint=hint)
