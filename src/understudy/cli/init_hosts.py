"""What `init` does with the pieces of the hosts: print, write, install, take away."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from understudy.adapters.tsigkey import load_key
from understudy.config.schema import Config
from understudy.errors import ConfigError, Refused
from understudy.hosts import apply, bundle, dns, ssh
from understudy.hosts.piece import Choices, Flow, Keys, NameServerKind, PbxKind, Piece, other_node
from understudy.wiring import node_name

from .session import print_json

HOST_KEYS = tuple(Path(f"/etc/ssh/ssh_host_{kind}_key.pub") for kind in ("ed25519", "ecdsa", "rsa"))
NO_KEYS = "this node has no keys yet"


def choices(
    config: Config, me: str, *, pbx: str | None, name_server: str, peer_keys: str | None
) -> Choices:
    """What can be seen on this machine, and what was said.  Raises UsageError."""
    found: dict[str, Keys] = {}
    for node in config.nodes:
        kept = _text(Path(ssh.keys_path(node)))
        if kept:
            found |= _keys(kept, config)
    own = own_keys()
    if own is not None:
        with suppress(ConfigError):  # Not on a node: the pieces are only printed.
            found[node_name(config, me)] = own
    if peer_keys:
        found |= _keys(peer_keys, config)
    base = Choices(
        pbx=_kind(PbxKind, pbx or _guess(config), "--pbx"),
        name_server=_kind(NameServerKind, name_server, "--name-server"),
        keys=found,
        config_text=_text(config.path),
    )
    return _with_key(config, base)


def own_keys() -> Keys | None:
    """Of the machine that this is."""
    agent = _public(Path(f"{ssh.IDENTITY}.pub"))
    host = next((key for path in HOST_KEYS if (key := _public(path))), "")
    return Keys(agent=agent, host=host) if agent and host else None


def print_keys(config: Config, me: str, *, as_json: bool) -> int:
    own = own_keys()
    if own is None:
        raise Refused(NO_KEYS, hint="First: understudy init --install")
    if as_json:
        print_json({"ok": True, "node": me, **asdict(own)})
    else:
        click.echo(own.line(me))
    return 0


def show(config: Config, pieces: Sequence[Piece], flows: Sequence[Flow], *, whole: bool) -> None:
    """`whole`: every file; else only what to do next."""
    if whole:
        for host in dict.fromkeys(piece.host for piece in pieces):
            click.echo(f"=== {host}\n")
            for piece in pieces:
                if piece.host == host:
                    click.echo("\n".join(_shown(piece)) + "\n")
    click.echo("=== firewalls: what must get through\n")
    click.echo("\n".join(_table(flows)) + "\n")
    click.echo("\n".join(_next(config)))


def to_json(
    config: Config, pieces: Sequence[Piece], flows: Sequence[Flow], *, written: bool
) -> dict[str, Any]:
    """Stable keys.  No secret among them."""
    hosts: dict[str, list[dict[str, Any]]] = {}
    for piece in pieces:
        fields = asdict(piece)
        fields["mode"] = f"{piece.mode:04o}"
        if piece.secret:
            fields["text"] = None
        hosts.setdefault(fields.pop("host"), []).append(fields)
    return {
        "ok": True,
        "config": str(config.path),
        "written": written,
        "notes": list(config.notes),
        "hosts": hosts,
        "firewall": [asdict(flow) for flow in flows],
    }


def write(config: Config, folder: Path, pieces: Sequence[Piece], *, as_json: bool) -> int:
    """`folder`/HOST/, with a script each."""
    tops = {}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # There is a key among them.
        for host in dict.fromkeys(piece.host for piece in pieces):
            mine = [piece for piece in pieces if piece.host == host]
            tops[host] = bundle.write(folder, host, mine, is_node=host in config.nodes)
    except OSError as error:
        raise Refused(f"{error.filename} cannot be written: {error.strerror}") from error
    if as_json:
        print_json({"ok": True, "hosts": {host: str(top) for host, top in tops.items()}})
        return 0
    for host, top in tops.items():
        where = _address(config, host)
        click.echo(f"scp -rp {top} root@{where}: && ssh root@{where} sh {host}/{bundle.SCRIPT}")
    return 0


def install(
    config: Config, me: str, pieces: Sequence[Piece], *, dry_run: bool, as_json: bool
) -> int:
    """Exit code 1 if something is left to do because it failed."""
    if not dry_run and os.geteuid() != 0:
        raise Refused("only root can install these", hint="To look at them: --dry-run")
    mine = [piece for piece in pieces if piece.host == me]
    steps = []
    for step in apply.install(mine, dry_run=dry_run):
        steps.append(step)
        if not as_json:
            click.echo("\n".join(_told(step, dry_run=dry_run)))
    troubles = [trouble for step in steps for trouble in step.troubles]
    own = own_keys()
    other = other_node(config, me)
    line = f"understudy init --install --peer-keys '{own.line(me)}'" if own else ""
    if as_json:
        done = [
            {
                "path": step.piece.path,
                "why": step.piece.why,
                "changed": bool(step.difference),
                "commands": list(step.commands),
                "troubles": list(step.troubles),
                "by_hand": list(step.piece.by_hand),
                "skipped": step.skipped,
            }
            for step in steps
        ]
        print_json({"ok": not troubles, "node": me, "steps": done, "on_other_node": line})
    elif line and not dry_run:
        click.echo(f"\nOn {other}, so that it knows {me}:\n  {line}")
    return 1 if troubles else 0


def uninstall(*, dry_run: bool, as_json: bool) -> int:
    if not dry_run and os.geteuid() != 0:
        raise Refused("only root can take these away", hint="To look at them: --dry-run")
    gone = list(apply.uninstall(dry_run=dry_run))
    if as_json:
        print_json({"ok": True, "removed": gone})
        return 0
    for path in gone:
        click.echo(f"{'would remove' if dry_run else 'removed'} {path}")
    if gone:
        click.echo("The PBX starts by hand again.  At boot too: systemctl enable UNIT")
    return 0


def _told(step: apply.Step, *, dry_run: bool) -> list[str]:
    piece = step.piece
    head = piece.path or piece.why
    if step.skipped:
        return [f"{head}: not needed, {step.skipped}"]
    state = ("would change" if dry_run else "changed") if step.difference else "is right"
    lines = [f"{piece.path}: {state}" if piece.path else piece.why]
    lines += [f"    {row}" for row in step.difference.splitlines()]
    lines += [f"  $ {command}" for command in step.commands]
    lines += [f"  failed: {trouble}" for trouble in step.troubles]
    if step.difference or not piece.path:
        lines += [f"  by hand: {row}" for row in piece.by_hand]
    return lines


def _shown(piece: Piece) -> list[str]:
    lines = [f"# {piece.why}"]
    if piece.path:
        lines.append(f"{piece.path}  (mode {piece.mode:04o}, {piece.owner})")
        rows = piece.text.splitlines()
        if piece.secret:
            lines.append("    (a secret: --output writes it)")
        elif len(rows) > 60:
            lines.append(f"    ({len(rows)} lines: --output writes it)")
        else:
            lines += [f"    {row}".rstrip() for row in rows]
    if piece.only_if:
        lines.append(f"  (where there is {piece.only_if})")
    lines += [f"  $ {command}" for command in piece.then]
    lines += [f"  by hand: {row}" for row in piece.by_hand]
    return lines


def _table(flows: Sequence[Flow]) -> list[str]:
    rows = [("from", "to", "port", "protocol", "why")]
    rows += [(f.source, f.target, f.port, f.protocol, f.why) for f in flows]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _next(config: Config) -> list[str]:
    first, second = config.pair.preferred, other_node(config, config.pair.preferred)
    units = "understudy-guard understudy-door understudy" + (
        " understudy-copier" if config.copies else ""
    )
    return [
        "=== next",
        "",
        f"  understudy init --install             on {first}: what it must have itself",
        "  understudy init --output /root/hosts  what the other hosts must have, and how to bring it there",
        f"  understudy set-active {first:<15} who serves now; before any agent runs",
        f"  systemctl enable --now {units}   on both nodes",
        f"  understudy doctor                     on {first} or {second}: is anything missing?",
        "",
        "All of it again: understudy init; one host: understudy init --host cp1",
    ]


def _address(config: Config, host: str) -> str:
    if host in config.nodes:
        return config.nodes[host].address
    if host in config.checkpoints:
        return str(getattr(config.checkpoints[host].settings, "address", host))
    return next((zone.server for zone in dns.zones(config, Choices())), host)


def _with_key(config: Config, base: Choices) -> Choices:
    """With the key for the name server, where this machine has it and we may read it."""
    zones = dns.zones(config, base)
    if not zones:
        return base
    file = Path(zones[0].key_file)
    try:
        name = load_key(file).name.to_text(omit_final_dot=True)
    except ConfigError:
        return base
    return replace(base, tsig_key=_text(file), tsig_name=name)


def _keys(line: str, config: Config) -> dict[str, Keys]:
    try:
        node, keys = Keys.read(line)
    except ValueError as error:
        raise click.UsageError(f"--peer-keys: this is {error}.") from None
    if node not in config.nodes:
        raise click.UsageError(f"--peer-keys: {node} is no node of this pair")
    return {node: keys}


def _guess(config: Config) -> str:
    unit = str(getattr(config.service.settings, "unit", ""))
    if "freepbx" in unit:
        return PbxKind.ASTERISK
    return next((kind for kind in PbxKind if kind in unit), PbxKind.OTHER)


def _kind(kinds: Any, word: str, option: str) -> Any:
    try:
        return kinds(word)
    except ValueError:
        raise click.UsageError(f"{option} {word}: one of {', '.join(kinds)}") from None


def _public(path: Path) -> str:
    return " ".join(_text(path).split()[:2])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
