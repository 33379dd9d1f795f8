"""The table, drawn for people: docs/reference/phases.md and `understudy explain` are this output."""

from collections.abc import Iterator

from .model import Phase
from .rules import RULES, Rule
from .runbooks import RUNBOOKS

DOES = {
    Phase.STANDBY: ("stopped", "the other node is active; our copy is kept current"),
    Phase.SUSPECTING: ("stopped", "the verdict on the active node is down; patience runs"),
    Phase.TAKING_OVER: ("starting", "calls are moving here"),
    Phase.ACTIVE: ("running", "we serve"),
    Phase.DOUBTED: ("running", "we serve, but a proof is too old: we may be the isolated one"),
    Phase.HANDING_OVER: ("stopping", "an orderly switchover to the other node"),
    Phase.STEPPING_DOWN: ("stopping", "we must not serve any longer"),
    Phase.SILENT: ("stopped", "nothing starts before the claim has been read"),
    Phase.OUTDATED: (
        "stopped",
        "the other node took the claim; our copy may hold data that it lacks",
    ),
    Phase.REJOINING: ("stopped", "our copy is being renewed"),
    Phase.HALTED: (
        "stopped, or shut off",
        "a step that must not fail has failed; a person decides",
    ),
}


def page() -> Iterator[str]:
    """Markdown: the phases, each with its rows, the steps, and the diagram."""
    yield "# Phases"
    yield ""
    yield "What a node does about its PBX, and why it goes from one phase to the next.  In each phase"
    yield "the rows are read from top to bottom and the first that holds is followed.  The name of a row"
    yield "stands in the journal (`understudy why`), the letters name the rules of PROTOCOL.md."
    yield ""
    yield "| phase | the PBX here | it means |"
    yield "|---|---|---|"
    for phase, (pbx, means) in DOES.items():
        yield f"| [`{phase}`](#{phase}) | {pbx} | {means} |"
    for phase in RULES:
        yield ""
        yield from table(phase)
    yield ""
    yield from _steps()
    yield ""
    yield "## Diagram"
    yield ""
    yield "```mermaid"
    yield from mermaid()
    yield "```"


def table(phase: Phase) -> Iterator[str]:
    """The rows of one phase."""
    yield f"## {phase}"
    yield ""
    yield f"{DOES[phase][1][0].upper()}{DOES[phase][1][1:]}."
    yield ""
    yield "| row | when | then |"
    yield "|---|---|---|"
    for rule in RULES[phase]:
        yield f"| `{rule.name}` | {rule.because} | {_then(phase, rule)} |"


def mermaid() -> Iterator[str]:
    """Every way from one phase to another, once, with the rows that lead there."""
    yield "stateDiagram-v2"
    yield "    [*] --> silent"
    for phase, rules in RULES.items():
        ways: dict[Phase, list[str]] = {}
        for rule in rules:
            if rule.then is not phase:
                ways.setdefault(rule.then, []).append(rule.name)
        for then, names in ways.items():
            yield f"    {_id(phase)} --> {_id(then)}: {', '.join(names)}"


def _then(phase: Phase, rule: Rule) -> str:
    words = [] if rule.then is phase else [f"**{rule.then}**"]
    if rule.runbook is not None:
        words.append(f"works through `{rule.runbook}`")
    if rule.do is not None:
        words.append(f"does `{rule.do}`")
    if rule.takes_order:
        words.append("the order is used up")
    return "; ".join(words) or "stays"


def _steps() -> Iterator[str]:
    yield "## Steps"
    yield ""
    yield "What the moving phases work through.  Each step is recorded before it is done and is safe to"
    yield "repeat.  `*`: begins with a fresh reading of the claim: ours, not announced [T3]."
    yield ""
    yield "| steps | in this order |"
    yield "|---|---|"
    for runbook, entries in RUNBOOKS.items():
        steps = " → ".join(f"{entry.step}{'*' if entry.guarded else ''}" for entry in entries)
        yield f"| `{runbook}` | {steps} |"


def _id(phase: Phase) -> str:
    """Hyphens mean something to mermaid."""
    return phase.replace("-", "_")
