"""docs/reference/findings.md, made from the catalogue."""

from collections.abc import Iterator

from .catalogue import CHECKS
from .check import Check

GENERATED = "<!-- script/generate_docs.py writes this from the definitions in the code. -->"
LEVELS = (
    "`critical`: a failover will fail, or two PBXs may serve. `warning`: a failover may fail, or will when one "
    "more thing is gone. `unknown`: could not find out. `note`: is so, and worth knowing. The level below is "
    "the usual one of a wrong answer; some answers are better or worse. Words in capitals are filled in."
)


def page() -> Iterator[str]:
    yield GENERATED
    yield "# What doctor finds"
    yield ""
    yield "Every check that `understudy doctor` makes, by the word that its output and its JSON use."
    yield ""
    yield LEVELS
    for title, checks in CHECKS.items():
        yield ""
        yield f"## {title}"
        for check in checks:
            yield from _section(check)


def _section(check: Check) -> Iterator[str]:
    yield ""
    yield f"### `{check.word}`"
    yield ""
    yield f"{check.asks} ({check.level} if not)"
    yield ""
    yield check.why
    yield ""
    yield f"    {check.bad('', '').mend}"
