"""Durations as people write them: "250ms", "60s", "5m", "1h30m", "90d"."""

import re

MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
PATTERN = re.compile(
    r"(?:(?P<d>\d{1,6})d)?(?:(?P<h>\d{1,6})h)?(?:(?P<m>\d{1,6})m(?!s))?"
    r"(?:(?P<s>\d{1,9})s)?(?:(?P<ms>\d{1,9})ms)?",
    re.ASCII,
)


def parse(text: str) -> float:
    """Seconds.  Whole numbers with a unit each, largest unit first.  Raises ValueError."""
    match = PATTERN.fullmatch(text)
    if match is None or not text:
        raise ValueError("not a duration")
    parts = match.groupdict()
    return sum(int(parts[unit] or 0) * size for unit, size in MILLISECONDS.items()) / 1000


def show(seconds: float) -> str:
    """The shortest text that `parse` turns into `seconds` again, to the millisecond."""
    left = round(seconds * 1000)
    if left < 0:
        return "-" + show(-seconds)
    text = ""
    for unit, size in MILLISECONDS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
