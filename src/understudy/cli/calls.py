"""How many calls an order would cut off: counted on the active node, by whoever asks."""

import asyncio
import json
import os
import pwd
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from understudy.adapters.services.calls import WITHIN, count
from understudy.errors import AdapterError, Unanswered, Unreachable, told

from .session import Session

UNSET = "calls cannot be counted: set [service] calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What is known of the calls in progress on a node."""

    node: str
    number: int | None = None
    why: str = ""  # There is no number.

    @property
    def sentence(self) -> str:
        if self.number is None:
            return f"calls in progress on {self.node}, how many is not known: {self.why}"
        return f"{many(self.number)} in progress on {self.node}"


def many(calls: int) -> str:
    return {0: "no call", 1: "1 call"}.get(calls, f"{calls} calls")


class Counter:
    """To be made before the session makes us the agent's user: what counts calls may be root's alone.

    Root's rights then stay with a process beside us, which runs that one program when it is asked to, and ends with us.
    """

    def __init__(self, session: Session) -> None:
        """Raises ConfigError."""
        self._helper: socket.socket | None = None
        self._command: Sequence[str] = ()
        self._session = session
        if os.geteuid() == 0:
            from understudy import wiring  # Heavy: not for `--help`.

            config = wiring.load_config(session.path, check_files=False)
            command = _command(config.service.settings)
            if command and _is_anothers(str(config.journal.path.parent)):
                self._helper = beside(command)

    def count(self, node: str) -> Counted:
        """On `node`.  Never raises."""
        command = _command(self._session.config.service.settings)
        if not command:
            return Counted(node=node, why=UNSET)
        here = node == self._session.node.policy.me
        try:
            number = self._here(command) if here else asyncio.run(self._session.node.peer.calls())
        except AdapterError as error:
            why = _failed(node, error) if here else told(error)
            return Counted(node=node, why=why)
        return Counted(node=node, number=number)

    def close(self) -> None:
        if self._helper is not None:
            self._helper.close()

    def _here(self, command: Sequence[str]) -> int:
        if self._helper is None:
            return asyncio.run(count(command))
        return ask(self._helper)


async def answer(session: Session) -> dict[str, Any]:
    """For the door: as the agent's user, who may not be allowed to."""
    try:
        return {"calls": await count(_command(session.config.service.settings))}
    except AdapterError as error:
        return {"calls": None, "why": _failed(session.node.policy.me, error)}


def beside(command: Sequence[str]) -> socket.socket:
    """A process with the rights of this moment: it counts when it is asked to (`ask`), and ends when this is closed."""
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        ours.settimeout(WITHIN + 2.0)
        return ours
    try:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who waits for the answer.
        while theirs.recv(1):
            theirs.sendall(_line(command))
    except OSError:
        pass  # Nobody listens any more.
    finally:
        os._exit(0)


def ask(helper: socket.socket) -> int:
    """Raises Unreachable, Unanswered."""
    line = b""
    try:
        helper.sendall(b"?")
        while not line.endswith(b"\n"):
            more = helper.recv(4096)
            if not more:
                raise Unreachable("who was to count them has gone")
            line += more
    except TimeoutError:
        helper.close()  # A late answer must not be taken for that to the next question.
        raise Unanswered("nobody has counted them in time") from None
    except OSError as error:
        raise Unreachable(f"who was to count them has gone: {error.strerror}") from error
    number, why = json.loads(line)
    if number is None:
        raise Unreachable(why)
    return int(number)


def _line(command: Sequence[str]) -> bytes:
    number, why = None, ""
    try:
        number = asyncio.run(count(command))
    except AdapterError as error:
        why = told(error)
    return json.dumps([number, why]).encode() + b"\n"


def _failed(node: str, error: AdapterError) -> str:
    user = str(os.geteuid())
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid()).pw_name
    better = f"; run the order on {node} as root" if os.geteuid() else ""
    return f"calls on {node} cannot be counted as {user}: {told(error).rstrip('.')}{better}"


def _command(settings: Any) -> Sequence[str]:
    command: Sequence[str] = getattr(settings, "calls", ())
    return command


def _is_anothers(folder: str) -> bool:
    """Will root's command become somebody else?  See become_owner."""
    try:
        return os.stat(folder).st_uid != 0  # noqa: PTH116
    except OSError:
        return False
