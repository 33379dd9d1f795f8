"""From a person's answers to a configuration, with the words of the settings' own definitions above each.

Whether the answers make sense is for the loader to say: it has all the rules, and a sentence for each.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, get_type_hints

from understudy.adapters.services.calls import PROGRAMS
from understudy.config import durations, values
from understudy.config.load import Catalogues
from understudy.config.schema import Detection, NodeSettings, PairSettings

from .times import Times, TooShortError, times

WIDTH = 100
Tables = list[tuple[str, type | None, dict[str, Any]]]
"""Each with its header, the definitions of its settings, and what is written."""

PAIR = "What do people call this pair?"
SERVICE = "Which name do phones and providers call?"
NODES = "The two PBX servers, by short names"
HOST = "{node}: its own host name, which the service name will point to"
ADDRESS = "{node}: where the other node and the check points reach it"
ISOLATION = (
    "{node}: cut off so far that it sees neither the claim nor the check points, it cannot know whether the "
    "other node has taken over.\n"
    "  keep: its PBX goes on: an office with its phones on the same network telephones on, its emergency line "
    "too; two PBXs may be active.\n"
    "  stop: its PBX stops: never two, and that office falls silent: nobody there can call the fire brigade "
    "over it.\n"
    "{node}: keep or stop?"
)
SSH = "{node}: the other node's way in over SSH"
PREFERRED = "The node that is active when all is well"
PBX = "Which PBX is it: asterisk, freeswitch, kamailio or other?"
UNIT = "Its systemd unit"
STOP_WITHIN = "How long may it take to stop?"
PATIENCE = "How long must it be unreachable before the other one takes over (5m, 25s, 10s)?"
CHECKPOINTS = "At least three check points in other networks, as NAME=ADDRESS"
SERVER = "The primary name server of the zone, at neither node's own site"
ZONE = "The zone"
RECORD = "What the service name is made of: CNAME, A or SRV"
TLS = 'How NRPE is protected there: "anonymous" (as it comes), "verified" or "off"'
TTL = "How long callers may keep it"
KEY_FILE = "The file with the name server's key"
ACTIVE_ONLY = "Further units that run on the active node alone"
USE_SUDO = "Is there no polkit, but sudo (yes or no)?"
QUESTION = "How long one question to a check point may take, or nothing"
MAIL_SERVER = "The mail server that takes it"
MAIL = "A mail address for news, or nothing"


class Ask(Protocol):
    """Where an answer comes from: flags, a file, a person.  Raises what ends the interview."""

    def __call__(
        self,
        key: str,
        question: str,
        default: str | None = None,
        check: Callable[[str], None] | None = None,
        *,
        aside: bool = False,
    ) -> str:
        """`aside`: the default does; a person is asked nothing, but may have said something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    tables: Tables
    pbx: str


def interview(ask: Ask, catalogues: Catalogues, place: values.Place) -> Draft:
    """Every question once, in an order in which one answer suggests the next."""

    def right(settings: type, name: str) -> Callable[[str], None]:
        hint = get_type_hints(settings)[name]
        return lambda text: _check(hint, text, place)

    systemd = catalogues["service"]["systemd"]
    pair = {
        "name": ask("pair", PAIR, check=right(PairSettings, "name")),
        "service": ask("service", SERVICE, check=right(PairSettings, "service")),
    }
    zone = pair["service"].partition(".")[2]
    names = _words(ask("nodes", NODES, "pbx01 pbx02", _two))
    pair["preferred"] = ask("preferred", PREFERRED, names[0], aside=True)
    nodes = {name: _node(name, zone, ask, right) for name in names}
    pbx = ask("pbx", PBX, "asterisk", _pbx)
    service = _service(ask, pbx, right(systemd, "stop_within"))
    chosen = _times(ask, durations.parse(service["stop_within"]), right(Detection, "patience"))
    checkpoints = dict(
        _pair(word) for word in _words(ask("checkpoints", CHECKPOINTS, None, _points))
    )
    tls = ask("tls", TLS, "anonymous", aside=True)
    rfc2136 = catalogues["name"]["rfc2136"]
    name = {
        "kind": "rfc2136",
        "server": ask("server", SERVER, check=right(rfc2136, "server")),
        "zone": ask("zone", ZONE, zone, right(rfc2136, "zone")),
        "record": ask("record", RECORD, "CNAME", right(rfc2136, "record")),
        "ttl": ask("ttl", TTL, "30s", right(rfc2136, "ttl"), aside=True),
        "key_file": ask("key_file", KEY_FILE, "/etc/understudy/tsig.key", aside=True),
    }
    mail = _words(ask("mail", MAIL, ""))
    tables: Tables = [("pair", PairSettings, pair)]
    tables += [(f"nodes.{each}", NodeSettings, nodes[each]) for each in names]
    tables.append(("detection", Detection, chosen.detection()))
    tables += [
        (f"checkpoints.{each}", catalogues["checkpoints"]["nrpe"], _point(where, tls, chosen))
        for each, where in checkpoints.items()
    ]
    claim = {"kind": "dns", "timeout": durations.show(chosen.reading)}
    tables.append(("claim", catalogues["claim"]["dns"], claim))
    tables.append(("name", rfc2136, name))
    tables.append(("service", systemd, service))
    if mail:
        news = {"kind": "mail", "to": mail, "server": ask("mail_server", MAIL_SERVER, "localhost")}
        tables.append(("notify.mail", catalogues["notify"]["mail"], news))
    return Draft(tables=tables, pbx=pbx)


