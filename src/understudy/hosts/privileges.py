"""What the agent, who is not root, may do to units: exactly those it drives, and nothing else.

Through polkit where [service] use_sudo is false.  nft then needs nothing: the agent's unit gives it CAP_NET_ADMIN.
Through sudo otherwise, with the whole command lines of adapters/services/.
"""

import json
from pathlib import Path

from understudy.adapters.services.shutoff import TABLE
from understudy.adapters.services.systemd import PROPERTIES, Settings, full_name
from understudy.config.schema import Config

from .piece import Choices, Piece

POLKIT = "/etc/polkit-1/rules.d/50-understudy.rules"
SUDOERS = "/etc/sudoers.d/understudy"
DROP_IN = "/etc/systemd/system/understudy.service.d/understudy-sudo.conf"
PBX_VERBS = (
    "start",
    "stop",
    "kill",
    "reset-failed",
)  # systemd's own words: org.freedesktop.systemd1(5).
COMPANION_VERBS = ("start", "stop")


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    settings = config.service.settings
    if not isinstance(settings, Settings):
        return ()
    if settings.use_sudo:
        made = (_sudoers, _unconfined)
        return tuple(make(node, settings, choices) for node in config.nodes for make in made)
    return tuple(_polkit(node, settings, choices) for node in config.nodes)


def _polkit(node: str, settings: Settings, choices: Choices) -> Piece:
    units: dict[str, tuple[str, ...]] = {
        full_name(unit): COMPANION_VERBS for unit in settings.active_only
    }
    units[full_name(settings.unit)] = PBX_VERBS
    return Piece(
        host=node,
        path=POLKIT,
        text=(
            "// Understudy (understudy init): its agent may drive these units, and no others.\n"
            f"var understudyUnits = {json.dumps(units, indent=4)};\n"
            "polkit.addRule(function(action, subject) {\n"
            f"    if (subject.user == {json.dumps(choices.user)} &&\n"
            '            action.id == "org.freedesktop.systemd1.manage-units") {\n'
            '        var verbs = understudyUnits[action.lookup("unit")];\n'
            '        if (verbs && verbs.indexOf(action.lookup("verb")) >= 0) {\n'
            "            return polkit.Result.YES;\n"
            "        }\n"
            "    }\n"
            "    return polkit.Result.NOT_HANDLED;\n"
            "});\n"
        ),
        why=f"The agent ({choices.user}, not root) may start and stop the PBX, and nothing else.",
    )


def commands(settings: Settings) -> tuple[tuple[str, ...], ...]:
    """Every command line that adapters/services/ gives to sudo, without `sudo -n`."""
    unit = full_name(settings.unit)
    others = tuple(full_name(each) for each in settings.active_only)
    asked = f"--property={','.join(PROPERTIES)}"
    lines: list[tuple[str, ...]] = [
        ("show", asked, "--", unit),
        ("reset-failed", "--", unit),
        ("start", "--no-block", "--", unit),
        ("stop", "--", unit),
        ("stop", "--no-block", "--", unit),
        ("kill", "--signal=KILL", "--", unit),
    ]
    if others:
        lines += [
            ("start", "--no-block", "--", *others),
            ("stop", "--no-block", "--", *others),
            ("is-active", "--", *others),
        ]
    systemctl = ("/usr/bin/systemctl", "--no-pager", "--no-ask-password")
    return (
        *((*systemctl, *line) for line in lines),
        ("/usr/sbin/nft", "-f", "-"),
        ("/usr/sbin/nft", "list", "table", *TABLE.split()),
    )


def _sudoers(node: str, settings: Settings, choices: Choices) -> Piece:
    allowed = ", \\\n    ".join(" ".join(_escaped(w) for w in line) for line in commands(settings))
    return Piece(
        host=node,
        path=SUDOERS,
        mode=0o440,
        text=(
            "# Understudy (understudy init): its agent may run these command lines, and no others.\n"
            f"Defaults:{choices.user} !log_allowed\n"
            f"{choices.user} ALL=(root) NOPASSWD: \\\n    {allowed}\n"
        ),
        why=f"The agent ({choices.user}, not root) may start and stop the PBX, and nothing else.",
        then=(f"visudo -c -q -f {SUDOERS}",),
    )


def _unconfined(node: str, settings: Settings, choices: Choices) -> Piece:
    """sudo must gain what the agent's unit keeps from it: every filter of system calls forbids that."""
    del settings, choices
    return Piece(
        host=node,
        path=DROP_IN,
        text=(Path(__file__).parent / "files" / "sudo.conf").read_text(encoding="utf-8"),
        why="In the agent's hardened unit sudo could not gain root's rights.",
        then=("systemctl daemon-reload",),
    )


def _escaped(word: str) -> str:
    """sudoers(5): these are special in the arguments of a command."""
    return "".join(f"\\{c}" if c in "\\,:=*?[]!" else c for c in word)
