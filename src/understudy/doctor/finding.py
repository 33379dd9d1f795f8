"""What an examination found: a sentence, why it matters, and what mends it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

PAIR = "pair"  # The node of a finding that is about both.


class Level(StrEnum):
    """How bad it is.  In the order in which they are shown."""

    CRITICAL = "critical"  # A failover will fail, or two PBXs may serve.
    WARNING = "warning"  # A failover may fail, or one more thing gone will make it fail.
    UNKNOWN = "unknown"  # Could not find out.
    NOTE = "note"  # Is so, and worth knowing.
    OK = "ok"


ORDER = {level: place for place, level in enumerate(Level)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    check: str  # A stable word; docs/reference/findings.md lists them.
    node: str  # Or PAIR.
    level: Level
    what: str
    why: str = ""  # What it means when the other PBX dies at 03:12.
    mend: str = ""  # The command.


def to_json(finding: Finding) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(finding).items()}


def from_json(fields: Any) -> Finding:
    """Raises ValueError for what is none: it may come from another version."""
    names = ("check", "node", "level", "what", "why", "mend")
    if not isinstance(fields, dict) or not all(isinstance(fields.get(n), str) for n in names):
        raise ValueError("not a finding")
    check, node, level, what, why, mend = (printable(fields[name]) for name in names)
    return Finding(check=check, node=node, level=Level(level), what=what, why=why, mend=mend)


def printable(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text)


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first; equal ones stay as they are."""
    return sorted(findings, key=lambda each: ORDER[each.level])


def exit_code(findings: Sequence[Finding]) -> int:
    """0 well, 1 not well, 3 could not find out."""
    levels = {each.level for each in findings}
    if levels & {Level.CRITICAL, Level.WARNING}:
        return 1
    return 3 if Level.UNKNOWN in levels else 0


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence."""
    counts = Counter(each.level for each in findings)
    open_questions = counts[Level.UNKNOWN]
    more = (
        f"; {_number(open_questions, 'question')} could not be answered" if open_questions else ""
    )
    if bad := counts[Level.CRITICAL]:
        warned = (
            f" and {_number(counts[Level.WARNING], 'warning')}" if counts[Level.WARNING] else ""
        )
        return f"Not well: {bad} critical{warned}{more}.  Do not count on a failover before these are mended."
    if warned_of := counts[Level.WARNING]:
        return (
            f"Not well: {_number(warned_of, 'warning')}{more}.  A failover may work, and may not."
        )
    if open_questions:
        return f"Nothing is wrong as far as could be seen{more}."
    return "All is well: a failover has what it needs."


def _number(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
