"""What a node remembers, as JSON and back.

Generic over frozen dataclasses, by their annotations: str, int, float, bool, StrEnums, dataclasses, `X | None` and
`tuple[X, ...]`.  Every field is written; NEVER is written "never", because JSON has no infinity.  When reading, fields
that this version does not know are ignored and missing ones get their defaults, so that a node can be upgraded, and
set back, without losing what it knows.  Anything else that does not fit is refused by name.
"""

import json
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from understudy.core.model import NEVER
from understudy.errors import JournalError

T = TypeVar("T")

_Encode = Callable[[Any], Any]
_Decode = Callable[[Any, str], Any]
_NEVER = "never"


def dumps(value: Any) -> str:
    """The text for a State, a Policy, a Claim or any other dataclass of ours."""
    return _DUMP(to_json(value))


def loads(kind: type[T], text: str) -> T:
    """Raises JournalError naming the field that makes no sense."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"{kind.__name__.lower()}: no JSON: {error}") from error
    return from_json(kind, found)


def to_json(value: Any) -> Any:
    """Plain dicts, lists, strings and numbers."""
    kind: Any = type(value)
    return _encoder(kind)(value)


def from_json(kind: type[T], found: Any) -> T:
    """Raises JournalError naming the field that makes no sense."""
    anything: Any = kind
    decoded: T = _decoder(anything)(found, kind.__name__.lower())
    return decoded


_DUMP = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


# To JSON.  One function per type, made once: a round per second must stay cheap.


@cache
def _encoder(kind: Any) -> _Encode:
    if kind is float:
        return _float_out
    if kind in (str, int, bool):
        return _same
    if get_origin(kind) in (Union, types.UnionType):
        return _optional_out(_encoder(_but_none(kind)))
    if get_origin(kind) is tuple:
        return _tuple_out(_encoder(get_args(kind)[0]))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return str
    if is_dataclass(kind):
        return _dataclass_out(kind)
    raise TypeError(f"statecodec cannot write {kind}")


def _same(value: Any) -> Any:
    return value


def _float_out(value: float) -> Any:
    return _NEVER if value == NEVER else value


def _optional_out(inner: _Encode) -> _Encode:
    return lambda value: None if value is None else inner(value)


def _tuple_out(inner: _Encode) -> _Encode:
    return lambda value: [inner(each) for each in value]


def _dataclass_out(kind: Any) -> _Encode:
    hints = get_type_hints(kind)
    plans = [(field.name, _encoder(hints[field.name])) for field in fields(kind)]
    return lambda value: {name: encode(getattr(value, name)) for name, encode in plans}


# From JSON


@cache
def _decoder(kind: Any) -> _Decode:
    if kind is float:
        return _float_in
    if kind in (str, int, bool):
        return _plain_in(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return _optional_in(_decoder(_but_none(kind)))
    if get_origin(kind) is tuple:
        return _tuple_in(_decoder(get_args(kind)[0]))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _enum_in(kind)
    if is_dataclass(kind):
        return _dataclass_in(kind)
    raise TypeError(f"statecodec cannot read {kind}")


def _float_in(found: Any, where: str) -> float:
    if found == _NEVER:
        return NEVER
    if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
        raise _nonsense(where, found, 'a number, or "never"')
    return float(found)


def _plain_in(kind: type) -> _Decode:
    words = {str: "text", int: "a whole number", bool: "true or false"}[kind]

    def decode(found: Any, where: str) -> Any:
        if type(found) is not kind:  # Exactly: True is no number here.
            raise _nonsense(where, found, words)
        return found

    return decode


def _optional_in(inner: _Decode) -> _Decode:
    return lambda found, where: None if found is None else inner(found, where)


def _tuple_in(inner: _Decode) -> _Decode:
    def decode(found: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(found, list):
            raise _nonsense(where, found, "a list")
        return tuple(inner(each, f"{where}[{at}]") for at, each in enumerate(found))

    return decode


def _enum_in(kind: type[StrEnum]) -> _Decode:
    def decode(found: Any, where: str) -> StrEnum:
        try:
            return kind(found)
        except ValueError:
            raise _nonsense(where, found, "one of " + ", ".join(kind)) from None

    return decode


def _dataclass_in(kind: Any) -> _Decode:
    hints = get_type_hints(kind)
    plans = [(field, _decoder(hints[field.name])) for field in fields(kind)]

    def decode(found: Any, where: str) -> Any:
        if not isinstance(found, dict):
            raise _nonsense(where, found, "an object")
        values = {}
        for field, read in plans:
            if field.name in found:
                values[field.name] = read(found[field.name], f"{where}.{field.name}")
            elif field.default is MISSING and field.default_factory is MISSING:
                raise JournalError(f"{where}.{field.name} is missing")
        return kind(**values)

    return decode


def _but_none(kind: Any) -> Any:
    kinds = [each for each in get_args(kind) if each is not types.NoneType]
    if len(kinds) != 1:
        raise TypeError(f"statecodec knows `X | None`, not {kind}")
    return kinds[0]


def _nonsense(where: str, found: Any, right: str) -> JournalError:
    shown = json.dumps(found, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return JournalError(f"{where} is {shown}; it must be {right}")
