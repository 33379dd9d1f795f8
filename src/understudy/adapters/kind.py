"""How a family lists its members."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Settings = TypeVar("Settings")
Adapter = TypeVar("Adapter", covariant=True)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Settings, Adapter]):
    """One way to do a job: what it must be told (`settings`), and how to build it.

    `build` takes the settings and whatever the family's __init__ documents beyond them.
    """

    settings: type[Settings]
    build: Callable[..., Adapter]
    doc: str  # One sentence for the manual.


Catalogue = dict[str, Kind[Any, Adapter]]
