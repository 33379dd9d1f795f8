"""Ways to let the service name lead to the active node.

`build(settings, *, service, nodes, claim_record=None)`: `nodes` are the Targets by node name;
`claim_record` is the name of the claim's TXT record when the claim is in the same zone on the same
server, else None.  Raises ConfigError.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from understudy.adapters.kind import Catalogue, Kind
from understudy.adapters.names import rfc2136
from understudy.adapters.names.target import Target
from understudy.core.claim import Claim
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable
from understudy.ports import ServiceName

__all__ = ["NAMES", "SeveralNames", "Target"]

NAMES: Catalogue[ServiceName] = {
    "rfc2136": Kind(
        rfc2136.Settings,
        rfc2136.build,
        "Your own name server, changed by RFC 2136 updates signed with a TSIG key.",
    ),
}


class SeveralNames:
    """ports.ServiceName for a name that is kept in several places: an internal and an external view.

    All move at once, each within its own deadline: one that is stuck does not hold up another.
    """

    def __init__(self, names: Sequence[ServiceName]) -> None:
        self._names = tuple(names)
        self.where = " and ".join(each.where for each in self._names)

    async def point(self, node: str, claim: Claim) -> None:
        _raise_together(
            await asyncio.gather(
                *(each.point(node, claim) for each in self._names), return_exceptions=True
            )
        )

    async def verify(self, node: str) -> None:
        _raise_together(
            await asyncio.gather(
                *(each.verify(node) for each in self._names), return_exceptions=True
            )
        )

    async def look(self) -> dict[str, str]:
        looks = await asyncio.gather(*(each.look() for each in self._names))
        times = Counter(server for look in looks for server in look)
        return {
            server if times[server] == 1 else f"{server} ({name.where})": said
            for name, look in zip(self._names, looks, strict=True)
            for server, said in look.items()
        }


def _raise_together(results: Sequence[BaseException | None]) -> None:
    failures = [each for each in results if each is not None]
    for each in failures:
        if not isinstance(each, AdapterError):
            raise each  # A bug, or a cancellation: not ours to reword.
    errors = [each for each in failures if isinstance(each, AdapterError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        _raise_worst(errors)


def _raise_worst(errors: Sequence[AdapterError]) -> NoReturn:
    kinds = (Unanswered, Denied, Unreachable)  # What leaves the most open comes first.
    kind = next((each for each in kinds if any(isinstance(e, each) for e in errors)), AdapterError)
    hints = dict.fromkeys(each.hint for each in errors if each.hint)
    raise kind("; ".join(str(each) for each in errors), hint=" ".join(hints))