def text(tables: Tables) -> str:
    """As TOML.  What a setting means stands above it, once."""
    return "\n".join(_lines(tables)) + "\n"


def _lines(tables: Tables) -> Iterator[str]:
    yield from _prose(
        "Configuration of Understudy, the same file on both nodes.  All that may be set, and what it means: "
        "understudy.toml(5).  After a change: understudy config check"
    )
    told: set[tuple[type | None, str]] = set()
    for header, settings, table in tables:
        docs = {f.name: f.metadata.get("doc", "") for f in fields(settings)} if settings else {}
        yield ""
        yield f"[{header}]"
        for key, value in table.items():
            if docs.get(key) and (settings, key) not in told:
                yield from _prose(docs[key])
            told.add((settings, key))
            yield f"{key} = {values.text(value)}"


Right = Callable[[type, str], Callable[[str], None]]


def _node(name: str, zone: str, ask: Ask, right: Right) -> dict[str, Any]:
    def of(key: str, question: str, default: str | None = None, *, aside: bool = False) -> str:
        told = question.format(node=name)
        return ask(f"nodes.{name}.{key}", told, default, right(NodeSettings, key), aside=aside)

    host = of("host", HOST, f"{name}.{zone}")
    address = of("address", ADDRESS)
    ssh = of("ssh", SSH, f"understudy@{address}", aside=True)
    return {"host": host, "address": address, "ssh": ssh, "isolation": of("isolation", ISOLATION)}


def _service(ask: Ask, pbx: str, right: Callable[[str], None]) -> dict[str, Any]:
    service: dict[str, Any] = {"kind": "systemd"}
    service["unit"] = ask("unit", UNIT, pbx if pbx != "other" else None)
    service["stop_within"] = ask("stop_within", STOP_WITHIN, "25s", right)
    active_only = _words(ask("active_only", ACTIVE_ONLY, "", aside=True))
    if active_only:
        service["active_only"] = active_only
    if ask("use_sudo", USE_SUDO, "no", aside=True) == "yes":
        service["use_sudo"] = True
    if pbx in PROGRAMS:
        service["calls"] = list(PROGRAMS[pbx])
    return service


def _times(ask: Ask, stop_within: float, right: Callable[[str], None]) -> Times:
    question = ask("question", QUESTION, "", aside=True)
    given = durations.parse(question) if question else None

    def long_enough(written: str) -> None:
        right(written)
        try:
            times(durations.parse(written), stop_within, given)
        except TooShortError as error:
            raise values.WrongValueError(str(error)) from None

    patience = durations.parse(ask("patience", PATIENCE, "5m", long_enough))
    return times(patience, stop_within, given)


def _point(address: str, tls: str, chosen: Times) -> dict[str, Any]:
    return {
        "kind": "nrpe",
        "address": address,
        "tls": tls,
        "timeout": durations.show(chosen.question),
    }


def _check(hint: Any, written: str, place: values.Place) -> None:
    values.read(hint, written, place)


def _words(written: str) -> list[str]:
    return written.replace(",", " ").split()


def _pair(word: str) -> tuple[str, str]:
    name, _, address = word.partition("=")
    return name, address


def _two(written: str) -> None:
    if len(set(_words(written))) != 2:
        raise values.WrongValueError("is not two names.  Write e.g. pbx01 pbx02.")


def _pbx(written: str) -> None:
    if written not in ("asterisk", "freeswitch", "kamailio", "other"):
        raise values.WrongValueError("is none of asterisk, freeswitch, kamailio, other.")


def _points(written: str) -> None:
    words = _words(written)
    if len(words) < 3 or not all(all(_pair(word)) for word in words):
        raise values.WrongValueError(
            "is not three check points or more.  Write e.g. cp1=192.0.2.21 cp2=198.51.100.22 cp3=203.0.113.23"
        )


def flat(answers: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """A file of answers as `key = text`: tables become dotted keys, lists words."""
    found: dict[str, str] = {}
    for key, value in answers.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping) and name == "checkpoints":
            found[name] = " ".join(f"{each}={where}" for each, where in value.items())
        elif isinstance(value, Mapping):
            if name == "nodes":
                found[name] = " ".join(value)
            found |= flat(value, f"{name}.")
        elif isinstance(value, list):
            found[name] = " ".join(map(str, value))
        elif isinstance(value, bool):
            found[name] = "yes" if value else "no"
        else:
            found[name] = str(value)
    return found


def _prose(written: str) -> list[str]:
    return textwrap.wrap(
        " ".join(written.split()), WIDTH, initial_indent="# ", subsequent_indent="# "
    )
