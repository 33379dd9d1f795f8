"""Asks the other node's agent by a command: one line there, one JSON object back.

Over SSH the far side is `understudy answer` as the forced command of a user of its own (sshd(8),
AUTHORIZED_KEYS FILE FORMAT, command=), which finds the line in SSH_ORIGINAL_COMMAND.  Where both
nodes are on one machine the line is the last arguments of `understudy --node OTHER answer`.

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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.adapters.processes import LIMIT, Finished, run
from understudy.core.observations import Order, PeerAnswer, Ready, Verb
from understudy.errors import AdapterError, Denied, Refused, Unanswered, Unreachable

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
                size=_epoch(size),
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


SSH_FOLDER = Path("/etc/understudy/ssh")


def over_ssh(
    target: str, *, connect_timeout: int = 2, folder: Path = SSH_FOLDER
) -> tuple[str, ...]:
    """The prefix for `user@host` (or ssh://user@host:port): no questions, no waiting, no
    forwarding.  With the key and the known host in `folder`, as `understudy init` puts them there;
    where they are not, those of the user.

    A dead host costs `connect_timeout` seconds; who is in a hurry looks for its greeting first (greeting.py).
    A host that dies while it answers is noticed after 15 s (ssh_config(5), ServerAliveInterval),
    and Door's own deadline stands above all of it.
    """
    options = (
        "BatchMode=yes",
        f"ConnectTimeout={connect_timeout}",
        "ConnectionAttempts=1",
        "ServerAliveInterval=5",
        "ServerAliveCountMax=2",
        "StrictHostKeyChecking=yes",
        "ClearAllForwardings=yes",
        "ForwardAgent=no",
        "LogLevel=ERROR",
    )
    words = (*options, *_ours(folder))
    return ("ssh", "-T", *(word for each in words for word in ("-o", each)), "--", target)


def _ours(folder: Path) -> Iterator[str]:
    identity, known = folder / "id_ed25519", folder / "known_hosts"
    if _is_file(identity):
        yield from (f"IdentityFile={identity}", "IdentitiesOnly=yes")
    if _is_file(known):
        yield f"UserKnownHostsFile={known}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # A person who may not look in there has keys of his own, or none.
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds for a whole request: way there, work there, way back."""

    ask: float = 8.0
    fence: float = 40.0  # Above the other node's stop_within: it answers when its PBX is gone.
    order: float = 15.0
    wake: float = 8.0
    status: float = 15.0
    doctor: float = 60.0  # Its own deadline is shorter: doctor.examine.WITHIN.
    trial: float = 80.0  # The same: doctor.mail.WITHIN.
    calls: float = 10.0  # Above the 5 s that counting them may take there.
    fetch: float = 60.0  # Nobody serves meanwhile.


class Door:
    """A ports.Peer.  `clock` gives boot-time seconds; `greets` raises Unreachable where nobody lives."""

    def __init__(
        self,
        node: str,
        argv_prefix: tuple[str, ...],
        timeouts: Timeouts | None = None,
        *,
        clock: Callable[[], float],
        greets: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.node = node
        self._prefix = argv_prefix
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._greets = greets

    async def ask(self, epoch: int) -> PeerAnswer:
        """Raises Unreachable, Denied."""
        asked_at = self._clock()  # Before the question is sent: what it says may be that old.
        answer = await self._question(Ask(epoch=epoch), self._timeouts.ask)
        try:
            return PeerAnswer(
                asked_at=asked_at,
                ready=Ready(answer["ready"]),
                epoch=_whole(answer["epoch"]),
                why=str(answer.get("why", "")),
            )
        except (KeyError, ValueError) as error:
            raise Unreachable(
                f"{self.node} did not say whether it is ready: {_short(str(answer))}",
                hint="Do both nodes run the same version?",
            ) from error

    async def fence(self, node: str, epoch: int, *, hurry: bool) -> None:
        """Raises Denied when it refuses, Unreachable when it was not asked, else Unanswered."""
        if hurry and self._greets is not None:
            await self._greets()
        answer = await self._change(Fence(node=node, epoch=epoch), self._timeouts.fence)
        if answer.get("stopped") is not True:
            raise Denied(f"{self.node} did not confirm that its PBX is stopped: {answer}")

    async def order(self, order: Order) -> str:
        """Raises as fence."""
        answer = await self._change(PlaceOrder(order=order), self._timeouts.order)
        return str(answer.get("said", ""))

    async def wake(self) -> None:
        try:
            await self._question(Wake(), self._timeouts.wake)
        except AdapterError:
            return  # It reads the claim by itself soon.

    async def status(self) -> dict[str, Any]:
        """Raises Unreachable, Denied."""
        return await self._question(Status(), self._timeouts.status)

    async def examine(self) -> dict[str, Any]:
        """Raises Unreachable, Denied."""
        return await self._question(Examine(), self._timeouts.doctor)

    async def trial(self) -> dict[str, Any]:
        """Raises Unreachable, Denied."""
        return await self._question(Trial(), self._timeouts.trial)

    async def calls(self) -> int:
        """How many are in progress on its PBX.  Raises Unreachable, Denied with the reason why nobody knows."""
        answer = await self._question(Calls(), self._timeouts.calls)
        try:
            return _whole(answer["calls"])
        except (KeyError, ValueError) as error:
            why = str(answer.get("why") or f"{self.node} does not say how many calls it has")
            raise Denied(why) from error

    async def fetch(self, epoch: int) -> None:
        """Raises Unreachable, Denied."""
        await self._question(Fetch(epoch=epoch), self._timeouts.fetch)

    async def compare(self, epoch: int) -> None:
        """Raises Unreachable, Denied."""
        await self._question(Compare(epoch=epoch), self._timeouts.fetch)

    async def _question(self, request: Request, within: float) -> dict[str, Any]:
        """For what changes nothing: whatever goes wrong, it could not be asked."""
        try:
            return await self._change(request, within)
        except Unanswered as error:
            raise Unreachable(str(error), hint=error.hint) from error

    async def _change(self, request: Request, within: float) -> dict[str, Any]:
        line = render_request(request)
        try:
            done = await run((*self._prefix, *line.split(" ", 1)), within=within)
        except Unanswered as error:
            raise Unanswered(f"{self.node} gave no answer within {within:g} s") from error
        return answer_of(self.node, done)


def answer_of(node: str, done: Finished) -> dict[str, Any]:
    """What the far side said.  Raises Denied when it refuses, Unreachable when it was not asked, else Unanswered."""
    answer = _read(node, done)
    if answer["ok"] is not True:
        raise Denied(f"{node} refuses: {_short(str(answer.get('why', 'no reason given')))}")
    if done.code != 0:
        raise Unanswered(f"{node} answered, then failed: {_complaint(done)}")
    return answer


def _read(node: str, done: Finished) -> dict[str, Any]:
    if done.cut:
        raise Unanswered(f"{node} answered more than {LIMIT // 1024} KiB: that is no agent")
    if not done.out.strip() and done.code != 0:
        if _NOT_CONNECTED.search(done.err):
            raise Unreachable(f"{node} cannot be reached: {_complaint(done)}")
        raise Unanswered(f"{node} gave no answer: {_complaint(done)}")
    try:
        answer = json.loads(done.out)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("ok"), bool):
        return answer
    raise Unanswered(
        f"{node} answered no JSON object but {_short(done.out) or 'nothing'}",
        hint="Is `understudy answer` the forced command there, and does its shell keep quiet?",
    )


# What ssh(1) says when it gave up before the other side had read our line.
_NOT_CONNECTED = re.compile(
    r"^ssh: |Permission denied \(|Host key verification failed|^kex_exchange_identification: ",
    re.MULTILINE,
)
_ORDERED = (Verb.FAILOVER, Verb.SWITCHOVER, Verb.REJOIN)


def _epoch(word: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", word):
        raise Refused(f"not an epoch: {word[:40]!r}")
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


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(value)
    return value


def _complaint(done: Finished) -> str:
    return f"{_short(done.err) or 'nothing on its standard error'} (exit status {done.code})"


def _short(text: str) -> str:
    """Fit for a sentence: the last line, without what a terminal would obey."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else ""
