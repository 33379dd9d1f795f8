"""What every verb begins with: the configuration, and which node this is; and how it speaks."""

import json
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.config import durations

from .become import become_owner

if TYPE_CHECKING:
    from understudy.config.schema import Config
    from understudy.runtime.daemon import Node

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object, stable keys.")


class Session:
    """Made from the global options.  All members raise ConfigError.

    A program or a file that has gone must not silence those who could say so, or keep a fence from being obeyed: only
    verbs that call `insist_on_files` refuse to work then.  Root becomes the agent's user as soon as the configuration
    says who that is.
    """

    def __init__(self, config: Path | None, node: str, *, stays_root: bool = False) -> None:
        self._config, self._node = config, node
        self._stays_root = stays_root
        self._insists = False

    def insist_on_files(self) -> None:
        """To be called before the configuration is used: what it names must be on this machine."""
        self._insists = True

    @property
    def path(self) -> Path:
        from understudy import wiring  # Heavy: not for `--help`.

        return wiring.config_path(self._config)

    @cached_property
    def config(self) -> "Config":
        from understudy import wiring

        config = wiring.load_config(self.path, check_files=self._insists)
        if not self._stays_root:
            become_owner(config.journal.path.parent)
        return config

    @cached_property
    def node(self) -> "Node":
        return self.build()

    def build(self) -> "Node":
        """A node of its own: probes belong to the event loop that they first asked in."""
        from understudy import wiring

        name = wiring.node_name(self.config, self._node)
        return wiring.build(self.config, name, lenient=not self._insists)


pass_session = click.make_pass_decorator(Session)


def duration(text: str) -> float:
    """An option like 2h, 90s, 1h30m: seconds."""
    try:
        return durations.parse(text)
    except ValueError:
        raise click.BadParameter(
            f"{text} is no duration.  Write it like 90s, 2h or 1h30m."
        ) from None


def print_json(fields: dict[str, Any]) -> None:
    click.echo(json.dumps(fields, indent=2, ensure_ascii=False))


def clock(wall: float) -> str:
    """A time of the wall clock, for people here: 03:12:07, with the day when it is not today."""
    at = time.localtime(wall)
    today = at[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", at)


def about(seconds: float) -> str:
    """A time span in two units at most: 4s, 2m5s, 3h12m, 12d4h."""
    whole = max(round(seconds), 0)
    if whole >= 86_400:
        whole -= whole % 3600
    elif whole >= 3600:
        whole -= whole % 60
    return durations.show(whole)
