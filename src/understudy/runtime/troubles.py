"""What is wrong, of how a node stands: each with its weight and a sentence that says what to do.

Among them the cases that PROTOCOL.md does not promise anything for: which of them it is.
"""

from collections.abc import Iterable, Iterator

from understudy.core import when
from understudy.core.evidence import HOUR
from understudy.core.model import NEVER, SERVING, Phase
from understudy.core.observations import Health, Pbx
from understudy.core.policy import Isolation
from understudy.core.runbooks import Step
from understudy.core.votes import Verdict
from understudy.core.when import MOST_RETURNS, Facts

from .journal_rows import POINTING, Undelivered, Vote
from .status import Code, Level, NodeView, Status, Trouble
from .waiting import clock, in_short, span, step_of, unreadable

MOST_STRIKES = 3  # S4: in an hour.


def troubles(view: Status, f: Facts) -> list[Trouble]:
    """The worst first."""
    found = [
        Trouble(code=code, level=level, sentence=sentence)
        for look in (_agent, _service, _claim, _name, _checkpoints, _serving, _rules, _journal)
        for code, level, sentence in look(view, f)
    ]
    return sorted(found, key=lambda each: _WEIGHT[each.level])


_Found = Iterator[tuple[Code, Level, str]]
_WEIGHT = {Level.CRITICAL: 0, Level.UNKNOWN: 1, Level.WARNING: 2}


def _agent(view: Status, f: Facts) -> _Found:
    age = view.agent.heartbeat_age
    if view.agent.is_mute and age is not None:
        yield (
            Code.AGENT,
            Level.CRITICAL,
            f"the agent on {view.node} runs, but has not been able to write its journal for {span(age)}"
            " (disk full or read-only?  or the process stands still?): what follows is old.  See: df,"
            " journalctl -u understudy",
        )
        return
    if not view.agent.is_late:
        return
    said = "has never run" if age is None else f"has said nothing for {span(age)}"
    cure = "See: systemctl status understudy, or the cron table."
    yield (
        Code.AGENT,
        Level.CRITICAL,
        f"the agent on {view.node} {said}: what follows is old.  {cure}",
    )


def _service(view: Status, f: Facts) -> _Found:
    """Is anybody there to answer calls?"""
    if f.state.phase is Phase.HALTED:
        yield (
            Code.HALTED,
            Level.CRITICAL,
            f"{view.node} is halted: a step that must not fail has failed (understudy why)."
            "  A person decides: understudy set-active NODE, or understudy rejoin.",
        )
    keeps = f.policy.isolation is Isolation.KEEP and f.state.phase in SERVING
    if keeps and when.both_proofs_are_old(f):
        yield (
            Code.TWO_MAY_BE_ACTIVE,
            Level.CRITICAL,
            f'{view.node} goes on serving without any proof (isolation = "keep"): two may be active',
        )
    if _two_answer(view, f):
        yield (
            Code.TWO_ANSWER,
            Level.CRITICAL,
            f"two PBXs answer: the one here runs, and the check points say that {view.peer} is up as"
            f" well.  Stop the wrong one: the claim names {view.active or 'nobody'}",
        )
    if f.claim is not None and f.claim.returns >= MOST_RETURNS:
        yield (
            Code.RETURNED,
            Level.CRITICAL,
            "the claim was given back twice without a call served: look at both PBXs, then"
            " understudy set-active NODE",
        )
    if when.taker_has_served(f) and when.peer_is_down(f):
        yield (
            Code.TAKER_DEAD,
            Level.CRITICAL,
            f"nobody serves: {view.peer} took over, has answered calls and does not answer now; what"
            f" it recorded is not here.  Understudy set-active {view.peer} when it is back, or"
            " understudy failover --accept-loss all.",
        )
    elif view.nobody_serves:
        yield Code.NOBODY_SERVES, Level.CRITICAL, f"nobody serves: {_whose_fault(view, f)}"


def _two_answer(view: Status, f: Facts) -> bool:
    """By a round of this phase, and not an old one."""
    asked = f.evidence.round_at
    fresh = asked >= f.state.since and f.now - asked <= f.policy.late
    here = f.evidence.pbx is Pbx.ANSWERING and f.state.runbook is None
    return here and fresh and f.evidence.theirs is Verdict.UP


