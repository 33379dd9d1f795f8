"""The machine, as one table.

`decide` reads the rows of the current phase from top to bottom and the first match wins, so in each phase the safest
rows come first.  The decision, the log line, the journal and docs/reference/phases.md all come from this table: change
behaviour here or nowhere.  The letters name the rules of PROTOCOL.md that a row keeps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from . import when
from .model import Phase, Runbook
from .when import Facts


class Do(StrEnum):
    """One thing to ask for without leaving the phase; `core.decide` makes the action."""

    STEP = "step"  # The step of the runbook, again.
    NEXT = "next"  # The step after it.
    ANNOUNCE = "announce"
    STRIKE = "strike"
    ADOPT = "adopt"
    SETTLE = "settle"
    POINT = "point"
    SERVE = "serve"
    RESTART = "restart"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Rule:
    name: str  # Kept in the journal: "why did it do that?" has a one-word answer.
    when: Callable[[Facts], bool]
    then: Phase
    because: str
    runbook: Runbook | None = None  # What the next phase works through.
    do: Do | None = None
    takes_order: bool = False  # The person's order is used up by this decision.


# fmt: off
_STOP_SERVING = (
    Rule("other-holds-claim",    when.they_hold_it,           Phase.STEPPING_DOWN, "the other node holds the claim [S3]", Runbook.STOP),
    Rule("fenced",               when.fence_is_ordered,       Phase.STEPPING_DOWN, "the other node is about to take over and asked us to stop [T4]", Runbook.STOP, takes_order=True),
    Rule("isolated",             when.we_must_stop,           Phase.STEPPING_DOWN, "neither the claim nor the check points say any longer that we may serve [S1]", Runbook.STOP),
)

_WHILE_SERVING = (
    Rule("announcement-refuted", when.their_announcement_is_refuted, Phase.ACTIVE, "the other node announced to take over, but the check points see us [S4]", do=Do.STRIKE),
    Rule("person-stopped-pbx",   when.person_stopped_the_pbx, Phase.ACTIVE,        "a person stopped the PBX here: that is no failure, the announcement is struck out", do=Do.STRIKE),
    Rule("pbx-stopped-unseen",   when.pbx_stopped_unseen,     Phase.SILENT,        "the PBX was stopped while no agent watched it: start it as soon as the claim allows [S2]"),
    Rule("switchover-ordered",   when.switchover_is_ordered,  Phase.HANDING_OVER,  "a person ordered a switchover", Runbook.HAND, takes_order=True),
    Rule("pbx-lost",             when.pbx_is_lost_and_peer_is_ready, Phase.HANDING_OVER, "our PBX is dead, a restart did not help, and the other node is ready [H2]", Runbook.HAND),
    Rule("pbx-lost-ask",         when.pbx_is_lost_and_peer_is_unasked, Phase.ACTIVE, "our PBX is dead and a restart did not help: is the other node ready? [H2]", do=Do.ASK),
    Rule("pbx-restart",          when.pbx_wants_a_restart,    Phase.ACTIVE,        "our PBX is dead or deaf: try a restart", do=Do.RESTART),
    Rule("digest-adopted",       when.claim_lacks_our_digest, Phase.ACTIVE,        "our configuration has changed: the claim must say so before it holds [C6]", do=Do.ADOPT),
    Rule("name-behind",          when.name_is_behind,         Phase.ACTIVE,        "the name does not lead here yet", do=Do.POINT),
    Rule("served",               when.claim_lacks_served,     Phase.ACTIVE,        "we serve, and the claim does not say so yet [T5]", do=Do.SERVE),
    Rule("order-refused",        when.order_is_left,          Phase.ACTIVE,        "the order does not fit a node that serves", takes_order=True),
)

_STRAY = Rule("stray-pbx",       when.stray_pbx_runs,         Phase.STEPPING_DOWN, "a PBX runs here though this node may not serve", Runbook.STOP)

_CLAIM_CAME = (
    Rule("claim-given",          when.claim_was_given,        Phase.TAKING_OVER,   "the other node gave us the claim, its PBX proved stopped [H1]", Runbook.START),
    Rule("claim-ours",           when.claim_is_ours,          Phase.SILENT,        "the claim names this node: see whether it may start [T7]"),
)

_ORDERED_FAILOVER = (
    Rule("failover-forced",      when.failover_is_forced,     Phase.TAKING_OVER,   "a person ordered a failover and accepted that two may be active [H3]", Runbook.FORCED, takes_order=True),
    Rule("failover-ordered",     when.failover_is_ordered,    Phase.TAKING_OVER,   "a person ordered a failover [H3]", Runbook.ORDERED, takes_order=True),
)


def _here(phase: Phase, rows: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The shared rows of serving, each staying in the phase that it is read in."""
    return tuple(
        Rule(r.name, r.when, phase if r.then is Phase.ACTIVE else r.then, r.because, r.runbook, r.do, r.takes_order)
        for r in rows
    )


