"""The catalogue of messages: what is told, how soon it must be read, and the three parts of each.

What happened, what Understudy did, what you should do.  docs/reference/messages.md is this table; whoever tells
something names its kind and brings the words in braces.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.ports import Severity

INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One kind of message.  `over` is the sentence for when it is so no longer, if that is told."""

    severity: Severity
    when: str  # It is told, for the manual.
    subject: str
    happened: str
    did: str
    do: str
    over: str = ""
    ends: str = ""  # The kind that it is the end of.


_LOOK = "Look at {peer}: is it powered, does its PBX run, has it its network?"
_BY_HAND = (
    "If {peer} is certainly dead, stays so, and you cannot wait: touch {glass} on {me}, start the PBX there, and"
    " lead {service} to {me} at your name server.  Remove the file when all is well."
)
_BACK = "When you want the calls back on {peer}: understudy rejoin on {peer}, then understudy switchover."

CATALOGUE: Mapping[str, Entry] = {
    "suspicion": Entry(
        severity=WARNING,
        when="the active node has not answered for half of patience",
        subject="{peer} does not answer: {me} {then}",
        happened="The check points agree that {peer} has not answered for {spent} (since {since}).",
        did="{me} is standby and {prospect}.",
        do=_LOOK
        + "  To be faster than patience, which is {total}: understudy failover.  To keep all as it is: understudy"
        " pause --for 2h",
        over="{peer} answers again",
    ),
    "announced": Entry(
        severity=WARNING,
        when="the standby has announced that it is about to take over",
        subject="{me} is about to take over from {peer}",
        happened="{peer} has not answered for {spent} of {total} patience.",
        did="{me} has written into the claim that it is about to take over, and does so in {left} at the earliest.",
        do="If {peer} is well, keep it from happening: understudy pause --for 1h",
    ),
    "failover-begun": Entry(
        severity=CRITICAL,
        when="a failover has begun and is not done within 10 s",
        subject="{me} is taking over from {peer}",
        happened="{peer} did not answer for all of patience ({total}).",
        did="{me} has begun to take over; it is at the step {step}.",
        do="Wait for the next message, or look: understudy status",
    ),
    "failover-done": Entry(
        severity=CRITICAL,
        when="the standby has taken over by itself",
        subject="{me} has taken over: calls are answered there",
        happened="{peer} did not answer for all of patience ({total}).",
        did="{me} took the claim, started its PBX, saw it answer, and led {service} to itself.",
        do=_LOOK + "  When it comes back it stays silent.  " + _BACK,
    ),
    "failover-ordered": Entry(
        severity=INFO,
        when="the standby has taken over because a person ordered it",
        subject="{me} has taken over, as ordered: calls are answered there",
        happened="A person ordered a failover.",
        did="{me} took the claim, started its PBX, saw it answer, and led {service} to itself.",
        do=_BACK,
    ),
    "order-failed": Entry(
        severity=WARNING,
        when="a failover that a person ordered was not done",
        subject="the ordered failover to {me} was not done",
        happened="{text}.",
        did="{me} is what it was before, and has started nothing.{why}",
        do="Look: understudy status.  Then order it again.",
    ),
    "failover-failed": Entry(
        severity=CRITICAL,
        when="the claim could not be taken at the end of patience",
        subject="{me} could not take over from {peer}",
        happened="{peer} did not answer for all of patience ({total}), and {me} could not take the claim.{why}",
        did="{me} has started nothing.  It tries again while {peer} does not answer.",
        do="See what {me} waits for: understudy status.  " + _BY_HAND,
    ),
    "failover-blocked": Entry(
        severity=CRITICAL,
        when="patience is over since 20 s, and the standby may not, or cannot, take over; again every hour",
        subject="{peer} is down and {me} does not take over: {reason}",
        happened="{peer} has not answered for {spent}; patience ({total}) is over.  But {reason}.",
        did="{me} has started nothing.  It goes on trying, and takes over within two rounds of this being mended.",
        do="{cure}  " + _BY_HAND,
        over="{peer} answers again",
    ),
    "start-failed": Entry(
        severity=CRITICAL,
        when="a node that was to serve could not start its PBX",
        subject="the PBX on {me} cannot be started",
        happened="{me} was about to serve, and its PBX did not start.{why}",
        did="{gave}.  The name was not moved.",
        do="Look at the PBX on {me}: systemctl status, its own log.  If {peer} is well it serves; else nobody does.",
    ),
    "serves-again": Entry(
        severity=INFO,
        when="a node serves that was named in the claim already: after its boot, or because the other gave it back",
        subject="{me} serves: calls are answered there",
        happened="{began}.",
        did="{me} started its PBX, saw it answer, and led {service} to itself.",
        do="Nothing.",
    ),
    "switchover-done": Entry(
        severity=INFO,
        when="the other node has handed over, and this one serves",
        subject="{me} serves now: {peer} has handed over",
        happened="{peer} stopped its PBX and handed the claim to {me}.",
        did="{me} started its PBX, saw it answer, and led {service} to itself.",
        do="Nothing.  When you want the calls back on {peer}: understudy switchover",
    ),
    "handing-over": Entry(
        severity=CRITICAL,
        when="a node whose PBX is dead hands over by itself",
        subject="the PBX on {me} is dead: {me} hands over to {peer}",
        happened="The PBX on {me} does not answer on {me} itself, and a restart did not help.",
        did="{peer} has said that it is ready, so {me} stops what is left of its PBX and hands the claim over.",
        do="{peer} tells you when it serves.  Look at the PBX on {me}: systemctl status, its own log.",
    ),
    "hand-over-failed": Entry(
        severity=CRITICAL,
        when="a hand-over broke off after the PBX was stopped",
        subject="{me} could not hand over to {peer}",
        happened="The PBX on {me} is stopped, and the claim could not be handed over.{why}",
        did="{me} serves again as soon as the claim says that it may.",
        do="See what it waits for: understudy status on {me}",
    ),
    "stepped-down": Entry(
        severity=CRITICAL,
        when="a node has stopped its PBX because it may not serve any longer",
        subject="{me} has stepped down: its PBX is stopped",
        happened="{began}.",
        did="{me} stopped its PBX, so that never two serve.",
        do="Is {peer} serving?  understudy status.  If nobody is: is the claim's server, and are the check points,"
        " within reach of {me}?",
    ),
    "stray-pbx": Entry(
        severity=WARNING,
        when="a PBX ran on a node that may not serve",
        subject="a PBX ran on {me}, which may not serve: it was stopped",
        happened="Somebody or something started the PBX on {me} past Understudy.",
        did="{me} stopped it.",
        do="Find out who started it: journalctl.  Are the PBX's own units disabled there, and guarded?  understudy"
        " doctor",
    ),
    "returned": Entry(
        severity=WARNING,
        when="a node is back whose claim the other one took",
        subject="{me} is back and stays silent: {peer} serves",
        happened="While {me} was away, {peer} took over.  The copy on {me} may hold data that {peer} lacks.",
        did="{me} does not start its PBX and may not take over.  Until then nobody stands in for {peer}.",
        do="Renew its copy, from {peer}: understudy rejoin on {me}.  Then, when you want the calls back: understudy"
        " switchover",
    ),
    "rejoin-done": Entry(
        severity=INFO,
        when="a copy is renewed",
        subject="{me} is standby again",
        happened="The copy on {me} is that of {peer} again.",
        did="{me} is standby and takes over if {peer} fails.",
        do="Nothing.  When you want the calls back on {me}: understudy switchover",
    ),
    "rejoin-failed": Entry(
        severity=WARNING,
        when="a copy could not be renewed",
        subject="the copy on {me} could not be renewed",
        happened="The rejoin of {me} broke off.{why}",
        did="{me} stays outdated and does not take over.",
        do="Mend the cause, and order it again: understudy rejoin on {me}",
    ),
    "doubted": Entry(
        severity=WARNING,
        when="an active node has been in doubt for two rounds (at least a minute), or for 5 s when its PBX is about to"
        " be stopped",
        subject="{me} is in doubt: {then}",
        happened="{sentence}.",
        did="{explained}",
        do="Look at the network of {me}: does it reach the claim's server and the check points, and they it?"
        "  understudy status on {me}",
        over="{me} is certain again",
    ),
    "two-may-be-active": Entry(
        severity=CRITICAL,
        when='a node with isolation = "keep" has served for 10 s without any proof',
        subject="{me} serves without any proof: two may be active",
        happened="{sentence}.",
        did='{me} goes on serving, as isolation = "keep" says.',
        do="Look at the network of {me}.  If {peer} has taken over, stop one of the two: understudy status on both",
        over="{me} has a proof again",
    ),
    "two-answer": Entry(
        severity=CRITICAL,
        when="the check points have seen two PBXs answer for 15 s",
        subject="two PBXs answer: {me} and {peer}",
        happened="{sentence}.",
        did="{me} serves because the claim names it.",
        do="Stop the wrong one now: systemctl stop on {peer}.  Then find out who started it.",
        over="one PBX answers",
    ),
    "pbx-failed": Entry(
        severity=CRITICAL,
        when="the PBX of the active node is dead or deaf for restart_grace and 10 s, and it has not handed over",
        subject="the PBX on {me} is {pbx}",
        happened="The PBX on {me} has been {pbx} for {spent}.",
        did="A restart was tried.  {waiting}",
        do="Look at it: systemctl status, its own log.  If {peer} is well: understudy switchover",
        over="the PBX on {me} answers again",
    ),
    "pbx-restarted": Entry(
        severity=WARNING,
        when="the PBX of the active node is dead or deaf for half of restart_grace, and is restarted",
        subject="the PBX on {me} has failed and is restarted",
        happened="The PBX on {me} was dead, or did not answer on {me} itself.",
        did="{me} restarts it.  If that does not help, {peer} takes over when it is ready.",
        do="Find out why it failed: journalctl, its own log.",
    ),
    "pbx-stopped": Entry(
        severity=WARNING,
        when="a person has stopped the PBX of the active node, for longer than restart_grace",
        subject="the PBX on {me} stays stopped until you start it",
        happened="A person, or an upgrade, has stopped the PBX on {me}.  Nobody serves.",
        did="Nothing: what a person stops is no failure, and is not answered by a move.",
        do="Start it: systemctl start.  Or let {peer} serve meanwhile: understudy switchover",
        over="the PBX on {me} answers again",
    ),
    "halted": Entry(
        severity=CRITICAL,
        when="a step that must not fail has failed",
        subject="{me} is halted: a person must decide",
        happened="{text}.{why}",
        did="{me} does nothing by itself any more.",
        do="Look at the PBX on both nodes: systemctl status.  Then say who is active: understudy set-active NODE."
        "  Or give {me} a fresh copy: understudy rejoin on {me}",
    ),
    "taker-dead": Entry(
        severity=CRITICAL,
        when="the node that took over has served and is dead; again every hour",
        subject="nobody serves: {peer} took over, has served, and is down",
        happened="{sentence}",
        did="Nothing: what {peer} recorded since it took over is not on {me}.",
        do="Bring {peer} back.  Or accept that loss: understudy failover --accept-loss all on {me}",
        over="{peer} answers again",
    ),
    "nobody-serves": Entry(
        severity=CRITICAL,
        when="a node that does not take part in anything knows for two minutes that nobody serves; again every hour",
        subject="nobody serves",
        happened="{sentence}.",
        did="{me} is {phase} and waits: {waiting}",
        do="See both nodes: understudy status.  Then say who is active: understudy set-active NODE",
        over="somebody serves again",
    ),
    "not-protected": Entry(
        severity=WARNING,
        when="the standby could not take over now",
        subject="{text}",
        happened="{text}.",
        did="The active node goes on serving.  If it fails now, nobody takes over.",
        do="Mend what is named.  understudy status says PROTECTED when it is done; understudy doctor says how.",
    ),
    "protected": Entry(
        severity=INFO,
        when="the standby could take over again",
        subject="{text}",
        happened="{text}.",
        did="Nothing.",
        do="Nothing.",
        ends="not-protected",
    ),
    "checkpoints-split": Entry(
        severity=WARNING,
        when="the check points have disagreed about the active node for 15 minutes",
        subject="the check points disagree about {peer}",
        happened="{sentence}.",
        did="{me} is standby and does not take over while they disagree.",
        do="Look at the way from those that say down, to {peer}: is one of them banned there (fail2ban)?  understudy"
        " doctor",
        over="the check points agree again",
    ),
    "checkpoint-silent": Entry(
        severity=WARNING,
        when="a check point has not been able to tell anything for 15 minutes",
        subject="a check point cannot tell whether {peer} answers",
        happened="{sentence}.",
        did="{me} goes on asking.  What cannot be asked is no evidence that {peer} is down.",
        do="Look at that check point: does its NRPE daemon run, and let {me} in?  understudy doctor",
        over="all check points can be asked again",
    ),
    "claim-unreadable": Entry(
        severity=WARNING,
        when="a node that does not serve has not been able to read the claim for a minute",
        subject="{me} cannot read the claim",
        happened="{sentence}.",
        did="{me} goes on trying.  Until it can read the claim it neither starts a PBX nor takes over.",
        do="Look at the server that is named, and at the way there: understudy doctor",
        over="{me} can read the claim again",
    ),
    "claim-failing": Entry(
        severity=CRITICAL,
        when="a write of the claim has been failing for a minute",
        subject="{me} cannot write the claim",
        happened="{sentence}.",
        did="{me} tries again and again.",
        do="Look at the server that is named: may the key change the record?  understudy doctor",
        over="{me} can write the claim again",
    ),
    "name-behind": Entry(
        severity=CRITICAL,
        when="a node has served for a minute and the name does not lead there",
        subject="callers are not led to {me} yet",
        happened="{sentence}.",
        did="{me} serves whoever comes, and tries again and again.",
        do="Look at the name server that is named.  By hand: let {service} lead to {me}.",
        over="{service} leads to {me}",
    ),
    "name-server-behind": Entry(
        severity=WARNING,
        when="a node serves, and one of the name servers still leads callers to the other one",
        subject="a name server is behind: some callers still go to {peer}",
        happened="{me} serves, and the name was moved, but not at every server.{why}",
        did="{me} did not wait for it.",
        do="Look at the name server that is named: does the primary notify it, and may it transfer the zone?",
    ),
    "strikes": Entry(
        severity=WARNING,
        when="the active node has struck out three announcements in an hour",
        subject="{peer} keeps announcing to take over from {me}",
        happened="{sentence}.",
        did="{me} struck each of them out, because the check points see it.",
        do="Look at the way from {peer} to the check points: understudy status on {peer}",
    ),
    "configuration-differs": Entry(
        severity=WARNING,
        when="the nodes have had two configurations for 10 minutes",
        subject="{me} has another configuration than {peer}",
        happened="{sentence}.",
        did="{me} does not take over with it.",
        do="Put the same file on both nodes, and restart the agent: systemctl restart understudy",
        over="{me} and {peer} have the same configuration",
    ),
    "paused": Entry(
        severity=INFO,
        when="automatic failover is paused",
        subject="automatic failover is paused until {until}",
        happened="A person has paused automatic failover.",
        did="Nothing moves by itself until {until}, not even off a dead PBX.",
        do="To end it sooner: understudy resume",
        over="the pause is over: automatic failover is on",
    ),
    "break-glass": Entry(
        severity=CRITICAL,
        when="the break-glass file is there",
        subject="the glass is broken on {me}: its PBX runs whatever the claim says",
        happened="{text}.",
        did="Understudy does not stop this PBX.  Two may be active.",
        do="Make certain that the PBX on {peer} is off.  When all is well: rm {glass}",
    ),
    "glass-whole": Entry(
        severity=INFO,
        when="the break-glass file is gone",
        subject="the glass is whole again on {me}",
        happened="{text}.",
        did="Understudy decides again who may serve.",
        do="Nothing.",
        ends="break-glass",
    ),
    "journal": Entry(
        severity=WARNING,
        when="the journal has not been well for half a minute",
        subject="the journal on {me} is not well",
        happened="{sentence}",
        did="{me} goes on, and remembers in memory.",
        do="Look at the disk: df, mount, dmesg",
        over="the journal on {me} is well again",
    ),
    "companion-failed": Entry(
        severity=WARNING,
        when="something that runs beside the agent has failed",
        subject="something beside the agent on {me} has failed",
        happened="{text}.",
        did="It is begun anew after a minute.  No decision depends on it.",
        do="This is a mistake in Understudy.  Please report it, with: journalctl -u understudy",
    ),
}
