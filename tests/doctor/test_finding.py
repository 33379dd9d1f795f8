"""How findings are put together, shown and written down."""

import json
import re

import pytest

from understudy.doctor import catalogue, page
from understudy.doctor.check import Check
from understudy.doctor.finding import (
    Finding,
    Level,
    exit_code,
    from_json,
    in_order,
    to_json,
    verdict,
)

ALL = [check for checks in catalogue.CHECKS.values() for check in checks]


def finding(level: Level, what: str = "something") -> Finding:
    return Finding(check="disk", node="pbx01", level=level, what=what)


@pytest.mark.parametrize(
    ("levels", "code", "said"),
    [
        ((), 0, "All is well: a failover has what it needs."),
        ((Level.OK, Level.NOTE), 0, "All is well: a failover has what it needs."),
        ((Level.WARNING, Level.OK), 1, "Not well: 1 warning.  A failover may work, and may not."),
        (
            (Level.UNKNOWN, Level.OK),
            3,
            "Nothing is wrong as far as could be seen; 1 question could not be answered.",
        ),
        (
            (Level.CRITICAL, Level.WARNING, Level.WARNING, Level.UNKNOWN, Level.UNKNOWN),
            1,
            "Not well: 1 critical and 2 warnings; 2 questions could not be answered.  "
            "Do not count on a failover before these are mended.",
        ),
    ],
)
def test_the_worst_finding_is_the_verdict(levels: tuple[Level, ...], code: int, said: str) -> None:
    found = [finding(level) for level in levels]
    assert (exit_code(found), verdict(found)) == (code, said)


def test_the_worst_comes_first() -> None:
    found = in_order([finding(level) for level in (Level.OK, Level.NOTE, Level.CRITICAL)])
    assert [each.level for each in found] == [Level.CRITICAL, Level.NOTE, Level.OK]


def test_a_finding_comes_back_from_json() -> None:
    found = catalogue.UNIT_DISABLED.bad("pbx02", "asterisk.service starts", unit="asterisk.service")
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    assert found.mend == "systemctl disable asterisk.service"


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        {"check": "disk"},
        {**to_json(finding(Level.OK)), "level": "splendid"},
        {**to_json(finding(Level.OK)), "what": 7},
    ],
)
def test_what_is_no_finding_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match=r"not a finding|splendid"):
        from_json(fields)


def test_what_the_other_node_says_does_nothing_to_the_terminal() -> None:
    fields = {**to_json(finding(Level.OK)), "what": "\x1b[2Jgone"}
    assert from_json(fields).what == " [2Jgone"


def test_every_check_has_a_word_of_its_own() -> None:
    words = [check.word for check in ALL]
    assert len(set(words)) == len(words)
    assert {value for value in vars(catalogue).values() if isinstance(value, Check)} == set(ALL)


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.word)
def test_every_check_says_why_and_what_mends_it(check: Check) -> None:
    assert re.fullmatch(r"[a-z-]+", check.word)
    assert check.asks.endswith("?")
    assert check.why.endswith(".")
    assert check.mend


def test_the_page_lists_every_check() -> None:
    text = "\n".join(page.page())
    for check in ALL:
        assert f"### `{check.word}`" in text
    assert "{" not in text.replace("update-policy { grant KEY RIGHT; };", "").replace(
        "update-policy { POLICY };", ""
    )
