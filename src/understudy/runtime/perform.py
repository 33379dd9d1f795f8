"""From an action to what the world does about it.  The only place that maps actions to ports."""

from dataclasses import dataclass

from understudy.core.actions import (
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
from understudy.core.claim import Claim
from understudy.core.observations import (
    ClaimReading,
    Outcome,
    PeerAnswer,
    Ready,
    Result,
)
from understudy.errors import AdapterError, told
from understudy.ports import Copies, Peer, Service, ServiceName

from .keeper import Keeper


@dataclass(frozen=True, slots=True)
class World:
    """All adapters of one node, as the loop sees them."""

    me: str
    keeper: Keeper
    name: ServiceName
    service: Service
    peer: Peer
    copies: Copies


@dataclass(frozen=True, slots=True)
class Performed:
    """How an action went, and what was learnt on the way."""

    outcome: Outcome
    claim: ClaimReading | None = None
    peer: PeerAnswer | None = None


async def perform(world: World, action: Action, *, guarded: bool, known: Claim | None) -> Performed:
    """Do it, and say how it went.  Raises nothing but cancellation and bugs.

    A guarded action begins with a fresh reading (T3): is the claim ours, and not announced?
    """
    reading = None
    if guarded:
        reading = await world.keeper.read(known)
        refusal = _refusal(reading, world.me)
        if refusal is not None:
            return Performed(refusal, reading)
    try:
        performed = await _do(world, action)
    except AdapterError as error:
        return Performed(Outcome(Result.FAILED, told(error)), reading)
    return (
        performed
        if performed.claim is not None
        else Performed(performed.outcome, reading, performed.peer)
    )


def _refusal(reading: ClaimReading, me: str) -> Outcome | None:
    claim = reading.claim
    if claim is None:
        return Outcome(Result.UNSURE, reading.trouble)
    if claim.node != me:
        return Outcome(Result.LOST, f"the claim names {claim.node}, epoch {claim.epoch}")
    if claim.is_announced:
        return Outcome(
            Result.LOST, f"{claim.announced} has announced that it is about to take over"
        )
    return None


async def _do(world: World, action: Action) -> Performed:
    match action:
        case WriteClaim(old, new):
            return Performed(*await world.keeper.write(old, new))
        case AskPeer(epoch):
            answer = await _ask(world, epoch)
            return Performed(_readiness(answer, epoch), peer=answer)
        case Fence(node, epoch, hurry):
            await world.peer.fence(node, epoch, hurry=hurry)
        case Promote():
            await world.copies.promote()
        case Demote():
            await world.copies.demote()
        case Start():
            await world.service.start()
        case Prove():
            await world.service.prove()
        case Restart():
            await world.service.stop()
            await world.service.start()
        case Point(claim):
            await world.name.point(world.me, claim)
        case Verify():
            await world.name.verify(world.me)
        case Stop():
            await world.service.stop()
        case ShutOff():
            await world.service.shut_off()
        case WakePeer():
            await world.peer.wake()
        case CopyRest(epoch):
            await world.copies.hand(epoch)
        case Renew(epoch):
            await world.copies.renew(epoch)
    return Performed(Outcome(Result.DONE))


async def _ask(world: World, epoch: int) -> PeerAnswer:
    """H2.  Who cannot be asked is not ready, and is not asked again at once."""
    asked_at = world.keeper.clock.now().boot
    try:
        return await world.peer.ask(epoch)
    except AdapterError as error:
        return PeerAnswer(asked_at=asked_at, ready=Ready.NO, epoch=epoch, why=told(error))


def _readiness(answer: PeerAnswer, epoch: int) -> Outcome:
    if answer.ready is Ready.YES and answer.epoch == epoch:
        return Outcome(Result.DONE)
    why = answer.why or f"it knows epoch {answer.epoch}, not {epoch}"
    return Outcome(Result.FAILED, f"the other node is not ready: {why}")
