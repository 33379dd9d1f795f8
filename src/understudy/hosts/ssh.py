"""The other node's way in: a user of its own, who can ask, wake, place orders and fence, and nothing else.

sshd(8), AUTHORIZED_KEYS FILE FORMAT: `restrict` takes away terminals and every kind of forwarding, also those of
later versions; command= runs whatever was asked for.  Root need not log in.
"""

from understudy.config.schema import Config
from understudy.config.values import is_ip

from .piece import HOME, SSH_FOLDER, Choices, Keys, Piece, command, other_node

IDENTITY = f"{SSH_FOLDER}/id_ed25519"
KNOWN_HOSTS = f"{SSH_FOLDER}/known_hosts"
AUTHORIZED_KEYS = f"{HOME}/.ssh/authorized_keys"


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    return tuple(
        piece
        for node, settings in config.nodes.items()
        if settings.door is None
        for piece in _of_node(node, config, choices)
    )


def keys_path(node: str) -> str:
    """Where the keys of the other node are kept, for the next `init`."""
    return f"{SSH_FOLDER}/{node}.keys"


def _of_node(node: str, config: Config, choices: Choices) -> list[Piece]:
    other = other_node(config, node)
    found = [_identity(node, choices)]
    known = choices.keys.get(other)
    if known is None:
        line = command(config, choices, "init", "--keys")
        found.append(
            Piece(
                host=node,
                why=f"{other} must be able to reach this node's agent.",
                by_hand=(
                    f"on {other}: {line}",
                    f"here, with the line that it prints: understudy init --install --peer-keys '{other} ...'",
                ),
            )
        )
        return found
    found += [_kept(node, other, known, choices), _known_hosts(node, other, known, config, choices)]
    found += _authorized_keys(node, other, known, config, choices)
    return found


def _identity(node: str, choices: Choices) -> Piece:
    return Piece(
        host=node,
        why=f"The agent's own SSH key, to ask the other node and to fence it.  It never leaves {node}.",
        then=(
            f"install -d -o root -g {choices.user} -m 0750 {SSH_FOLDER}",
            f"test -e {IDENTITY} || ssh-keygen -q -t ed25519 -N '' -C {choices.user}@{node} -f {IDENTITY}",
            f"chown {choices.user}: {IDENTITY} {IDENTITY}.pub",
        ),
    )


def _kept(node: str, other: str, keys: Keys, choices: Choices) -> Piece:
    return Piece(
        host=node,
        path=keys_path(other),
        text=keys.line(other) + "\n",
        owner=f"root:{choices.user}",
        mode=0o640,
        first=True,
        why=f"The public keys of {other}, as its `understudy init --keys` prints them.",
    )


def _known_hosts(node: str, other: str, keys: Keys, config: Config, choices: Choices) -> Piece:
    target = (config.nodes[other].ssh or config.nodes[other].address).rpartition("@")[2]
    return Piece(
        host=node,
        path=KNOWN_HOSTS,
        text=f"{target} {keys.host}\n",
        owner=f"root:{choices.user}",
        mode=0o640,
        why=f"What {other}'s SSH server proves itself by: nothing is asked of a stranger.",
    )


def _authorized_keys(
    node: str, other: str, keys: Keys, config: Config, choices: Choices
) -> list[Piece]:
    user, at, _ = (config.nodes[node].ssh or "").rpartition("@")
    if not at:
        return []
    address = config.nodes[other].address
    source = f',from="{address}"' if is_ip(address) else ""
    forced = command(config, choices, "answer").replace("\\", "\\\\").replace('"', '\\"')
    line = f'restrict,command="{forced}"{source} {keys.agent} {choices.user}@{other}'
    why = f"{other} may ask, wake, place an order and fence here.  Nothing else: no shell, no copy."
    if user != choices.user:
        return [Piece(host=node, why=why, by_hand=(f"in ~{user}/.ssh/authorized_keys: {line}",))]
    return [
        Piece(
            host=node,
            path=AUTHORIZED_KEYS,
            text=f"# Understudy (understudy init).\n{line}\n",
            why=why,
        )
    ]
