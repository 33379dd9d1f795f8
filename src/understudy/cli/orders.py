"""`failover`, `switchover`, `rejoin`: orders to an agent, and what becomes of them."""

import asyncio
import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from understudy.core.model import SERVING, Phase
from understudy.core.observations import Order, Verb
from understudy.errors import Refused, Unanswered
from understudy.runtime import daemon, statecodec
from understudy.runtime.daemon import Node

from .facts import gather
from .plan import Accepted, agree, order_plan, show
from .session import Session, as_json, clock, pass_session, print_json

Command = Callable[..., int]
UNFINISHED = ("open", "waiting")  # Events that are told when they have had their end.
HINTS = {  # By the row that ended an order.
    "fence-unconfirmed": "If the other node is off, or you have stopped its PBX yourself: the same "
    "with --accept-two-active.",
    "peer-not-ready": "See understudy status on the other node.",
    "take-refused": "The claim has changed, or its server did not answer: see understudy status, order again.",
    "start-failed-return": "Look at the PBX here: it could not be started.",
    "start-failed": "Look at the PBX here: it could not be started.",
}
ENDINGS = tuple(
    f"{phase} -> " for phase in (Phase.TAKING_OVER, Phase.HANDING_OVER, Phase.REJOINING)
)
MOVING = frozenset({Phase.TAKING_OVER, Phase.HANDING_OVER, Phase.STEPPING_DOWN, Phase.REJOINING})


def order_options(command: Command) -> Command:
    """What every order has."""
    for option in (
        as_json,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Say what would happen, and do nothing."),
    ):
        command = option(command)
    return command


