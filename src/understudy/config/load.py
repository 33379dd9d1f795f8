"""Reads a configuration file, or says everything that is wrong with it at once."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from understudy.config import findings, locate, rules, values
from understudy.config.findings import Finding
from understudy.config.schema import (
    Chosen,
    Config,
    Detection,
    JournalSettings,
    NodeSettings,
    PairSettings,
)
from understudy.errors import ConfigError

Catalogues = Mapping[str, Mapping[str, type]]
"""By family ("checkpoints", "claim", "name", "service", "copies", "notify") and kind: the adapter's own settings."""

SECTIONS = (
    *("pair", "nodes", "detection", "checkpoints", "claim", "name", "service", "copies", "notify"),
    "journal",
)
# Families of which a pair may have several: [checkpoints.cp1].
NAMED = ("checkpoints", "copies", "notify")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


def load(path: Path, catalogues: Catalogues, *, check_files: bool = True) -> Config:
    """Read `path`.  Raises ConfigError with all findings.

    `check_files`: must the files and programs that it names be on this machine?  Not where a
    configuration is only looked at: in a simulation, or when it is written for another machine.
    """
    return parse(_contents(path), path, catalogues, check_files=check_files)


def parse(text: str, path: Path, catalogues: Catalogues, *, check_files: bool = True) -> Config:
    """`text` as if it stood in `path`, where relative paths begin.  Raises ConfigError."""
    document = _toml(text, path)
    reader = _Reader(values.Place(path.absolute().parent, check_files), catalogues)
    config = reader.config(document, path)
    broken = {str(one.path[0]) for one in reader.findings if one.path}
    found = [*reader.findings, *rules.errors(config, broken)]
    if found:
        raise ConfigError(findings.show(found, str(path), text))
    return replace(config, notes=findings.show(rules.notes(config), str(path), text))


def _contents(path: Path) -> str:
    try:
        # People edit this with anything: a byte order mark in front does no harm.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        what = "there is no such file.  Write one with `understudy init`, or use --config."
    except IsADirectoryError:
        what = "this is a directory.  Name the file in it, e.g. understudy.toml."
    except PermissionError:
        what = "this user may not read it.  Run as root, or as the user that runs the agent."
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        what = "this is not UTF-8 text.  Save the file in that encoding."
        raise ConfigError([f"{path}:{line}: {what}"]) from None
    except OSError as error:
        what = f"it cannot be read: {error.strerror}."
    raise ConfigError([f"{path}: {what}"])


def _toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        line = re.match(r"line (\d+)", place)
        number = int(line[1]) if line else text.rstrip().count("\n") + 1
        raise ConfigError([f"{path}:{number}: {_explained(message)}"]) from None


def _explained(message: str) -> str:
    """What tomllib found, in the words of somebody who has never heard of its grammar."""
    twice = re.match(r"Cannot declare \((.*?),?\) twice", message)
    if twice:
        name = ".".join(re.findall(r"'([^']*)'", twice[1]))
        return f"[{name}] is written twice.  Keep one of them, or give this one another name."
    if message.startswith(("Cannot overwrite", "Cannot mutate", "Duplicate")):
        return "this is written twice.  Keep one of them."
    if message.startswith("Invalid value"):
        return 'not a value.  Write text and durations in quotes, e.g. host = "pbx01.example.com".'
    if message.startswith(("Illegal character", "Unterminated", "Expected '\"'")):
        return "a text without its closing quote.  Write both quotes on this line."
    return f'this is not TOML: {message}.  Write key = "value", or [table].'


