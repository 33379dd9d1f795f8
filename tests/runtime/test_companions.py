"""Companions of the agent: what they do wrong is told, and harms nobody."""

import asyncio
from pathlib import Path

import pytest

from understudy.core.policy import Policy
from understudy.runtime import companions
from understudy.runtime.companions import Beside, Company
from understudy.runtime.journal import SqliteJournal
from understudy.wiring import SystemClock


class Clumsy:
    name = "the clumsy one"

    def __init__(self) -> None:
        self.lives = self.visits = 0
        self.is_up = asyncio.Event()

    async def live(self, beside: Beside) -> None:
        self.lives += 1
        if self.lives == 1:
            raise ValueError("stumbled")
        self.is_up.set()
        await asyncio.Event().wait()

    async def visit(self, beside: Beside) -> None:
        self.visits += 1
        await asyncio.sleep(60)


def _policy() -> Policy:
    raise AssertionError("nobody asks for it here")


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    clock = SystemClock()
    journal = SqliteJournal(tmp_path / "journal.sqlite3", clock)
    said: list[str] = []
    return Beside(journal, clock, lambda: journal.state, _policy, lambda _, text: said.append(text))


def test_one_that_fails_is_told_and_begun_anew(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companions, "AGAIN", 0.01)
    clumsy = Clumsy()

    async def scene() -> None:
        company = Company([clumsy], beside)
        company.begin()
        async with asyncio.timeout(5):
            await clumsy.is_up.wait()
        await company.end()

    asyncio.run(scene())
    texts = [event.text for event in beside.journal.events(limit=5)]
    assert texts == ["the clumsy one failed: ValueError: stumbled"]


def test_a_visit_that_hangs_ends(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companions, "VISIT", 0.05)
    clumsy = Clumsy()
    asyncio.run(Company([clumsy, clumsy], beside).visit())
    assert clumsy.visits == 1
