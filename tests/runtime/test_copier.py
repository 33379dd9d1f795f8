"""The copier and the agent's orders to it: who may put data in place, and when not."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from understudy.adapters.copies.store import Store
from understudy.adapters.peers.courier import Courier
from understudy.core.claim import first
from understudy.core.model import Evidence, Phase, newborn
from understudy.core.observations import Pbx
from understudy.errors import Denied, Unreachable
from understudy.ports import Compared, Merged, Pulled, Source
from understudy.runtime import copy_state
from understudy.runtime.companions import Beside
from understudy.runtime.copier import Copier, Managed
from understudy.runtime.copies import Copies, fetch_all
from understudy.runtime.copy_state import ClassState, CopyState, Role
from understudy.wiring import SystemClock

BOOT = "this-boot"
FIRST = ClassState(name="config", kind="slow", every=0.5, max_age=60)


@dataclass
class SlowCopy:
    """A ports.Copy of one number: what is pulled is what the source says, what is in place is a file."""

    place: Path
    name: str = "config"
    takes: float = 0.0  # Seconds, of a put.
    says: str = "one"
    trouble: str = ""
    pulls: list[Source] = field(default_factory=list)
    reading: float = 0.0  # Seconds, of a pull.
    kept: str = ""
    puts: int = 0
    cancelled: int = 0

    @property
    def store(self) -> Store:
        return Store(self.place.with_name("store"), keep=1, keep_bytes=0)

    def accept(self) -> None:
        raise AssertionError("nobody asks")

    async def pull(self, source: Source) -> Pulled:
        self.pulls.append(source)
        if self.trouble:
            raise Unreachable(self.trouble)
        await asyncio.sleep(self.reading)
        changed, self.kept = self.kept != self.says, self.says
        return Pulled(changed=changed, bytes=len(self.says))

    async def compare(self) -> Compared:
        return Compared(unit="lines", only_here=3)

    async def keep(self) -> str:
        return ""

    async def put(self) -> bool:
        try:
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.puts += 1
        self.place.write_text(self.kept)
        return True

    def bundle(self, aside: Path, target: Path) -> bool:
        raise AssertionError("nothing is kept aside")

    async def merge(self, bundle: Path) -> Merged:
        raise AssertionError("nobody brings anything")

    def serve(self, words: Sequence[str]) -> int:
        raise AssertionError("nobody asks")


class Stopped:
    """A ports.Service of which only `look` is asked."""

    def __init__(self) -> None:
        self.is_ = Pbx.STOPPED

    async def look(self) -> Pbx:
        return self.is_


class News:
    """A ports.Watcher whose words a test chooses."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[bool] = asyncio.Queue()

    async def changes(self, source: Source, name: str) -> AsyncGenerator[bool, None]:
        while True:
            yield await self.words.get()


