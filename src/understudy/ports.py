"""Everything we need from the outside world, on one page.

The adapters implement these; the runtime uses them; neither knows the other.  Every call has a deadline of its
own and may be cancelled at any await.  Unless a docstring says otherwise a failure is one of errors.AdapterError.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from understudy.core.claim import Claim
from understudy.core.observations import Order, Pbx, PeerAnswer, Report


class Moment(NamedTuple):
    """One reading of the clocks of this machine, in seconds."""

    boot: float  # CLOCK_BOOTTIME: counts while the machine sleeps; all ages are differences of it.
    wall: float  # CLOCK_REALTIME: for people, and for what both nodes must know (pause, settle).
    monotonic: float = 0.0  # CLOCK_MONOTONIC: stands still while the machine sleeps (V5).


class Clock(Protocol):
    def now(self) -> Moment: ...


class Probe(Protocol):
    """Asks one check point about one node, within its own deadline.

    A probe reports; it never raises (but lets itself be cancelled).  What could not be asked is UNKNOWN.
    """

    async def ask(self, node: str) -> Report: ...


class ClaimStore(Protocol):
    """The one record that both nodes believe.  Only what the server that decides says is the claim (C3)."""

    where: str  # For sentences: "the claim at 203.0.113.53 (_understudy.sip.example.com)".

    async def read(self) -> Claim:
        """Raises ClaimMissing, Unreachable, Denied."""

    async def confirm(self, claim: Claim) -> bool:
        """Is this, whole, what the server holds?  Changes nothing.  Raises Unreachable, Denied."""

    async def swap(self, old: Claim, new: Claim) -> bool:
        """C2: write `new` if `old`, whole, is still there; False if it is not.

        Raises Unanswered when the write may or may not have been made, Unreachable when it certainly was not, Denied.
        """

    async def create(self, claim: Claim) -> bool:
        """C4: write where there is none; False if there is one.  Raises as swap."""


class ServiceName(Protocol):
    """The name that phones and providers call, at every server that answers for it."""

    where: str  # For sentences: "sip.example.com at 203.0.113.53".

    async def point(self, node: str, claim: Claim) -> None:
        """Let the name lead to `node`, on condition that `claim` still stands.  Safe to repeat.  Raises."""

    async def verify(self, node: str) -> None:
        """Wait until every authoritative server sends callers to `node`; raise naming those that do not."""

    async def look(self) -> dict[str, str]:
        """What each authoritative server says now: by server, a node, other text, or `? why`.  Never raises."""


class Service(Protocol):
    """The PBX of this machine, and what must run beside it and nowhere else."""

    async def start(self) -> None:
        """Ask it to start; returns when the service manager has taken the request.  Safe to repeat.  Raises."""

    async def stop(self) -> None:
        """Stop it, kill it if it lingers, and return only when it is proved gone.  Raises NotStopped."""

    async def shut_off(self) -> None:
        """S5, last resort: no SIP leaves or enters this machine.  Raises NotStopped."""

    async def look(self) -> Pbx:
        """Never raises: what cannot be told is UNKNOWN."""

    async def ended(self) -> None:
        """Return when what `look` last saw running has ended: the time for another look.

        Waits for something to watch first; for ever where a kind of service cannot tell.
        """

    async def prove(self) -> None:
        """Return when it answers SIP here; raise with the reason at the deadline."""


class Peer(Protocol):
    """The other node's agent."""

    async def ask(self, epoch: int) -> PeerAnswer:
        """H2: could it take over from us now, for this epoch?  Raises when it could not be asked."""

    async def fence(self, node: str, epoch: int, *, hurry: bool) -> None:
        """T4: return only when `node` has confirmed that its PBX is stopped.  Raises.

        In a hurry, raise at once where its host shows no life.
        """

    async def order(self, order: Order) -> str:
        """Place a person's order there; returns what it says.  Raises."""

    async def wake(self) -> None:
        """Tell it that the claim has news.  Best effort: never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The node that data is pulled from: the active one, by claim and epoch."""

    node: str
    epoch: int  # The source looks at the claim in the same connection, and refuses in another one.
    reach: tuple[str, ...]  # The command that reaches its agent; the words of a request follow.


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought."""

    changed: bool  # There is a new snapshot.
    files: int = 0  # That were new or different.
    bytes: int = 0  # That travelled, about.


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What putting the newest snapshot in place would do here."""

    unit: str  # "files", "rows", "transactions".
    comes: int = 0  # Would be new or different.
    bytes: int = 0  # Of these, about.
    only_here: int = 0  # Would be overwritten or deleted, and is kept aside.
    examples: tuple[str, ...] = ()  # Some of these, for people.


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What became of what only the other node had."""

    taken: tuple[str, ...] = ()  # Is in the data here now: one line each, for people.
    known: int = 0  # Had been here before, and was deleted or changed since; or was taken before.
    left: tuple[str, ...] = ()  # Stays aside at the other node alone: one line each, and why.
    again: bool = False  # Some of these reasons may pass: it is worth another try.


class Snapshot(Protocol):
    """One whole state of a class of data."""

    @property
    def name(self) -> str:
        """Sorts by time."""

    @property
    def path(self) -> Path:
        """The folder that holds it.  Nothing in it may be written to."""

    @property
    def taken(self) -> float:
        """Wall clock seconds: when reading it from the source began."""


class Store(Protocol):
    def all(self) -> Sequence[Snapshot]:
        """The oldest first."""

    def arrived(self) -> int:
        """Bytes of the pull that is going on."""

    def asides(self) -> Sequence[Path]:
        """What `keep` has kept aside, the oldest first: nobody but a person removes it."""


class Copy(Protocol):
    """One class of data, at both ends: a source streams it, the other node keeps it and puts it in place."""

    @property
    def name(self) -> str:
        """[copies.NAME]"""

    @property
    def store(self) -> Store: ...

    def accept(self) -> None:
        """Let the next pull through though much is gone at the source."""

    async def pull(self, source: Source) -> Pulled:
        """Bring what is kept up to date: one new whole snapshot, or nothing at all.  Raises."""

    async def compare(self) -> Compared:
        """What `put` would do here now; changes nothing.  Raises."""

    async def keep(self) -> str:
        """Keep aside what is in place here and differs from the newest snapshot, which `put` would overwrite.

        Returns where it is now; empty if there is nothing.  Only while the PBX here is stopped.  Raises.
        """

    async def put(self) -> bool:
        """Put the newest snapshot in place; was anything different there?  Safe to repeat.  Raises.

        Only while the PBX here is stopped.
        """

    def bundle(self, aside: Path, target: Path) -> bool:
        """Write what of `aside` (of `store.asides()`) may be merged where it is missing, as one new file.

        False, and no file, where nothing of it may.  Raises Denied, OSError.
        """

    async def merge(self, bundle: Path) -> Merged:
        """At the active node, under the running PBX: take what is in the other node's bundle and was never here.

        Nothing here is overwritten or deleted.  Safe to repeat: what was taken once is not taken twice.  The
        bundle comes from the other node and is not to be believed.  Raises Denied, Unreachable, OSError.
        """

    def serve(self, words: Sequence[str]) -> int:
        """At the source, in a process of its own: answer one request of `pull` on stdin and stdout.

        Returns the exit status.  The claim has been looked at; `words` come from the other node and
        are not to be believed.  Raises Refused, AdapterError.
        """


class Watcher(Protocol):
    """Hears from the active node whether data there has changed."""

    def changes(self, source: Source, name: str) -> AsyncGenerator[bool, None]:
        """True whenever class `name` may have changed there; False, every second or so, when it has not.

        Ends when it is to be asked anew.  Raises where nobody watches.
        """


class Courier(Protocol):
    """The way of bundles to the active node (Copy.bundle, Copy.merge)."""

    async def ask(self, source: Source, name: str, mark: str) -> Mapping[str, Any] | None:
        """What has become of that bundle; None where it has not come there.  Raises."""

    async def bring(
        self, source: Source, name: str, mark: str, bundle: Path, size: int, sha256: str
    ) -> None:
        """Return when it is there, whole.  Safe to repeat.  Raises."""


class Database(Protocol):
    """A class of data that a server of its own copies while it is being written: the agent's part."""

    @property
    def name(self) -> str:
        """[copies.NAME]"""

    async def promote(self) -> None:
        """Copy from nobody, and take writes.  At once where that is so already.  Raises."""

    async def demote(self) -> None:
        """Take no writes any more.  Raises."""


