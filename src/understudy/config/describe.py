"""The sample file and the manual page, made from the definitions that the loader reads."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Protocol, get_type_hints

from understudy.config import values
from understudy.config.schema import (
    Detection,
    JournalSettings,
    NodeSettings,
    PairSettings,
)

WIDTH = 100
GENERATED = "script/generate_docs.py writes this from the definitions in the code"


class Described(Protocol):
    """A member of a family: what it must be told, and what it is."""

    @property
    def settings(self) -> type: ...

    @property
    def doc(self) -> str: ...


Families = Mapping[str, Mapping[str, Described]]

# Where one example per setting does not make a pair.
SAMPLE_NODES: dict[str, dict[str, Any]] = {
    "pbx01": {"host": "pbx01.example.com", "address": "192.0.2.11", "ssh": "understudy@192.0.2.11"},
    "pbx02": {
        "host": "pbx02.example.com",
        "address": "198.51.100.12",
        "ssh": "understudy@198.51.100.12",
    },
}
SAMPLE_CHECKPOINTS: dict[str, dict[str, Any]] = {
    "cp1": {"address": "192.0.2.21"},
    "cp2": {"address": "203.0.113.22"},
    "cp3": {"address": "198.51.100.23"},
}
FAMILY_DOCS = {
    "checkpoints": "Hosts in other networks that say whether a node's PBX answers.  At least "
    "three, each in a network of its own: an odd number bears the most failures.",
    "claim": "The record of who is active.  It lives outside both nodes.",
    "name": "How the service name is moved to the active node.  Where several places answer for "
    "the name, write a [[name]] table for each.",
    "service": "The PBX of this machine, and what runs beside it on the active node alone.",
    "copies": "The data that the standby keeps a copy of, in classes: a table for each.  May be left out "
    "where something else copies it.",
    "notify": "Who is told what happens, and how.  May be left out; write as many tables as there are ways.",
}
NAMED = {
    "checkpoints": "[checkpoints.NAME]",
    "copies": "[copies.NAME]",
    "notify": "[notify.NAME]",
}
TYPES = {
    "duration": 'whole numbers with a unit each: `"250ms"`, `"60s"`, `"5m"`, `"1h30m"`, `"90d"`; '
    "never a bare number",
    "path": "relative paths start at the folder of the configuration file",
    "path of a file": "the file must exist",
    "path of a secret file": "the file must exist, and others than its owner and group must have "
    "no access to it, nor its group the right to change it (mode 0640 or 0600); the secret itself "
    "never stands here",
    "host name or IP address": "without a port",
    "host and port": '`"192.0.2.1:5060"`, `"[2001:db8::1]:5060"` or `"pbx01.example.com:5060"`',
    "list: program and arguments": '`["/usr/bin/program", "argument"]`; no shell is involved; '
    "the program must be there",
}


def sample(families: Families) -> str:
    """A configuration file that loads.  What may be left out begins with `#`.

    It shows the default, or an example where there is none.  The first kind of each
    family is chosen; the others are shown in comments.
    """
    return "\n".join(line.rstrip() for line in _sample(families)) + "\n"


def reference(families: Families) -> str:
    """docs/reference/config.md."""
    return "\n".join(_reference(families)) + "\n"


def _sample(families: Families) -> Iterator[str]:
    yield from _prose(
        "Configuration of Understudy, the same on both nodes: /etc/understudy/understudy.toml.  "
        "Lines that begin with # and no space may be left out; they show the default, or an "
        "example."
    )
    yield f"# ({GENERATED}.)"
    yield from _sample_table("pair", PairSettings)
    for number, (name, given) in enumerate(SAMPLE_NODES.items()):
        yield from _sample_table(f"nodes.{name}", NodeSettings, given, explain=number == 0)
    yield from _sample_table("detection", Detection)
    for number, (name, given) in enumerate(SAMPLE_CHECKPOINTS.items()):
        kinds = families["checkpoints"]
        yield from _sample_family("checkpoints", f"checkpoints.{name}", kinds, given, number == 0)
    for family in ("claim", "name", "service"):
        yield from _sample_family(family, family, families[family], {}, True)
    yield from _sample_family("copies", "copies.config", families["copies"], {}, True)
    told = families["notify"]
    yield from _sample_family("notify", f"notify.{next(iter(told))}", told, {}, True)
    yield from _sample_table("journal", JournalSettings)


def _sample_family(
    family: str, header: str, kinds: Mapping[str, Described], given: dict[str, Any], explain: bool
) -> Iterator[str]:
    (first, chosen), *others = kinds.items()
    before = FAMILY_DOCS[family] if explain else ""
    kind_doc = chosen.doc if explain else ""
    yield from _sample_table(header, chosen.settings, given, explain, first, kind_doc, before)
    for name, other in others if explain else ():
        yield ""
        yield from _prose(f"Or another kind.  {_sentence(other.doc)}")
        for line in _sample_table(header, other.settings, given, True, name):
            yield f"#   {line}" if line else ""


def _sample_table(
    header: str,
    settings: type,
    given: Mapping[str, Any] | None = None,
    explain: bool = True,
    kind: str = "",
    kind_doc: str = "",
    before: str = "",
) -> Iterator[str]:
    yield ""
    if explain and (before or not kind):
        yield from _prose(before or _first_line(settings))
    yield f"[{header}]"
    if kind:
        yield from _prose(_sentence(kind_doc)) if kind_doc else ()
        yield f"kind = {values.text(kind)}"
    for field, hint in _settings(settings):
        if explain:
            yield from _prose(field.metadata["doc"])
        if explain or field.default is MISSING or field.name in (given or {}):
            yield _sample_setting(field, hint, given or {})


def _sample_setting(field: Field[Any], hint: Any, given: Mapping[str, Any]) -> str:
    if field.name in given:
        return f"{field.name} = {values.text(given[field.name])}"
    mark = "" if field.default is MISSING else "#"
    return f"{mark}{field.name} = {values.text(values.as_toml(hint, _shown_value(field)))}"


def _shown_value(field: Field[Any]) -> Any:
    """The default; an example where there is no default, or one that says nothing."""
    example = field.metadata.get("example", MISSING)
    if field.default is MISSING or (field.default in (None, "", ()) and example is not MISSING):
        return example
    return field.default


def _prose(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _reference(families: Families) -> Iterator[str]:
    yield f"<!-- {GENERATED}. -->"
    yield "# Configuration"
    yield ""
    yield (
        "One TOML file, `/etc/understudy/understudy.toml`, the same on both nodes; `--config` or "
        "`UNDERSTUDY_CONFIG` names another. A file with mistakes is refused, with all of them at "
        "once: `file:line: what is wrong. What is right.` A sample with every setting: "
        "[understudy.toml](understudy.toml)."
    )
    yield ""
    yield from (f"* **{name}**: {text}." for name, text in TYPES.items())
    yield from _reference_table("[pair]", PairSettings)
    yield from _reference_table("[nodes.NAME]", NodeSettings)
    yield from _reference_table("[detection]", Detection)
    for family, doc in FAMILY_DOCS.items():
        header = NAMED.get(family, f"[{family}]")
        yield from ("", f"## `{header}`", "", _one_line(doc))
        for kind, member in families[family].items():
            yield from ("", f'### `{header}` with `kind = "{kind}"`', "", _sentence(member.doc))
            yield from _rows(member.settings)
    yield from _reference_table("[journal]", JournalSettings)


def _reference_table(header: str, settings: type) -> Iterator[str]:
    yield from ("", f"## `{header}`", "", _first_line(settings))
    yield from _rows(settings)


def _rows(settings: type) -> Iterator[str]:
    rows = [_row(field, hint) for field, hint in _settings(settings)]
    if rows:
        yield from ("", "| setting | written as | default | meaning |", "|---|---|---|---|", *rows)


def _row(field: Field[Any], hint: Any) -> str:
    if field.default is MISSING:
        default = "none: must be written"
    elif field.default in (None, "", ()):
        default = "left out"
    else:
        default = _code(values.text(values.as_toml(hint, field.default)))
    doc = _one_line(field.metadata["doc"])
    example = _shown_value(field)
    if example not in (None, "", (), field.default):
        doc += f" Example: {_code(values.text(values.as_toml(hint, example)))}."
    cells = (f"`{field.name}`", _form(hint), default, doc)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _form(hint: Any) -> str:
    form = values.form(hint)
    return " or ".join(_code(part) for part in form.split(" or ")) if form[0] == '"' else form


def _settings(settings: type) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(settings)
    own = settings.__annotations__  # Before those that it shares with others.
    listed = sorted(fields(settings), key=lambda field: field.name not in own)
    return ((field, hints[field.name]) for field in listed)


def _first_line(settings: type) -> str:
    return (settings.__doc__ or "").partition("\n")[0]


def _sentence(doc: str) -> str:
    return _one_line(doc if doc.endswith(".") else doc + ".")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    return f"`{text}`"
