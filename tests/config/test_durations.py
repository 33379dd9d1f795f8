"""Durations, there and back."""

import random

import pytest

from understudy.config import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("5m", 300),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("90d", 7_776_000),
        ("1m30s", 90),
        ("1d2h3m4s5ms", 93784.005),
        ("0s", 0),
        ("5m250ms", 300.25),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 m",
        "-5s",
        "+5s",
        "5x",
        "1.5s",
        "5M",
        "5s5m",
        "5s5s",
        "5min",
        "٥s",
        "5m\n",
        "1e3s",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "1m30s"), (245, "4m5s"), (7_776_000, "90d"), (0.25, "250ms"), (-5, "-5s")],
)
def test_a_duration_is_shown_as_people_say_it(seconds: float, text: str) -> None:
    assert durations.show(seconds) == text


def test_every_duration_survives_the_way_there_and_back() -> None:
    dice = random.Random(2011)
    for _ in range(5000):
        seconds = dice.randrange(10 ** dice.randrange(1, 12)) / 1000
        assert durations.parse(durations.show(seconds)) == seconds
