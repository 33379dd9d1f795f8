"""From what TOML holds to what a setting means, one type at a time.

A message completes the sentence that begins with the setting's name: `is "5x": not a duration.
Write ...`.  What may be a secret (or a command line, which may hold one) is never repeated in it.
"""

import ipaddress
import json
import os
import re
import stat
import types
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from understudy.config import durations
from understudy.config.settings import (
    Command,
    DnsName,
    Host,
    HostPort,
    InputFile,
    Port,
    Seconds,
    SecretFile,
)

# A service may be started with less in its PATH than a shell has.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class WrongValueError(Exception):
    """Says what is wrong with a value and what would be right."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written, as far as its meaning depends on that."""

    folder: Path  # Relative paths start here.
    check_files: bool  # Must files and programs exist on this machine?


def read(hint: Any, value: Any, place: Place) -> Any:
    """What `value`, as tomllib gives it, means as a `hint`.  Raises WrongValueError."""
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        return _list(hint, value, place)
    if is_choice(hint):
        return _one_of(hint, value)
    return READERS[hint](value, place)


def as_toml(hint: Any, value: Any) -> Any:
    """What to write in TOML so that it is read as `value`."""
    hint = _without_none(hint)
    if hint is Seconds and isinstance(value, int | float):
        return durations.show(value)
    if isinstance(value, Path | StrEnum):
        return str(value)
    if isinstance(value, tuple | list):
        inner = get_args(hint)[0] if get_origin(hint) is tuple else str
        return [as_toml(inner, item) for item in value]
    return value


def text(value: Any) -> str:
    """`value`, as tomllib would give it, as TOML text."""
    return json.dumps(value, ensure_ascii=False)


def form(hint: Any) -> str:
    """How a `hint` is written, for the manual."""
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        return f"list, each {form(get_args(hint)[0])}"
    if is_choice(hint):
        return " or ".join(text(str(member)) for member in hint)
    return FORMS[hint]


def is_choice(hint: Any) -> bool:
    """Is it one of a fixed set of words?"""
    hint = _without_none(hint)
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_host(value: str) -> bool:
    """A name as RFC 1123, section 2.1, allows it (its end is not all digits), or an IP address."""
    last = value.rpartition(".")[2]
    return is_ip(value) or (
        len(value) <= 253
        and not last.isdigit()
        and all(re.fullmatch(HOST_LABEL, label) for label in value.split("."))
    )


HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DNS_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    return hint


def _list(hint: Any, value: Any, place: Place) -> tuple[Any, ...]:
    inner, *_ = get_args(hint)
    if not isinstance(value, list):
        raise WrongValueError(f"is {_what(value)}, not a list.  Write {_list_example(inner)}.")
    items = []
    for number, item in enumerate(value, 1):
        try:
            items.append(read(inner, item, place))
        except WrongValueError as wrong:
            raise WrongValueError(f"has a mistake: item {number} {wrong}") from None
    return tuple(items)


def _list_example(inner: Any) -> str:
    return (
        "a list in brackets: [1, 2]"
        if inner in (int, Port)
        else 'a list in brackets: ["...", "..."]'
    )


def _one_of(hint: type[StrEnum], value: Any) -> StrEnum:
    right = " or ".join(text(str(member)) for member in hint)
    written = _text(value, f"Write {right}.")
    try:
        return hint(written)
    except ValueError:
        raise WrongValueError(f"is {_shown(written)}.  Write {right}.") from None


def _str(value: Any, place: Place) -> str:
    return _text(value, 'Write it in quotes: "...".')


def _int(value: Any, place: Place) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongValueError(
            f"is {_what(value)}, not a whole number.  Write digits alone, without quotes."
        )
    return value


def _bool(value: Any, place: Place) -> bool:
    if not isinstance(value, bool):
        raise WrongValueError(f"is {_what(value)}.  Write true or false, without quotes.")
    return value


def _port(value: Any, place: Place) -> Port:
    number = _int(value, place)
    if not 1 <= number <= 65535:
        raise WrongValueError(f"is {number}: not a port.  Write a number from 1 to 65535.")
    return Port(number)


def _seconds(value: Any, place: Place) -> Seconds:
    right = 'Write e.g. "5m" or "300s".'
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise WrongValueError(
            f'is {value}: a number without a unit.  Write e.g. "{value}s" or "5m".'
        )
    written = _text(value, right)
    try:
        return Seconds(durations.parse(written))
    except ValueError:
        raise WrongValueError(f"is {_shown(written)}: not a duration.  {right}") from None


def _host(value: Any, place: Place) -> Host:
    right = 'Write e.g. "pbx01.example.com" or "192.0.2.11"'
    written = _text(value, right + ".")
    if is_host(written):
        return Host(written)
    without_port = written.rpartition(":")[0].strip("[]")
    if is_host(without_port):
        raise WrongValueError(
            f"is {_shown(written)}: a port does not belong here.  Write {text(without_port)}."
        )
    raise WrongValueError(f"is {_shown(written)}: neither a host name nor an IP address.  {right}.")


