"""This node, as an examination finds it."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from understudy.adapters.processes import Finished, run
from understudy.config.schema import Config
from understudy.core.claim import Claim
from understudy.errors import AdapterError, UnderstudyError
from understudy.runtime.daemon import Node

from .settings import secret_files

UNIT = "understudy.service"
ASK_WITHIN = 5.0  # Seconds for a question to a program of this machine.


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    node: Node
    config: Config
    version: str
    is_root: bool
    claim: Claim | None = None  # Read just now.
    claim_trouble: UnderstudyError | None = None  # Why there is none.
    prefix: tuple[str, ...] = ()  # Runs programs on another machine: for tests.

    @property
    def me(self) -> str:
        return self.node.policy.me

    @property
    def peer(self) -> str:
        return self.node.policy.peer

    @property
    def hidden(self) -> bool:
        """Is there a key or password that this user may not read, and the agent may?"""
        return not self.is_root and any(_is_hidden(each) for each in secret_files(self.config))

    async def run(self, *argv: str, within: float = ASK_WITHIN) -> Finished:
        """Raises Unreachable, Unanswered."""
        return await run((*self.prefix, *argv), within=within)

    @property
    def as_agent(self) -> tuple[str, ...]:
        """What root puts before a command so that the agent's user runs it, with that user's SSH key.

        Whoever owns the journal's folder is that user (cli/become.py).
        """
        try:
            owner = pwd.getpwuid(self.node.journal_path.parent.stat().st_uid)
        except (OSError, KeyError):
            return ()
        if not self.is_root or owner.pw_uid == 0:
            return ()
        return ("runuser", "-u", owner.pw_name, "--")


def is_root() -> bool:
    return os.geteuid() == 0


async def show(here: Here, unit: str, *properties: str) -> dict[str, str]:
    """`systemctl show`; empty where there is no systemd.  Raises nothing."""
    words = ("systemctl", "--no-pager", "show", f"--property={','.join(properties)}", "--", unit)
    try:
        done = await here.run(*words)
    except AdapterError:
        return {}
    if done.code != 0:
        return {}
    return _properties(done.out)


def _is_hidden(path: Path) -> bool:
    try:
        path.open("rb").close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _properties(text: str) -> dict[str, str]:
    """A property that has several values, such as ExecStartPre, has a line for each."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found
