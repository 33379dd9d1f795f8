"""From the reports of one round to a verdict (PROTOCOL V1-V3)."""

from collections.abc import Sequence
from enum import StrEnum

from .observations import Health, Report
from .policy import Agreement, Policy


class Verdict(StrEnum):
    """What the reports of one round about one node amount to."""

    UP = "up"
    DOWN = "down"
    UNCLEAR = "unclear"


def verdict(reports: Sequence[Report], policy: Policy) -> Verdict:
    """V2.  Majorities are of the *configured* check points: two nodes' majorities always share one."""
    up = sum(report.health is Health.UP for report in reports)
    down = sum(report.health is Health.DOWN for report in reports)
    majority = policy.checkpoints // 2 + 1
    if up >= majority:
        return Verdict.UP
    match policy.agreement:
        case Agreement.UNANIMOUS:
            agreed = down >= majority and up == 0
        case Agreement.MAJORITY:
            agreed = down >= majority
        case Agreement.ALL:
            agreed = down == policy.checkpoints
    return Verdict.DOWN if agreed else Verdict.UNCLEAR