def _whose_fault(view: Status, f: Facts) -> str:
    if view.active != view.node:
        return f"{view.active} is active and does not answer"
    if f.state.phase in SERVING:
        return f"{view.node} is active and its PBX is {view.pbx}"
    waiting = f": {view.waiting_for}" if view.waiting_for else ""
    return f"{view.node} is named in the claim and is {f.state.phase}{waiting}"


def _claim(view: Status, f: Facts) -> _Found:
    """Not promised (a): the server that decides cannot be reached from here."""
    evidence, stale = f.evidence, f.policy.claim_stale
    if when.claim_is_fresh_enough(f):
        age = view.claim_age
        if age is None or age <= 2 * stale:
            return
        said = f"the claim has not been read for {span(age)}"
    elif evidence.claim_at == NEVER and f.now - evidence.void_since <= f.policy.first_proof:
        return  # It has just begun to look.
    else:
        said = unreadable(f.state)
    blocks = f.state.phase in (Phase.SUSPECTING, Phase.SILENT)
    if f.state.phase in (*SERVING, Phase.HANDING_OVER):
        yield Code.CLAIM, Level.WARNING, said
    else:
        level = Level.CRITICAL if blocks else Level.WARNING
        yield Code.CLAIM, level, f"{view.node} stays stopped: {said}"


def _name(view: Status, f: Facts) -> _Found:
    """What this node writes for the others: the claim, and where callers are led."""
    for each in view.failing:
        if each.action != POINTING:
            yield Code.FAILING, Level.CRITICAL, in_short(each)
    claim, state = f.claim, f.state
    past = step_of(state) == Step.VERIFY
    serves = state.phase in SERVING or (state.phase is Phase.TAKING_OVER and past)
    if not serves or claim is None or claim.node != view.node or state.pointed >= claim.epoch:
        return
    behind = f"callers are not led to {view.node} yet (epoch {claim.epoch})"
    tried = next((each for each in view.failing if each.action == POINTING), None)
    if tried is None:
        yield Code.NAME, Level.WARNING, behind
    else:
        yield Code.NAME, Level.CRITICAL, f"{behind}: {in_short(tried)}"


def _checkpoints(view: Status, f: Facts) -> _Found:
    """Not promised (b): the check points that remain disagree."""
    if f.evidence.round_at == NEVER:
        return
    about = view.nodes[0] if f.state.phase in SERVING else view.nodes[1]
    if not about.votes:
        return
    if about.node == view.peer and f.evidence.round_at < f.evidence.epoch_at:
        return  # It was asked while another claim held, and says nothing: the next one will.
    if about.verdict is Verdict.UNCLEAR:
        yield _unclear(about, f)
        return
    for vote in _saying(about.votes, Health.UNKNOWN):
        why = f": {vote.text}" if vote.text else ""
        yield (
            Code.CHECKPOINT,
            Level.WARNING,
            f"{vote.checkpoint} cannot tell whether {about.node} answers{why}",
        )


def _unclear(about: NodeView, f: Facts) -> tuple[Code, Level, str]:
    ups = _saying(about.votes, Health.UP)
    downs = _saying(about.votes, Health.DOWN)
    told = ", ".join(_vote_in_words(vote) for vote in about.votes)
    answered, configured = len(ups) + len(downs), f.policy.checkpoints
    if answered <= configured // 2:
        few = f"only {answered} of {configured} check points can tell whether {about.node} answers"
        return Code.TOO_FEW, Level.WARNING, f"{few}: {told}"
    if not ups or not downs:  # `agreement = "all"` with one that is silent.
        few = f"not all {configured} check points can tell whether {about.node} answers"
        return Code.TOO_FEW, Level.WARNING, f"{few}: {told}"
    return Code.DISAGREE, Level.WARNING, f"the check points disagree about {about.node}: {told}"


def _saying(votes: Iterable[Vote], health: Health) -> list[Vote]:
    return [vote for vote in votes if vote.health is health]


def _vote_in_words(vote: Vote) -> str:
    why = f" ({vote.text})" if vote.text and vote.health is Health.UNKNOWN else ""
    return f"{vote.checkpoint} {vote.health}{why}"


