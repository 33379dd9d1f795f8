"""What keeps one server from copying from the other; and when only a person may say that what it has may go."""

from understudy.adapters.copies.stop import Stop
from understudy.errors import Denied

from . import gtid, onlyhere, server
from .gtid import Gtid
from .server import Standing
from .settings import Settings


def check_pair(nodes: tuple[str, str], here: Standing, there: Standing) -> None:
    """Can one copy from the other at all?  `nodes`: this one and the source.  Raises Denied."""
    for name, each in zip(nodes, (here, there), strict=True):
        if not each.logs:
            raise Denied(
                f"MariaDB on {name} writes no binary log that another could copy from",
                hint="Its [mysqld] needs log_bin and log_slave_updates=ON.",
            )
    me, source = nodes
    if here.server_id == there.server_id:
        raise Denied(
            f"MariaDB on {me} and on {source} both have server_id {here.server_id}",
            hint="Give each its own, in [mysqld], and restart it.",
        )
    if there.loading:
        raise Denied(f"the data of MariaDB on {source} is half of a copy that was being loaded")


def strangers(here: Standing, there: Standing) -> frozenset[Gtid]:
    """The ends of what was written on this server while it was to copy only."""
    mine = (each for each in here.position if each.server == here.server_id)
    return gtid.lacking(mine, there.history)


def is_broken(here: Standing, there: Standing) -> bool:
    slave = here.slave
    assert slave is not None
    return bool(strangers(here, there) or slave.sql_errno or slave.io_errno == server.PURGED)


def is_only_behind(here: Standing, there: Standing) -> bool:
    """The source has all that is here, and has thrown away what would come next: filling anew loses nothing."""
    slave = here.slave
    assert slave is not None
    is_purged = slave.io_errno == server.PURGED and not slave.sql_errno
    return is_purged and not gtid.lacking(here.position, there.history)


def told(
    name: str,
    settings: Settings,
    nodes: tuple[str, str],
    here: Standing,
    there: Standing,
    stop: Stop,
) -> Denied:
    """`nodes`: this one and the source."""
    me, source = nodes
    assert here.slave is not None
    why, found = server.trouble(here.slave), strangers(here, there)
    if found:
        shared = gtid.common(here.history, there.history)
        read = onlyhere.strangers(settings, shared, here.server_id, stop)
        shown = "; ".join(map(str, read.first)) or gtid.show(found)
        more = read.transactions - len(read.first)
        said = (
            f"MariaDB on {me} has what was written on it and not on {source}: {shown}"
            f"{f'; and {more} more' if more > 0 else ''}{f'.  So {why}' if why else ''}"
        )
    else:
        said = f"MariaDB on {me} copies nothing more from {source}: {why}"
    return Denied(
        said,
        hint=f"If this server may be filled anew from {source}, with what only it has kept aside: "
        f"understudy copies accept {name}.",
    )
