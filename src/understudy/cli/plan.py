"""What an order would start, stop, drop and risk: said before anything is done."""

import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from understudy.core.claim import Claim
from understudy.core.model import Phase
from understudy.core.observations import Ready, Verb
from understudy.core.policy import Policy
from understudy.core.votes import Verdict
from understudy.errors import Refused, Unreachable
from understudy.runtime.door import readiness

from .facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    order: str
    node: str  # Who carries it out.
    starts: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    refused: str = ""  # Why it would not be carried out.
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        rows = (
            ("starts", self.starts),
            ("stops", self.stops),
            ("drops", self.drops),
            ("risks", self.risks),
            ("refused", (self.refused,) if self.refused else ()),
        )
        told = [f"{self.order}, carried out by {self.node}:"]
        for label, sentences in rows:
            told += [f"  {label:<8} {each}" for each in sentences or ("nothing",) if each]
            if label == "refused" and not sentences:
                told.pop()
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a person takes upon himself."""

    two_active: bool = False
    loss: bool = False


def order_plan(verb: Verb, facts: Facts, service: str, accepted: Accepted) -> Plan:
    """Raises Unreachable when the claim cannot be read: then nobody knows who is active."""
    claim = _claim(facts)
    match verb:
        case Verb.FAILOVER:
            return _failover(facts, claim, service, accepted)
        case Verb.SWITCHOVER:
            return _switchover(facts, claim, service)
        case Verb.REJOIN:
            return _rejoin(facts)
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
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            "nothing was done: there is no terminal to ask at",
            hint="Look at what it would do with --dry-run; do it with --yes.",
        )
    if not click.confirm("Do it?", err=True):
        raise Refused("nothing was done")


def _failover(facts: Facts, claim: Claim, service: str, accepted: Accepted) -> Plan:
    old, new = claim.node, facts.standby
    two, loss = accepted.two_active, accepted.loss
    risks = [f"{new} serves with the data that it has: what was not copied from {old} is missing"]
    match facts.heard(old):
        case Verdict.UP:
            risks.append(f"the check points say that {old} is up: switchover is the gentle way")
        case Verdict.UNCLEAR:
            risks.append(f"the check points do not agree whether {old} is up")
    if two:
        risks.append(
            f"two PBXs may be active until {old} has read the claim: its stop is not waited for"
        )
    if loss:
        risks.append(f"what {old} recorded since it took the claim is not on {new}")
    plan = Plan(
        order="failover",
        node=new,
        starts=(f"the PBX on {new}", f"{service} leads to {new}"),
        stops=(
            f"the PBX on {old}" + ("" if two else ": it must confirm that, or nothing is done"),
        ),
        drops=(f"calls in progress on {old}",),
        risks=tuple(risks),
    )
    if claim.announced == old:
        return _refuse(
            plan, f"{old} has announced that it is about to take over", "Wait, and see status."
        )
    state = facts.state
    if new != facts.policy.me:
        return plan
    if state.phase is Phase.OUTDATED and not loss:
        return _refuse(
            plan,
            f"{new} is outdated: its copy may lack what {old} recorded",
            "Renew it: understudy rejoin.  Or accept the loss: --accept-loss.",
        )
    if state.phase not in (Phase.STANDBY, Phase.SUSPECTING, Phase.OUTDATED, Phase.SILENT):
        return _refuse(plan, f"{new} is {state.phase}", "See: understudy status")
    return plan


def _switchover(facts: Facts, claim: Claim, service: str) -> Plan:
    old, new = claim.node, facts.standby
    plan = Plan(
        order="switchover",
        node=old,
        starts=(f"the PBX on {new}", f"{service} leads to {new}"),
        stops=(f"the PBX on {old}",),
        drops=(
            f"calls in progress on {old}",
            f"new calls until {new} answers and phones ask again",
        ),
        risks=(
            f"{new} serves with the data that it has: what was not copied from {old} is missing",
        ),
    )
    ready = facts.peer
    if new == facts.policy.me:
        ready = readiness(facts.state, facts.policy, claim.epoch, facts.at.boot)
    if ready is not None and ready.ready is Ready.NO:
        return _refuse(plan, f"{new} is not ready: {ready.why}", f"See understudy status on {new}.")
    if facts.peer_trouble:
        return _refuse(
            plan,
            f"{new} cannot be asked whether it is ready: {facts.peer_trouble}",
            f"If {old} must go nevertheless: understudy failover on {new}.",
        )
    return plan


def _rejoin(facts: Facts) -> Plan:
    node = facts.standby
    return Plan(
        order="rejoin",
        node=node,
        risks=(
            "this version copies no data: with this order you say that the data on "
            f"{node} is that of the active node",
        ),
    )


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


def _claim(facts: Facts) -> Claim:
    if facts.reading.claim is None:
        raise Unreachable(
            f"the claim cannot be read, so nobody knows who is active: {facts.reading.trouble}",
            hint="Where there is none: understudy set-active NODE",
        )
    return facts.reading.claim


def _refuse(plan: Plan, why: str, hint: str) -> Plan:
    return replace(plan, refused=why, hint=hint)
