"""A configuration as tables again, with the settings that were left out."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

from understudy.config import values
from understudy.config.schema import Chosen, Config


def tables(config: Config) -> dict[str, Any]:
    """As tomllib would give them."""
    names = [_chosen(each) for each in config.names]
    return {
        "pair": _plain(config.pair),
        "nodes": {name: _plain(node) for name, node in config.nodes.items()},
        "detection": _plain(config.detection),
        "checkpoints": {name: _chosen(each) for name, each in config.checkpoints.items()},
        "claim": _chosen(config.claim),
        "name": names[0] if len(names) == 1 else names,
        "service": _chosen(config.service),
        "journal": _plain(config.journal),
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """As TOML."""
    for name, table in found.items():
        if isinstance(table, list):
            for each in table:
                yield from _table(f"[[{name}]]", each)
        elif all(isinstance(value, dict) for value in table.values()):
            for key, each in table.items():
                yield from _table(f"[{name}.{key}]", each)
        else:
            yield from _table(f"[{name}]", table)


def _table(header: str, table: dict[str, Any]) -> Iterator[str]:
    yield header
    for key, value in table.items():
        if value is not None:
            yield f"{key} = {values.text(value)}"
    yield ""


def _chosen(chosen: Chosen) -> dict[str, Any]:
    return {"kind": chosen.kind, **_plain(chosen.settings)}


def _plain(settings: Any) -> dict[str, Any]:
    hints = get_type_hints(type(settings))
    return {
        field.name: values.as_toml(hints[field.name], getattr(settings, field.name))
        for field in fields(settings)
    }
