"""`answer`: the far side of the door.  One request, one line of JSON, and the end.

Over SSH it is the forced command of a user of its own: the request is in SSH_ORIGINAL_COMMAND.
"""

import asyncio
import os
import signal
import sys
from contextlib import closing, suppress
from functools import partial
from typing import Any

import click

from understudy.adapters.peers.requests import (
    Ask,
    AskMerged,
    Bundle,
    Calls,
    Compare,
    Examine,
    Fence,
    Fetch,
    PlaceOrder,
    Request,
    Status,
    Stream,
    Trial,
    Wake,
    parse_request,
    render_answer,
)
from understudy.core.model import SERVING, Phase
from understudy.core.observations import Order, Pbx, PeerAnswer, Verb
from understudy.errors import JournalError, NotStopped, Refused, UnderstudyError, told
from understudy.runtime import statecodec
from understudy.runtime.copies import compare_all, fetch_all
from understudy.runtime.daemon import Node
from understudy.runtime.door import fence_refusal, is_stopped, readiness, source_refusal
from understudy.runtime.journal_lock import agent_lock
from understudy.runtime.journal_rows import OrderState
from understudy.runtime.merges import Inbox

from . import calls
from .facts import gather, to_json
from .notes import note
from .session import Session, pass_session

FETCH_WITHIN = 50.0  # Seconds; the asker's deadline is above it.
BUNDLE_WITHIN = 3600  # Seconds that a bundle may take to come.
MARGIN = 10.0  # Seconds that a fence may take beyond stop_within; the asker's deadline is above it.


# What follows the first word is never an option of ours.
@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@pass_session
def answer(session: Session, words: tuple[str, ...]) -> int:
    """Answer the other node: for its SSH key's forced command, not for people."""
    line = os.environ.get("SSH_ORIGINAL_COMMAND") or " ".join(words)
    request = None
    try:
        request = parse_request(line)
        if isinstance(request, Stream):
            return _stream(session, request)
        said: dict[str, Any] | PeerAnswer = asyncio.run(_answer(session, request))
    except UnderstudyError as error:
        if isinstance(request, Stream) and request.words[0] == "--server":
            click.echo(
                f"understudy: {told(error)}", err=True
            )  # It would take JSON for its protocol.
        else:
            click.echo(render_answer(Refused(told(error))))
        return 1
    click.echo(render_answer(said))
    return 0


async def _answer(session: Session, request: Request) -> dict[str, Any] | PeerAnswer:
    """Raises Refused and other errors of ours: the reason goes to the asker."""
    node = session.node
    match request:
        case Ask(epoch=epoch):
            return await _ready(node, epoch)
        case Fence(node=name, epoch=epoch):
            await _fence(node, name, epoch)
            return {"stopped": True}
        case PlaceOrder(order=order):
            return {"said": _place(node, order)}
        case Wake():
            _wake(node)
            return {}
        case Status():
            return to_json(await gather(node, events=20))
        case Examine():
            return await _examined(session)
        case Trial():
            return await _tried(session)
        case Calls():
            return await calls.answer(session)
        case Fetch(epoch=epoch):
            await _fetch(node, epoch)
            return {}
        case Compare():
            await compare_all(node.journal_path, node.clock, FETCH_WITHIN)
            return {}
        case Bundle():
            await _check_source(session, request.copy, request.epoch)
            signal.alarm(BUNDLE_WITHIN)  # An asker who sends no more must not hold us for ever.
            inbox = Inbox(node.journal_path, request.copy)
            inbox.receive(request.mark, request.size, request.sha256, sys.stdin.buffer)
            return {}
        case AskMerged():
            await _check_source(session, request.copy, request.epoch)
            report = Inbox(node.journal_path, request.copy).report(request.mark)
            return {"report": report and statecodec.to_json(report)}
        case Stream():
            raise AssertionError("a stream is no JSON")


def _stream(session: Session, request: Stream) -> int:
    """Be the source of a class of data, if the claim says so at this moment."""
    from understudy import wiring
    from understudy.adapters.copies.watch import watch_files

    asyncio.run(_check_source(session, request.copy, request.epoch))
    if request.words == ("watch",):
        places = session.config.copies[request.copy].settings.places
        return watch_files(places, is_still_source=partial(_still_serves, session.node))
    copies = wiring.copies_of(session.config, session.node.policy.me)
    return copies[request.copy].serve(request.words)


def _still_serves(node: Node) -> bool:
    """By the agent's last word: it reads the claim all the time."""
    try:
        with closing(node.journal()) as journal:
            state = journal.state
    except JournalError:
        return False
    claim = state.evidence.claim
    ours = claim is not None and claim.node == node.policy.me
    return ours and (state.phase in SERVING or state.phase is Phase.HANDING_OVER)