class _Reader:
    """Walks the document beside the definitions, and notes what does not fit."""

    def __init__(self, place: values.Place, catalogues: Catalogues) -> None:
        self.place = place
        self.catalogues = catalogues
        self.findings: list[Finding] = []

    def config(self, document: dict[str, Any], path: Path) -> Config:
        """Where a section is wrong there is a finding, and something useless in the value."""
        self._unknown_sections(document)
        return Config(
            pair=self._section(PairSettings, document, "pair"),
            nodes=self._named(NodeSettings, document, "nodes"),
            detection=self._section(Detection, document, "detection"),
            checkpoints=self._named(None, document, "checkpoints"),
            claim=self._chosen("claim", document.get("claim"), ("claim",)),
            names=self._names(document),
            service=self._chosen("service", document.get("service"), ("service",)),
            journal=self._section(JournalSettings, document, "journal"),
            path=path,
            copies=self._named(None, document, "copies") if "copies" in document else {},
            notify=self._named(None, document, "notify") if "notify" in document else {},
        )

    def _unknown_sections(self, document: dict[str, Any]) -> None:
        for key in document:
            if key not in SECTIONS:
                what = "table" if isinstance(document[key], dict | list) else "setting"
                tables = ", ".join(SECTIONS)
                hint = findings.did_you_mean(key, SECTIONS) or self._elsewhere(key)
                hint = hint or f"  There are these tables: {tables}."
                self._whole(
                    (key,), f"{findings.dotted((key,))}: there is no such {what} here.{hint}"
                )

    def _section(self, settings: type, document: dict[str, Any], key: str) -> Any:
        required = [field.name for field in fields(settings) if field.default is MISSING]
        if key not in document and required:
            self._whole((key,), f"[{key}] is missing.  Write it, with {', '.join(required)}.")
            return _nothing()
        return self._settings(settings, document.get(key, {}), (key,))

    def _named(self, settings: type | None, document: dict[str, Any], key: str) -> dict[str, Any]:
        """A table of tables: `[nodes.pbx01]`."""
        table = document.get(key)
        if not isinstance(table, dict):
            what = "is not what we read" if key in document else "is missing"
            self._wrong((key,), f"{what}.  Write [{key}.NAME] tables.")
            return {}
        read = {}
        for name, value in table.items():
            path = (key, name)
            if not NAME.fullmatch(name):
                right = "Use small letters, digits and hyphens, 32 at most"
                self._whole(path, f"{key}: {values.text(name)} is not a name.  {right}.")
            if settings is None:
                read[name] = self._chosen(key, value, path)
            else:
                read[name] = self._settings(settings, value, path)
        return read

    def _names(self, document: dict[str, Any]) -> tuple[Chosen, ...]:
        """`[name]`, or several `[[name]]`."""
        value = document.get("name")
        if isinstance(value, list) and value:
            return tuple(
                self._chosen("name", item, ("name", number)) for number, item in enumerate(value)
            )
        return (self._chosen("name", value, ("name",)),)

    def _chosen(self, family: str, value: Any, path: locate.Path) -> Chosen:
        kinds = self.catalogues[family]
        right = " or ".join(values.text(kind) for kind in kinds)
        shown = findings.dotted(path)
        if value is None:
            self._whole(path, f"[{shown}] is missing.  Write it, with kind = {right}.")
        elif not isinstance(value, dict):
            self._wrong(path, f"is not a table.  Write [{shown}], and its settings below.")
        elif "kind" not in value:
            self._wrong((*path, "kind"), f"is missing.  Write kind = {right}.")
        elif not isinstance(kind := value["kind"], str):
            self._wrong((*path, "kind"), f"is not text.  Write {right}.")
        elif kind not in kinds:
            hint = findings.did_you_mean(kind, kinds)
            what = f"is {values.text(kind)}, which is no kind of {family}.  Write {right}.{hint}"
            self._wrong((*path, "kind"), what)
        else:
            rest = {key: item for key, item in value.items() if key != "kind"}
            return Chosen(kind, self._settings(kinds[kind], rest, path))
        return Chosen("", None)

    def _settings(self, settings: type, table: Any, path: locate.Path) -> Any:
        """One table beside one dataclass."""
        if not isinstance(table, dict):
            shown = findings.dotted(path)
            self._wrong(path, f"is not a table.  Write [{shown}], and its settings below.")
            return _nothing()
        hints = get_type_hints(settings)
        before = len(self.findings)
        misspelt = self._unknown_keys(table, hints, path)
        read = {}
        for field in fields(settings):
            if field.name in table:
                value = table[field.name]
            elif field.default is not MISSING:
                value = values.as_toml(hints[field.name], field.default)
            else:
                if field.name not in misspelt:
                    example = field.metadata.get("example")
                    self._missing(path, field.name, hints[field.name], example)
                continue
            read[field.name] = self._value(hints[field.name], value, (*path, field.name))
        if len(self.findings) > before:
            return _nothing()
        try:
            return settings(**read)
        except ValueError as error:  # What the adapter itself finds contradictory.
            self._contradiction(path, str(error), hints)
            return _nothing()

    def _contradiction(self, path: locate.Path, message: str, known: Iterable[str]) -> None:
        """`timeout is 0 s.  ...` points at that setting, any other sentence at the table."""
        name, _, rest = message.removesuffix(".").partition(" ")
        if name in known:
            self._wrong((*path, name), f"{rest}.")
        else:
            self._whole(path, f"[{findings.dotted(path)}]: {name} {rest}.")

    def _unknown_keys(
        self, table: dict[str, Any], known: Iterable[str], path: locate.Path
    ) -> set[str]:
        """The settings that were probably meant: nobody need say that these are missing."""
        meant = set()
        for key in table:
            if key not in known:
                near = findings.nearest(key, known)
                meant.add(near)
                hint = findings.did_you_mean(key, known) or self._elsewhere(key)
                hint = hint or f"  There are these: {', '.join(known)}."
                self._wrong((*path, key), f"is no setting.{hint}")
        return meant

    def _elsewhere(self, key: str) -> str:
        """A key below the wrong header is a common slip."""
        homes = [
            ("pair", PairSettings),
            ("nodes.NAME", NodeSettings),
            ("detection", Detection),
            ("journal", JournalSettings),
        ]
        for family, kinds in self.catalogues.items():
            header = f"{family}.NAME" if family in NAMED else family
            homes += [(header, settings) for settings in kinds.values()]
        for name, settings in homes:
            if key in (field.name for field in fields(settings)):
                return f"  It belongs in [{name}]."
        return ""

    def _missing(self, path: locate.Path, name: str, hint: Any, example: Any) -> None:
        if values.is_choice(hint):
            right = f"{name} = {values.form(hint)}"
        else:
            right = f"e.g. {name} = {values.text(values.as_toml(hint, example))}"
        self._wrong((*path, name), f"is missing.  Write {right}.")

    def _value(self, hint: Any, value: Any, path: locate.Path) -> Any:
        if value is None:
            return None  # The default of a setting that may be left out.
        try:
            return values.read(hint, value, self.place)
        except values.WrongValueError as wrong:
            self._wrong(path, str(wrong))

    def _wrong(self, path: locate.Path, message: str) -> None:
        self.findings.append(Finding(path, message))

    def _whole(self, path: locate.Path, message: str) -> None:
        self.findings.append(Finding(path, message, whole=True))


def _nothing() -> Any:
    """In place of a value that has findings: no rule will look at it."""
    return None
