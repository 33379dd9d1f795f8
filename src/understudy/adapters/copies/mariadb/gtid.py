"""Which transactions a server has, as MariaDB counts them: DOMAIN-SERVER-NUMBER (https://mariadb.com/kb/en/gtid/).

With gtid_strict_mode the numbers of a domain only rise, whichever server wrote; so two servers that both have a
transaction have the same ones up to it.  All comparisons here rest on that.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_GTID = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})", re.ASCII)


class Gtid(NamedTuple):
    domain: int
    server: int
    number: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server}-{self.number}"


def parse(text: str) -> frozenset[Gtid]:
    """What the server's variables hold: "0-1-100,0-2-50".  Raises ValueError."""
    found = set()
    for word in "".join(text.split()).split(","):
        if word:
            match = _GTID.fullmatch(word)
            if match is None:
                raise ValueError(f"not a GTID: {word[:40]!r}")
            found.add(Gtid(*map(int, match.groups())))
    return frozenset(found)


def show(gtids: Iterable[Gtid]) -> str:
    """As the server's variables are set; fit for MASTER_GTID_WAIT."""
    return ",".join(map(str, sorted(gtids)))


def ends(gtids: Iterable[Gtid]) -> frozenset[Gtid]:
    """The last one in each domain."""
    last: dict[int, Gtid] = {}
    for gtid in gtids:
        if gtid.domain not in last or last[gtid.domain].number < gtid.number:
            last[gtid.domain] = gtid
    return frozenset(last.values())


def has(known: Iterable[Gtid], gtid: Gtid) -> bool:
    """`known` are, by domain and server, the last that somebody has: does he have this one as well?"""
    return any(
        (each.domain, each.server) == (gtid.domain, gtid.server) and each.number >= gtid.number
        for each in known
    )


def lacking(ours: Iterable[Gtid], known: Iterable[Gtid]) -> frozenset[Gtid]:
    """Of the ends of our history those that somebody with `known` has not."""
    known = frozenset(known)
    return frozenset(gtid for gtid in ends(ours) if not has(known, gtid))


def common(ours: Iterable[Gtid], known: Iterable[Gtid]) -> dict[int, int]:
    """By domain, up to which number both have the same; a domain that they do not share is left out."""
    theirs = {(each.domain, each.server): each.number for each in ends_by_server(known)}
    found: dict[int, int] = {}
    for each in ends_by_server(ours):
        number = theirs.get((each.domain, each.server))
        if number is not None:
            found[each.domain] = max(found.get(each.domain, 0), min(each.number, number))
    return found


def ends_by_server(gtids: Iterable[Gtid]) -> frozenset[Gtid]:
    """The last one of each server in each domain."""
    last: dict[tuple[int, int], Gtid] = {}
    for gtid in gtids:
        place = (gtid.domain, gtid.server)
        if place not in last or last[place].number < gtid.number:
            last[place] = gtid
    return frozenset(last.values())
