"""The simulated pair, each machine with a journal on a disk and somebody who tells people what is in it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.core.decide import Decision
from understudy.core.observations import Seen
from understudy.core.policy import Isolation, Policy
from understudy.ports import Message, Moment
from understudy.runtime.journal import SqliteJournal
from understudy.runtime.outbox import Outbox
from understudy.runtime.telling import About, Teller
from understudy.sim.commands import obey
from understudy.sim.stage import Stage
from understudy.sim.story import ARTICLE
from understudy.sim.world import Machine, MemoryJournal

ABOUT = About(pair="acme", service="sip.example.com", glass="/etc/understudy/break-glass")
READER = "mail (ops@example.com)"


@dataclass(frozen=True)
class Heard:
    """One message, and when (seconds of the story)."""

    at: float
    message: Message

    def __str__(self) -> str:
        return f"{self.message.node}: {self.message.subject.removeprefix('[acme] ')}"


class DiskJournal(MemoryJournal):
    """What the simulator's journal is told is written to a real one as well."""

    def __init__(self, machine: Machine, path: Path) -> None:
        super().__init__(machine)
        self.path = path
        self.open()

    def open(self) -> None:
        self.disk = SqliteJournal(self.path, self.machine)
        self.teller = Teller(ABOUT, self.disk, Outbox(self.disk, [READER]))

    def record(self, decision: Decision, seen: Seen, at: Moment) -> None:
        if seen.started:
            self.disk.begin(f"boot-{self.machine.booted_at}", node=self.machine.name)
        before = self.disk._state
        super().record(decision, seen, at)
        assert before is self.disk._state
        self.disk.record(decision, seen, at)

    def crash(self) -> None:
        super().crash()
        self.disk._close()
        self.open()


class TellingStage(Stage):
    def __init__(
        self, folder: Path, policy: Policy, isolation: dict[str, Isolation], every: float
    ) -> None:
        self.folder, self.every = folder, every
        self.heard_messages: list[Heard] = []
        super().__init__(policy, isolation)

    def _settle(self) -> None:
        for machine in self.machines.values():
            machine.journal = DiskJournal(machine, self.folder / f"{machine.name}.sqlite3")
        self._tell_people()
        super()._settle()
        self.heard_messages.clear()

    def journal(self, node: str) -> DiskJournal:
        journal = self.machines[node].journal
        assert isinstance(journal, DiskJournal)
        return journal

    def _tell_people(self) -> None:
        for machine in self.machines.values():
            if machine.agent is None or machine.is_frozen or not machine.has_power:
                continue
            told = self.journal(machine.name).teller.look(
                machine.journal.state, machine.policy, machine.now()
            )
            self.heard_messages += [Heard(self.loop.now - self._begins, each) for each in told]
        self.later(self.every, self._tell_people)


def play(
    folder: Path, story: str, *, every: float = 5.0, isolation: str = "stop", **changes: Any
) -> TellingStage:
    """As a story of the simulator, without what happened."""
    policy = replace(ARTICLE, **changes)
    stage = TellingStage(
        folder, policy, dict.fromkeys(("pbx01", "pbx02"), Isolation(isolation)), every
    )
    for line in story.strip().splitlines():
        obey(stage, line.strip())
    return stage


def subjects(stage: TellingStage) -> list[str]:
    return [str(each) for each in stage.heard_messages]