class Here:
    """A copier with its files, and the agent's side of it."""

    def __init__(self, folder: Path, *, every: float = 0.5, on_change: bool = False) -> None:
        self.journal = folder / "journal.sqlite3"
        self.watcher = News()
        self.copy = SlowCopy(folder / "place")
        self.service = Stopped()
        self.said: list[str] = []
        self.copier = Copier(
            [Managed(self.copy, replace(FIRST, every=every), on_change=on_change)],
            journal=self.journal,
            boot_id=BOOT,
            reach=("ssh", "pbx01"),
            courier=Courier(),
            watcher=self.watcher,
            node="pbx02",
            service=self.service,  # type: ignore[arg-type]
            clock=SystemClock(),
            say=self.said.append,
        )

    def role(
        self, *, boot_id: str = BOOT, pulls: bool = True, puts: bool = True, epoch: int = 7
    ) -> None:
        role = Role(boot_id=boot_id, pulls=pulls, puts=puts, source="pbx01", epoch=epoch)
        copy_state.write_role(copy_state.Files(self.journal).role, role)

    def agent(
        self, fetch: Callable[[int], Awaitable[None]] | None = None, *, refuses: bool = False
    ) -> Copies:
        async def nobody(epoch: int) -> None:
            raise AssertionError(epoch)

        return Copies(
            journal=self.journal,
            boot_id=BOOT,
            peer="pbx01",
            clock=SystemClock(),
            refuses=refuses,
            fetch=fetch or nobody,
            report=self.said.append,
        )

    @property
    def state(self) -> ClassState:
        state = copy_state.read(copy_state.place(self.journal))
        found = state.of("config") if state is not None else None
        return found or FIRST

    def live(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The story, beside the copier."""

        async def both() -> None:
            living = asyncio.create_task(self.copier.live())
            try:
                async with asyncio.timeout(30):
                    await story()
            finally:
                living.cancel()
                await asyncio.wait([living])

        asyncio.run(both())

    async def until(self, holds: Callable[[], object], what: str) -> None:
        ends = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < ends, f"{what}: {self.state} {self.said}"
            await asyncio.sleep(0.02)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_it_pulls_by_the_agents_order_and_says_how_old_the_copy_is(here: Here) -> None:
    async def story() -> None:
        await asyncio.sleep(0.5)
        assert here.copy.pulls == []  # Nobody has said that it may.
        here.role()
        began = time.time()
        await here.until(lambda: here.state.as_of, "a copy")
        assert here.copy.pulls[0] == Source(node="pbx01", epoch=7, reach=("ssh", "pbx01"))
        assert here.copy.place.read_text() == "one"
        assert began - 1 < here.state.as_of <= time.time()
        assert (here.state.source, here.state.epoch, here.state.trouble) == ("pbx01", 7, "")
        here.copy.says = "two"
        await here.until(lambda: here.copy.place.read_text() == "two", "the next one")

    here.live(story)


def test_an_agent_of_an_earlier_life_of_the_machine_says_nothing(here: Here) -> None:
    async def story() -> None:
        here.role(boot_id="before the boot")
        await asyncio.sleep(0.8)
        assert here.copy.pulls == []

    here.live(story)


@pytest.mark.parametrize("pbx", [Pbx.ANSWERING, Pbx.DEAF, Pbx.STARTING, Pbx.UNKNOWN])
def test_nothing_is_put_in_place_under_a_pbx_that_may_run(here: Here, pbx: Pbx) -> None:
    here.service.is_ = pbx

    async def story() -> None:
        here.role()
        await here.until(lambda: here.state.trouble, "the reason")
        assert here.state.trouble == f"the PBX here is {pbx}: nothing is put in place under it"
        assert here.state.as_of == 0
        assert not here.copy.place.exists()
        here.service.is_ = Pbx.STOPPED
        await here.until(lambda: here.state.as_of, "a copy")

    here.live(story)


def test_a_role_that_is_taken_back_ends_a_put_before_the_pbx_starts(here: Here) -> None:
    here.copy.takes = 60.0

    async def story() -> None:
        here.role()
        await here.until(lambda: here.state.busy == "putting in place", "a put")
        agent = here.agent()
        await agent.promote()  # Within its deadline, though the put would take a minute.
        assert (here.copy.cancelled, here.copy.puts) == (1, 0)
        await asyncio.sleep(0.5)
        assert here.copy.cancelled == 1  # And it does not begin again.
        assert here.state.as_of == 0

    here.live(story)
    assert "the copy that the PBX starts with: config was never copied" in here.said


def test_a_pull_that_fails_is_told_once_and_the_copy_grows_older(here: Here) -> None:
    async def story() -> None:
        here.role()
        await here.until(lambda: here.state.as_of, "a copy")
        as_of = here.state.as_of
        here.copy.trouble = "pbx01 cannot be reached"
        await here.until(lambda: here.state.trouble, "the reason")
        since, tried = here.state.trouble_since, here.state.tried
        await here.until(lambda: here.state.tried > tried, "another try")
        assert (here.state.as_of, here.state.trouble_since) == (as_of, since)
        here.copy.trouble = ""
        await here.until(lambda: not here.state.trouble, "well again")

    here.live(story)
    assert here.said == [
        "the copy of config could not be renewed: pbx01 cannot be reached",
        "the copy of config is current again",
    ]


def test_what_is_known_survives_a_copier(here: Here, tmp_path: Path) -> None:
    async def story() -> None:
        here.role()
        await here.until(lambda: here.state.as_of, "a copy")

    here.live(story)
    as_of = here.state.as_of
    here.role(pulls=False)
    again = Here(tmp_path)

    async def later() -> None:
        await asyncio.sleep(0.3)
        assert again.state.as_of == as_of

    again.live(later)


def test_renew_returns_when_everything_was_read_after_it_began(here: Here) -> None:
    async def story() -> None:
        agent = here.agent()
        began = time.time()
        await agent.renew(7)
        assert here.state.as_of >= began
        assert here.copy.place.read_text() == "one"
        here.copy.trouble = "pbx01 is not active"
        with pytest.raises(Denied, match="config: pbx01 is not active"):
            await agent.renew(7)

    here.live(story)


def test_the_last_difference_is_read_at_once(here: Here) -> None:
    async def story() -> None:
        here.role()
        await here.until(lambda: here.state.as_of, "a copy")
        here.copy.says = "the last"
        await fetch_all(here.journal, SystemClock(), 10.0)
        assert here.copy.place.read_text() == "the last"

    here.live(story)


def test_a_pull_that_began_too_early_to_count_is_not_waited_for(here: Here) -> None:
    async def story() -> None:
        here.copy.reading = 60.0
        here.role()
        await here.until(lambda: here.copy.pulls, "a pull")
        here.copy.reading = 0.0
        here.copy.says = "the last"
        await fetch_all(here.journal, SystemClock(), 10.0)
        assert here.copy.place.read_text() == "the last"
        assert len(here.copy.pulls) == 2

    here.live(story)


def test_without_a_copier_nobody_waits_for_ever(here: Here) -> None:
    with pytest.raises(Unreachable, match="no copier is at work here"):
        asyncio.run(fetch_all(here.journal, SystemClock(), 30.0))


def test_a_copy_that_refuses_is_stale_from_its_age_on(here: Here) -> None:
    clock = SystemClock()
    agent = here.agent(refuses=True)
    at = clock.now()
    assert agent.stale_from(at) <= at.boot  # Never copied.
    known = ClassState(name="a", kind="x", every=1, max_age=60, refuses=True, as_of=at.wall - 10)
    other = ClassState(name="b", kind="x", every=1, max_age=1)
    state = CopyState(written=at.wall, pid=os.getpid(), classes=(known, other))
    copy_state.write(copy_state.place(here.journal), state)
    assert agent.stale_from(at) == pytest.approx(at.boot + 50, abs=0.5)
    assert here.agent(refuses=False).stale_from(at) == float("inf")


def test_an_outdated_node_looks_only_when_it_is_asked_and_puts_nothing_in_place(here: Here) -> None:
    async def story() -> None:
        here.role(puts=False)
        await asyncio.sleep(0.8)
        assert here.copy.pulls == []
        copy_state.Files(here.journal).now.touch()
        await here.until(lambda: here.state.compared, "a look")
        assert here.state.compared == Compared(unit="lines", only_here=3)
        assert (here.state.as_of, here.copy.puts) == (0, 0)
        here.role()
        await here.until(lambda: here.state.as_of, "a copy")
        assert here.copy.place.read_text() == "one"
        assert here.state.compared is None

    here.live(story)


def test_a_change_is_pulled_at_once_and_no_change_keeps_the_copy_young(tmp_path: Path) -> None:
    here = Here(tmp_path, every=60.0, on_change=True)

    async def story() -> None:
        here.role()
        await here.until(lambda: here.state.as_of, "a copy")
        await asyncio.sleep(0.5)
        assert len(here.copy.pulls) == 1  # The next one is due in a minute.
        here.copy.says = "two"
        here.watcher.words.put_nowait(True)
        await here.until(lambda: here.copy.place.read_text() == "two", "the change")
        as_of = here.state.as_of
        await asyncio.sleep(1.5)
        here.watcher.words.put_nowait(False)
        await here.until(lambda: here.state.as_of > as_of, "a younger copy")
        assert here.state.as_of <= time.time() - 1.0
        assert len(here.copy.pulls) == 2

    here.live(story)


def test_a_role_that_could_not_be_written_is_said_once_and_written_as_soon_as_it_can(
    tmp_path: Path,
) -> None:
    here = Here(tmp_path / "full")
    claim = replace(first("pbx01", digest="x"), epoch=7)
    state = replace(newborn(0.0), phase=Phase.STANDBY, epoch=7, evidence=Evidence(claim=claim))
    beside = Beside(
        journal=None,  # type: ignore[arg-type]
        clock=SystemClock(),
        state=lambda: state,
        policy=lambda: None,  # type: ignore[arg-type,return-value]
        say=lambda *_: None,
    )

    async def story() -> None:
        telling = asyncio.create_task(here.agent().live(beside))
        await asyncio.sleep(1.2)
        (sentence,) = here.said
        assert sentence.endswith("copies.role cannot be written: No such file or directory")
        here.journal.parent.mkdir()
        role = copy_state.Files(here.journal).role
        await here.until(role.exists, "the role")
        told = copy_state.read_role(role, BOOT)
        assert told == Role(boot_id=BOOT, pulls=True, source="pbx01", epoch=7)
        telling.cancel()
        await asyncio.wait([telling])

    asyncio.run(story())
