"""What is so, for `status`, `check`, `answer` and the plans of orders: the journal, and the claim of this moment."""

import asyncio
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from understudy.core.claim import Claim
from understudy.core.evidence import absorb
from understudy.core.model import NEVER, SERVING, Evidence, Phase, State, newborn
from understudy.core.observations import ClaimReading, PeerAnswer, Report, Seen
from understudy.core.policy import Policy
from understudy.core.votes import Verdict, verdict
from understudy.errors import AdapterError, JournalError
from understudy.ports import Moment
from understudy.runtime import readings, stale, statecodec
from understudy.runtime.copy_state import ClassState
from understudy.runtime.daemon import Node
from understudy.runtime.journal_rows import Event, Failing, RoundRow, Undelivered
from understudy.runtime.protection import (
    Account,
    Extras,
    Protection,
    Reason,
    account_of,
    objections,
    of_standby,
    rules,
    verdict_of,
    wanted,
)
from understudy.runtime.status import Status
from understudy.runtime.watch import LATE, copies_of, disk_free, kept

from .session import about

PEER_WITHIN = 4.0  # Seconds that the plan of an order waits for the other node.

Reports = dict[str, tuple[Report, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Journalled:
    """What the agent last wrote; of a node whose agent has never run: nothing."""

    state: State
    is_there: bool = False
    round: RoundRow | None = None
    events: tuple[Event, ...] = ()
    heartbeat: float | None = None  # Wall clock.
    trouble: str = ""
    failing: tuple[Failing, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()
    is_daemon: bool = False  # The last agent was no round by cron.
    adopted: str = ""  # The digest of the configuration that it works with (C6).
    protection: Protection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """What the node that is not active says of its data."""

    phase: Phase
    copies: tuple[ClassState, ...]
    wall: float  # By its own clock, as all times of its copies.
    measured: float  # To when an age counts that is to be compared with max_age.


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One node, as a command finds it."""

    policy: Policy
    at: Moment
    where: str  # The claim is.
    reading: ClaimReading  # Made just now.
    journal: Journalled
    state: State  # As journalled, with that reading taken in.
    agent_pid: int | None  # 0 if it cannot be told, None if none runs.
    extras: Extras
    reports: Reports = field(default_factory=dict)  # Asked just now, if at all.
    peer: PeerAnswer | None = None
    peer_trouble: str = ""
    their_copies: Standby | None = None  # Asked just now.
    stale: str = ""  # As runtime.stale.keeps says it.

    @property
    def claim(self) -> Claim | None:
        """What was just read; else what the agent last read."""
        return self.reading.claim or self.evidence.claim

    @property
    def evidence(self) -> Evidence:
        return self.state.evidence

    @property
    def agent_is_alive(self) -> bool:
        """It runs, or cron ran it a moment ago."""
        if self.agent_pid is not None:
            return True
        return not self.journal.is_daemon and cron_is_at_work(self.journal, self.policy, self.at)

    def age(self, boot: float) -> float | None:
        """Seconds since a boot-time instant; None if it never was."""
        return None if boot == NEVER else max(self.at.boot - boot, 0.0)

    def heard(self, node: str) -> Verdict:
        """What the reports that were asked just now amount to."""
        return verdict(self.reports.get(node, ()), self.policy)

    @property
    def standby(self) -> str:
        """Who is not named in the claim."""
        claim, policy = self.claim, self.policy
        return policy.peer if claim is None or claim.node == policy.me else policy.me

    @property
    def view(self) -> Status:
        """How this node stands, for people."""
        return readings.status(
            self.state,
            self.policy,
            self.at.boot,
            self.at.wall,
            last_round=self.journal.round,
            events=self.journal.events,
            heartbeat=self.journal.heartbeat,
            agent_pid=self.agent_pid,
            journal_trouble=self.journal.trouble,
            failing=self.journal.failing,
            undelivered=self.journal.undelivered,
            is_daemon=self.journal.is_daemon,
            stale=self.stale,
        )


async def gather(
    node: Node,
    *,
    peer: bool = False,
    copies: bool = False,
    ask: bool = False,
    events: int = 5,
) -> Facts:
    """Read the journal and the claim.

    With `peer` the other node is asked whether it is ready, with `copies` how old its data is, where that is the
    standby; with `ask` the check points are asked.  Never raises.
    """
    journal = _journalled(node, events)
    reading, reports = await asyncio.gather(
        node.keeper().read(journal.state.evidence.claim), ask_all(node) if ask else _nothing()
    )
    at = node.clock.now()
    facts = Facts(
        policy=node.policy,
        at=at,
        where=node.store.where,
        reading=reading,
        journal=journal,
        state=absorb(journal.state, Seen(claim=reading), at.boot, node.policy),
        agent_pid=node.agent_pid,
        reports=reports,
        extras=_extras(node, journal, at),
        stale=stale_copy(node, journal.state),
    )
    if peer:
        facts = await _with_peer(facts, node)
    return await _with_copies(facts, node) if copies else facts


def stale_copy(node: Node, state: State) -> str:
    """Why the copy here keeps this node from taking over by itself; empty if it does not."""
    at = node.clock.now()
    copies = copies_of(node.copies_file)
    return stale.keeps(copies, state, at.boot, at.wall, node.copies.stale_from(at))


def standby(facts: Facts) -> Standby | None:
    """How old the standby's data is; None where that has not been told (facts.peer_trouble)."""
    if facts.standby != facts.policy.me:
        return facts.their_copies
    own = facts.extras.copies
    return Standby(
        phase=facts.state.phase,
        copies=own.classes if own is not None else (),
        wall=facts.at.wall,
        measured=stale.measured(facts.state, facts.at.boot, facts.at.wall),
    )


async def ask_all(node: Node) -> Reports:
    """All check points about both nodes, once (V1)."""
    nodes = (node.policy.me, node.policy.peer)
    reports = await asyncio.gather(*(probe.ask(each) for each in nodes for probe in node.probes))
    count = len(node.probes)
    return {nodes[0]: tuple(reports[:count]), nodes[1]: tuple(reports[count:])}


def cron_is_at_work(journal: Journalled, policy: Policy, at: Moment) -> bool:
    """No agent runs all the time here, but one ran a round ago."""
    heartbeat = journal.heartbeat
    return heartbeat is not None and abs(at.wall - heartbeat) <= policy.late


def protection(facts: Facts) -> Protection:
    """Could the standby take over now?

    The active node says what its agent last found (runtime.watch), any other one what it is itself; and both what the
    claim says at this moment.
    """
    state, policy, at = facts.state, facts.policy, facts.at
    serving = state.phase in SERVING
    standby = policy.peer if serving else policy.me
    last = of_standby(facts.journal.protection, standby, state.epoch)
    found = list(rules(state, policy, at.boot, at.wall))
    if serving:
        found += _as_watched(facts, last)
    else:
        by = wanted(policy, facts.claim, facts.extras.version)
        found += objections(Account(view=facts.view, extras=facts.extras), by)
    verdict = verdict_of(last, found, standby=standby, epoch=state.epoch, wall=at.wall)
    return verdict if last is None else replace(verdict, looked=last.looked, copies=last.copies)


def to_json(facts: Facts) -> dict[str, Any]:
    """Stable keys: those of readings.Status, of Extras, and of the protection.

    Times are wall clock seconds, ages seconds.  `protected_since` is when `protected` became what it is.
    """
    found = protection(facts)
    return {
        **readings.as_json(facts.view),
        **statecodec.to_json(facts.extras),
        "protected": found.protected,
        "protected_since": found.since,
        "not_protected_because": "; ".join(found.reasons),
        "not_protected_reasons": list(found.reasons),
    }


def _as_watched(facts: Facts, last: Protection | None) -> list[Reason]:
    """What the agent of this node has found about the other one, if that is not too long ago."""
    me, peer = facts.policy.me, facts.policy.peer
    if not facts.agent_is_alive:
        text = f"no agent runs on {me}, so nobody watches {peer}: systemctl start understudy here"
        return [Reason(text=text)]
    if last is None:
        return [Reason(text=f"{peer} has not been asked yet")]
    age = facts.at.wall - last.looked
    if age > max(LATE, facts.policy.late):
        return [
            Reason(text=f"{peer} was asked {about(age)} ago for the last time: understudy events")
        ]
    return [Reason(text=text) for text in last.reasons]


def _journalled(node: Node, events: int) -> Journalled:
    now = node.clock.now().boot
    try:
        journal = node.journal()
        try:
            rounds = journal.rounds(limit=1)
            state = journal.state
            if journal.boot_id not in ("", node.boot_id):
                state = absorb(state, Seen(booted=True), now, node.policy)
            return Journalled(
                state=state,
                is_there=True,
                round=rounds[-1] if rounds else None,
                events=tuple(journal.events(limit=events)) if events else (),
                heartbeat=journal.heartbeat,
                trouble=journal.trouble or node.noted_trouble(),
                failing=tuple(journal.failing()),
                undelivered=journal.undelivered(node.clock.now().wall),
                is_daemon=readings.is_daemons(journal),
                adopted=journal.adopted.digest if journal.adopted is not None else "",
                protection=kept(journal),
            )
        finally:
            journal.close()
    except JournalError as error:
        return Journalled(state=newborn(now), trouble=str(error))


def _extras(node: Node, journal: Journalled, at: Moment) -> Extras:
    return Extras(
        version=version("understudy"),
        digest=node.policy.digest,
        adopted=journal.adopted,
        wall=at.wall,
        disk_free=disk_free(node.journal_path),
        journal_failing=node.noted_trouble(),
        glass=node.glass_is_broken(),
        copies=copies_of(node.copies_file),
    )


async def _nothing() -> Reports:
    return {}


async def _with_peer(facts: Facts, node: Node) -> Facts:
    claim, peer = facts.claim, facts.policy.peer
    if claim is None or claim.node != facts.policy.me:
        return facts
    try:
        async with asyncio.timeout(PEER_WITHIN):
            return replace(facts, peer=await node.peer.ask(claim.epoch))
    except TimeoutError:
        return replace(facts, peer_trouble=f"{peer} has not answered in {PEER_WITHIN:g} s")
    except AdapterError as error:
        return replace(facts, peer_trouble=str(error))


async def _with_copies(facts: Facts, node: Node) -> Facts:
    claim, peer = facts.claim, facts.policy.peer
    if claim is None or claim.node != facts.policy.me:
        return facts
    try:
        async with asyncio.timeout(PEER_WITHIN):
            account = account_of(await node.peer.status())
    except TimeoutError:
        return replace(facts, peer_trouble=f"{peer} has not answered in {PEER_WITHIN:g} s")
    except (AdapterError, JournalError) as error:
        return replace(facts, peer_trouble=str(error))
    view, extras = account.view, account.extras
    found = Standby(
        phase=view.phase,
        copies=extras.copies.classes if extras.copies is not None else (),
        wall=extras.wall,
        measured=extras.wall - (view.patience.spent if view.patience is not None else 0.0),
    )
    return replace(facts, their_copies=found)
