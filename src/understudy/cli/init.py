"""`init`: from a few answers to a configuration, and to what every host of the pair must have."""

from pathlib import Path

import click

from understudy.errors import Refused

from .session import Session, as_json, pass_session, print_json


@click.command()
@click.option(
    "--answers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Answers in TOML, instead of questions: docs/how-to/prepare-hosts.md has one.",
)
@click.option(
    "--answer", "said", multiple=True, metavar="KEY=VALUE", help="One answer; repeatable."
)
@click.option(
    "--force", is_flag=True, help="Write the configuration anew; the old one stays as .old."
)
@click.option("--host", "only", multiple=True, metavar="HOST", help="Only this one; repeatable.")
@click.option("--install", is_flag=True, help="Put this node's own pieces in their places.")
@click.option("--dry-run", is_flag=True, help="Say what --install or --uninstall would do.")
@click.option("--uninstall", is_flag=True, help="Take them away: the PBX is started by hand again.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write all pieces to DIR/HOST/, each host with an install.sh.",
)
@click.option("--keys", is_flag=True, help="Print the public keys of this node, for the other one.")
@click.option("--peer-keys", metavar="LINE", help="What --keys prints on the other node.")
@click.option("--pbx", metavar="KIND", help="asterisk, freeswitch, kamailio or other.")
@click.option("--name-server", default="bind", metavar="KIND", help="bind or other.")
@as_json
@click.pass_context
@pass_session
def init(
    session: Session,
    ctx: click.Context,
    answers: Path | None,
    said: tuple[str, ...],
    force: bool,
    only: tuple[str, ...],
    install: bool,
    dry_run: bool,
    uninstall: bool,
    output: Path | None,
    keys: bool,
    peer_keys: str | None,
    pbx: str | None,
    name_server: str,
    as_json: bool,
) -> int:
    """Write the configuration, and what every host must have.

    Asks where there is no configuration yet.  After that it prints the pieces of every host, or installs this one's.
    """
    from understudy import wiring
    from understudy.hosts import plan

    from . import init_hosts, init_questions

    if uninstall:
        return init_hosts.uninstall(dry_run=dry_run, as_json=as_json)
    path = session.path.absolute()
    written = force or not path.exists()
    if written:
        given = init_questions.given(answers, said)
        init_questions.configure(path, given)
    elif answers or said:
        raise Refused(
            f"{path} is there already", hint="To write it anew: --force (keeps it as .old)"
        )
    config = wiring.load_config(path, check_files=False)
    me = ctx.find_root().params["node"]
    if keys:
        return init_hosts.print_keys(config, wiring.node_name(config, me), as_json=as_json)
    choices = init_hosts.choices(config, me, pbx=pbx, name_server=name_server, peer_keys=peer_keys)
    found = [piece for piece in plan.pieces(config, choices) if not only or piece.host in only]
    unknown = set(only) - set(plan.hosts(config))
    if unknown:
        known = ", ".join(plan.hosts(config))
        raise click.UsageError(f"{unknown.pop()} is no host of this pair: {known}")
    if install:
        node = wiring.node_name(config, me)
        return init_hosts.install(config, node, found, dry_run=dry_run, as_json=as_json)
    if output is not None:
        return init_hosts.write(config, output, found, as_json=as_json)
    if as_json:
        print_json(init_hosts.to_json(config, found, plan.flows(config), written=written))
        return 0
    init_hosts.show(config, found, plan.flows(config), whole=not written)
    return 0
