"""What the demo's PBX records while it answers: messages as files, agents in a SQLite database.

FOLDER/voicemail/pbx01-000005.txt   a message, as some callers leave one
FOLDER/queue/agents.sqlite3         agents that are logged in, as Asterisk keeps them in its astdb
FOLDER/recorded                     the name of each, one a line; never copied: by this they are counted
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

MESSAGE_EVERY = 5  # Calls.
AGENT_EVERY = 25


def messages_folder(folder: Path) -> Path:
    return folder / "voicemail"


def database(folder: Path) -> Path:
    return folder / "queue" / "agents.sqlite3"


class Recorder:
    """One PBX's.  Each item is first where it belongs, then in the ledger: what is counted was there."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder, self._node = folder, node
        self._ledger = folder / "recorded"
        self._calls = len(_lines(self._ledger)) * MESSAGE_EVERY
        for each in (messages_folder(folder), database(folder).parent):
            each.mkdir(exist_ok=True)
        with closing(self._open()) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS agents (name TEXT PRIMARY KEY)")

    def call(self) -> None:
        """Somebody was answered."""
        self._calls += 1
        if self._calls % MESSAGE_EVERY == 0:
            name = f"{self._node}-{self._calls:06}.txt"
            (messages_folder(self._folder) / name).write_text("Please call back.\n")
            self._note(name)
        if self._calls % AGENT_EVERY == 0:
            name = f"agent {self._node}-{self._calls:06}"
            with closing(self._open()) as db, db:
                db.execute("INSERT OR REPLACE INTO agents VALUES (?)", (name,))
            self._note(name)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(database(self._folder))

    def _note(self, name: str) -> None:
        with self._ledger.open("a") as file:
            file.write(f"{name}\n")


def leave_last(folder: Path, node: str) -> None:
    """A message in the very last moment: no copy has it."""
    name = f"{node}-last.txt"
    (messages_folder(folder) / name).write_text("Please call back.\n")
    with (folder / "recorded").open("a") as ledger:
        ledger.write(f"{name}\n")


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in one place."""

    messages: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        return self.messages | self.agents

    def __str__(self) -> str:
        return f"{len(self.messages)} messages, {len(self.agents)} agents"


def kept(folder: Path) -> Kept:
    """In place on a node, or aside in a copier's store: wherever such files are below `folder`."""
    return Kept(frozenset(_messages(folder)), frozenset(_agents(folder)))


def kept_in_place(folder: Path) -> Kept:
    """On the node whose files are in `folder`."""
    names = (each.name for each in messages_folder(folder).glob("*.txt"))
    return Kept(frozenset(names), frozenset(_agents(database(folder).parent)))


def recorded(folders: Iterable[Path]) -> frozenset[str]:
    """By all PBXs, ever."""
    return frozenset(name for folder in folders for name in _lines(folder / "recorded"))


def _messages(folder: Path) -> Iterator[str]:
    for place in folder.rglob("voicemail"):
        yield from (each.name for each in place.glob("*.txt"))


def _agents(folder: Path) -> Iterator[str]:
    for path in folder.rglob(database(folder).name):
        # A moment in which it is being replaced or written: it is looked at again.
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
        ):
            yield from (name for (name,) in db.execute("SELECT name FROM agents"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
