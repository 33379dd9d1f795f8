"""What only an old active node had comes to the one that serves: once, whoever dies on the way."""

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from understudy.adapters.copies.store import Store
from understudy.adapters.copies.watch import Watcher
from understudy.core.observations import Pbx
from understudy.errors import Denied, Refused, Unreachable
from understudy.ports import Compared, Merged, Pulled, Source
from understudy.runtime import copy_state, merges, statecodec
from understudy.runtime.copier import Copier, Managed
from understudy.runtime.copy_state import ClassState, Role
from understudy.runtime.merges import Inbox, MergeReport
from understudy.wiring import SystemClock

BOOT = "this-boot"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@dataclass
class Lines:
    """A ports.Copy of a file with lines.  A node merges what it does not have."""

    folder: Path
    name: str = "calls"
    trouble: str = ""
    has_rules: bool = True  # Of how to merge.
    room: int = 99
    merged: int = 0
    bundled: int = 0

    @property
    def store(self) -> Store:
        return Store(self.folder / "store", keep=1, keep_bytes=0)

    @property
    def place(self) -> Path:
        return self.folder / "lines"

    def lines(self) -> list[str]:
        return _lines(self.place)

    def put_aside(self, *lines: str) -> Path:
        (self.store.begin_aside() / "lines").write_text("\n".join(lines))
        aside = self.store.keep_aside(time.time())
        assert aside is not None
        return aside

    async def pull(self, source: Source) -> Pulled:
        return Pulled(changed=True)

    async def compare(self) -> Compared:
        return Compared(unit="lines", only_here=3)

    async def keep(self) -> str:
        return ""

    async def put(self) -> bool:
        return True

    def bundle(self, aside: Path, target: Path) -> bool:
        self.bundled += 1
        if self.has_rules:
            target.write_bytes((aside / "lines").read_bytes())
        return self.has_rules

    async def merge(self, bundle: Path) -> Merged:
        self.merged += 1
        if self.trouble:
            raise Denied(self.trouble)
        brought, here = _lines(bundle), self.lines()
        new = [each for each in brought if each not in here]
        if self.room < len(new):
            new, left = new[: self.room], new[self.room :]
        else:
            left = []
        self.place.write_text("\n".join([*here, *new]))
        left = [f"{each}: no room" for each in left]
        known = len(brought) - len(new) - len(left)
        return Merged(taken=tuple(new), known=known, left=tuple(left), again=bool(left))

    def accept(self) -> None:
        raise AssertionError("nobody asks")

    def serve(self, words: Sequence[str]) -> int:
        raise AssertionError("nobody asks")


@dataclass
class ByHand:
    """A ports.Courier to an inbox on this machine."""

    inbox: Inbox
    trouble: str = ""
    brought: list[str] = field(default_factory=list)

    async def ask(self, source: Source, name: str, mark: str) -> Mapping[str, Any] | None:
        report = self.inbox.report(mark)
        return None if report is None else statecodec.to_json(report)

    async def bring(
        self, source: Source, name: str, mark: str, bundle: Path, size: int, sha256: str
    ) -> None:
        if self.trouble:
            raise Unreachable(self.trouble)
        self.brought.append(mark)
        with bundle.open("rb") as file:
            self.inbox.receive(mark, size, sha256, file)


class Stopped:
    async def look(self) -> Pbx:
        return Pbx.STOPPED


