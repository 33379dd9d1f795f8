"""From one number that a person can choose, patience, to all times that PROTOCOL.md T2 ties to it."""

import math
from dataclasses import dataclass

from understudy.config import durations

INTERVAL = (1.0, 60.0)  # Seconds, the least and the most: more does no good.
QUESTION = (1.0, 10.0)
READING = (0.5, 3.0)
GRACE = (5.0, 20.0)


class TooShortError(ValueError):
    """`patience` cannot be kept; `least` seconds can."""

    def __init__(self, patience: float, least: float, stop_within: float) -> None:
        super().__init__(
            f"is {durations.show(patience)}: too short.  With a PBX that may take "
            f"{durations.show(stop_within)} to stop, the smallest patience is {durations.show(least)}"
        )
        self.least = least


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds."""

    interval: float
    patience: float
    announce: float
    claim_stale: float
    checkpoints_stale: float
    restart_grace: float
    first_proof: float
    question: float  # The check points' timeout.
    reading: float  # The claim's.

    def detection(self) -> dict[str, str]:
        """As [detection] has it."""
        names = (
            *("interval", "patience", "announce", "claim_stale", "checkpoints_stale"),
            *("restart_grace", "first_proof"),
        )
        return {name: durations.show(getattr(self, name)) for name in names}


def least(stop_within: float, question: float | None = None) -> float:
    """The smallest patience that keeps the sums, to a tenth of a second."""
    ask = QUESTION[0] if question is None else question
    rounds = 3.1 * max(INTERVAL[0], ask) + 2 * ask
    return _up(stop_within + max(rounds, 4 * READING[0] + ask))


def times(patience: float, stop_within: float, question: float | None = None) -> Times:
    """Seconds.  `question`: what one question to a check point may take, where that is not ours to choose.

    The sums (config/rules.py), with I the interval, Q a question, R a reading of the claim:

        checkpoints_stale >= 1.1 I + Q              claim_stale >= 3 R
        patience >= checkpoints_stale + stop_within + 2 I + Q
        announce >= claim_stale + stop_within + R   patience >= announce + Q

    Raises TooShortError.
    """
    if patience < least(stop_within, question):
        raise TooShortError(patience, least(stop_within, question), stop_within)
    room = patience - stop_within
    ask = _nice(_within(room / 8, QUESTION)) if question is None else question
    # 3.34: two rounds in patience, and one and a third in checkpoints_stale.
    interval = max(_nice(_within((room - 2 * ask) / 3.34, INTERVAL)), ask)
    if 3.1 * interval + 2 * ask > room:
        interval = max(INTERVAL[0], ask)
    stale = min(_up(interval * 4 / 3 + ask), room - 2 * interval - ask)
    reading = _nice(_within(room / 8, READING))
    claim_stale = min(5 * reading, room - reading - ask)
    return Times(
        interval=interval,
        patience=patience,
        announce=claim_stale + stop_within + reading,
        claim_stale=claim_stale,
        checkpoints_stale=stale,
        restart_grace=_nice(_within(patience / 5, GRACE)),
        first_proof=claim_stale,
        question=ask,
        reading=reading,
    )


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])


def _nice(seconds: float) -> float:
    """Rounded down to what a person would write."""
    step = 5 if seconds >= 20 else 1 if seconds >= 10 else 0.5 if seconds >= 3 else 0.1
    return round(step * int(seconds / step + 1e-9), 3)


def _up(seconds: float) -> float:
    """Rounded up to a tenth."""
    return math.ceil(round(seconds * 10, 6)) / 10
