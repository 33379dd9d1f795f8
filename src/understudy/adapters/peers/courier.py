"""Brings the active node what only this one had, through the other node's door."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.adapters.peers.door import answer_of
from understudy.adapters.peers.requests import AskMerged, Bundle, render_request
from understudy.adapters.processes import Finished, run
from understudy.errors import Unanswered, Unreachable
from understudy.ports import Source

ASK_WITHIN = 20.0  # Seconds.
BRING_WITHIN = 3600.0


class Courier:
    """A ports.Courier."""

    async def ask(self, source: Source, name: str, mark: str) -> Mapping[str, Any] | None:
        """Raises Unreachable, Denied."""
        line = render_request(AskMerged(copy=name, epoch=source.epoch, mark=mark))
        try:
            done = await run((*source.reach, *line.split(" ", 1)), within=ASK_WITHIN)
            said = answer_of(source.node, done).get("report")
        except Unanswered as error:
            raise Unreachable(str(error), hint=error.hint) from error
        return said if isinstance(said, Mapping) else None

    async def bring(
        self, source: Source, name: str, mark: str, bundle: Path, size: int, sha256: str
    ) -> None:
        """Raises Unreachable, Denied; OSError for `bundle`."""
        request = Bundle(copy=name, epoch=source.epoch, mark=mark, size=size, sha256=sha256)
        line = render_request(request)
        with bundle.open("rb") as file:
            try:
                done: Finished = await run(
                    (*source.reach, *line.split(" ", 1)), within=BRING_WITHIN, stdin=file
                )
                answer_of(source.node, done)
            except Unanswered as error:  # Brought again, it is the same bundle.
                raise Unreachable(str(error), hint=error.hint) from error
