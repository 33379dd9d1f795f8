"""Tells people what happens: a companion of the agent, and never in its way.

It reads the journal behind the agent, and how the node stands; what is worth a message goes into the outbox, in one
transaction with how far the journal was read.  So a restart tells nothing twice and misses nothing.
"""

import asyncio
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from understudy.core.claim import How
from understudy.core.model import State
from understudy.core.policy import Policy
from understudy.errors import AdapterError, Denied, JournalError
from understudy.ports import Message, Moment, Notifier, Severity

from . import journal_pen as pens
from . import statecodec, telling_bundles, telling_conditions, telling_deeds, telling_words
from .companions import Beside
from .journal import SqliteJournal
from .journal_rows import Deed, Event, Failing
from .outbox import Delivery, Outbox
from .readings import status
from .telling_bundles import Bundle, Draft
from .telling_catalogue import CATALOGUE
from .telling_conditions import Sight, Standing
from .telling_deeds import Cursor
from .telling_words import Words
from .waiting import span

LOOK = 2.0  # Seconds between two looks.
KEY = "telling"  # In the journal's meta.
HELD = 60.0  # Seconds: older news say in the subject when it was.
EVENTS = 5  # That a message ends with.


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What messages say about the pair."""

    pair: str
    service: str
    glass: str  # The break-glass file.


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is told so far."""

    cursor: Cursor = field(default_factory=Cursor)
    standing: tuple[Standing, ...] = ()
    bundles: tuple[Bundle, ...] = ()


