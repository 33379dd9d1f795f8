"""The command line: which verbs there are, and how every one of them ends.

Exit codes: 0 done or well, 1 refused or not well, 2 wrong usage or configuration, 3 could not find out.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from understudy.errors import ConfigError, Denied, NotStopped, Refused, UnderstudyError

from .session import Session, print_json

# Verb: where it is.  A module is imported when its verb is used: `tick` runs every minute.
VERBS = {
    "init": "init",
    "run": "agent",
    "tick": "agent",
    "status": "status",
    "check": "check",
    "events": "history",
    "why": "history",
    "failover": "orders",
    "switchover": "orders",
    "rejoin": "orders",
    "failback": "failback",
    "set-active": "record",
    "pause": "record",
    "resume": "record",
    "may-start": "may_start",
    "qualify": "qualify",
    "doctor": "doctor",
    "copies": "copies",
    "answer": "answer",
    "door": "door",
    "guard": "guard",
    "simulate": "tools",
    "explain": "tools",
    "config": "tools",
    "demo": "tools",
}

# They look at the whole host, or stop the PBX when all else fails; all others work as the agent's user.
OF_ROOT = {"init", "doctor", "guard", "copies", "qualify"}


class Verbs(click.Group):
    """In the order of VERBS, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"understudy.cli.{VERBS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration.  Else UNDERSTUDY_CONFIG, else /etc/understudy/understudy.toml.",
)
@click.option(
    "--node",
    default="",
    metavar="NAME",
    help="Which node this is.  Else what /etc/understudy/node says, else the host name.",
)
@click.version_option(package_name="understudy", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, node: str) -> None:
    """Keeps a company's phones working when its PBX dies."""
    ctx.obj = Session(config, node, stays_root=ctx.invoked_subcommand in OF_ROOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code.  Errors that an operator can mend are one line and a hint; a bug is a traceback."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = cli.main(given, prog_name="understudy", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("Nothing was done.", err=True)
        return 1
    except BrokenPipeError:
        # `understudy events | head`: nobody reads any more, and that is well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UnderstudyError as error:
        return _failed(error, as_json="--json" in given)
    return code if isinstance(code, int) else 0


def exit_code(error: UnderstudyError) -> int:
    match error:
        case ConfigError():
            return 2
        case Refused() | Denied() | NotStopped():
            return 1
    return 3


def _failed(error: UnderstudyError, *, as_json: bool) -> int:
    code = exit_code(error)
    if as_json:
        print_json({"ok": False, "error": str(error), "hint": error.hint, "exit": code})
    else:
        click.echo(f"understudy: {error}", err=True)
        if error.hint:
            click.echo(error.hint, err=True)
    return code