async def _check_source(session: Session, copy: str, epoch: int) -> None:
    """Whoever asks for our data, or brings his own, believes that we are active in `epoch`: so says the claim now."""
    node = session.node
    if copy not in session.config.copies:
        raise Refused(f"there is no [copies.{copy}] on {node.policy.me}")
    facts = await gather(node, events=0)
    refusal = source_refusal(facts.state, node.policy, facts.reading.claim, epoch)
    if refusal:
        raise Refused(refusal)


async def _fetch(node: Node, epoch: int) -> None:
    """Return when every class has been read at the active node after now."""
    facts = await gather(node, events=0)
    why = readiness(facts.state, node.policy, epoch, facts.at.boot).why
    if why:
        raise Refused(why)
    # The other node's callers wait; and before patience ends here, nobody must take over in the middle of it.
    within = min(FETCH_WITHIN, node.policy.patience / 2)
    await fetch_all(node.journal_path, node.clock, within)


async def _examined(session: Session) -> dict[str, Any]:
    """Many examinations, and many modules for them: read only when they are asked for."""
    from understudy.doctor import examine

    return examine.to_json(await examine.examine(session.node, session.config))


async def _tried(session: Session) -> dict[str, Any]:
    from understudy.doctor import finding, mail

    found = await mail.here(session.node, session.config)
    return {"findings": [finding.to_json(each) for each in found]}


async def _ready(node: Node, epoch: int) -> PeerAnswer:
    """H2.  By a reading of this moment: the journal's may be some seconds old."""
    facts = await gather(node, events=0)
    if not facts.agent_is_alive:
        raise Refused(f"no agent runs on {node.policy.me}")
    stale_from = node.copies.stale_from(facts.at)
    return readiness(facts.state, node.policy, epoch, facts.at.boot, stale_from=stale_from)


async def _fence(node: Node, name: str, epoch: int) -> None:
    """T4: return only with the PBX of this node proved stopped."""
    if name != node.policy.me:
        raise Refused(f"this is {node.policy.me}, not {name}")
    if node.agent_pid is None:
        await _stop_without_agent(node, name, epoch)
        return
    facts = await gather(node, events=0)
    refusal = fence_refusal(facts.state, node.policy, name, epoch)
    if refusal:
        raise Refused(refusal)
    # An order to stop would only be refused there.  A journal that is not written any more says nothing.
    known = is_stopped(facts.state) and not facts.view.agent.is_mute
    if known and await _pbx_is_stopped(node):
        return
    await _stop_by_agent(node, epoch)


async def _stop_without_agent(node: Node, name: str, epoch: int) -> None:
    """Nobody here would obey an order: stop the PBX ourselves, and keep an agent from starting meanwhile."""
    with suppress(OSError):
        node.journal_path.parent.mkdir(parents=True, exist_ok=True)
    # Not as the agent: this must not pass for a sign of its life.
    with agent_lock(node.journal_path.with_suffix(".lock")):
        state = (await gather(node, events=0)).state
        refusal = fence_refusal(state, node.policy, name, epoch)
        if refusal:
            raise Refused(refusal)
        asked = f"{node.policy.peer} asked for a stop (epoch {epoch})"
        note(node, "fence", f"{asked}; no agent runs: stopping the PBX")
        await node.service.stop()
        note(node, "fence", "the PBX is stopped")


async def _stop_by_agent(node: Node, epoch: int) -> None:
    with closing(node.journal()) as journal:
        number = journal.place(Verb.FENCE, by=node.policy.peer, epoch=epoch)
        _wake(node)
        loop = asyncio.get_running_loop()
        until = loop.time() + node.policy.stop_within + MARGIN
        while loop.time() < until:
            await asyncio.sleep(0.2)
            taken = journal.order_outcome(number).state is not OrderState.WAITING
            if taken and is_stopped(journal.state) and await _pbx_is_stopped(node):
                return
    raise NotStopped(f"the agent of {node.policy.me} has not confirmed that its PBX is stopped")


async def _pbx_is_stopped(node: Node) -> bool:
    pbx = await node.service.look()
    if pbx is Pbx.DEAD:
        await node.service.stop()  # Its service manager must not bring it back.
    return pbx in (Pbx.DEAD, Pbx.STOPPED)


def _place(node: Node, order: Order) -> str:
    with closing(node.journal()) as journal:
        number = journal.place(
            order.verb,
            by=node.policy.peer,
            epoch=order.epoch,
            accept_two_active=order.accept_two_active,
            accept_loss=order.accept_loss,
        )
    if node.agent_pid is None:
        return (
            f"order {number} waits: no daemon runs there, its next tick takes it within 2 minutes"
        )
    return f"order {number} is placed"


def _wake(node: Node) -> None:
    try:
        node.wake_file.touch()
    except OSError as error:
        raise JournalError(f"{node.wake_file} cannot be written: {error.strerror}") from error
