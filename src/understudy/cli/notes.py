"""A person's act, written into the journal beside the agent."""

import sqlite3
from contextlib import closing, suppress

from understudy.errors import JournalError, Refused
from understudy.runtime import journal_file, journal_pen
from understudy.runtime.daemon import Node
from understudy.runtime.journal_lock import agent_lock


def note(node: Node, kind: str, text: str) -> None:
    """Best effort: what a person may do does not depend on our memory."""
    with suppress(JournalError, Refused, sqlite3.Error, OSError):
        if not node.journal_path.exists():
            _make(node)
        with (
            closing(journal_file.open_for_others(node.journal_path)) as db,
            journal_pen.transaction(db),
        ):
            journal_pen.note(node.clock.now().wall, kind, journal_pen.clean(text), db)


def _make(node: Node) -> None:
    """For an agent that has never run here.  No sign of life: only an agent gives one."""
    node.journal_path.parent.mkdir(parents=True, exist_ok=True)
    with agent_lock(node.journal_path.with_suffix(".lock")):
        journal_file.open_for_agent(node.journal_path).close()