RULES: Mapping[Phase, tuple[Rule, ...]] = {
    Phase.SILENT: (
        _STRAY,
        Rule("claim-taken-from-us",  when.we_are_outdated,        Phase.OUTDATED,      "the other node took the claim without a hand-over: our copy may hold data that it lacks"),
        Rule("other-serves",         when.we_are_current,         Phase.STANDBY,       "the claim names the other node"),
        Rule("start-failed-again",   when.could_not_start_what_was_returned, Phase.HALTED, "neither node could start its PBX: a person must look [T5]"),
        Rule("announcement-left",    when.their_announcement_is_left, Phase.SILENT,    "an announcement has stood for longer than patience: its author must be gone [S4]", do=Do.STRIKE),
        Rule("claim-given",          when.claim_was_given,        Phase.TAKING_OVER,   "the other node gave us the claim, its PBX proved stopped [H1]", Runbook.START),
        Rule("return-from-silent",   when.claim_is_ours_to_resume, Phase.TAKING_OVER,  "the claim is ours and the check points do not see the other node up [T7]", Runbook.START),
        Rule("order-refused",        when.order_is_left,          Phase.SILENT,        "the order does not fit a node that waits for the claim", takes_order=True),
    ),
    Phase.STANDBY: (
        _STRAY,
        *_CLAIM_CAME,
        Rule("claim-taken-from-us",  when.we_are_outdated,        Phase.OUTDATED,      "the other node took the claim without a hand-over: our copy may hold data that it lacks"),
        *_ORDERED_FAILOVER,
        Rule("peer-down",            when.peer_is_down,           Phase.SUSPECTING,    "the check points agree that the active node does not answer [V2]"),
        Rule("announcement-withdrawn", when.our_announcement_is_left, Phase.STANDBY,   "our announcement stands though the active node is not seen down [S4]", do=Do.STRIKE),
        Rule("order-refused",        when.order_is_left,          Phase.STANDBY,       "the order does not fit a standby", takes_order=True),
    ),
    Phase.SUSPECTING: (
        _STRAY,
        *_CLAIM_CAME,
        Rule("peer-not-down",        when.peer_is_not_down,       Phase.STANDBY,       "the check points do not agree that it is down: patience starts anew [V2]"),
        Rule("taker-served",         when.taker_has_served,       Phase.OUTDATED,      "the node that took the claim has served: its data is newer than ours [T6]"),
        *_ORDERED_FAILOVER,
        Rule("announcement-early",   when.our_announcement_is_early, Phase.SUSPECTING, "our announcement came before its time: an ordered failover was not confirmed [H3]", do=Do.STRIKE),
        Rule("patience-spent",       when.patience_is_spent,      Phase.TAKING_OVER,   "the active node stayed down for all of patience, and our announcement stood [T1]", Runbook.TAKE),
        Rule("announced",            when.announcing_is_due,      Phase.SUSPECTING,    "patience is nearly spent: announce that we are about to take over [T1]", do=Do.ANNOUNCE),
        Rule("order-refused",        when.order_is_left,          Phase.SUSPECTING,    "the order does not fit a standby", takes_order=True),
    ),
    Phase.TAKING_OVER: (
        Rule("other-holds-claim",    when.they_hold_what_we_took, Phase.STEPPING_DOWN, "the other node holds the claim [S3]", Runbook.STOP),
        Rule("fenced",               when.fence_is_ordered,       Phase.STEPPING_DOWN, "the other node is about to take over and asked us to stop [T4]", Runbook.STOP, takes_order=True),
        Rule("isolated",             when.pbx_may_run_unproved,   Phase.STEPPING_DOWN, "neither the claim nor the check points say any longer that we may serve [S1]", Runbook.STOP),
        Rule("claim-lost",           when.step_lost_the_claim,    Phase.STEPPING_DOWN, "a fresh reading says that the claim is not ours alone [T3]", Runbook.STOP),
        Rule("announcement-gone",    when.announcement_is_gone,   Phase.STANDBY,       "our announcement was struck out before the fence was confirmed: the other node is well [H3]"),
        Rule("take-refused",         when.take_failed,            Phase.STANDBY,       "the claim could not be written as it was read: it has changed, or its server is away [C2]"),
        Rule("fence-unconfirmed",    when.fence_failed,           Phase.STANDBY,       "the other node did not confirm that its PBX is stopped [H3]"),
        Rule("start-failed-return",  when.start_failed_unserved,  Phase.STEPPING_DOWN, "the PBX cannot be started here and has served nobody: give the claim back [T5]", Runbook.GIVE_BACK),
        Rule("start-failed",         when.start_failed,           Phase.STEPPING_DOWN, "the PBX cannot be started here", Runbook.STOP),
        Rule("take-over-done",       when.last_step_is_done,      Phase.ACTIVE,        "this node serves"),
        Rule("step-was-done",        when.step_is_so_already,     Phase.TAKING_OVER,   "the step had its effect, only its outcome was lost: go on", do=Do.NEXT),
        Rule("take-interrupted",     when.take_was_interrupted,   Phase.SUSPECTING,    "interrupted before the claim was taken: the next round decides [T1]"),
        Rule("order-interrupted",    when.order_was_interrupted,  Phase.STANDBY,       "the ordered failover was interrupted before the claim was taken: order it again [S4]"),
        Rule("step-asked",           when.step_wants_asking,      Phase.TAKING_OVER,   "the step has no good outcome yet: ask again", do=Do.STEP),
    ),
    Phase.ACTIVE: (
        *_STOP_SERVING,
        Rule("in-doubt",             when.one_proof_is_old,       Phase.DOUBTED,       "one of our two proofs is missing or too old: we may be the isolated node [S1]"),
        Rule("settled",              when.claim_has_settled,      Phase.ACTIVE,        "the PBX has served for long enough: earlier moves in a row are forgotten [T5]", do=Do.SETTLE),
        *_here(Phase.ACTIVE, _WHILE_SERVING),
    ),
    Phase.DOUBTED: (
        *_STOP_SERVING,
        Rule("announcement-left",    when.their_announcement_is_left, Phase.DOUBTED,   "an announcement has stood for longer than patience: its author must be gone [S4]", do=Do.STRIKE),
        Rule("proved",               when.proofs_are_fresh,       Phase.ACTIVE,        "the claim and the check points both say that we serve [S1]"),
        *_here(Phase.DOUBTED, _WHILE_SERVING),
    ),
    Phase.HANDING_OVER: (
        Rule("other-holds-claim",    when.they_hold_it_unhanded,  Phase.STEPPING_DOWN, "the other node holds the claim [S3]", Runbook.STOP),
        Rule("fenced",               when.fence_is_ordered,       Phase.STEPPING_DOWN, "the other node is about to take over and asked us to stop [T4]", Runbook.STOP, takes_order=True),
        Rule("isolated",             when.pbx_may_run_unproved,   Phase.STEPPING_DOWN, "neither the claim nor the check points say any longer that we may serve [S1]", Runbook.STOP),
        Rule("peer-not-ready",       when.ask_failed,             Phase.ACTIVE,        "the other node is not ready to take over: nothing was stopped [H2]"),
        Rule("stop-failed",          when.stop_failed,            Phase.HALTED,        "the PBX could not be proved stopped: SIP is shut off here [S5]", Runbook.SHUT_OFF),
        Rule("copy-rest-skipped",    when.copy_failed_of_a_dead_pbx, Phase.HANDING_OVER, "the other node could not read the last of our data, and our PBX is dead: it is kept here, and the hand-over goes on", do=Do.NEXT),
        Rule("copy-rest-failed",     when.copy_failed,            Phase.SILENT,        "the other node could not read the last of our data: serve again as soon as the claim says so"),
        Rule("hand-again",           when.hand_met_an_announcement, Phase.HANDING_OVER, "the other node has announced, seeing our PBX stopped: hand it the claim all the same [H1]", do=Do.STEP),
        Rule("hand-failed",          when.hand_failed,            Phase.SILENT,        "the claim could not be handed over: serve again as soon as it says so [H1]"),
        Rule("hand-over-done",       when.last_step_is_done,      Phase.STANDBY,       "the other node holds the claim now"),
        Rule("step-was-done",        when.step_is_so_already,     Phase.HANDING_OVER,  "the step had its effect, only its outcome was lost: go on", do=Do.NEXT),
        Rule("step-asked",           when.step_wants_asking,      Phase.HANDING_OVER,  "the step has no good outcome yet: ask again", do=Do.STEP),
    ),
    Phase.STEPPING_DOWN: (
        Rule("stop-failed",          when.stop_failed,            Phase.HALTED,        "the PBX could not be proved stopped: SIP is shut off here [S5]", Runbook.SHUT_OFF),
        Rule("returned-twice",       when.gave_back_too_often,    Phase.HALTED,        "two moves in a row have not helped: a person must look at both PBXs [T5]"),
        Rule("stepped-down",         when.last_step_is_done,      Phase.SILENT,        "the PBX here is stopped"),
        Rule("step-asked",           when.step_wants_asking,      Phase.STEPPING_DOWN, "the step has no good outcome yet: ask again", do=Do.STEP),
    ),
    Phase.OUTDATED: (
        _STRAY,
        *_CLAIM_CAME,
        Rule("failover-lossy-forced", when.loss_is_accepted_and_forced, Phase.TAKING_OVER, "a person ordered a failover, accepted loss and that two may be active [T6, H3]", Runbook.FORCED, takes_order=True),
        Rule("failover-lossy",       when.loss_is_accepted,       Phase.TAKING_OVER,   "a person ordered a failover and accepted the loss of what the other node recorded [T6]", Runbook.ORDERED, takes_order=True),
        Rule("rejoin-ordered",       when.rejoin_is_ordered,      Phase.REJOINING,     "a person ordered that our copy be renewed", Runbook.RENEW, takes_order=True),
        Rule("taker-down-unserved",  when.taker_is_down_unserved, Phase.SUSPECTING,    "the node that took the claim is down and has served nobody: nothing is newer than our data [T6]"),
        Rule("announcement-withdrawn", when.our_announcement_is_left, Phase.OUTDATED,  "our announcement stands though this node may not take over [S4]", do=Do.STRIKE),
        Rule("order-refused",        when.order_is_left,          Phase.OUTDATED,      "the order does not fit a node whose copy may lack data: rejoin first", takes_order=True),
    ),
    Phase.REJOINING: (
        _STRAY,
        Rule("claim-ours",           when.claim_is_ours,          Phase.SILENT,        "the claim names this node: see whether it may start [T7]"),
        Rule("rejoin-failed",        when.renew_failed,           Phase.OUTDATED,      "our copy could not be renewed"),
        Rule("rejoin-done",          when.last_step_is_done,      Phase.STANDBY,       "our copy is that of the active node again"),
        Rule("step-asked",           when.step_wants_asking,      Phase.REJOINING,     "the step has no good outcome yet: ask again", do=Do.STEP),
    ),
    Phase.HALTED: (
        Rule("shut-off-done",        when.last_step_is_done,      Phase.HALTED,        "no SIP leaves or enters this machine: a person must stop the PBX [S5]"),
        Rule("shut-off-asked",       when.step_wants_asking,      Phase.HALTED,        "SIP is not shut off yet: ask again [S5]", do=Do.STEP),
        Rule("stray-pbx",            when.stray_pbx_runs_on,      Phase.HALTED,        "a PBX runs on this halted node: shut SIP off and try to stop it [S5]", Runbook.SHUT_OFF),
        Rule("person-decided",       when.person_said_who,        Phase.SILENT,        "a person has said which node is active"),
        Rule("rejoin-ordered",       when.rejoin_is_ordered,      Phase.REJOINING,     "a person ordered that our copy be renewed", Runbook.RENEW, takes_order=True),
        Rule("order-refused",        when.order_is_left,          Phase.HALTED,        "this node is halted: set-active or rejoin leads out", takes_order=True),
    ),
}
# fmt: on
