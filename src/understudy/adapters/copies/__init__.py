"""Ways to keep a copy of a class of data on the standby.

`build(name, settings, *, node, folder, addresses)`: `name` is that of [copies.NAME], `node` this node's, `folder` is
where the snapshots of this class are kept, `addresses` has the hosts of both nodes by their names, in the order of the
configuration.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from understudy.adapters.kind import Catalogue, Kind
from understudy.errors import ConfigError
from understudy.ports import Copy

from . import rsync, sqlite
from .mariadb import settings as mariadb_settings


def _by_files(build: Callable[..., Copy]) -> Callable[..., Copy]:
    """For a kind that reaches the other node by its way in alone."""

    def make(
        name: str,
        settings: Any,
        *,
        node: str,
        folder: Path,
        addresses: Mapping[str, str] | None = None,
    ) -> Copy:
        return build(name, settings, node=node, folder=folder)

    return make


def _mariadb(
    name: str,
    settings: mariadb_settings.Settings,
    *,
    node: str,
    folder: Path,
    addresses: Mapping[str, str] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Copy:
    """Raises ConfigError without its driver, which nobody else needs."""
    try:
        from .mariadb.replica import MariaDb
    except ModuleNotFoundError as error:
        if error.name != "pymysql":
            raise
        raise ConfigError(
            [f"[copies.{name}]: kind mariadb needs PyMySQL (pip install understudy[mariadb])"]
        ) from error
    return MariaDb(name, settings, node=node, folder=folder, addresses=addresses, report=report)


COPIES: Catalogue[Copy] = {
    "rsync": Kind(
        rsync.Settings,
        _by_files(rsync.Rsync),
        "Folders and files, by rsync(1) over the other node's way in.",
    ),
    "sqlite": Kind(
        sqlite.Settings,
        _by_files(sqlite.build),
        "A SQLite database in use, such as Asterisk's astdb: copied whole, and never locked.",
    ),
    "mariadb": Kind(
        mariadb_settings.Settings,
        _mariadb,
        "Databases of MariaDB, by its own replication: whatever is committed is there at once.",
    ),
}
