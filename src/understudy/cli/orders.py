"""`failover`, `switchover`, `rejoin`: orders to an agent, and what becomes of them."""

import asyncio
import getpass
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import click

from understudy.config import durations
from understudy.core.model import SERVING, Phase
from understudy.core.observations import Order, Verb
from understudy.core.votes import Verdict
from understudy.errors import Refused, Unanswered, UnderstudyError
from understudy.runtime import daemon, statecodec
from understudy.runtime.daemon import Node

from .calls import Counted, Counter, many
from .downtime import downtime
from .facts import Facts, gather
from .notes import note
from .plan import ALL, Accepted, Known, Plan, agree, claim_of, order_plan, show
from .session import Session, about, as_json, clock, duration, pass_session, print_json

Command = Callable[..., int]
NOTHING = Accepted()
LOOK_FOR_CALLS = 2.0  # Seconds between two looks while calls are waited for.
COST = "cost"  # Events that say what a move has cost.
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
    multiple=True,
    metavar="CLASS",
    help="Serve with the copy of this class of data though it is too old.  May be given several times.  `all`: with "
    "whatever there is, on an outdated node too: what the other one recorded is not here.",
)
@order_options
@pass_session
def failover(
    session: Session,
    accept_two_active: bool,
    accept_loss: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Let the standby take over: the active node is dead, or must be treated so."""
    accepted = Accepted(two_active=accept_two_active, loss=frozenset(accept_loss))
    with Orders(session) as orders:
        return orders.give(Verb.FAILOVER, accepted, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command()
@click.option(
    "--drain",
    type=duration,
    metavar="10m",
    help="First wait up to that long for a moment without calls on the active node; new calls still come in.  When "
    "the time is over it asks again; with --yes it goes on, and cuts off the calls that are left.  Ctrl-C "
    "while it waits: nothing is done.  Needs [service] calls.",
)
@order_options
@pass_session
def switchover(
    session: Session, drain: float | None, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Change the active node as planned, both nodes alive.

    In the end it says for how long nobody served (from the stop of the one PBX to the first answer of the other), and
    how many calls were cut off.
    """
    with Orders(session) as orders:
        return orders.give(Verb.SWITCHOVER, drain=drain, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command()
@order_options
@pass_session
def rejoin(session: Session, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Let an outdated or halted node be a standby again, with a new copy."""
    with Orders(session) as orders:
        return orders.give(Verb.REJOIN, dry_run=dry_run, yes=yes, as_json=as_json)


class Orders:
    """Places orders, and follows them to their end.  To be made before the session is used: see Counter."""

    def __init__(self, session: Session) -> None:
        """Raises ConfigError."""
        self._session = session
        self._counter = Counter(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._counter.close()

    def give(
        self,
        verb: Verb,
        accepted: Accepted = NOTHING,
        *,
        drain: float | None = None,
        dry_run: bool = False,
        yes: bool = False,
        as_json: bool = False,
    ) -> int:
        """Show what it would do, ask, do it, and say what it has cost; the exit code.

        `drain`: wait for a moment without calls first, so many seconds at most.  Raises Refused, Unanswered,
        Unreachable, UsageError.
        """
        self._insist_on_classes(accepted)
        plan, facts = self._plan(verb, accepted, drain=drain, asks=not yes)
        if dry_run:
            print_json({"ok": not plan.refused, **plan.to_json()}) if as_json else show(plan)
            return 1 if plan.refused else 0
        if not as_json:
            show(plan)
        agree(plan, yes=yes)
        if drain is not None:
            plan, facts = self._drained(plan, verb, accepted, drain, yes=yes, quiet=as_json)
        move = self._move(verb, facts, plan)
        placed = self.place(verb, plan.node, accepted=accepted, accept_loss=plan.accept_loss)
        said = self._ended(placed, verb, accepted, quiet=as_json)
        cost = self._cost(move, placed)
        if cost.words:
            note(self._session.node, COST, f"{verb}{cost.words}")
        if as_json:
            print_json({"ok": True, "said": said, **plan.to_json(), **asdict(cost)})
        else:
            click.echo(f"{said}{cost.words}")
        return 0

    def place(
        self,
        verb: Verb,
        node: str,
        *,
        accepted: Accepted = NOTHING,
        accept_loss: bool = False,
    ) -> "Placed":
        """At the agent of `node`, unasked.  Raises Refused, Unanswered, Unreachable, Denied."""
        order = Order(
            id=0, verb=verb, accept_two_active=accepted.two_active, accept_loss=accept_loss
        )
        here = node == self._session.node.policy.me
        return _place_here(self._session, order) if here else _place_there(self._session, order)

    def _insist_on_classes(self, accepted: Accepted) -> None:
        classes = self._session.config.copies
        for each in sorted(accepted.loss - {ALL, *classes}):
            known = ", ".join((*classes, ALL))
            raise click.UsageError(
                f"--accept-loss {each}: there is no [copies.{each}].  There are: {known}."
            )

    def _plan(
        self, verb: Verb, accepted: Accepted, *, drain: float | None = None, asks: bool = True
    ) -> tuple[Plan, Facts]:
        """By what is so now."""
        peer, copies = verb is Verb.SWITCHOVER, verb is Verb.FAILOVER
        facts = asyncio.run(
            gather(self._session.node, ask=True, peer=peer, copies=copies, events=0)
        )
        active = claim_of(facts).node
        # Who is dead has no calls, and asking takes its time.
        unseen = verb is Verb.FAILOVER and facts.heard(active) is not Verdict.UP
        if unseen or verb is Verb.REJOIN:
            calls = Counted(node=active, why="the check points do not see it up" if unseen else "")
        else:
            calls = self._counter.count(active)
        known = replace(self._known(calls), drain=drain, asks=asks)
        return order_plan(verb, facts, known, accepted), facts

    def _known(self, calls: Counted) -> Known:
        from understudy import wiring

        config = self._session.config
        return Known(service=config.pair.service, calls=calls, classes=wiring.class_states(config))

    def _drained(
        self,
        plan: Plan,
        verb: Verb,
        accepted: Accepted,
        within: float,
        *,
        yes: bool,
        quiet: bool,
    ) -> tuple[Plan, Facts]:
        """Wait for a moment without calls, by a look at everything anew.  Raises Refused."""
        until, shown = time.monotonic() + within, None
        while True:
            calls = self._counter.count(plan.node)
            if calls != shown and not quiet:
                click.echo(f"{clock(time.time())}  {calls.sentence}", err=True)
            shown, left = calls, until - time.monotonic()
            if calls.number == 0:
                again, facts = self._again(plan, verb, accepted)
                if again.calls == 0:
                    return again, facts
            if left <= 0:
                break
            time.sleep(min(LOOK_FOR_CALLS, left))
        late = f"after {durations.show(within)} there are still {calls.sentence}"
        if not yes and not click.confirm(f"{late}.  Do it?", err=True):
            raise Refused("nothing was done")
        return self._again(plan, verb, accepted)

    def _again(self, plan: Plan, verb: Verb, accepted: Accepted) -> tuple[Plan, Facts]:
        """What was shown minutes ago need not be so any more.  Raises Refused."""
        again, facts = self._plan(verb, accepted)
        if again.node != plan.node:
            raise Refused(f"nothing was done: {again.node} has become active meanwhile")
        if again.refused:
            raise Refused(again.refused, hint=again.hint)
        return again, facts

    def _move(self, verb: Verb, facts: Facts, plan: Plan) -> "_Move | None":
        """As it is in the moment before: a person has read the plan for a while."""
        if verb is Verb.REJOIN:
            return None
        old = claim_of(facts).node
        heard = facts.heard(old)
        return _Move(
            verb=verb,
            old=old,
            new=facts.standby,
            was_up=heard is Verdict.UP or (verb is Verb.SWITCHOVER and heard is not Verdict.DOWN),
            calls=self._counter.count(old).number if plan.calls is not None else None,
        )

    def _ended(self, placed: "Placed", verb: Verb, accepted: Accepted, *, quiet: bool) -> str:
        try:
            return _follow(placed, self._session.node, verb, quiet=quiet)
        except KeyboardInterrupt:
            raise Unanswered(
                f"nobody looks any more, but {placed.node} has the order: the {verb} goes on",
                hint="See: understudy status, understudy events",
            ) from None
        except _RefusedThereError as refusal:
            raise self._explained(verb, accepted, refusal) from None

    def _explained(self, verb: Verb, accepted: Accepted, refusal: Refused) -> Refused:
        """An agent only says that the order does not fit: is there data that has become too old meanwhile?"""
        if verb is Verb.FAILOVER:
            facts = asyncio.run(gather(self._session.node, copies=True, events=0))
            with suppress(UnderstudyError):
                plan = order_plan(verb, facts, self._known(Counted(node="")), accepted)
                if plan.refused:
                    return Refused(f"{refusal}; {plan.refused}", hint=plan.hint)
        return refusal

    def _cost(self, move: "_Move | None", placed: "Placed") -> "_Cost":
        if move is None:
            return _Cost()
        node, began = self._session.node, placed.began
        return _Cost(
            calls_lost=move.calls,
            # Who was down before was so for longer than from his stop on.
            down_seconds=downtime(node, move.verb, old=move.old, new=move.new, since=began)
            if move.was_up
            else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """Who serves, and who will."""

    verb: Verb
    old: str
    new: str
    was_up: bool
    calls: int | None  # In progress.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What an order has cost; None: not known."""

    down_seconds: float | None = None
    calls_lost: int | None = None

    @property
    def words(self) -> str:
        words = []
        if self.down_seconds is not None:
            exact = f"{self.down_seconds:.1f} s"
            words.append(
                f"down about {exact if self.down_seconds < 60 else about(self.down_seconds)}"
            )
        if self.calls_lost is not None:
            words.append(f"{many(self.calls_lost)} lost")
        return f": {', '.join(words)}" if words else ""


class _RefusedThereError(Refused):
    """The agent refused the order."""


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
class Placed:
    """An order that an agent has."""

    node: str
    began: float  # time.monotonic().
    ask: Callable[[], _Progress]


def _place_here(session: Session, order: Order) -> Placed:
    node, began = session.node, time.monotonic()
    if not node.journal_path.exists():
        with node.as_agent():
            pass  # The agent has never run here: it begins with this order.
    journal = node.journal()
    placed = node.clock.now().wall
    number = journal.place(
        order.verb,
        by=_person(),
        accept_two_active=order.accept_two_active,
        accept_loss=order.accept_loss,
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

    return Placed(node.policy.me, began, ask)


def _place_there(session: Session, order: Order) -> Placed:
    node, began = session.node, time.monotonic()
    placed = node.clock.now().wall
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

    return Placed(node.policy.peer, began, ask)


def _follow(placed: Placed, node: Node, verb: Verb, *, quiet: bool) -> str:
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
            raise _RefusedThereError(f"{placed.node} refuses the {verb}: {progress.why}")
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
