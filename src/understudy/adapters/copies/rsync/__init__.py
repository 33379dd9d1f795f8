"""Files and folders by rsync(1): configuration, voicemail, prompts.

The standby's rsync receives and the active node's sends, through the same door as every other request: rsync is told
that the door is its remote shell.  What comes is a whole new snapshot, in which files that did not change are hard
links to those of the snapshot before (--link-dest); what is put in place is a copy of its own, since the PBX writes
into its files and must never reach the store.

    STORE/2026-11-23T04-15-00.123Z/root/etc/asterisk/extensions.conf   of /etc/asterisk/extensions.conf
    STORE/accept                                                       a person allows the next pull to lose files
    STORE/merged.jsonl                                                 what was merged: see record.py
"""

from collections.abc import Sequence
from pathlib import Path

from understudy.adapters.copies.store import Store
from understudy.errors import ConfigError
from understudy.ports import Compared, Merged, Pulled, Source

from . import aside, bundle, compare, merge, pull, put, send
from .files import Files
from .settings import Settings

__all__ = ["Rsync", "Settings"]


class Rsync:
    """A ports.Copy.  What goes wrong on our own disk is an OSError."""

    def __init__(self, name: str, settings: Settings, *, node: str, folder: Path) -> None:
        """`node` is this one; `folder` is for this class of data alone.  Raises ConfigError."""
        self.name = name
        folder = folder.absolute()
        if any(folder.is_relative_to(path) for path in settings.paths):
            raise ConfigError(
                [
                    f"[copies.{name}]: the copies themselves are kept in {folder}, in one of the paths."
                ]
            )
        self.store = Store(folder, keep=settings.keep, keep_bytes=settings.keep_bytes)
        self._files = Files(name, settings, node, self.store)

    def accept(self) -> None:
        """Let the next pull that succeeds lose as many files as it may."""
        self.store.accept()

    # At the standby

    async def pull(self, source: Source) -> Pulled:
        """Raises Unreachable, Denied, OSError; then there is no new snapshot."""
        return await pull.pull(self._files, source)

    async def compare(self) -> Compared:
        """Raises Denied, Unanswered, OSError."""
        return await compare.compare(self._files)

    async def keep(self) -> str:
        """Files alone, below their paths.  Raises Denied, Unanswered, OSError."""
        return await aside.keep(self._files)

    async def put(self) -> bool:
        """Raises Denied, Unanswered, OSError.  Cancelled, it has ended when the cancellation is seen.

        A path that came into `paths` after the newest snapshot is left alone.
        """
        return await put.put(self._files)

    def bundle(self, aside: Path, target: Path) -> bool:
        """Where `merge` is not "none".  Raises OSError."""
        return bundle.write(self._files, aside, target)

    # At the active node

    async def merge(self, bundle: Path) -> Merged:
        """Raises Denied, Unreachable, OSError.  Cancelled, it has ended when the cancellation is seen."""
        return await merge.merge(self._files, bundle)

    # At the source

    def serve(self, words: Sequence[str]) -> int:
        """rsync's sender for one of the paths, in our place: it does not return.  Raises Refused, Unreachable."""
        return send.serve(self._files, words)