@click.command()
@click.option(
    "--accept-two-active",
    is_flag=True,
    help="Do not wait until the other node has confirmed that its PBX is stopped.",
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Take over from an outdated node: what the other one recorded is not here.",
)
@order_options
@pass_session
def failover(
    session: Session,
    accept_two_active: bool,
    accept_loss: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Let the standby take over: the active node is dead, or must be treated so."""
    accepted = Accepted(two_active=accept_two_active, loss=accept_loss)
    return _give(session, Verb.FAILOVER, accepted, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command()
@order_options
@pass_session
def switchover(session: Session, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Change the active node as planned, both nodes alive."""
    return _give(session, Verb.SWITCHOVER, Accepted(), dry_run=dry_run, yes=yes, as_json=as_json)


@click.command()
@order_options
@pass_session
def rejoin(session: Session, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Let an outdated or halted node be a standby again, with a new copy."""
    return _give(session, Verb.REJOIN, Accepted(), dry_run=dry_run, yes=yes, as_json=as_json)


def _give(
    session: Session, verb: Verb, accepted: Accepted, *, dry_run: bool, yes: bool, as_json: bool
) -> int:
    node = session.node
    facts = asyncio.run(gather(node, ask=True, peer=verb is Verb.SWITCHOVER, events=0))
    plan = order_plan(verb, facts, session.config.pair.service, accepted)
    if dry_run:
        print_json({"ok": not plan.refused, **plan.to_json()}) if as_json else show(plan)
        return 1 if plan.refused else 0
    if not as_json:
        show(plan)
    agree(plan, yes=yes)
    place = _place_here if plan.node == node.policy.me else _place_there
    said = _follow(place(session, verb, accepted), node, verb, quiet=as_json)
    if as_json:
        print_json({"ok": True, "said": said, **plan.to_json()})
    else:
        click.echo(said)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """How far an order is, here or there."""

    state: str  # waiting, used, refused
    why: str
    phase: str
    is_moving: bool
    active: str  # By the claim; empty if that cannot be told.
    served: bool
    events: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Placed:
    node: str
    placed: float  # Wall clock.
    ask: Callable[[], _Progress]


def _place_here(session: Session, verb: Verb, accepted: Accepted) -> _Placed:
    node = session.node
    if not node.journal_path.exists():
        with node.as_agent():
            pass  # The agent has never run here: it begins with this order.
    journal = node.journal()
    placed = node.clock.now().wall
    number = journal.place(
        verb,
        by=_person(),
        accept_two_active=accepted.two_active,
        accept_loss=accepted.loss,
    )
    if node.agent_pid is None:
        daemon.run_tick(session.build())

    def ask() -> _Progress:
        row, state = journal.order_outcome(number), journal.state
        claim = state.evidence.claim
        return _Progress(
            state=row.state,
            why=row.why,
            phase=state.phase,
            is_moving=state.runbook is not None or state.phase in MOVING,
            active=claim.node if claim is not None else "",
            served=claim is not None and claim.served,
            events=[statecodec.to_json(each) for each in journal.events(since=placed, limit=20)],
        )

    return _Placed(node.policy.me, placed, ask)


def _place_there(session: Session, verb: Verb, accepted: Accepted) -> _Placed:
    node = session.node
    placed = node.clock.now().wall
    order = Order(id=0, verb=verb, accept_two_active=accepted.two_active, accept_loss=accepted.loss)
    said = asyncio.run(node.peer.order(order))
    click.echo(f"{node.policy.peer}: {said}", err=True)
    number = next((word for word in said.split() if word.isdigit()), "")

    def ask() -> _Progress:
        there = asyncio.run(node.peer.status())
        events = [each for each in there.get("events", []) if each["wall"] >= placed - 60.0]
        mine = [
            e for e in events if e["kind"] == "order" and e["text"].startswith(f"order {number} ")
        ]
        claim = there.get("claim") or {}
        return _Progress(
            state=mine[-1]["name"] if mine else "waiting",
            why=mine[-1]["text"] if mine else "",
            phase=str(there.get("phase")),
            is_moving=bool(there.get("step")),
            active=str(claim.get("node", "")),
            served=bool(claim.get("served")),
            events=[each for each in events if each["wall"] >= placed],
        )

    return _Placed(node.policy.peer, placed, ask)


def _follow(placed: _Placed, node: Node, verb: Verb, *, quiet: bool) -> str:
    """Print what is decided, until the order has had its end.  Raises Refused, Unanswered."""
    policy = node.policy
    patience = 2 * policy.stop_within + node.start_within + policy.announce + daemon.RESERVE
    until = time.monotonic() + patience
    told: set[tuple[float, str]] = set()
    while True:
        progress = placed.ask()
        for event in progress.events:
            is_new = (event["wall"], event["text"]) not in told
            if is_new and event["name"] not in UNFINISHED and not quiet:
                told.add((event["wall"], event["text"]))
                click.echo(f"{clock(event['wall'])}  {placed.node}: {event['text']}", err=True)
        if progress.state == "refused":
            raise Refused(f"{placed.node} refuses the {verb}: {progress.why}")
        if progress.state == "used" and not progress.is_moving:
            end = _end(verb, placed.node, progress)
            if end:
                return end
        if time.monotonic() > until:
            raise Unanswered(
                f"the {verb} is not over after {patience:.0f} s: {placed.node} is {progress.phase}",
                hint="It goes on by itself.  See: understudy status, understudy events",
            )
        time.sleep(0.25)


def _end(verb: Verb, node: str, progress: _Progress) -> str:
    """How it ended; empty while the other node is still starting.  Raises Refused."""
    match verb, progress.phase:
        case Verb.FAILOVER, phase if phase in SERVING:
            return f"{node} is active and serves"
        case Verb.SWITCHOVER, Phase.STANDBY | Phase.SUSPECTING if progress.active not in ("", node):
            return (
                f"{node} is standby, {progress.active} is active and serves"
                if progress.served
                else ""
            )
        case Verb.REJOIN, Phase.STANDBY | Phase.SUSPECTING:
            return f"{node} is standby"
    # What ended it, not what the node has decided since.
    ends = [each for each in progress.events if each["text"].startswith(ENDINGS)]
    last = ends[0] if ends else {"text": progress.why, "name": ""}
    if last["name"] == "hand-over-done":
        last = {
            "text": "the other node could not start its PBX and gave the claim back",
            "name": "",
        }
    raise Refused(
        f"the {verb} did not succeed: {last['text']}",
        hint=HINTS.get(last["name"], "See: understudy events, understudy status"),
    )


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
