"""What waits, and what goes out at once."""

from dataclasses import replace

from understudy.ports import Severity
from understudy.runtime.telling_bundles import WINDOW, Draft, due, offer

BEGUN = Draft(
    kind="not-protected",
    group="not-protected",
    severity=Severity.WARNING,
    subject="NOT PROTECTED",
    body="",
    at=1000.0,
)


def ended(at: float) -> Draft:
    return replace(BEGUN, kind="protected", subject="PROTECTED", is_over=True, at=at)


def test_an_end_whose_beginning_was_not_told_holds_nothing_back() -> None:
    bundles, told = offer((), ended(900.0))
    assert [each.subject for each in told] == ["PROTECTED"]
    bundles, told = offer(bundles, BEGUN)
    assert told == [BEGUN]


def test_what_begins_again_soon_waits_and_goes_out_as_one() -> None:
    bundles, told = offer((), BEGUN)
    bundles, end = offer(bundles, ended(1010.0))
    assert [each.subject for each in (*told, *end)] == ["NOT PROTECTED", "PROTECTED"]
    for at in (1020.0, 1030.0):
        bundles, told = offer(bundles, replace(BEGUN, at=at))
        assert told == []
    assert due(bundles, BEGUN.at + WINDOW - 1)[1] == []
    (held,) = due(bundles, BEGUN.at + WINDOW)[1]
    assert (held.at, held.count) == (1030.0, 1)
