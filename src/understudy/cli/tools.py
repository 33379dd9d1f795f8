"""`simulate`, `explain`, `config`, `demo`: to understand, and to try out."""

import importlib
import sys
from pathlib import Path

import click

from understudy.errors import Refused

from .session import Session, as_json, pass_session, print_json


@click.command()
@click.argument("story", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
def simulate(story: str) -> int:
    """Tell what a pair would do: STORY is a file (- for standard input), see the manual."""
    from understudy.sim.story import StoryError, tell

    text = sys.stdin.read() if story == "-" else Path(story).read_text(encoding="utf-8")
    try:
        click.echo(tell(text), nl=False)
    except StoryError as error:
        raise Refused(f"{story}: {error}") from None
    return 0


@click.command()
@click.argument("phase", required=False)
def explain(phase: str | None) -> int:
    """Print the table of all decisions, or that of one PHASE."""
    from understudy.core import explain as tables
    from understudy.core.model import Phase

    if phase is None:
        click.echo("\n".join(tables.page()))
        return 0
    if phase not in tuple(Phase):
        raise click.UsageError(f"{phase} is no phase.  There are: {', '.join(Phase)}")
    click.echo("\n".join(tables.table(Phase(phase))))
    return 0


@click.group()
def config() -> None:
    """Check the configuration, or show it."""


@config.command("check")
@as_json
@pass_session
def config_check(session: Session, as_json: bool) -> int:
    """Is the configuration right?  Exit code 2 and all findings at once if it is not."""
    session.insist_on_files()
    found = session.config
    node = session.node.policy.me
    if as_json:
        print_json({"ok": True, "path": str(found.path), "node": node, "notes": list(found.notes)})
        return 0
    for note in found.notes:
        click.echo(note)
    click.echo(f"{found.path} is right; this is {node}; digest {found.digest}")
    return 0


@config.command("show")
@as_json
@pass_session
def config_show(session: Session, as_json: bool) -> int:
    """What holds here: every setting, those left out too.  Secrets are never shown, only their files."""
    from . import shown

    found = session.config
    tables = shown.tables(found)
    if as_json:
        print_json({"path": str(found.path), "digest": found.digest, **tables})
    else:
        click.echo("\n".join(shown.lines(tables)))
    return 0


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def demo(words: tuple[str, ...]) -> int:
    """A whole pair on this machine's loopback: watch a failover and a way back."""
    try:
        module = importlib.import_module("understudy.demo.main")
    except ModuleNotFoundError as error:
        if error.name != "understudy.demo.main":
            raise
        raise Refused(
            "this version has no demo yet", hint="To see a pair at work: understudy simulate STORY"
        ) from None
    code: int | None = module.main(list(words))
    return code or 0
