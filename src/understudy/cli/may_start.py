"""`may-start`: the guard in front of the PBX's unit (ExecStartPre=).  PROTOCOL.md T7, S1, H3.

A person's `systemctl start`, a package upgrade and Understudy itself all pass here.
"""

import asyncio
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click

from understudy.core.claim import Claim, How
from understudy.core.model import SERVING, Phase
from understudy.core.policy import Isolation
from understudy.core.votes import Verdict
from understudy.errors import Refused, UnderstudyError, told
from understudy.guard import Word
from understudy.runtime import guard_file
from understudy.runtime.daemon import Node

from .facts import Facts, ask_all, gather
from .notes import note
from .session import Session, about, as_json, pass_session, print_json
from .starters import Starters


@click.command("may-start")
@click.option(
    "--unit",
    default="",
    metavar="UNIT",
    help="For the unit's drop-in: a no also goes to the terminal of who asked for the start, and to the unit's log.",
)
@as_json
@pass_session
def may_start(session: Session, unit: str, as_json: bool) -> int:
    """May the PBX be started here?  Exit 0: yes.  Exit 1: no, with the reason on standard error."""
    if not unit:
        return _answer(session.node, as_json=as_json)
    # Before the session makes us the agent's user.
    with closing(Starters(unit)) as starters:
        try:
            return _answer(session.node, as_json=as_json)
        except UnderstudyError as error:
            starters.tell(f"understudy: {told(error)}")
            if isinstance(error, _NamedElsewhere):
                starters.end_restarts()
            raise


class _NamedElsewhere(Refused):
    """The claim names the other node: no restart by systemd changes that."""


def _answer(node: Node, *, as_json: bool) -> int:
    if node.glass_is_broken():
        said = f"the glass is broken ({node.glass}): allowed, whatever the claim says"
        note(node, "glass", f"may-start: {said}")
    else:
        said = asyncio.run(_judge(node))
        _hold_to_first_proof(node)
    if as_json:
        print_json({"ok": True, "said": said, "node": node.policy.me})
    else:
        click.echo(f"may-start: {said}", err=True)
    return 0


def _hold_to_first_proof(node: Node) -> None:
    """S2: the guard stops what is started here, unless an agent proves in time that it may run."""
    if node.policy.isolation is Isolation.STOP:
        ends = node.clock.now().boot + node.policy.first_proof
        guard_file.allow(node.guard_file, Word(node.boot_id, node.policy.me, ends=ends))


async def _judge(node: Node) -> str:
    """Why it may.  Raises Refused with why it may not."""
    facts = await _unannounced(node)
    claim = facts.reading.claim
    if claim is None:
        return _without_claim(facts, node.glass)
    me, peer = facts.policy.me, facts.policy.peer
    if claim.node != me:
        raise _NamedElsewhere(
            f"the PBX may not start here: the claim names {claim.node}, epoch {claim.epoch}",
            hint=f"To move calls here: understudy switchover, or failover if {claim.node} is dead.",
        )
    if claim.epoch < facts.state.epoch:
        raise _no(
            f"the claim says epoch {claim.epoch}, but this node has seen {facts.state.epoch}: was the "
            "zone restored from an old backup?",
            "Say who is active: understudy set-active NODE",
        )
    if claim.announced:
        raise _no(
            f"{claim.announced} has announced that it is about to take over",
            "If that is wrong, its announcement is struck out once the check points see this node.",
        )
    if _peer_is_known_stopped(facts, claim):
        return f"the claim is ours, epoch {claim.epoch}"
    left = _until_declared_long_enough(facts, claim)
    if left > 0:
        raise _no(
            f"a person has just declared {me} active, and {peer} may not have stopped yet",
            f"The agent starts the PBX in {about(left)}.  At once: understudy set-active {me}"
            " --accept-two-active",
        )
    if replace(facts, reports=await ask_all(node)).heard(peer) is Verdict.UP:
        raise _no(
            f"the claim is ours, but the check points say that {peer} is up",
            f"Stop the PBX on {peer} first, or see understudy status there.",
        )
    return f"the claim is ours, epoch {claim.epoch}, and the check points do not see {peer} up"


async def _unannounced(node: Node) -> Facts:
    """An announcement that our living agent will strike out is waited for."""
    until = time.monotonic() + node.policy.claim_stale
    while True:
        facts = await gather(node, events=0)
        claim = facts.reading.claim
        ours_but_announced = claim is not None and claim.node == node.policy.me and claim.announced
        if not ours_but_announced or facts.agent_pid is None or time.monotonic() > until:
            return facts
        await asyncio.sleep(1.0)


def _peer_is_known_stopped(facts: Facts, claim: Claim) -> bool:
    """H1: the other node stopped its PBX before it gave us the claim; or our agent has seen to it just now."""
    if claim.how in (How.HANDED, How.RETURNED) and not claim.served:
        return True
    return facts.agent_pid is not None and facts.state.phase is Phase.TAKING_OVER


def _until_declared_long_enough(facts: Facts, claim: Claim) -> float:
    """Seconds for which the other node's own proofs may still be fresh (S1), after set-active."""
    if claim.how is not How.MOVED or claim.served:
        return 0.0
    known = facts.journal.state.evidence
    seen = known.claim is not None and known.claim.epoch == claim.epoch
    age = facts.age(known.epoch_at) if seen else None
    return facts.policy.outlives - (age or 0.0)


def _without_claim(facts: Facts, glass: Path) -> str:
    """S1: who serves may restart its PBX while the claim cannot be read, on a proof that is fresh."""
    state, policy = facts.state, facts.policy
    if facts.agent_pid is None or state.phase not in SERVING:
        raise _no(f"the claim cannot be read: {facts.reading.trouble}", _glass_hint(facts, glass))
    for what, age, limit in (
        ("the claim", facts.age(facts.evidence.proved_at), policy.claim_stale),
        ("the check points", facts.age(facts.evidence.up_at), policy.checkpoints_stale),
    ):
        if age is not None and age <= limit:
            return (
                f"the claim cannot be read now, but {what} proved this node active {about(age)} ago"
            )
    raise _no(
        f"the claim cannot be read, and no proof that this node is active is fresh: {facts.reading.trouble}",
        _glass_hint(facts, glass),
    )


def _glass_hint(facts: Facts, glass: Path) -> str:
    return (
        f"If you know that the PBX of {facts.policy.peer} is stopped and will stay so, break the "
        f"glass: touch {glass}, and start the PBX again."
    )


def _no(why: str, hint: str) -> Refused:
    return Refused(f"the PBX may not start here: {why}", hint=hint)
