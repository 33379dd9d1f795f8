"""One laboratory for all tests of this folder; before each of them the pair is as from the factory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import image, pair

from end_to_end.lab.stage import Stage, watching

PROFILE = os.environ.get("LAB_PROFILE", "2s")
_left: dict[
    str, str
] = {}  # By a test that has left the pair whole: what both nodes do when they are cut off.


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "profile(name): with which numbers, in a test of the laboratory"
    )


def _missing() -> str:
    """Why there can be no laboratory here; empty if there can."""
    if os.environ.get("LAB") != "1":
        return "a laboratory of nine hosts is not booted by the way.  Run: make lab-test"
    if os.geteuid() != 0:
        return "the laboratory needs root"
    programs = [
        name for name in ("systemd-nspawn", "nft", "ip", "conntrack") if not shutil.which(name)
    ]
    if programs:
        return f"the laboratory needs {', '.join(programs)}.  As root: script/packages lab"
    if not image.ready():
        return "the laboratory has no image.  Run: make lab"
    return ""


def skip_unless_possible() -> None:
    if why := _missing():
        pytest.skip(f"SKIPPED LOUDLY: {why}")


@pytest.fixture(scope="session")
def laboratory() -> Iterator[None]:
    skip_unless_possible()
    keep = bool(os.environ.get("LAB_KEEP"))  # Leave it up, and take one that is up.
    try:
        if not keep:
            pair.down()
        yield
    finally:
        if not keep:
            pair.down()


def _bring_up(profile: str) -> None:
    if not pair.is_up(profile):
        pair.down()
        pair.up(profile)


@pytest.fixture
def stage(laboratory: None, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """pbx01 serves, pbx02 stands by, and somebody looks from outside all the time.

    Never may two have served for longer than the test has allowed, with a sentence of the manual.
    """
    del laboratory
    wanted = request.node.get_closest_marker("isolation")
    isolation = wanted.args[0] if wanted else "stop"
    named = request.node.get_closest_marker("profile")
    profile = named.args[0] if named else PROFILE
    _bring_up(profile)
    with (
        tempfile.TemporaryDirectory(prefix="understudy-lab-") as folder,
        watching(Path(folder)) as watch,
    ):
        if (_left.pop("profile", ""), _left.pop("isolation", "")) != (profile, isolation):
            pair.reset_pair(profile=profile, isolation=isolation)
        made = Stage(watch=watch, profile=profile, began=watch.now())
        made.wait_until_settled()
        yield made
        made.check_overlap()
        if made.whole:
            _left.update(profile=profile, isolation=isolation)
