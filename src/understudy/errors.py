"""Everything that can go wrong, by who has to act on it.

UnderstudyError
├── ConfigError        the operator wrote something that we cannot accept; all findings at once
├── Refused            an order is not carried out; says why, and what would be
├── JournalError       our own memory on disk cannot be read or written
└── AdapterError       the outside world did not cooperate; worth another try
    ├── Unreachable    we could not ask, and nothing was changed
    ├── Unanswered     we asked for a change and do not know whether it was made (PROTOCOL C2)
    ├── Denied         we asked and the answer was no
    ├── ClaimMissing   the server that decides holds no claim (PROTOCOL C4)
    └── NotStopped     a PBX could not be proved stopped (PROTOCOL S5)

Any other exception is a bug in this program and is left to crash it.
"""

from collections.abc import Sequence


class UnderstudyError(Exception):
    """A sentence for the operator, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def told(error: UnderstudyError) -> str:
    """The sentence and what to do about it, where there is one place for both: the journal."""
    message = str(error)
    if not error.hint:
        return message
    stop = "" if message.endswith((".", "!", "?")) else "."
    return f"{message}{stop}  {error.hint}"


class ConfigError(UnderstudyError):
    """The configuration is wrong.  `findings` has one `file:line: what is wrong.  What is right.` each."""

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = tuple(findings)


class Refused(UnderstudyError):
    pass


class JournalError(UnderstudyError):
    pass


class AdapterError(UnderstudyError):
    pass


class Unreachable(AdapterError):
    pass


class Unanswered(AdapterError):
    pass


class Denied(AdapterError):
    pass


class ClaimMissing(AdapterError):
    pass


class NotStopped(AdapterError):
    pass
