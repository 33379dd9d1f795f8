"""What an administrator needs at 03:12: who serves, what happens next, and what is wrong."""

from understudy.core.model import Phase
from understudy.core.observations import Health

from .status import Code, Level, Status
from .waiting import span

EXIT = {Level.WARNING: 1, Level.CRITICAL: 2, Level.UNKNOWN: 3}
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


def sentences(view: Status) -> list[str]:
    """The most important first; each stands for itself."""
    told = [headline(view)]
    if view.patience is not None:
        told.append(_patience(view))
    return told + [trouble.sentence for trouble in view.troubles]


def exit_code_check(view: Status) -> tuple[int, str]:
    """Exit code and line of a monitoring plugin (monitoring-plugins.org: Development Guidelines).

    0 all is well, 1 warning, 2 critical, 3 the agent is not there to say.
    """
    codes = [3 if trouble.code is Code.AGENT else EXIT[trouble.level] for trouble in view.troubles]
    code = 3 if 3 in codes else max(codes, default=0)
    worst = view.troubles[0].sentence if view.troubles else headline(view)
    more = f" (and {len(view.troubles) - 1} more)" if len(view.troubles) > 1 else ""
    text = f"UNDERSTUDY {WORDS[code]}: {worst}{more}".replace("|", "/").replace("\n", " ")
    return code, f"{text} | {' '.join(_performance(view))}"


def headline(view: Status) -> str:
    """Who is what, in one sentence."""
    epoch = f"epoch {view.epoch}"
    match view.phase:
        case Phase.STANDBY:
            return f"{view.node} is standby: {_active(view)}"
        case Phase.SUSPECTING:
            spent = view.patience.spent if view.patience is not None else 0.0
            return (
                f"{view.node} is standby and suspects: {view.peer} has not answered for {span(spent)}"
                f" ({epoch})"
            )
        case Phase.ACTIVE:
            return f"{view.node} is active ({epoch}): {_proofs(view)}"
        case Phase.DOUBTED:
            return f"{view.node} is active, but in doubt ({epoch}): {_proofs(view)}"
        case Phase.TAKING_OVER:
            return f"{view.node} is taking over ({epoch}): {view.step}"
        case Phase.HANDING_OVER:
            return f"{view.node} is handing over to {view.peer} ({epoch}): {view.step}"
        case Phase.STEPPING_DOWN:
            return f"{view.node} is stepping down ({epoch}): {view.step}"
        case Phase.SILENT:
            return f"{view.node} is silent, its PBX stopped: {view.waiting_for}"
        case Phase.OUTDATED:
            return f"{view.node} is outdated: {_active(view)}, and took over from this node"
        case Phase.REJOINING:
            return f"{view.node} is rejoining: its copy is being renewed from {view.peer} ({epoch})"
    return f"{view.node} is halted: {_active(view)}"


def _active(view: Status) -> str:
    if not view.active:
        return "who is active is not known"
    who = "this node" if view.active == view.node else view.active
    return f"{who} is active (epoch {view.epoch})"


def _proofs(view: Status) -> str:
    proofs = view.proofs
    if proofs is None:
        return ""
    return (
        f"the claim said so {_ago(proofs.claim_age)}, the check points saw it"
        f" {_ago(proofs.checkpoints_age)}"
    )


def _patience(view: Status) -> str:
    patience = view.patience
    assert patience is not None
    spent = min(patience.spent, patience.total)
    told = f"patience: {span(spent)} of {span(patience.total)} spent"
    if not view.waiting_for.startswith("patience:"):
        return f"{told}; it waits: {view.waiting_for}"
    if patience.announces_in is not None:
        return f"{told}; it will announce in {span(patience.announces_in)}"
    return f"{told}; it has announced and takes over in {span(patience.takes_in)} at the earliest"


def _ago(age: float | None) -> str:
    return "never yet" if age is None else f"{span(age)} ago"


def _performance(view: Status) -> list[str]:
    """'label'=value[UOM];[warn];[crit];[min];[max]"""
    data = [f"epoch={view.epoch};;;0"]
    if view.proofs is not None:
        data += [
            _seconds("claim_proof", view.proofs.claim_age, view.proofs.claim_stale),
            _seconds(
                "checkpoints_proof", view.proofs.checkpoints_age, view.proofs.checkpoints_stale
            ),
        ]
    data += [_seconds("claim_age", view.claim_age), _seconds("round_age", view.round_age)]
    for node in view.nodes:
        ups = sum(vote.health is Health.UP for vote in node.votes)
        data.append(f"up_{node.node}={ups};;;0;{len(node.votes)}")
    if view.patience is not None:
        spent, total = view.patience.spent, view.patience.total
        data.append(f"patience={spent:.1f}s;;{total:g};0;{total:g}")
    return [each for each in data if each]


def _seconds(label: str, age: float | None, limit: float | None = None) -> str:
    if age is None:
        return ""
    return f"{label}={age:.1f}s;{'' if limit is None else f'{limit:g}'};;0"
