"""What is configured for a class of files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from understudy.adapters.copies import node_values
from understudy.adapters.copies.node_values import NodeValue
from understudy.adapters.copies.settings import CopySettings
from understudy.config.settings import setting

from .walk import TEMPORARY

STAGED = ".~tmp~"  # Where rsync keeps what --delay-updates delays.

# Other programs need these, or what is beside the PBX's in them: nothing is made "exactly the same" there.
_NOT_OURS = re.compile(
    r"/(bin|boot|dev|etc|home|lib(32|64)?|opt|proc|root|run|sbin|srv|sys|tmp|usr(/[^/]+)?|var(/(lib|log|spool))?)"
)


class Merge(StrEnum):
    """What becomes of files that only an old active node had."""

    NONE = "none"
    FILES = "files"
    VOICEMAIL = "voicemail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CopySettings):
    paths: tuple[Path, ...] = setting(
        "Folders (with all that is in them) and files to copy, each to the same path on the other node.  "
        "There it is made exactly the same: what is not on the active node is deleted.",
        example=["/etc/asterisk/", "/var/spool/asterisk/voicemail/"],
    )
    exclude: tuple[str, ...] = setting(
        "What to leave alone on both nodes: patterns as in rsync's --exclude, relative to each path.",
        default=(),
        example=["asterisk.pid", "*.lock"],
    )
    node_values: tuple[str, ...] = setting(
        "What differs between the nodes in files that are copied: `NODE FILE [SECTION] KEY = VALUE`, for each "
        "node.  Without `[SECTION]` every line with that key is meant.",
        default=(),
        example=[
            "pbx01 /etc/asterisk/a.conf bind = 192.0.2.1",
            "pbx02 /etc/asterisk/a.conf bind = 192.0.2.2",
        ],
    )

    merge: Merge = setting(
        "What happens to files that only the failed active node had, when it comes back.  They are always kept "
        'aside there.  "none": no more.  "files": they are added at the node that serves now where no file of that '
        'name is or was, e.g. recordings.  "voicemail": the same for the messages of Asterisk\'s app_voicemail, as the '
        "last ones of their folder.",
        default=Merge.NONE,
    )

    def __post_init__(self) -> None:
        # Not super(): with slots this is another class than the one that it knows.
        CopySettings.__post_init__(self)
        _check_paths(self.paths)
        _check_patterns(self.exclude)
        _check_values(self.values, self.paths)
        if self.merge is not Merge.NONE and self.node_values:
            raise ValueError(
                f'merge is "{self.merge}", and there are node_values.  Make two classes: configuration is not merged.'
            )

    @property
    def places(self) -> tuple[Path, ...]:
        """What is copied."""
        return self.paths

    @property
    def passing(self) -> tuple[str, ...]:
        """Names of what comes and goes there, and is no data: as patterns of rsync, and of fnmatch(3)."""
        locks = (".lock", ".lock-*") if self.merge is Merge.VOICEMAIL else ()
        return (STAGED, f"{TEMPORARY}*", *locks)

    @property
    def values(self) -> tuple[NodeValue, ...]:
        return tuple(node_values.parse(text) for text in self.node_values)


def _check_paths(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("paths is empty.  Write the folders to copy.")
    for path in paths:
        if not node_values.SAFE_PATH.fullmatch(str(path)) or ".." in path.parts:
            right = "Write an absolute path of letters, digits and . _ - + @ : , alone"
            raise ValueError(f"paths has {str(path)!r}.  {right}.")
        if _NOT_OURS.fullmatch(str(path)):
            raise ValueError(
                f"paths has {path}, which is not the PBX's alone.  Write its own folders."
            )
        if any(path != other and other in path.parents for other in paths) or paths.count(path) > 1:
            raise ValueError(f"paths has {path} twice, or in another path.  Write it once.")


def _check_patterns(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        # rsync(1), FILTER RULES: in front of a pattern these make another kind of rule of it.
        is_rule = pattern.startswith(("+ ", "- ", "!"))
        if is_rule or not pattern.strip() or not pattern.isprintable():
            raise ValueError(f'exclude has {pattern!r}.  Write a pattern alone, e.g. "*.lock".')


def _check_values(values: Sequence[NodeValue], paths: Sequence[Path]) -> None:
    nodes: dict[str, list[str]] = {}
    for value in values:
        if not any(value.file.is_relative_to(path) for path in paths):
            raise ValueError(f"node_values names {value.file}, which is in none of the paths.")
        nodes.setdefault(value.place, []).append(value.node)
    for place, each in nodes.items():
        if len(set(each)) < len(each):
            raise ValueError(f"node_values has two values for {place} on one node.  Write one.")
        if len(each) == 1:
            raise ValueError(
                f"node_values has a value for {place} on {each[0]} alone.  Write the other node's as well: "
                "once they have changed roles, the file is copied the other way."
            )
