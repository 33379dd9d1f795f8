"""Hands a request of the other node to the doorkeeper, a process that has the program loaded already.

`understudy answer` is a new process for each request, and most of what it does is to load this program: a third of a
second of a core, for each fence, each pull of a copy.  So before anything of it is loaded we look for a doorkeeper
(cli/door.py), give it our standard streams, and end as it says.  Where there is none, or a stranger's, nothing is
lost: we load the program and answer ourselves.

Imports nothing of this program, and as little as can be of Python.
"""

import os
import socket
import sys
from collections.abc import Callable, Sequence

RUN = "/run/understudy"
# What reads, or writes beside the journal.  A fence and whatever else runs an administrator's commands has the rights
# that they come with, and is nobody's but that process's own.
HANDED_ON = ("ask", "bundle", "compare", "copy", "fetch", "merged", "order", "status", "wake")
LIMIT = 65536  # Bytes of a request.
KNOCK, TAKEN = b"?", b"+"
TAKEN_WITHIN = 1.0  # Seconds after which nobody is there who takes it.


def place(arguments: Sequence[str]) -> str:
    """Where the doorkeeper for this configuration and node listens, by the command line."""
    config = _value(arguments, "--config") or os.environ.get("UNDERSTUDY_CONFIG", "")
    node = _value(arguments, "--node")
    if not config and not node:
        return f"{RUN}/door"
    # Not by pathlib, which would take longer to load than all of this.
    path = os.path.join(os.getcwd(), config or f"{RUN}/door")  # noqa: PTH109, PTH118
    return f"{path}.{node}.door"


def knock(arguments: Sequence[str]) -> int | None:
    """Have it answered there, with our standard input and output; its exit status.

    None where nobody is there who may: then answer it here.  `arguments` are those of the command line.
    """
    words = "\0".join((os.environ.get("SSH_ORIGINAL_COMMAND", ""), *arguments)).encode()
    if len(words) > LIMIT:
        return None
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with door:
        door.settimeout(TAKEN_WITHIN)
        try:
            connect(door, place(arguments))
            if not _is_ours(door):
                return None
            # Not at once: in the queue of somebody who hangs our output would stay open when we have ended.
            door.sendall(KNOCK)
            if door.recv(1) != TAKEN:
                return None
            socket.send_fds(door, [words], [0, 1, 2])
        except OSError:
            return None
        door.settimeout(None)  # Every request has a deadline of its own.
        try:
            said = door.recv(1)
        except OSError:
            said = b""
        return said[0] if said else 1


def connect(door: socket.socket, path: str) -> None:
    """To a path of any length (unix(7): sun_path holds 108 bytes).  Raises OSError."""
    _at(path, door.connect)


def bind(door: socket.socket, path: str) -> None:
    """As `connect`."""
    _at(path, door.bind)


def _at(path: str, act: Callable[[str], None]) -> None:
    folder, name = os.path.split(path)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{handle}/{name}")
    finally:
        os.close(handle)


def _is_ours(door: socket.socket) -> bool:
    """Only who is what we are may speak for us: unix(7), SO_PEERCRED."""
    peer = door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(peer[4:8], sys.byteorder) == os.geteuid()


def _value(arguments: Sequence[str], option: str) -> str:
    """Of an option before the verb."""
    for number, word in enumerate(arguments):
        if word == option and number + 1 < len(arguments):
            return arguments[number + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == "answer":
            break
    return ""


def is_request(arguments: Sequence[str]) -> bool:
    """Is this `understudy [--config FILE] [--node NAME] answer`, and a request that a doorkeeper may answer?"""
    rest = list(arguments)
    while rest and rest[0] in ("--config", "--node"):
        rest = rest[2:]
    line = os.environ.get("SSH_ORIGINAL_COMMAND", "") or " ".join(rest[1:])
    return rest[:1] == ["answer"] and line.partition(" ")[0] in HANDED_ON
