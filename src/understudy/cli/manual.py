"""docs/reference/cli.md, made from the commands themselves."""

from collections.abc import Iterator

import click

from .main import cli

GENERATED = "<!-- script/generate_docs.py writes this from the definitions in the code. -->"
CODES = (
    "Exit codes of all verbs but `check`: 0 done or well, 1 refused or not well, 2 wrong usage or "
    "configuration, 3 could not find out. What is for scripts goes to standard output, what is for "
    "people watching an order to standard error. With `--json` every answer is one JSON object, "
    'errors too: `{"ok": false, "error": ..., "hint": ..., "exit": ...}`.'
)


def page() -> Iterator[str]:
    yield GENERATED
    yield "# Command line"
    yield ""
    yield CODES
    context = click.Context(cli, info_name="understudy")
    yield from _command(cli, context, 2)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield from _command(command, click.Context(command, context, info_name=name), 2)


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield ""
    yield f"{'#' * level} `{context.command_path}`"
    yield ""
    yield _prose(command.help or "")
    yield ""
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    rows = [row for row in (each.get_help_record(context) for each in command.params) if row]
    if rows:
        yield ""
        yield "| option | |"
        yield "|---|---|"
        for option, text in rows:
            yield f"| `{option}` | {_prose(text)} |"
    if isinstance(command, click.Group) and context.parent is not None:
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, info_name=name), level + 1)


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
