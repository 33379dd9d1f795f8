"""The command that reaches the other node over SSH."""

from collections.abc import Iterator
from pathlib import Path

SSH_FOLDER = Path("/etc/understudy/ssh")


def over_ssh(
    target: str, *, connect_timeout: int = 2, folder: Path = SSH_FOLDER
) -> tuple[str, ...]:
    """The prefix for `user@host` (or ssh://user@host:port): no questions, no waiting, no
    forwarding.  With the key and the known host in `folder`, as `understudy init` puts them there;
    where they are not, those of the user.

    A dead host costs `connect_timeout` seconds; who is in a hurry looks for its greeting first (greeting.py).
    A host that dies while it answers is noticed after 15 s (ssh_config(5), ServerAliveInterval),
    and Door's own deadline stands above all of it.
    """
    options = (
        "BatchMode=yes",
        f"ConnectTimeout={connect_timeout}",
        "ConnectionAttempts=1",
        "ServerAliveInterval=5",
        "ServerAliveCountMax=2",
        "StrictHostKeyChecking=yes",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "LogLevel=ERROR",
    )
    words = (*options, *_ours(folder))
    return ("ssh", "-T", *(word for each in words for word in ("-o", each)), "--", target)


def _ours(folder: Path) -> Iterator[str]:
    identity, known = folder / "id_ed25519", folder / "known_hosts"
    if _is_file(identity):
        yield from (f"IdentityFile={identity}", "IdentitiesOnly=yes")
    if _is_file(known):
        yield f"UserKnownHostsFile={known}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A person who may not look in there has keys of his own, or none.
        return False
