"""A whole configuration, flat, so that two can be compared by what they mean."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from understudy.config import values
from understudy.config.schema import FILES, Chosen, Config
from understudy.config.settings import Command, SecretFile

BESIDE = ("path", "notes")  # Where the file is, and what was said about it: no settings.
COMMAND = "a command ("
LOCAL = ("[service", "[journal")  # About one machine: those of two machines may differ.


def flat(config: Config) -> dict[str, str]:
    """By "[section] key", what stands there, as TOML has it.

    Names of local files are left out: a key may lie elsewhere on the other node.  A command line may hold a secret:
    of that there is only a digest.
    """
    return {
        key: text
        for field in fields(config)
        if field.name not in BESIDE
        for key, text in _flat(field.name, getattr(config, field.name))
    }


def secret_files(config: Config) -> list[Path]:
    """Every key and password file that it names."""
    found: list[Path] = []
    for field in fields(config):
        if field.name not in BESIDE:
            found += _secrets(getattr(config, field.name))
    return list(dict.fromkeys(found))


def differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """The settings that are not the same, by name."""
    return [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]


def is_command(value: str) -> bool:
    return value.startswith(COMMAND)


def is_local(key: str) -> bool:
    return key.startswith(LOCAL)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case Chosen(kind=kind, settings=settings):
            yield f"[{name}] kind", values.text(kind)
            yield from _flat(name, settings)
        case Mapping():
            for key, each in value.items():
                yield from _flat(f"{name}.{key}", each)
        case tuple() | list():
            for number, each in enumerate(value, 1):
                yield from _flat(name if len(value) == 1 else f"{name}.{number}", each)
        case _ if is_dataclass(value):
            for key, hint, each in _settings(value):
                if not FILES & {hint, *get_args(hint)}:
                    yield f"[{name}] {key}", _text(hint, each)


def _secrets(value: Any) -> Iterator[Path]:
    match value:
        case Chosen(settings=settings):
            yield from _secrets(settings)
        case Mapping():
            for each in value.values():
                yield from _secrets(each)
        case tuple() | list():
            for each in value:
                yield from _secrets(each)
        case _ if is_dataclass(value):
            for _, hint, each in _settings(value):
                if SecretFile in (hint, *get_args(hint)) and each is not None:
                    yield Path(each)


def _settings(settings: Any) -> Iterator[tuple[str, Any, Any]]:
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        yield field.name, hints[field.name], getattr(settings, field.name)


def _text(hint: Any, value: Any) -> str:
    if value is None:
        return "nothing"
    if Command in (hint, *get_args(hint)):
        words = "\0".join(value).encode()
        return f"{COMMAND}{hashlib.blake2b(words, digest_size=4).hexdigest()})"
    return values.text(values.as_toml(hint, value))