def _serving(view: Status, f: Facts) -> _Found:
    evidence = f.evidence
    if f.state.phase in SERVING:
        if evidence.pbx in (Pbx.DEAD, Pbx.DEAF, Pbx.STOPPED):
            yield Code.PBX, Level.CRITICAL, _pbx_in_words(view, f)
        if when.they_announced(f):
            yield (
                Code.ANNOUNCED,
                Level.WARNING,
                f"{view.peer} has announced that it is about to take over",
            )
    if f.state.phase is Phase.DOUBTED and view.proofs is not None:
        yield Code.DOUBTED, Level.WARNING, _doubt_in_words(view)
    strikes = [at for at in evidence.strikes if 0 <= f.now - at < HOUR]
    if len(strikes) >= MOST_STRIKES:
        yield (
            Code.STRIKES,
            Level.WARNING,
            f"{view.peer} wanted to take over {len(strikes)} times in an hour though the check points"
            " see this node: look at its way to the check points [S4]",
        )
    if evidence.start_failed_at != NEVER and f.now - evidence.start_failed_at < HOUR:
        age = span(f.now - evidence.start_failed_at)
        yield Code.START_FAILED, Level.WARNING, f"the PBX here could not be started {age} ago"


def _pbx_in_words(view: Status, f: Facts) -> str:
    if view.pbx is Pbx.STOPPED:
        return f"the PBX on {view.node} was stopped by a person: start it, or understudy switchover"
    waiting = view.waiting_for
    return waiting or f"the PBX here is {view.pbx}"


def _doubt_in_words(view: Status) -> str:
    proofs = view.proofs
    assert proofs is not None
    missing = []
    if not proofs.claim_is_fresh:
        missing.append(f"the claim says so ({_ago(proofs.claim_age)})")
    if not proofs.checkpoints_are_fresh:
        missing.append(f"the check points see it ({_ago(proofs.checkpoints_age)})")
    last = " and that ".join(missing) or "it may serve"
    return f"{view.node} serves, but it is too long ago that {last} [S1]"


def _ago(age: float | None) -> str:
    return "never yet" if age is None else f"{span(age)} ago"


def _rules(view: Status, f: Facts) -> _Found:
    """Not promised (c) to (f), as far as they are rules of ours."""
    claim = f.claim
    if f.state.phase in (Phase.OUTDATED, Phase.REJOINING) and not when.peer_is_down(f):
        yield (
            Code.OUTDATED,
            Level.WARNING,
            f"{view.node} may not take over: its copy may lack or hold data that {view.peer} does not."
            "  Renew it: understudy rejoin",
        )
    if claim is None:
        return
    if claim.node == f.policy.peer and claim.digest != f.policy.digest:
        yield (
            Code.OTHER_CONFIGURATION,
            Level.WARNING,
            f"{view.node} has another configuration than the claim names, and does not take over:"
            " put the same file on both nodes [C6]",
        )
    if view.paused_until is not None:
        yield (
            Code.PAUSED,
            Level.WARNING,
            f"automatic failover is paused until {clock(view.paused_until)}"
            f" ({span(view.paused_until - f.wall)} more): understudy resume",
        )
    elif view.settles_until is not None and not when.automatic_is_on(f):
        yield (
            Code.SETTLING,
            Level.WARNING,
            f"nothing moves automatically for {span(view.settles_until - f.wall)} more: an automatic"
            " change has just been made (understudy resume ends that)",
        )


def _journal(view: Status, f: Facts) -> _Found:
    if view.journal_trouble:
        yield Code.JOURNAL, Level.WARNING, view.journal_trouble
    for each in view.undelivered:
        yield Code.MAIL, Level.WARNING, _undelivered_in_words(each)


def _undelivered_in_words(each: Undelivered) -> str:
    many = "a message" if each.count == 1 else f"{each.count} messages"
    if each.given_up:
        return f"{each.notifier}: {many} could not be delivered, given up: {each.why}"
    waits = "waits" if each.count == 1 else "wait"
    return f"{each.notifier}: {many} {waits} since {clock(each.since)}: {each.why}"