def _host_port(value: Any, place: Place) -> HostPort:
    right = 'Write e.g. "192.0.2.1:5060", "[2001:db8::1]:5060" or "pbx01.example.com:5060".'
    written = _text(value, right)
    host, colon, port = written.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or is_ip(written):
        raise WrongValueError(f"is {_shown(written)}: the port is missing.  {right}")
    if not is_host(bare) or (":" in bare) != (bare != host):
        raise WrongValueError(f"is {_shown(written)}: not a host and a port.  {right}")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise WrongValueError(
            f"is {_shown(written)}: the port must be a number from 1 to 65535.  {right}"
        )
    return HostPort(written)


def _dns_name(value: Any, place: Place) -> DnsName:
    right = 'Write e.g. "sip.example.com".'
    written = _text(value, right)
    name = written.removesuffix(".").lower()
    if not name.isascii():
        raise WrongValueError(
            f"is {_shown(written)}: write names with other letters in their xn-- form."
        )
    if is_ip(name):
        raise WrongValueError(f"is {_shown(written)}: an IP address, not a domain name.  {right}")
    if len(name) > 253 or not all(re.fullmatch(DNS_LABEL, label) for label in name.split(".")):
        raise WrongValueError(f"is {_shown(written)}: not a domain name.  {right}")
    return DnsName(name)


def _path(value: Any, place: Place) -> Path:
    written = _text(value, 'Write a path in quotes, e.g. "/var/lib/understudy/journal.sqlite3".')
    if not written:
        raise WrongValueError(
            'is empty.  Write a path, e.g. "/var/lib/understudy/journal.sqlite3".'
        )
    return place.folder / written


def _input_file(value: Any, place: Place) -> InputFile:
    path = _path(value, place)
    if place.check_files:
        _regular(path, f"names {path}, which")
    return InputFile(path)


def _secret_file(value: Any, place: Place) -> SecretFile:
    right = "Write the path of a file that holds the secret, and never the secret itself."
    if not isinstance(value, str) or not value or not value.isprintable():
        raise WrongValueError(f"is no path.  {right}")
    path = place.folder / value
    if place.check_files:
        # The path is not shown before it is known to be one: people paste the secret here.
        try:
            mode = _regular(path, "names something that").st_mode
        except WrongValueError as wrong:
            raise WrongValueError(f"{wrong}  {right}") from None
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise WrongValueError(
                f"names {path}, which others may read or change (mode {stat.S_IMODE(mode):04o}).  "
                f"Run: chmod 640 {path}"
            )
    return SecretFile(path)


def _regular(path: Path, which: str) -> os.stat_result:
    try:
        found = path.stat()
    except PermissionError:
        raise WrongValueError(f"{which} this user may not look at.  Run as another user.") from None
    except (OSError, ValueError):
        raise WrongValueError(f"{which} does not exist.") from None
    if not stat.S_ISREG(found.st_mode):
        raise WrongValueError(f"{which} is not a regular file.")
    return found


def _command(value: Any, place: Place) -> Command:
    right = 'Write a list in brackets, the program first: ["/usr/bin/program", "argument"].'
    if not isinstance(value, list):
        raise WrongValueError(f"is {_what(value)}; no shell will split it.  {right}")
    if not value or not all(isinstance(part, str) for part in value) or not value[0]:
        raise WrongValueError(f"is not a list of text with a program in front.  {right}")
    if any("\0" in part for part in value):
        raise WrongValueError(f"holds a zero byte.  {right}")
    program, *arguments = value
    if "/" in program:
        program = str(place.folder / program)
    if place.check_files and not _is_program(program):
        raise WrongValueError(
            f"starts {_shown(program)}, which is no program on this machine.  "
            "Install it, or write its whole path."
        )
    return Command((program, *arguments))


def _is_program(program: str) -> bool:
    folders = ("",) if "/" in program else (*os.get_exec_path(), *SYSTEM_FOLDERS)
    paths = [Path(folder, program) for folder in folders]
    return any(path.is_file() and os.access(path, os.X_OK) for path in paths)


def _text(value: Any, right: str) -> str:
    if not isinstance(value, str):
        raise WrongValueError(f"is {_what(value)}, not text.  {right}")
    if not value.isprintable():
        raise WrongValueError(f"holds a line break or another invisible character.  {right}")
    return value


def _shown(value: str) -> str:
    return text(value if len(value) <= 60 else value[:57] + "...")


def _what(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),  # Before int, which it is a kind of.
        (int, "a number"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((word for kind, word in kinds if isinstance(value, kind)), "a date")


READERS: dict[Any, Callable[[Any, Place], Any]] = {
    str: _str,
    int: _int,
    bool: _bool,
    Path: _path,
    Seconds: _seconds,
    Host: _host,
    HostPort: _host_port,
    Port: _port,
    DnsName: _dns_name,
    SecretFile: _secret_file,
    InputFile: _input_file,
    Command: _command,
}
FORMS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    bool: "`true` or `false`",
    Path: "path",
    Seconds: "duration",
    Host: "host name or IP address",
    HostPort: "host and port",
    Port: "port",
    DnsName: "domain name",
    SecretFile: "path of a secret file",
    InputFile: "path of a file",
    Command: "list: program and arguments",
}
