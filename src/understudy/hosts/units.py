"""The guard in front of the PBX's unit, its silence at boot, and what follows its start.

ExecStartPre= lines of a drop-in come after those of the unit itself (systemd.service(5)).  We do not take
those away to be first: they make directories, and a copy of them here would be stale after the next upgrade
of the PBX.  What matters is that the guard comes before ExecStart=.

Restart= of the unit stays as it is: a PBX that crashed is brought back by systemd in two seconds, through the
guard.  `may-start --unit` ends the restarts of a node that the claim does not name (cli/starters.py), so a
refused start is not tried for ever, and StartLimitBurst= need not be touched.

After a start of Asterisk `qualify` runs in a unit of its own: processes of ExecStartPost= count as the PBX's, and its
start would wait for them.  It is restarted, not started: one that still runs asked the Asterisk before this one.
"""

from understudy.adapters.services.systemd import Settings, full_name
from understudy.config.schema import Config

from .piece import Choices, PbxKind, Piece, command

DROP_IN = "/etc/systemd/system/{unit}.d/understudy.conf"
GATE = "understudy-may-start.service"
QUALIFY = "understudy-qualify.service"
# -: without it the PBX is no worse.  +: as root whatever User= says.
AFTER_START = f"ExecStartPost=-+/usr/bin/systemctl --no-block restart {QUALIFY}\n"


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    settings = config.service.settings
    if not isinstance(settings, Settings):
        return ()
    found = []
    for node in config.nodes:
        is_asterisk = choices.pbx is PbxKind.ASTERISK
        after = AFTER_START if is_asterisk else ""
        found.append(_guard(node, full_name(settings.unit), config, choices, after))
        if is_asterisk:
            found.append(_qualify(node, config, choices))
        companions = [full_name(unit) for unit in settings.active_only]
        others = [unit for unit in companions if not unit.endswith(".service")]
        if others:
            found.append(_gate(node, config, choices))
        found += [
            _behind_gate(node, unit) if unit in others else _guard(node, unit, config, choices)
            for unit in companions
        ]
    return tuple(found)


def _guard(node: str, unit: str, config: Config, choices: Choices, after: str = "") -> Piece:
    return Piece(
        host=node,
        path=DROP_IN.format(unit=unit),
        text=(
            "# Understudy (understudy init): this unit starts only where the claim says so.\n"
            "# The agent starts it, not the boot.  With everything of ours broken: the file\n"
            "# /etc/understudy/break-glass lets it start whatever the claim says.\n"
            "[Service]\n"
            # +: as root whatever User= says, for the claim's key and the journal.
            f"ExecStartPre=+{command(config, choices, 'may-start')} --unit %n\n"
            f"{after}"
        ),
        why=f"{unit} starts only where the claim says so, and nothing starts it at boot.",
        then=("systemctl daemon-reload", f"systemctl disable {unit}"),
    )


def _qualify(node: str, config: Config, choices: Choices) -> Piece:
    return Piece(
        host=node,
        path=f"/etc/systemd/system/{QUALIFY}",
        text=(
            "# Understudy (understudy init): the PBX's unit starts this after it.\n"
            "[Unit]\n"
            "Description=Understudy: Asterisk asks its phones at once whether they are there\n"
            "StartLimitIntervalSec=0\n"
            "CollectMode=inactive-or-failed\n"
            "[Service]\n"
            "Type=oneshot\n"
            f"ExecStart={command(config, choices, 'qualify')}\n"
            "TimeoutStartSec=200\n"
            "NoNewPrivileges=yes\n"
            "ProtectSystem=strict\n"
            "ProtectHome=read-only\n"
        ),
        why="Asterisk's queues ring phones at once after a start, not only when each was qualified.",
        then=("systemctl daemon-reload",),
        only_if="/etc/asterisk",
    )


def _gate(node: str, config: Config, choices: Choices) -> Piece:
    return Piece(
        host=node,
        path=f"/etc/systemd/system/{GATE}",
        text=(
            "# Understudy (understudy init): what has no ExecStartPre= of its own, such as a timer,\n"
            "# requires this.\n"
            "[Unit]\n"
            "Description=Understudy: may this node serve?\n"
            "[Service]\n"
            "Type=oneshot\n"
            f"ExecStart={command(config, choices, 'may-start')} --unit %n\n"
        ),
        why="Timers cannot be guarded themselves: they require this unit.",
        then=("systemctl daemon-reload",),
    )


def _behind_gate(node: str, unit: str) -> Piece:
    return Piece(
        host=node,
        path=DROP_IN.format(unit=unit),
        text=(
            "# Understudy (understudy init): this unit starts only where the claim says so.\n"
            f"[Unit]\nRequires={GATE}\nAfter={GATE}\n"
        ),
        why=f"{unit} runs on the active node alone, and nothing starts it at boot.",
        then=("systemctl daemon-reload", f"systemctl disable {unit}"),
    )
