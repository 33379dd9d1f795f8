"""What is configured for a database."""

import re
from dataclasses import dataclass
from pathlib import Path

from understudy.adapters.copies.settings import CopySettings
from understudy.config.settings import Seconds, setting

OWNER = re.compile(r"[\w.@+\\$-]{1,100}:[\w.@+\\$-]{1,100}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CopySettings):
    path: Path = setting(
        "The database file, e.g. astdb: the same on both nodes, and no symbolic link.",
        example="/var/lib/asterisk/astdb.sqlite3",
    )
    every: Seconds = setting(
        "How often the standby pulls it from the active node.", default=Seconds(10.0)
    )
    owner: str | None = setting(
        'Whose the file in place is: "user:group", by name.  Left out, as on the active node.',
        default=None,
        example="asterisk:asterisk",
    )

    @property
    def places(self) -> tuple[Path, ...]:
        """What is copied."""
        return (self.path,)

    def __post_init__(self) -> None:
        # A dataclass with slots is another class than super() knows.
        CopySettings.__post_init__(self)
        if not self.path.is_absolute():
            raise ValueError(f"path is {str(self.path)!r}.  Write an absolute path.")
        if self.owner is not None and not OWNER.fullmatch(self.owner):
            raise ValueError(f'owner is {self.owner!r}.  Write "user:group".')
