"""From an entry of the catalogue to the words of one message, and to the page of the manual that has them all."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from understudy.ports import Severity

from .telling_catalogue import CATALOGUE, CRITICAL, INFO, WARNING


@dataclass(frozen=True, slots=True)
class Words:
    """One message, but for where it comes from."""

    severity: Severity
    subject: str
    happened: str
    did: str
    do: str


PLACEHOLDERS = {
    "me": "NODE",
    "peer": "OTHER",
    "service": "the service name",
    "glass": "the break-glass file",
    "why": "",
    "pbx": "dead (or deaf)",
    "total": "patience",
    "until": "(when)",
    "text": "(what the journal says)",
    "began": "(why, as the journal says)",
    "gave": "(what became of the claim)",
    "sentence": "(what `status` says)",
    "reason": "(why, with the server that is to blame)",
    "cure": "(how to mend it)",
    "then": "(what happens next, and when)",
    "prospect": "(what happens next, and when)",
    "explained": "(what it does now)",
    "waiting": "(what it waits for)",
}


def words(kind: str, fields: Mapping[str, str]) -> Words:
    """The message, with the fields in their places.  KeyError: a field is missing."""
    entry = CATALOGUE[kind]
    parts = (entry.subject, entry.happened, entry.did, entry.do)
    subject, *rest = (_tidy(part.format_map(fields)) for part in parts)
    return Words(entry.severity, subject, *(capital(part) for part in rest))


def over(kind: str, fields: Mapping[str, str]) -> Words:
    """It is so no longer; `since` and `lasted` say how long it was."""
    subject = _tidy(CATALOGUE[kind].over.format_map(fields))
    was = f"It was otherwise for {fields['lasted']}, since {fields['since']}."
    return Words(INFO, subject, f"{capital(subject)}.  {was}", "Nothing.", "Nothing.")


def page() -> Iterator[str]:
    """Markdown: docs/reference/messages.md."""
    fields = _Placeholders()
    yield "# Messages"
    yield ""
    yield (
        "What Understudy tells the people named in `[notify...]`. The node that acts tells it; what both see, the one "
        "that it keeps from something. Each message says what happened, what Understudy did, and what you should do. "
        "The same kind again within ten minutes waits, and comes as one message with the number of times; if it goes "
        "on, that time doubles up to an hour (not for critical ones). NODE is the node that tells, OTHER the other one."
    )
    for severity in (CRITICAL, WARNING, INFO):
        yield ""
        yield f"## {severity}"
        yield ""
        yield "| kind | when | subject | what you should do | told when it is over |"
        yield "|---|---|---|---|---|"
        for kind, entry in CATALOGUE.items():
            if entry.severity is severity:
                cells = (entry.subject, entry.do, entry.over)
                subject, do, ended = (_tidy(each.format_map(fields)) for each in cells)
                yield f"| `{kind}` | {entry.when} | {subject} | {do} | {ended} |"


class _Placeholders(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return PLACEHOLDERS.get(key, key.upper())


def _tidy(text: str) -> str:
    """A reason that ends with a full stop of its own needs no second one."""
    return text.strip().replace("..", ".").replace("?.", "?")


def capital(text: str) -> str:
    """A sentence; the name of a host stays as it is written."""
    first = text.split(" ", 1)[0]
    return text if any(each.isdigit() for each in first) else text[:1].upper() + text[1:]
