"""What the package brings along is what was tested, and all that the program needs."""

import re
import tomllib
from pathlib import Path

HOUSE = Path(__file__).parents[2]
RENEW = "renew it with the command in its first lines"


def locked(name: str) -> dict[str, str]:
    text = (HOUSE / "requirements" / name).read_text()
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", text))


def test_the_versions_are_those_of_the_tests() -> None:
    tested = locked("dev.txt")
    assert locked("runtime.txt").items() <= tested.items(), RENEW


def test_it_has_all_that_the_program_names() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[<>=~! ]", each)[0] for each in project["dependencies"]}
    assert named
    assert named <= locked("runtime.txt").keys(), RENEW
