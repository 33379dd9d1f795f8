"""What a check point must have beside its stock NRPE: one include file and one plugin.

NRPE adds every allowed_hosts= line that it reads to its list (measured with 4.1.0; the log names the last one only),
so ours needs no change in nrpe.cfg, and an NRPE that serves others already goes on doing so.
"""

import shlex
from importlib import resources

from understudy.adapters.probes.nrpe import Settings
from understudy.config.schema import Config

from .piece import Choices, Piece

# Of a question's deadline for the plugin.  The rest is for NRPE, its TLS and the way: three round trips at least, so a
# second where there is one.
SHARE, LEAST_SHARE, WAY = 0.7, 0.5, 1.0


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    return tuple(
        piece
        for name, chosen in config.checkpoints.items()
        if isinstance(chosen.settings, Settings)
        for piece in (_plugin(name, choices), _include(name, chosen.settings, config, choices))
    )


def check(node: str, settings: Settings, config: Config, choices: Choices) -> str:
    """The command line that asks `node` from a check point."""
    host, service = config.nodes[node].address, config.service.settings
    words = [f"{choices.plugins}/check_sip", "-H", host, "-p", str(service.sip_port)]
    match service.sip_transport:
        case "udp":
            pass
        case "tls":
            # An answer is what is asked for; whose certificate it bears is another question.
            words += ["--transport", "tls", "--insecure"]
        case transport:
            words += ["--transport", transport]
    return shlex.join([*words, "-t", f"{_within(settings.timeout):.3g}"])


def _within(question: float) -> float:
    """Seconds for the plugin, of those for the whole question."""
    return max(min(SHARE * question, question - WAY), LEAST_SHARE * question)


def _plugin(checkpoint: str, choices: Choices) -> Piece:
    return Piece(
        host=checkpoint,
        path=f"{choices.plugins}/check_sip",
        text=resources.files("understudy.plugins").joinpath("check_sip.py").read_text("utf-8"),
        mode=0o755,
        why="The plugin that asks a PBX by SIP OPTIONS: one file, Python 3.9 or later.",
        then=("python3 -c 'import sys; assert sys.version_info >= (3, 9)'",),
    )


def _include(checkpoint: str, settings: Settings, config: Config, choices: Choices) -> Piece:
    nodes = ",".join(node.address for node in config.nodes.values())
    lines = [
        f"# Understudy (understudy init): what the nodes of {config.pair.name} ask.",
        "# NRPE adds these addresses to those that it knows already.",
        f"allowed_hosts={nodes}",
    ]
    by_hand = []
    for node in config.nodes:
        asked = settings.command.replace("{node}", node)
        name, _, arguments = asked.partition("!")
        line = check(node, settings, config, choices)
        if arguments:
            by_hand.append(f"the nodes ask {asked}: define command[{name}] with its arguments")
        else:
            lines.append(f"command[{name}]={line}")
    return Piece(
        host=checkpoint,
        path=f"{choices.nrpe_include}/understudy.cfg",
        text="\n".join(lines) + "\n",
        why="Both nodes may ask, and may ask about both nodes.",
        then=(
            f"grep -qs '^include_dir={choices.nrpe_include}' /etc/nagios/nrpe.cfg || "
            f"echo 'nrpe.cfg does not read {choices.nrpe_include}: add include_dir={choices.nrpe_include}'",
            "systemctl restart nagios-nrpe-server || systemctl restart nrpe",
        ),
        by_hand=tuple(by_hand),
    )