class Copies(Protocol):
    """The copy of the active node's data.  (Nothing to do where no copies are configured.)"""

    def stale_from(self, at: Moment) -> float:
        """The boot-time second from which on it is too old for this node to serve with; infinite if it never is."""

    async def promote(self) -> None:
        """Make it what the PBX here may start on, and write.  Raises."""

    async def hand(self, epoch: int) -> None:
        """The PBX here is stopped: return when the other node has read all that is here.  Raises."""

    async def demote(self) -> None:
        """The PBX here is stopped and will not start: make it a copy again.  Raises."""

    async def renew(self, epoch: int) -> None:
        """Return when all of it has been read after now, at the node that is active in `epoch`.  Raises."""


class Severity(StrEnum):
    """How soon a person should read it."""

    INFO = "info"  # Good to know.
    WARNING = "warning"  # Today.
    CRITICAL = "critical"  # Now.


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a person is told."""

    id: str  # The same for each try: whoever gets it twice can tell.
    kind: str  # A word of the catalogue: "failover-done".
    subject: str  # One line.
    body: str  # Plain text.
    at: float  # Wall clock seconds: when it happened.
    node: str  # That tells it.
    pair: str
    severity: Severity


class Notifier(Protocol):
    """One way to one reader: a mail address, a chat room, a program."""

    name: str  # Unique, for sentences and for the journal: "mail (ops@example.com)".

    async def send(self, message: Message) -> None:
        """Return when whoever passes it on has taken it; safe to repeat.

        Raises Denied where another try would be refused as well, and another AdapterError where it is worth one.
        """


class Task(Protocol):
    def cancel(self) -> Any: ...


class Loop(Protocol):
    """How the agent lets time pass: asyncio in the daemon, virtual time in the simulator."""

    def start(self, work: Coroutine[Any, Any, Any], done: Callable[[Any], None]) -> Task:
        """Run `work` beside everything else; call `done(result)` when it ends, unless cancelled."""

    async def sleep(self, seconds: float) -> None: ...

    async def gather(self, *work: Awaitable[Any]) -> list[Any]: ...