class Pair:
    """pbx01 was active and has come back; pbx02 serves."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new = Lines(folder / "pbx01"), Lines(folder / "pbx02")
        for node in (self.old, self.new):
            node.folder.mkdir(exist_ok=True)
        self.courier = ByHand(Inbox(self.new.folder / "journal", "calls"))
        self.said: list[str] = []

    def copier(self, node: Lines) -> Copier:
        first = ClassState(name="calls", kind="lines", every=0.5, max_age=60)
        return Copier(
            [Managed(node, first)],
            journal=node.folder / "journal",
            boot_id=BOOT,
            reach=("ssh",),
            courier=self.courier,
            watcher=Watcher(),
            node=node.folder.name,
            service=Stopped(),  # type: ignore[arg-type]
            clock=SystemClock(),
            say=self.said.append,
        )

    def role(self, node: Lines, **what: Any) -> None:
        role = Role(boot_id=BOOT, epoch=2, **what)
        copy_state.write_role(copy_state.Files(node.folder / "journal").role, role)

    def tell_both(self) -> None:
        self.role(self.old, pulls=True, source="pbx02")
        self.role(self.new, serves=True)

    def state(self, node: Lines) -> ClassState | None:
        state = copy_state.read(copy_state.place(node.folder / "journal"))
        return state.of("calls") if state is not None else None

    def live(self, story: Callable[[], Coroutine[Any, Any, None]], *nodes: Lines) -> None:
        """The story, beside the copiers of these nodes."""

        async def all_() -> None:
            living = [asyncio.create_task(self.copier(each).live()) for each in nodes]
            try:
                async with asyncio.timeout(30):
                    await story()
            finally:
                for each in living:
                    each.cancel()
                await asyncio.wait(living)

        asyncio.run(all_())

    async def until(self, holds: Callable[[], object], what: str) -> None:
        ends = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < ends, f"{what}: {self.state(self.old)} {self.said}"
            await asyncio.sleep(0.02)

    def merged(self) -> str:
        state = self.state(self.old)
        return state.merged if state is not None else ""

    def unmerged(self) -> str:
        state = self.state(self.old)
        return state.unmerged if state is not None else ""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_what_was_kept_aside_is_merged_once_and_reported(pair: Pair) -> None:
    pair.new.place.write_text("one")
    aside = pair.old.put_aside("one", "two", "three")
    pair.tell_both()

    async def story() -> None:
        await pair.until(pair.merged, "a merge")

    pair.live(story, pair.old, pair.new)
    assert pair.new.lines() == ["one", "two", "three"]
    assert pair.merged() == f"what was kept in {aside}: 2 taken, 1 known"
    report = merges.known_report(aside)
    assert report is not None
    assert (report.done, report.taken, report.known) == (True, ("two", "three"), 1)
    assert pair.courier.brought == [f"pbx01-{aside.name}"]

    async def later() -> None:
        await asyncio.sleep(1.5)

    pair.live(later, pair.old, pair.new)  # Both again: all is known.
    assert (pair.old.bundled, pair.new.merged) == (1, 1)
    assert pair.courier.brought == [f"pbx01-{aside.name}"]
    assert aside.is_dir()  # Nothing of ours ever deletes it.


def test_a_node_that_does_not_serve_merges_nothing(pair: Pair) -> None:
    pair.old.put_aside("two")
    pair.role(pair.old, pulls=True, source="pbx02")
    pair.role(pair.new)

    async def story() -> None:
        await pair.until(lambda: "has not merged it yet" in pair.unmerged(), "the reason")

    pair.live(story, pair.old, pair.new)
    assert pair.new.merged == 0


def test_what_stands_in_the_way_is_told_and_tried_again(pair: Pair) -> None:
    pair.old.put_aside("two")
    pair.courier.trouble = "pbx02 cannot be reached"
    pair.new.trouble = "the spool is full"
    pair.tell_both()

    async def story() -> None:
        await pair.until(lambda: pair.unmerged() == "pbx02 cannot be reached", "the way")
        pair.courier.trouble = ""
        await pair.until(lambda: pair.unmerged() == "the spool is full", "the other side")
        pair.new.trouble = ""
        await pair.until(pair.merged, "a merge")
        assert pair.unmerged() == ""

    pair.live(story, pair.old, pair.new)
    assert pair.new.lines() == ["two"]


def test_what_is_left_for_a_reason_that_passes_is_taken_later(pair: Pair) -> None:
    aside = pair.old.put_aside("one", "two")
    pair.new.room = 1
    pair.tell_both()

    async def story() -> None:
        await pair.until(lambda: pair.unmerged() == "two: no room", "the reason")
        assert pair.new.lines() == ["one"]
        pair.new.room = 99
        await pair.until(pair.merged, "the rest")

    pair.live(story, pair.old, pair.new)
    assert pair.new.lines() == ["one", "two"]
    assert pair.merged() == f"what was kept in {aside}: 2 taken"


def test_a_class_without_a_rule_sends_nothing(pair: Pair) -> None:
    pair.old.has_rules = False
    aside = pair.old.put_aside("two")
    pair.tell_both()

    async def story() -> None:
        await pair.until(lambda: merges.known_report(aside), "the end")

    pair.live(story, pair.old, pair.new)
    assert pair.courier.brought == []
    assert pair.new.lines() == []


def test_a_node_that_serves_with_something_kept_aside_merges_it_itself(pair: Pair) -> None:
    """It became active again before the other node had it."""
    pair.new.place.write_text("one")
    aside = pair.new.put_aside("one", "two")
    pair.role(pair.new, serves=True)

    async def story() -> None:
        await pair.until(lambda: pair.new.lines() == ["one", "two"], "a merge")
        await pair.until(lambda: (merges.known_report(aside) or MergeReport()).done, "the report")

    pair.live(story, pair.new)
    assert (pair.new.bundled, pair.new.merged) == (1, 1)


@pytest.mark.parametrize("lost", ["the end", "a byte"])
def test_a_bundle_that_does_not_come_whole_is_none(tmp_path: Path, lost: str) -> None:
    inbox, content = Inbox(tmp_path / "journal", "calls"), b"a row"
    sha256 = hashlib.sha256(content).hexdigest()
    sent = content[:-1] if lost == "the end" else b"a rov"
    with pytest.raises(Refused, match="did not come whole"):
        inbox.receive("pbx01-x", len(content), sha256, io.BytesIO(sent))
    assert inbox.report("pbx01-x") is None
    assert list(inbox.waiting()) == []
    assert list((tmp_path / "merges" / "calls").iterdir()) == []
    inbox.receive("pbx01-x", len(content), sha256, io.BytesIO(content))
    assert inbox.report("pbx01-x") == MergeReport()
    (waiting,) = inbox.waiting()
    assert waiting.path.read_bytes() == content


def test_a_report_that_was_written_without_the_bundle_being_removed_counts(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "journal", "calls")
    inbox.receive("m", 0, hashlib.sha256(b"").hexdigest(), io.BytesIO(b""))
    (waiting,) = inbox.waiting()
    inbox.close("m", MergeReport(trouble="not yet"))
    assert waiting.path.exists()
    report = MergeReport(done=True, at=1.0, taken=("a",))
    inbox.close("m", report)
    assert not waiting.path.exists()
    assert inbox.report("m") == report
    assert json.loads((tmp_path / "merges" / "calls" / "m.json").read_text())["taken"] == ["a"]
