"""Repeated news are bundled: the first goes out at once, the next ones wait and go out as one, with their number.

Pure.  Times are wall clock seconds.
"""

from dataclasses import dataclass, replace

from understudy.ports import Severity

WINDOW = 600.0  # Seconds after a message within which the same kind waits.
LONGEST = 3600.0  # It doubles while the kind goes on, but not for what is critical.
NAMED = 5  # So many of what was bundled are named.


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message before it has a number."""

    kind: str
    group: str  # What is bundled: a kind, and the end of it.
    severity: Severity
    subject: str
    body: str
    at: float
    is_over: bool = False
    more: tuple[str, ...] = ()  # What else of its kind it stands for: the newest, in words.
    count: int = 0  # Of them.


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One group that was told lately."""

    group: str
    until: float
    window: float = WINDOW
    end_told: bool = False  # The end of what was told has been told.
    held: Draft | None = None


def offer(bundles: tuple[Bundle, ...], draft: Draft) -> tuple[tuple[Bundle, ...], list[Draft]]:
    """What waits after this news, and what goes out now."""
    bundle = next((each for each in bundles if each.group == draft.group), None)
    others = tuple(each for each in bundles if each.group != draft.group)
    if bundle is None and draft.is_over:
        return others, [draft]  # What begins next is news, and does not wait.
    if bundle is None:
        return (*others, Bundle(group=draft.group, until=draft.at + WINDOW)), [draft]
    if draft.is_over and not bundle.end_told and bundle.held is None:
        return (*others, replace(bundle, end_told=True)), [draft]
    return (*others, replace(bundle, held=_with(bundle.held, draft))), []


def due(bundles: tuple[Bundle, ...], now: float) -> tuple[tuple[Bundle, ...], list[Draft]]:
    """What has waited for long enough."""
    kept: list[Bundle] = []
    told: list[Draft] = []
    for each in bundles:
        # A clock that was set back must not keep it for longer than the window.
        until = min(each.until, now + each.window)
        if now < until:
            kept.append(replace(each, until=until))
        elif each.held is not None:
            told.append(each.held)
            kept.append(_again(each, each.held, now))
    return tuple(kept), told


def _with(held: Draft | None, draft: Draft) -> Draft:
    """The newest stands for all."""
    if held is None:
        return draft
    more = (*held.more, held.subject)[-NAMED:]
    return replace(draft, more=more, count=held.count + 1)


def _again(bundle: Bundle, told: Draft, now: float) -> Bundle:
    critical = told.severity is Severity.CRITICAL
    window = WINDOW if critical else min(2 * bundle.window, LONGEST)
    return Bundle(group=bundle.group, until=now + window, window=window, end_told=told.is_over)
