"""What is told because it lasts: each condition once when it has lasted for its time, and once when it is over.

Pure: the conditions are read off the status of the node, what was told of them is a value that the journal keeps.
Times are wall clock seconds, because cron's processes do not live long enough for any other clock.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from understudy.core import pace
from understudy.core.model import NEVER, SERVING, Phase, Runbook, State
from understudy.core.observations import Pbx
from understudy.core.policy import Isolation, Policy
from understudy.core.votes import Verdict

from .status import Code, Status
from .telling_deeds import without_letters
from .waiting import clock, facts_of, obstacle, span, unreadable

BLOCKED = 20.0  # Seconds after patience's end: what takes over has done so by then.
TAKES_LONG = 10.0
UNREADABLE = 60.0
SPLIT = 900.0
DIFFERS = 600.0
IN_DOUBT = 60.0  # At least; two rounds may clear it up.
STOPS_SOON = 5.0
ASKED = 10.0  # Beyond restart_grace: the other node is asked whether it is ready.
CERTAIN = 30.0  # Longer than the round before a move is remembered.
OVER = 20.0  # Seconds for which it must be gone before that is told.
HOUR = 3600.0

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How this node stands."""

    view: Status
    state: State
    policy: Policy
    now: float  # Boot time.
    wall: float

    def sentence(self, *codes: Code) -> str:
        """What status says about it; empty if it does not."""
        return next((each.sentence for each in self.view.troubles if each.code in codes), "")

    @property
    def serves(self) -> bool:
        return self.state.phase in SERVING

    @property
    def pbx(self) -> Pbx:
        return self.state.evidence.pbx


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """It is so now; told when it has been so for `after` seconds, and again every `again`."""

    kind: str
    fields: Fields
    after: float = 0.0
    again: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is remembered of a condition from one look to the next."""

    kind: str
    since: float
    told: float = NEVER  # When; NEVER: not yet.
    gone: float = NEVER  # Since when it has not been so.


@dataclass(frozen=True, slots=True)
class Told:
    """A condition that must be told now."""

    found: Found
    is_over: bool = False


def look(sight: Sight, standing: tuple[Standing, ...]) -> tuple[tuple[Standing, ...], list[Told]]:
    """What stands after this look, and what is to be told of it."""
    found = {each.kind: each for each in conditions(sight)}
    known = {each.kind: each for each in standing}
    kept: list[Standing] = []
    told: list[Told] = []
    for kind in [*known, *(kind for kind in found if kind not in known)]:
        old = known.get(kind) or Standing(kind=kind, since=sight.wall)
        now_so = found.get(kind)
        if now_so is not None:
            old = _sane(old, sight.wall)
            if _is_due(old, now_so, sight.wall):
                told.append(Told(now_so))
                old = replace(old, told=sight.wall)
            kept.append(replace(old, gone=NEVER))
            continue
        gone = sight.wall if old.gone == NEVER else old.gone
        if old.told != NEVER and sight.wall - gone < OVER:
            kept.append(replace(old, gone=gone))
        elif old.told != NEVER and _ENDS.get(kind, _never)(sight):
            lasted = {"since": clock(old.since), "lasted": span(gone - old.since)}
            told.append(Told(Found(kind=kind, fields=lasted), is_over=True))
    return tuple(kept), told


def conditions(s: Sight) -> Iterator[Found]:
    for each in _LOOKS:
        yield from each(s)


def _is_due(standing: Standing, found: Found, wall: float) -> bool:
    if standing.told == NEVER:
        return wall - standing.since >= found.after
    return found.again > 0 and wall - standing.told >= found.again


def _sane(standing: Standing, wall: float) -> Standing:
    """After the clock was set back."""
    return replace(standing, since=min(standing.since, wall), told=min(standing.told, wall))


def _suspicion(s: Sight) -> Iterator[Found]:
    patience, peer = s.view.patience, s.policy.peer
    if patience is None:
        return
    keeps = without_letters(obstacle(facts_of(s.state, s.policy, s.now, s.wall)))
    fields = {
        "spent": span(patience.spent),
        "total": span(patience.total),
        "since": clock(s.wall - patience.spent),
        "left": span(patience.takes_in),
    }
    if 2 * patience.spent >= patience.total:
        then = f"takes over in {span(patience.takes_in)}"
        prospect = f"{then}, unless {peer} answers again before"
        if keeps:
            then = prospect = f"does not take over: {keeps}"
        yield Found(kind="suspicion", fields=fields | {"then": then, "prospect": prospect})
    if patience.announced:
        yield Found(kind="announced", fields=fields)
    proceeds = patience.announced and not keeps and patience.takes_in > 0
    if patience.spent >= patience.total + BLOCKED and not proceeds:
        reason = keeps or without_letters(s.view.waiting_for)
        pauses = s.view.paused_until is not None
        cure = (
            "To let it take over: understudy resume.  Or now: understudy failover"
            if pauses
            else f"Mend what is named.  See more: understudy status on {s.policy.me}."
        )
        blocked = fields | {"reason": reason, "cure": cure}
        yield Found(kind="failover-blocked", fields=blocked, again=HOUR)


def _moving(s: Sight) -> Iterator[Found]:
    if s.state.phase is Phase.TAKING_OVER and s.state.runbook is Runbook.TAKE:
        yield Found(kind="failover-begun", fields={"step": s.view.step}, after=TAKES_LONG)


def _doubt(s: Sight) -> Iterator[Found]:
    unproved = s.sentence(Code.TWO_MAY_BE_ACTIVE)
    if unproved:
        yield Found(kind="two-may-be-active", fields={"sentence": unproved}, after=10.0)
        return
    proofs = s.view.proofs
    if s.state.phase is not Phase.DOUBTED or proofs is None:
        return
    if proofs.claim_is_fresh and s.pbx in (Pbx.STOPPED, Pbx.DEAD, Pbx.DEAF):
        return  # No wonder that the check points do not see it, and that is told.
    sentence = without_dot(s.sentence(Code.DOUBTED))
    blind = not proofs.claim_is_fresh and s.state.evidence.up_since == NEVER
    ends = span(pace.serving_ends(s.state, s.policy) - s.now)
    if s.policy.isolation is Isolation.KEEP:
        then, explained = (
            "it goes on serving",
            f'{s.policy.me} goes on serving: isolation = "keep".',
        )
    elif blind:
        then = f"its PBX stops in {ends}"
        explained = (
            f"{s.policy.me} serves for {ends} more.  If neither the claim nor the check points can be asked until"
            " then, it stops its PBX, so that never two serve."
        )
    else:
        then = "it serves as long as one proof is left"
        explained = (
            f"{s.policy.me} goes on serving.  If the other proof grows old as well it stops its PBX, so that never two"
            " serve."
        )
    soon = blind and s.policy.isolation is Isolation.STOP
    fields = {"sentence": sentence, "then": then, "explained": explained}
    lasts = STOPS_SOON if soon else max(IN_DOUBT, s.policy.late)
    yield Found(kind="doubted", fields=fields, after=lasts)


def _pbx(s: Sight) -> Iterator[Found]:
    if not s.serves:
        return
    bad, grace = s.state.evidence.pbx_bad_since, s.policy.restart_grace
    if s.pbx in (Pbx.DEAD, Pbx.DEAF) and bad != NEVER and s.now - bad >= grace + ASKED:
        waiting = s.view.waiting_for
        waits = f"{waiting[:1].upper()}{waiting[1:]}." if waiting else ""
        fields = {"pbx": str(s.pbx), "spent": span(s.now - bad), "waiting": waits}
        yield Found(kind="pbx-failed", fields=fields)
    if s.pbx is Pbx.STOPPED:
        yield Found(kind="pbx-stopped", fields={}, after=grace)


def _nobody(s: Sight) -> Iterator[Found]:
    dead = s.sentence(Code.TAKER_DEAD)
    if dead:
        yield Found(kind="taker-dead", fields={"sentence": dead}, after=CERTAIN, again=HOUR)
        return
    sentence = s.sentence(Code.NOBODY_SERVES)
    if s.state.evidence.claim_trouble:
        return  # Who serves cannot be known, and that is told.
    if sentence and s.state.phase in (Phase.SILENT, Phase.OUTDATED):
        fields = {
            "sentence": without_dot(sentence),
            "phase": str(s.state.phase),
            "waiting": s.view.waiting_for,
        }
        yield Found(kind="nobody-serves", fields=fields, after=120.0, again=HOUR)


def _claim(s: Sight) -> Iterator[Found]:
    if s.sentence(Code.CLAIM) and not s.serves:
        fields = {"sentence": without_dot(unreadable(s.state))}
        yield Found(kind="claim-unreadable", fields=fields, after=UNREADABLE)
    failing = s.sentence(Code.FAILING)
    if failing and s.state.phase is not Phase.SUSPECTING:
        yield Found(
            kind="claim-failing", fields={"sentence": without_dot(failing)}, after=UNREADABLE
        )


def _pause(s: Sight) -> Iterator[Found]:
    """Both nodes see it: the active one tells."""
    until = s.view.paused_until
    if until is not None and s.view.active == s.policy.me:
        yield Found(kind="paused", fields={"until": clock(until)})


# Told with the sentence of status: the kind, the codes, how long it must last, and whether a node that serves tells it.
_SENTENCES: tuple[tuple[str, tuple[Code, ...], float, bool], ...] = (
    ("two-answer", (Code.TWO_ANSWER,), 15.0, True),
    ("name-behind", (Code.NAME,), UNREADABLE, True),
    ("strikes", (Code.STRIKES,), 0.0, True),
    ("journal", (Code.JOURNAL,), 30.0, True),
    ("configuration-differs", (Code.OTHER_CONFIGURATION,), DIFFERS, True),
    # The active node's own view of itself is its doubt.
    ("checkpoints-split", (Code.DISAGREE,), SPLIT, False),
    ("checkpoint-silent", (Code.TOO_FEW, Code.CHECKPOINT), SPLIT, False),
)


def _sentences(s: Sight) -> Iterator[Found]:
    for kind, codes, after, by_active in _SENTENCES:
        sentence = s.sentence(*codes)
        if sentence and (by_active or not s.serves):
            yield Found(kind=kind, fields={"sentence": without_dot(sentence)}, after=after)


def without_dot(sentence: str) -> str:
    return without_letters(sentence.removesuffix("."))


_LOOKS: tuple[Callable[[Sight], Iterator[Found]], ...] = (
    *(_suspicion, _moving, _doubt, _pbx, _nobody, _claim, _pause, _sentences),
)


# When the end of it is worth a message: not where another message has told it.


def _never(_: Sight) -> bool:
    return False


def _always(_: Sight) -> bool:
    return True


def _peer_is_back(s: Sight) -> bool:
    return s.state.phase is Phase.STANDBY and s.state.evidence.theirs is Verdict.UP


def _peer_answers(s: Sight) -> bool:
    return s.state.evidence.theirs is Verdict.UP


def _pbx_is_back(s: Sight) -> bool:
    return s.serves and s.pbx is Pbx.ANSWERING


def _is_certain(s: Sight) -> bool:
    return s.state.phase is Phase.ACTIVE


def _stands_by(s: Sight) -> bool:
    return s.state.phase in (Phase.STANDBY, Phase.SUSPECTING)


def _still_serves(s: Sight) -> bool:
    return s.serves


def _pause_is_over(s: Sight) -> bool:
    return s.view.active == s.policy.me and s.view.paused_until is None


_ENDS: Mapping[str, Callable[[Sight], bool]] = {
    "suspicion": _peer_is_back,
    "doubted": _is_certain,
    "two-may-be-active": _still_serves,
    "two-answer": _still_serves,
    "pbx-failed": _pbx_is_back,
    "pbx-stopped": _pbx_is_back,
    "taker-dead": _peer_answers,
    "nobody-serves": _always,
    "claim-unreadable": _always,
    "claim-failing": _always,
    "name-behind": _still_serves,
    "journal": _always,
    "configuration-differs": _always,
    "checkpoints-split": _stands_by,
    "checkpoint-silent": _stands_by,
    "paused": _pause_is_over,
}
