"""Readings of the journal for people: how it stands, why, and what keeps a node from doing more.

Pure but for `status_of` and `why_at`, which fetch the rows; whoever calls reads the clocks.  `now` is boot time of
this machine, `wall` its wall clock, both in seconds; ages are seconds.  The keys of `as_json` are stable: scripts read
them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.core.evidence import absorb
from understudy.core.model import NEVER, SERVING, Phase, State
from understudy.core.observations import Seen
from understudy.core.policy import Policy
from understudy.core.votes import Verdict
from understudy.core.when import Facts, we_announced
from understudy.ports import Moment

from . import statecodec
from .journal import SqliteJournal
from .journal_rows import DecisionRow, Event, EventKind, Failing, RoundRow, Undelivered, Vote, Votes
from .sentences import exit_code_check, sentences
from .status import (
    Agent,
    NodeView,
    Patience,
    Proofs,
    Status,
)
from .troubles import troubles
from .waiting import (
    announces_in,
    facts_of,
    serves,
    step_of,
    still_failing,
    takes_in,
    waiting_for,
)

__all__ = [
    "Status",
    "Why",
    "as_json",
    "exit_code_check",
    "sentences",
    "status",
    "status_of",
    "waiting_for",
    "why",
    "why_at",
]


def status(
    state: State,
    policy: Policy,
    now: float,
    wall: float,
    *,
    last_round: RoundRow | None = None,
    events: Sequence[Event] = (),
    heartbeat: float | None = None,
    agent_pid: int | None = None,
    journal_trouble: str = "",
    booted: bool = False,
    failing: Sequence[Failing] = (),
    is_daemon: bool = False,
    undelivered: Sequence[Undelivered] = (),
    stale: str = "",
) -> Status:
    """How this node stands.

    `heartbeat` is when its agent last wrote (wall clock), `agent_pid` who holds the journal's lock; `booted` says that
    the machine has booted since the agent wrote `state`, so that the boot times in it mean nothing; `stale` is what
    runtime.stale.keeps says about the copy here.
    """
    if booted:
        state = absorb(state, Seen(booted=True), now, policy)
    facts = facts_of(state, policy, now, wall)
    evidence, claim = state.evidence, state.evidence.claim
    current = still_failing(failing, state, policy, wall)
    view = Status(
        node=policy.me,
        peer=policy.peer,
        phase=state.phase,
        since=wall - (now - state.since),
        seconds=max(now - state.since, 0.0),
        automatic=state.automatic,
        step=step_of(state),
        active=claim.node if claim is not None else "",
        serving=_serving(facts),
        nobody_serves=_nobody_serves(facts),
        epoch=state.epoch,
        data_of=state.lineage.node if state.lineage is not None else "",
        pbx=evidence.pbx,
        claim=claim,
        claim_age=_age(now, evidence.claim_at),
        claim_trouble=evidence.claim_trouble,
        round_age=_age(now, evidence.round_at),
        nodes=_nodes(policy, evidence.mine, evidence.theirs, last_round),
        patience=_patience(facts),
        proofs=_proofs(facts),
        paused_until=_ahead(claim.pause if claim is not None else 0, wall),
        settles_until=_ahead(claim.settle if claim is not None else 0, wall),
        waiting_for=waiting_for(state, policy, now, wall, failing=current, stale=stale),
        agent=Agent(
            pid=agent_pid,
            heartbeat_age=None if heartbeat is None else max(wall - heartbeat, 0.0),
            late_after=max(policy.late, LATE),
            is_daemon=is_daemon,
        ),
        journal_trouble=journal_trouble,
        failing=current,
        troubles=(),
        events=tuple(events),
        undelivered=tuple(undelivered),
    )
    return replace(view, troubles=tuple(troubles(view, facts)))


def as_json(view: Status) -> dict[str, Any]:
    """One object; every key is always there."""
    found: dict[str, Any] = statecodec.to_json(view)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The decision in force at a time, and what it rested on."""

    at: float  # Wall clock, asked for.
    since: float  # Wall clock: when it was decided.
    node: str
    before: Phase
    after: Phase
    rule: str
    because: str
    action: str
    times: int
    order: int | None
    votes: Votes  # As they stood at `at`.
    kept: str  # What kept the node from doing more, at `at`.
    failing: tuple[Failing, ...] = ()  # What was tried again and again then.


def why(
    decisions: Iterable[DecisionRow],
    at: float,
    policy: Policy,
    *,
    rounds: Iterable[RoundRow] = (),
    events: Iterable[Event] = (),
    failing: Sequence[Failing] = (),
    stale: str = "",
) -> Why | None:
    """The decision in force at wall clock time `at`; None if the journal holds none so early.

    `rounds` and `events` are those since that decision, as far as the journal has them: the votes are replayed.
    `stale` is what runtime.stale.keeps says about the copy here, where `at` is now: it is not kept for later.
    """
    made = max((row for row in decisions if row.wall <= at), key=lambda row: row.id, default=None)
    if made is None:
        return None
    told = [each for each in events if made.wall <= each.wall <= at]
    boot = next((each for each in reversed(told) if each.name == "boot"), None)
    in_force = made if boot is None else _booted(made, boot, policy)
    since = max(in_force.wall, in_force.last if in_force.last <= at else in_force.wall)
    state, last = in_force.state, None
    for asked in rounds:
        if since <= asked.wall <= at:
            last = asked
            then = _boot_time(made, asked.wall)
            state = absorb(state, Seen(round=asked.asked_at(then)), then, policy)
    state = _with_trouble(state, [each for each in told if each.wall >= since])
    now = _boot_time(made, at)
    current = still_failing(failing, state, policy, at)
    return Why(
        at=at,
        since=in_force.wall,
        node=in_force.node,
        before=in_force.before,
        after=in_force.after,
        rule=in_force.rule,
        because=in_force.because,
        action=in_force.action,
        times=in_force.times,
        order=in_force.order,
        votes=_votes(in_force.votes, state, last, now),
        kept=waiting_for(state, policy, now, at, failing=current, stale=stale),
        failing=current,
    )


