"""What every class of data has."""

from dataclasses import dataclass
from enum import StrEnum

from understudy.config.settings import Seconds, setting


class OnStale(StrEnum):
    """What a take-over does when the copy is older than `max_age`."""

    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySettings:
    every: Seconds = setting(
        "How often the standby pulls it from the active node.", default=Seconds(120.0)
    )
    max_age: Seconds = setting(
        "An older copy counts as stale: the pair is NOT PROTECTED.", default=Seconds(900.0)
    )
    on_stale: OnStale = setting(
        'What a stale copy means for a failover.  "warn": the PBX starts with it, and people are told '
        'how old it is.  "refuse": no failover by itself; `understudy failover --accept-loss CLASS` overrules.',
        default=OnStale.WARN,
    )
    on_change: bool = setting(
        "Pull it as soon as something changes on the active node, which inotifywait(1) there tells: then it is "
        "two seconds old at most, but for what takes longer to travel.  `every` stays as the net below.",
        default=False,
    )
    within: Seconds = setting("How long one pull may take.", default=Seconds(600.0))
    keep: int = setting(
        "How many snapshots the standby keeps, so that a mistake copied from the active node can be "
        "taken back.",
        default=24,
    )
    keep_bytes: int = setting(
        "How many bytes the snapshots before the newest may take together; what did not change "
        "between two of them counts once.",
        default=10_000_000_000,
    )

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}.  Write 1 or more.")
        if self.keep_bytes < 0:
            raise ValueError(f"keep_bytes is {self.keep_bytes}.  Write 0 or more.")
        if self.max_age < 2 * self.every:
            raise ValueError(
                "max_age is less than two times every.  Write more, or pull more often."
            )
