"""What one node asks of the other, as one line of text; and the one line of JSON that comes back.

line                what comes back
ask EPOCH           {"ok": true, "ready": "yes" or "no", "epoch": 7, "why": "..."}      H2
fence NODE EPOCH    {"ok": true, "stopped": true}                                       T4
order JSON          {"ok": true, "said": "..."}
wake                {"ok": true}
status              {"ok": true, ...}
doctor              {"ok": true, ...}: what the far side finds on itself
trial               {"ok": true, "findings": [...]}: whether it can tell anybody anything
calls               {"ok": true, "calls": 3}, or null and "why": so many are in progress on its PBX
fetch EPOCH         {"ok": true}: every class of data has been read here since; our PBX is stopped
compare EPOCH       {"ok": true}: the copier here has looked what a rejoin would do
copy NAME EPOCH ... what that class's kind of copy has agreed upon; not JSON
bundle NAME EPOCH MARK BYTES SHA256
                    {"ok": true}: these bytes came on standard input, and wait to be merged here
merged NAME EPOCH MARK
                    {"ok": true, "report": null or {...}}: what has become of them
any, refused        {"ok": false, "why": "..."}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from understudy.core.observations import Order, PeerAnswer, Verb
from understudy.errors import Refused

LINE_LIMIT = 4096  # Characters of a request.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """H2: could you take over from us now, for this epoch?"""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """T4: stop the PBX of `node`, unless you are another node, or know `epoch` as your own."""

    node: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """The claim has news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Examine:
    """What do you find on your own node?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Send a test message by every way that you have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How many calls are in progress on your PBX?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Read at the asker, who holds the claim in `epoch`, whatever you have not copied yet."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Look what a rejoin would do to your data; the asker holds the claim in `epoch`."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Be the source of a class of data.  `words` are for its kind of copy."""

    copy: str
    epoch: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Take from standard input what only the asker had of a class of data."""

    copy: str
    epoch: int
    mark: str  # Its name, the same for each try.
    size: int  # Bytes.
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskMerged:
    """What has become of that bundle?"""

    copy: str
    epoch: int
    mark: str


Request = (
    Ask
    | Fence
    | PlaceOrder
    | Wake
    | Status
    | Examine
    | Trial
    | Calls
    | Fetch
    | Compare
    | Bundle
    | AskMerged
    | Stream
)


def parse_request(line: str) -> Request:
    """The far side's reading of the line.  Whatever is not exactly a request raises Refused."""
    if len(line) > LINE_LIMIT or not line.isprintable():
        raise Refused("not a request: too long, or not one line of text")
    match line.split(" ", 1):
        case ["ask", epoch]:
            return Ask(epoch=_epoch(epoch))
        case ["fence", words] if words.count(" ") == 1:
            node, epoch = words.split(" ")
            return Fence(node=_node(node), epoch=_epoch(epoch))
        case ["order", text]:
            return PlaceOrder(order=_order(text))
        case ["wake"]:
            return Wake()
        case ["status"]:
            return Status()
        case ["doctor"]:
            return Examine()
        case ["trial"]:
            return Trial()
        case ["calls"]:
            return Calls()
        case ["fetch", epoch]:
            return Fetch(epoch=_epoch(epoch))
        case ["compare", epoch]:
            return Compare(epoch=_epoch(epoch))
        case ["bundle", words] if words.count(" ") == 4:
            name, epoch, mark, size, sha256 = words.split(" ")
            return Bundle(
                copy=_node(name),
                epoch=_epoch(epoch),
                mark=_node(mark),
                size=_number(size, "a number of bytes"),
                sha256=sha256,
            )
        case ["merged", words] if words.count(" ") == 2:
            name, epoch, mark = words.split(" ")
            return AskMerged(copy=_node(name), epoch=_epoch(epoch), mark=_node(mark))
        case ["copy", words] if words.count(" ") >= 2:
            name, epoch, rest = words.split(" ", 2)
            return Stream(copy=_node(name), epoch=_epoch(epoch), words=tuple(rest.split(" ")))
    raise Refused(
        f"not a request: {line[:60]!r}",
        hint="One of: ask EPOCH, fence NODE EPOCH, order JSON, wake, status, doctor, trial, calls, fetch EPOCH, "
        "copy NAME EPOCH ...",
    )


def render_request(request: Request) -> str:
    """The line for it: parse_request gives it back."""
    match request:
        case Ask(epoch=epoch):
            return f"ask {epoch}"
        case Fence(node=node, epoch=epoch):
            return f"fence {node} {epoch}"
        case PlaceOrder(order=order):
            return f"order {json.dumps(asdict(order), separators=(',', ':'))}"
        case Wake():
            return "wake"
        case Status():
            return "status"
        case Examine():
            return "doctor"
        case Trial():
            return "trial"
        case Calls():
            return "calls"
        case Fetch(epoch=epoch):
            return f"fetch {epoch}"
        case Compare(epoch=epoch):
            return f"compare {epoch}"
        case Bundle(copy=name, epoch=epoch, mark=mark, size=size, sha256=sha256):
            return f"bundle {name} {epoch} {mark} {size} {sha256}"
        case AskMerged(copy=name, epoch=epoch, mark=mark):
            return f"merged {name} {epoch} {mark}"
        case Stream(copy=name, epoch=epoch, words=words):
            return " ".join(("copy", name, str(epoch), *words))


def render_answer(answer: Mapping[str, Any] | PeerAnswer | Refused) -> str:
    """What the far side writes to its standard output, and nothing else: one line of JSON."""
    match answer:
        case Refused():
            fields = {"ok": False, "why": str(answer)}
        case PeerAnswer(ready=ready, epoch=epoch, why=why):
            fields = {"ok": True, "ready": ready.value, "epoch": epoch, "why": why}
        case _:
            fields = {"ok": True, **answer}
    return json.dumps(fields)


_ORDERED = (Verb.FAILOVER, Verb.SWITCHOVER, Verb.REJOIN)


def _epoch(word: str) -> int:
    return _number(word, "an epoch")


def _number(word: str, what: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", word):
        raise Refused(f"not {what}: {word[:40]!r}")
    return int(word)


def _node(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", word):
        raise Refused(f"not a node: {word[:40]!r}")
    return word


def _order(text: str) -> Order:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("the order is not JSON") from None
    # The type, not isinstance: True is an int to Python and no number to us.
    types = {name: type(value) for name, value in asdict(_EXAMPLE).items()}
    types["verb"] = str
    if not isinstance(fields, dict) or {name: type(v) for name, v in fields.items()} != types:
        raise Refused(f"an order has exactly these: {', '.join(types)}")
    if fields["verb"] not in _ORDERED:
        # A fence has a request of its own, because it names the node (T4).
        raise Refused(f"an order is one of {', '.join(_ORDERED)}")
    return Order(**{**fields, "verb": Verb(fields["verb"])})


_EXAMPLE = Order(id=0, verb=Verb.FAILOVER)