def status_of(
    journal: SqliteJournal, policy: Policy, at: Moment, *, boot_id: str, events: int = 10
) -> Status:
    """How the node of this journal stands.  Raises JournalError."""
    state = journal.state
    rounds = journal.rounds(limit=1)
    return status(
        state,
        policy,
        at.boot,
        at.wall,
        last_round=rounds[0] if rounds else None,
        events=journal.events(limit=events),
        heartbeat=journal.heartbeat,
        agent_pid=journal.agent_pid,
        journal_trouble=journal.trouble,
        booted=journal.boot_id not in ("", boot_id),
        failing=journal.failing(),
        is_daemon=is_daemons(journal),
        undelivered=journal.undelivered(at.wall),
    )


def is_daemons(journal: SqliteJournal) -> bool:
    """Was the last agent a daemon?  Raises JournalError."""
    return journal.kept("agent") == DAEMON


def why_at(journal: SqliteJournal, policy: Policy, at: float, *, stale: str = "") -> Why | None:
    """As `why`, with what the journal has of that time.  Raises JournalError."""
    made = journal.decisions(until=at, limit=1)
    since = made[0].wall if made else at
    return why(
        made,
        at,
        policy,
        rounds=journal.rounds(since=since, until=at, limit=REPLAYED),
        events=journal.events(since=since, until=at),
        failing=journal.failing(until=at),
        stale=stale,
    )


DAEMON, CRON = "daemon", "cron"  # Which kind of agent it was, in the journal.
REPLAYED = 2000  # Rounds at most, the newest: the others do not change what holds at the end.
LATE = 15.0  # Seconds: no agent is called late sooner.


def _boot_time(made: DecisionRow, wall: float) -> float:
    """The boot clock at a later time, as far as a wall clock can tell."""
    return made.boot + wall - made.wall


def _booted(made: DecisionRow, boot: Event, policy: Policy) -> DecisionRow:
    """A boot is no decision, but it ends what the last one began."""
    state = absorb(made.state, Seen(booted=True), _boot_time(made, boot.wall), policy)
    return replace(
        made,
        wall=boot.wall,
        last=boot.wall,
        before=made.after,
        after=state.phase,
        rule="booted",
        because="the machine has booted: nothing starts before the claim has been read [S2]",
        action="",
        times=1,
        order=None,
        votes=Votes(claim=state.evidence.claim),
        state=state,
    )


def _serving(f: Facts) -> str:
    if serves(f.state):
        return f.policy.me
    return f.policy.peer if f.evidence.theirs is Verdict.UP else ""


def _nobody_serves(f: Facts) -> bool:
    """As far as this node can tell; not knowing is not nobody."""
    if serves(f.state) or f.evidence.theirs is Verdict.UP or f.claim is None:
        return False
    return f.claim.node == f.policy.me or f.evidence.theirs is Verdict.DOWN


def _nodes(
    policy: Policy, mine: Verdict, theirs: Verdict, last: RoundRow | None
) -> tuple[NodeView, ...]:
    votes: tuple[Vote, ...] = last.votes if last is not None else ()
    return tuple(
        NodeView(
            node=node, verdict=verdict, votes=tuple(vote for vote in votes if vote.node == node)
        )
        for node, verdict in ((policy.me, mine), (policy.peer, theirs))
    )


def _patience(f: Facts) -> Patience | None:
    since = f.evidence.down_since
    if f.state.phase is not Phase.SUSPECTING or since == NEVER:
        return None
    announced = we_announced(f)
    return Patience(
        total=f.policy.patience,
        spent=max(f.now - since, 0.0),
        remaining=max(since + f.policy.patience - f.now, 0.0),
        announced=announced,
        announces_in=None if announced else announces_in(f),
        takes_in=takes_in(f),
    )


def _proofs(f: Facts) -> Proofs | None:
    if f.state.phase not in SERVING:
        return None
    return Proofs(
        claim_age=_age(f.now, f.evidence.proved_at),
        claim_stale=f.policy.claim_stale,
        checkpoints_age=_age(f.now, f.evidence.up_at),
        checkpoints_stale=f.policy.checkpoints_stale,
    )


def _age(now: float, instant: float) -> float | None:
    return None if instant == NEVER else max(now - instant, 0.0)


def _ahead(until: float, wall: float) -> float | None:
    return until if until > wall else None


def _with_trouble(state: State, events: Sequence[Event]) -> State:
    """Readings of the claim are not kept one by one; that they failed, or went well again, is."""
    told = [each for each in events if each.kind is EventKind.NOTE and each.name == "claim-trouble"]
    if not told:
        return state
    trouble = "" if told[-1].text == "the claim can be read" else told[-1].text
    return replace(state, evidence=replace(state.evidence, claim_trouble=trouble))


def _votes(decided: Votes, state: State, last: RoundRow | None, now: float) -> Votes:
    evidence = state.evidence
    down = evidence.down_since
    votes = replace(
        decided,
        claim_trouble=evidence.claim_trouble,
        patience=now - down if down != NEVER else 0.0,
    )
    if last is None:
        return votes
    return replace(
        votes, asked=last.wall, mine=evidence.mine, theirs=evidence.theirs, votes=last.votes
    )
