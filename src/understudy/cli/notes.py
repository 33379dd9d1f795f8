"""A person's act, written into the journal beside the agent."""

import sqlite3
from contextlib import closing, suppress

from understudy.errors import JournalError, Refused
from understudy.runtime import journal_file, journal_pen
from understudy.runtime.daemon import Node


def note(node: Node, kind: str, text: str) -> None:
    """Best effort: what a person may do does not depend on our memory."""
    with suppress(JournalError, Refused, sqlite3.Error, OSError):
        if not node.journal_path.exists():
            with node.as_agent():
                pass  # Made, for an agent that has never run here.
        with (
            closing(journal_file.open_for_others(node.journal_path)) as db,
            journal_pen.transaction(db),
        ):
            journal_pen.note(node.clock.now().wall, kind, journal_pen.clean(text), db)
