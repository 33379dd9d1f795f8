"""The claim: the record of who is active, and every change that may be made to it.

PROTOCOL.md C1-C7.  A change is a pure function from the record that was read to the record to be written; whoever
writes it has the whole old record as the prerequisite (C2), so each function here is one compare-and-set.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class How(StrEnum):
    """How the node in the claim came to be there."""

    SET = "set"  # A person said so, where there was none before, or this one.
    MOVED = "moved"  # A person said so, and the other node was in it before.
    FORCED = "forced"  # The same, and that person accepted that two may be active for a while.
    TAKEN = "taken"  # The node took it: failover.
    HANDED = "handed"  # The other node handed it over, with its PBX proved stopped.
    RETURNED = "returned"  # The other node took it, could not serve, and gave it back.


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """C1: one record.  `epoch` grows with each change of node, `serial` with each write.

    Times are seconds of the wall clock, which both nodes share.
    """

    node: str
    epoch: int
    serial: int
    announced: str = ""  # The node that is about to take it, or "".
    ordered: bool = False  # Did a person order that (H3)?
    served: bool = False  # Has `node` answered calls in this epoch?
    how: How = How.SET
    returns: int = 0  # Automatic moves in a row away from a node that could not serve (T5).
    pause: int = 0  # No automatic change before this time (C7).
    settle: int = 0  # No second automatic change before this time.
    digest: str = ""  # Of nodes, detection and check points (C6).

    @property
    def is_announced(self) -> bool:
        return self.announced != ""


def first(node: str, *, digest: str, epoch: int = 1, forced: bool = False) -> Claim:
    """C4: only `init` and `set-active` write a claim where there is none.

    With an `epoch` above 1 there has been one, and whoever held it may go on serving for a while (T7).
    """
    unheard = How.SET if epoch == 1 else How.MOVED
    how = How.FORCED if forced else unheard
    return Claim(node=node, epoch=epoch, serial=1, how=how, digest=digest)


def touch(claim: Claim) -> Claim:
    """The same record with a new serial: no earlier write of ours can land after it (C2)."""
    return replace(claim, serial=claim.serial + 1)


def announce(claim: Claim, node: str, *, ordered: bool = False) -> Claim:
    """T1, H3: `node` is about to take it, by itself or because a person `ordered` it."""
    return replace(touch(claim), announced=node, ordered=ordered)


def strike(claim: Claim) -> Claim:
    """S4, and withdrawal: nobody is about to take it any more."""
    return replace(touch(claim), announced="", ordered=False)


def take(claim: Claim, node: str, *, settle: int) -> Claim:
    """T1: from our standing announcement to ours, `served = no`."""
    return replace(_move(claim, node, How.TAKEN), settle=settle)


def serve(claim: Claim) -> Claim:
    """T5: the node in it has answered calls."""
    return replace(touch(claim), served=True)


def settle(claim: Claim) -> Claim:
    """The node in it has served for long enough: what was before says nothing any more."""
    return replace(touch(claim), returns=0)


def hand(claim: Claim, to: str, *, settle: int = 0) -> Claim:
    """H1: written only with our own PBX proved stopped.  `settle` is set when no person ordered it."""
    returns = claim.returns + 1 if settle else 0
    return replace(_move(claim, to, How.HANDED), settle=settle, returns=returns)


def give_back(claim: Claim, to: str) -> Claim:
    """T5: we took it and could not serve; nothing is newer than the other node's data."""
    return replace(_move(claim, to, How.RETURNED), returns=claim.returns + 1)


def adopt(claim: Claim, digest: str) -> Claim:
    """C6: the active node says which configuration holds."""
    return replace(touch(claim), digest=digest)


def pause(claim: Claim, until: int) -> Claim:
    """C7: setting it withdraws an announcement."""
    return replace(strike(claim), pause=until)


def resume(claim: Claim) -> Claim:
    """Automatic failover is on again; an automatic change that settles is acknowledged."""
    return replace(touch(claim), pause=0, settle=0)


def declare(claim: Claim, node: str, *, epoch: int, digest: str, forced: bool = False) -> Claim:
    """A person says who is active.  `epoch` is above every epoch that anybody has seen.

    Unless it is `forced`, the node waits for as long as the one before it may go on serving (T7).
    """
    waits = claim.how is How.MOVED and not claim.served
    same = node == claim.node and epoch == claim.epoch + 1 and not waits
    how = How.SET if same else How.MOVED
    return Claim(
        node=node,
        epoch=epoch,
        serial=claim.serial + 1,
        how=How.FORCED if forced else how,
        pause=claim.pause,
        digest=digest,
    )


def _move(claim: Claim, node: str, how: How) -> Claim:
    return replace(strike(claim), node=node, epoch=claim.epoch + 1, served=False, how=how)
