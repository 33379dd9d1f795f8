"""The claim as one line of text, for people and for machines.

    v=1 node=pbx01 epoch=7 serial=31 announced=- ordered=no served=yes how=taken returns=0 ...

Equal claims have equal text and the other way round: the servers that decide compare the text
(PROTOCOL.md C2).
"""

import re

from understudy.core.claim import Claim, How

_VERSION = "1"
_NOTHING = "-"
_WORD = re.compile(r"(?!-\Z)[!-<>-~]+")  # Printable ASCII but blank and "=", and not our "nothing".
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_KEYS = (
    "v",
    "node",
    "epoch",
    "serial",
    "announced",
    "ordered",
    "served",
    "how",
    "returns",
    "pause",
    "settle",
    "digest",
)


def to_text(claim: Claim) -> str:
    """The one text of this claim.  Raises ValueError if it has none: a node called "a b"."""
    values = (
        _VERSION,
        claim.node,
        claim.epoch,
        claim.serial,
        claim.announced or _NOTHING,
        "yes" if claim.ordered else "no",
        "yes" if claim.served else "no",
        claim.how,
        claim.returns,
        claim.pause,
        claim.settle,
        claim.digest or _NOTHING,
    )
    text = " ".join(f"{key}={value}" for key, value in zip(_KEYS, values, strict=True))
    if from_text(text) != claim:
        raise ValueError(f"this claim cannot be written down: {text}")
    return text


def from_text(text: str) -> Claim:
    """The claim that `text` says.  Raises ValueError for any text that `to_text` does not make."""
    fields = [part.partition("=") for part in text.split(" ")]
    values = {key: value for key, _, value in fields}
    version = values.get("v")
    if fields[0][0] == "v" and version != _VERSION:
        raise ValueError(
            f"it is of version {version[:8] if version else ''!r}, and we know version {_VERSION}: "
            "upgrade this node"
        )
    if tuple(key for key, _, _ in fields) != _KEYS:
        raise ValueError(f"it does not have the fields {' '.join(_KEYS)}, once each, in this order")
    return Claim(
        node=_word("node", values),
        epoch=_number("epoch", values),
        serial=_number("serial", values),
        announced=_word_or_nothing("announced", values),
        ordered=_yes_or_no("ordered", values),
        served=_yes_or_no("served", values),
        how=_how("how", values),
        returns=_number("returns", values),
        pause=_number("pause", values),
        settle=_number("settle", values),
        digest=_word_or_nothing("digest", values),
    )


def _word(key: str, values: dict[str, str]) -> str:
    if not _WORD.fullmatch(values[key]):
        raise _bad(key, values, "one word")
    return values[key]


def _word_or_nothing(key: str, values: dict[str, str]) -> str:
    return "" if values[key] == _NOTHING else _word(key, values)


def _number(key: str, values: dict[str, str]) -> int:
    if not _NUMBER.fullmatch(values[key]):
        raise _bad(key, values, "a whole number from 0 up")
    return int(values[key])


def _yes_or_no(key: str, values: dict[str, str]) -> bool:
    if values[key] not in ("yes", "no"):
        raise _bad(key, values, "yes or no")
    return values[key] == "yes"


def _how(key: str, values: dict[str, str]) -> How:
    try:
        return How(values[key])
    except ValueError:
        raise _bad(key, values, f"one of {', '.join(How)}") from None


def _bad(key: str, values: dict[str, str], right: str) -> ValueError:
    return ValueError(f"{key} is {values[key][:40]!r} and should be {right}")