class Teller:
    """From the journal and the status of the node to messages in the outbox."""

    def __init__(self, about: About, journal: SqliteJournal, outbox: Outbox) -> None:
        self._about, self._journal, self._outbox = about, journal, outbox
        self._memory = Memory()
        self._is_loaded = False
        self._heard: set[tuple[float, str, str]] = set()

    def look(self, state: State, policy: Policy, at: Moment) -> list[Message]:
        """Tell what is new; returns it.  Never raises for a journal that cannot be read."""
        with suppress(JournalError):
            self._load()
            self._outbox.load(at.wall)
        fields = self._fields(policy)
        memory = self._memory
        deeds, cursor = self._deeds(memory.cursor)
        drafts: list[Draft] = []
        for deed in deeds:
            drafts += self._of_deed(deed, cursor.began, fields, state, policy)
            cursor = replace(cursor, began=telling_deeds.after(deed, cursor.began))
        standing, told = telling_conditions.look(self._sight(state, policy, at), memory.standing)
        for each in told:
            kind, more = each.found.kind, {**fields, **each.found.fields}
            make = telling_words.over if each.is_over else telling_words.words
            drafts.append(self._draft(kind, make(kind, more), at.wall, state, policy, each.is_over))
        bundles, out = memory.bundles, list[Draft]()
        for draft in drafts:
            bundles, now = telling_bundles.offer(bundles, draft)
            out += now
        bundles, late = telling_bundles.due(bundles, at.wall)
        messages = [self._message(each, policy, at.wall) for each in (*out, *late)]
        self._remember(Memory(cursor=cursor, standing=standing, bundles=bundles), messages, at)
        return messages

    def _load(self) -> None:
        """Raises JournalError."""
        if self._is_loaded:
            return
        memory, self._is_kept = _read(self._journal)
        # What this process has learnt without the file is newer.
        here = self._memory
        self._memory = Memory(
            cursor=memory.cursor,
            standing=here.standing or memory.standing,
            bundles=here.bundles or memory.bundles,
        )
        self._is_loaded = True

    def _deeds(self, cursor: Cursor) -> tuple[list[Deed], Cursor]:
        """What was done since the last look; what could not be written is told all the same, once."""
        deeds: list[Deed] = []
        if self._is_loaded:
            with suppress(JournalError):
                found, decision, note = self._journal.ask(
                    partial(telling_deeds.since, cursor=cursor)
                )
                cursor = replace(cursor, decision=decision, note=note)
                deeds = [each for each in found if _key(each) not in self._heard]
                if not self._journal.failure and len(found) < telling_deeds.MOST:
                    self._heard.clear()
        unwritten = self._journal.unwritten()
        self._heard.update(_key(each) for each in unwritten)
        return [*deeds, *unwritten], cursor

    def _of_deed(
        self, deed: Deed, began: str, fields: dict[str, str], state: State, policy: Policy
    ) -> list[Draft]:
        claim = state.evidence.claim
        returned = claim is not None and claim.how is How.RETURNED
        more = {**fields, **telling_deeds.fields_of(deed, began)}
        return [
            self._draft(kind, telling_words.words(kind, more), deed.wall, state, policy)
            for kind in telling_deeds.kinds_of(deed, began, returned=returned)
        ]

    def _sight(self, state: State, policy: Policy, at: Moment) -> Sight:
        journal = self._journal
        failing: Sequence[Failing] = ()
        with suppress(JournalError):
            failing = journal.failing()
        view = status(
            state,
            policy,
            at.boot,
            at.wall,
            last_round=journal.last_round,
            heartbeat=at.wall,
            agent_pid=0,
            journal_trouble=journal.trouble,
            failing=failing,
        )
        return Sight(view=view, state=state, policy=policy, now=at.boot, wall=at.wall)

    def _fields(self, policy: Policy) -> dict[str, str]:
        about = self._about
        return {
            "me": policy.me,
            "peer": policy.peer,
            "pair": about.pair,
            "service": about.service,
            "glass": about.glass,
            "total": span(policy.patience),
        }

    def _draft(
        self,
        kind: str,
        words: Words,
        wall: float,
        state: State,
        policy: Policy,
        is_over: bool = False,
    ) -> Draft:
        ends = CATALOGUE[kind].ends
        return Draft(
            kind=kind,
            group=ends or kind,
            severity=words.severity,
            subject=words.subject,
            body=_body(words, self._footer(wall, state, policy)),
            at=wall,
            is_over=is_over or ends != "",
        )

    def _footer(self, wall: float, state: State, policy: Policy) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(wall))
        lines = [f"{policy.me} of {self._about.pair}, {at}, epoch {state.epoch}"]
        try:
            events = self._journal.events(limit=EVENTS)
        except JournalError:
            lines.append("The journal cannot be read.")
        else:
            lines.append("The last events there:")
            lines += [f"    {_line(each)}" for each in events] or ["    none yet"]
        lines.append(f"More, on {policy.me}: understudy status, understudy why, understudy events")
        return "\n".join(lines)

    def _message(self, draft: Draft, policy: Policy, wall: float) -> Message:
        times = f"{draft.count} more {'time' if draft.count == 1 else 'times'}"
        notes = [f"at {_clock(draft.at)}"] if wall - draft.at > HELD else []
        notes += [f"and {times}"] if draft.count else []
        again = f" ({', '.join(notes)})" if notes else ""
        body = draft.body
        if draft.count:
            listed = "\n".join(f"    {each}" for each in draft.more)
            body = f"This stands for {times} of its kind, the newest of them:\n{listed}\n\n{body}"
        return Message(
            id=f"{policy.me}.{int(draft.at * 1000)}.{os.urandom(3).hex()}",
            kind=draft.kind,
            subject=_one_line(f"[{self._about.pair}] {draft.subject}{again}"),
            body=body,
            at=draft.at,
            node=policy.me,
            pair=self._about.pair,
            severity=draft.severity,
        )

    def _remember(self, memory: Memory, messages: list[Message], at: Moment) -> None:
        """In one transaction: what is told, and that it is."""
        if memory == self._memory and not messages and self._is_kept is self._is_loaded:
            return
        self._memory, self._is_kept = memory, self._is_loaded
        # Not over what an earlier process has left and we could not read yet.
        also = [partial(pens.keep, KEY, statecodec.dumps(memory))] if self._is_loaded else []
        self._outbox.put(messages, at.wall, *also)


