"""One number in, all times out: what comes out keeps the sums, or the smallest number is said."""

import itertools
from pathlib import Path

import pytest

from hosts.pieces_for import config
from understudy.config import durations
from understudy.config.schema import Detection
from understudy.hosts.times import TooShortError, least, times

PATIENCES = [
    3,
    5.5,
    8,
    10,
    10.1,
    12,
    15,
    17.3,
    20,
    25,
    30,
    31.7,
    45,
    60,
    90,
    119.9,
    180,
    300,
    900,
    7200,
]
STOPS = [0.5, 2, 4.9, 5, 8, 15, 25, 60, 120]


def test_every_patience_loads_or_the_smallest_is_said(tmp_path: Path) -> None:
    loaded = 0
    for patience, stop in itertools.product(PATIENCES, STOPS):
        said = {"patience": durations.show(patience), "stop_within": durations.show(stop)}
        if patience < least(stop):
            with pytest.raises(TooShortError) as refused:
                times(patience, stop)
            said["patience"] = durations.show(refused.value.least)
        found = config(tmp_path, **said)  # It loads: every rule holds.
        assert durations.show(found.detection.patience) == said["patience"]
        loaded += 1
    assert loaded == len(PATIENCES) * len(STOPS)


def test_a_question_that_is_given_is_kept(tmp_path: Path) -> None:
    for question, stop in itertools.product((1, 2.5, 4, 10, 20), (2, 25)):
        patience = least(stop, question)
        said = {"patience": patience, "stop_within": stop, "question": question}
        found = config(tmp_path, **{key: durations.show(value) for key, value in said.items()})
        assert all(c.settings.timeout == question for c in found.checkpoints.values())
        with pytest.raises(TooShortError):
            times(patience - 0.2, stop, question)


def test_five_minutes_are_the_articles_numbers() -> None:
    made, usual = times(300, 25), Detection()
    assert (made.interval, made.question, made.reading) == (usual.interval, 10, 3)
    assert (made.claim_stale, made.checkpoints_stale) == (15, 90)
    assert made.announce == pytest.approx(usual.announce, abs=2)


def test_too_short_says_what_would_do() -> None:
    with pytest.raises(TooShortError, match="25s to stop, the smallest patience is 30s100ms"):
        times(10, 25)
