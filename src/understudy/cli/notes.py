"""A person's act, written into the journal beside the agent."""

from understudy.errors import JournalError, Refused
from understudy.runtime.daemon import Node


def note(node: Node, kind: str, text: str) -> None:
    """Best effort: what a person may do does not depend on our memory."""
    try:
        node.journal().note(kind, text)
    except JournalError:
        _note_as_agent(node, kind, text)


def _note_as_agent(node: Node, kind: str, text: str) -> None:
    if node.agent_pid is not None:
        return
    try:
        with node.as_agent() as journal:
            journal.note(kind, text)
    except (JournalError, Refused):
        return
