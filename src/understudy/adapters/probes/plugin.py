"""What a monitoring plugin's exit code and output mean to us.

Monitoring Plugins Development Guidelines, "Plugin Output" and "Plugin Return Codes": 0 OK, 1
WARNING, 2 CRITICAL, 3 UNKNOWN; the first line is for people, and what follows `|` is for graphs.
"""

from understudy.core.observations import Health

_LONGEST = 300  # Characters of a report's text: a line in a log, not a page.


def health(code: int) -> Health:
    """A PBX that answers with a WARNING (slowly, say) answers: that is no reason to move it."""
    match code:
        case 0 | 1:
            return Health.UP
        case 2:
            return Health.DOWN
        case _:
            return Health.UNKNOWN


def sentence(output: str) -> str:
    """The first line that says something, without performance data and fit for a terminal."""
    for line in output.splitlines():
        words = " ".join(line.split("|", 1)[0].split())
        if words:
            if len(words) > _LONGEST:
                words = words[: _LONGEST - 1] + "…"
            if words.isprintable():
                return words
            return "".join(each if each.isprintable() else "?" for each in words)
    return ""