class Telling:
    """runtime.companions.Companion: looks, and sends."""

    name = "telling people"

    def __init__(self, about: About, notifiers: Sequence[Notifier]) -> None:
        self._about, self._notifiers = about, tuple(notifiers)

    async def live(self, beside: Beside) -> None:
        teller, outbox = self._begin(beside)
        try:
            async with asyncio.TaskGroup() as group:
                for each in self._notifiers:
                    group.create_task(_deliver_always(each, outbox, beside))
                while True:
                    _look(teller, beside)
                    await asyncio.sleep(LOOK)
        except ExceptionGroup as several:
            raise several.exceptions[0] from None

    async def visit(self, beside: Beside) -> None:
        teller, outbox = self._begin(beside)
        _look(teller, beside)
        await asyncio.gather(*(_deliver(each, outbox, beside) for each in self._notifiers))

    def _begin(self, beside: Beside) -> tuple[Teller, Outbox]:
        outbox = Outbox(beside.journal, [each.name for each in self._notifiers])
        return Teller(self._about, beside.journal, outbox), outbox


def trial(about: About, node: str, wall: float) -> Message:
    """For a person who wants to see whether messages arrive."""
    at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(wall))
    return Message(
        id=f"{node}.{int(wall * 1000)}.{os.urandom(3).hex()}",
        kind="trial",
        subject=_one_line(f"[{about.pair}] {node} can tell you what happens"),
        body=f"This is a trial, sent by {node} of {about.pair} at {at}.  Nothing has happened.\n",
        at=wall,
        node=node,
        pair=about.pair,
        severity=Severity.INFO,
    )


def _look(teller: Teller, beside: Beside) -> None:
    teller.look(beside.state(), beside.policy(), beside.clock.now())


async def _deliver_always(notifier: Notifier, outbox: Outbox, beside: Beside) -> None:
    while True:
        await _deliver(notifier, outbox, beside)
        await asyncio.sleep(LOOK)


async def _deliver(notifier: Notifier, outbox: Outbox, beside: Beside) -> None:
    """All that is due, until the way is found blocked."""
    for delivery in outbox.due(notifier.name, beside.clock.now().wall):
        why, refused = await _send(notifier, delivery.message)
        now = beside.clock.now().wall
        if not why:
            outbox.delivered(delivery, now)
            continue
        _say(notifier, delivery, why, beside)
        if outbox.failed(delivery, why, now, refused=refused):
            text = f"{notifier.name}: given up: {delivery.message.subject}: {why}"
            beside.journal.note("telling", text)
            beside.say(3, text)
        if not refused:
            return


async def _send(notifier: Notifier, message: Message) -> tuple[str, bool]:
    """Why it could not be sent, and was that a refusal?"""
    try:
        await notifier.send(message)
    except Denied as error:
        return str(error), True
    except AdapterError as error:
        return str(error), False
    except Exception as error:
        # A mistake in one way to people must not close the others.  Its text may hold a secret.
        return f"a mistake in Understudy: {type(error).__name__}", False
    return "", False


def _say(notifier: Notifier, delivery: Delivery, why: str, beside: Beside) -> None:
    if why != delivery.last_error:
        beside.say(4, f"{notifier.name} could not be told: {why}")


def _read(journal: SqliteJournal) -> tuple[Memory, bool]:
    """And was it there?  At first, and after nonsense, the past is not told.  Raises JournalError."""
    text = journal.kept(KEY)
    with suppress(JournalError):
        if text:
            return statecodec.loads(Memory, text), True
    return Memory(cursor=journal.ask(telling_deeds.newest)), False


def _key(deed: Deed) -> tuple[float, str, str]:
    return (deed.wall, deed.name, deed.text)


def _body(words: Words, footer: str) -> str:
    parts = (
        ("What happened", words.happened),
        ("What Understudy did", words.did),
        ("What you should do", words.do),
    )
    # A sentence per line: so a command is whole.
    told = "\n\n".join(
        "\n    ".join((title, *re.split(r"  +", text.strip()))) for title, text in parts
    )
    return f"{told}\n\n{footer}\n"


def _line(event: Event) -> str:
    often = f" ({event.times} times)" if event.times > 1 else ""
    return f"{_clock(event.wall)}  {event.text}{often}"


def _clock(wall: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:250]
