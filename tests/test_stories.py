"""Replays tests/stories/*.txt and compares what happens with what was written down.

To accept a new behaviour run `pytest --rewrite tests/test_stories.py` and review the difference like any other code: a
story changes only when you can say why it should.
"""

from pathlib import Path

import pytest

from understudy.sim.story import StoryError, tell

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    written = path.read_text(encoding="utf-8")
    told = tell(written)
    if request.config.getoption("--rewrite"):
        path.write_text(told, encoding="utf-8")
    else:
        assert told == written


def test_every_story_says_first_what_an_administrator_learns_from_it() -> None:
    assert STORIES
    for path in STORIES:
        assert path.read_text(encoding="utf-8").startswith("# "), path.name


def test_a_story_is_told_the_same_way_twice() -> None:
    story = "loss 20%\npower off pbx01\nwait 20m\nshow"
    assert tell(story) == tell(story)


def test_what_was_told_is_no_part_of_the_story() -> None:
    told = tell("# Why.\npower off pbx01\nwait 6m\n\npower on pbx01\nwait 1m\nshow")
    assert tell(told) == told


def test_what_happens_again_and_again_in_the_same_words_is_counted() -> None:
    told = tell("repeat 9: pbx pbx02 is stopped by a person; wait 2m; pbx pbx02 goes deaf; wait 3m")
    assert "    ... and 7 times more the same ..." in told.splitlines()
    assert told.count("pbx02: the PBX is deaf") == 2  # The first one and the last one.


@pytest.mark.parametrize(
    ("story", "complaint"),
    [
        ("# Why.\n\nwait 5m\npbx pbx01 explodes", "line 4: no such command: pbx pbx01 explodes"),
        ("wait a while", "line 1: no such command: wait a while"),
        ("wait soon", "line 1: soon is no time; write it like 90s, 5m or 1h30m"),
        ("power off pbx03", "line 1: pbx03 is none of pbx01, pbx02"),
        ("crash pbx02 before lunch", "line 1: lunch is no step"),
        ("loss 3", "line 1: 3 is no chance; write it like 30%"),
        ("order pbx02 pizza", "line 1: pizza is none of failover, switchover, rejoin"),
        ("wait 1m\n\npolicy patience=1m", "line 3: policy may stand in the first block only"),
        ("policy patients=1m", "line 1: patients=1m: a policy has isolation, agreement, interval"),
        ("policy patience=1m", "patience is 1m, and must be at least 4m5s [T2]"),
        ("isolation pbx01=perhaps", "line 1: pbx01=perhaps: write it like isolation pbx01=keep"),
        ("wait 1m\nexpect nobody serves", "line 2: nobody should serve, and pbx01 does"),
        ("expect pbx02 is active", "line 1: pbx02 should be active, and is standby"),
    ],
)
def test_a_line_that_cannot_be_told_is_refused_with_its_number(story: str, complaint: str) -> None:
    with pytest.raises(StoryError) as refusal:
        tell(story)
    assert str(refusal.value).startswith(complaint)


def test_two_pbxs_that_serve_end_the_story_with_an_error() -> None:
    with pytest.raises(StoryError, match="two PBXs served, for") as refusal:
        tell("isolation pbx01=keep\nisolate pbx01\nwait 10m")
    assert "BOTH PBXs serve" in str(refusal.value)


def test_an_overlap_that_is_allowed_and_does_not_happen_is_an_error_as_well() -> None:
    with pytest.raises(StoryError, match="that did not happen"):
        tell("allow overlap of 40s: under keep\nwait 10m")
