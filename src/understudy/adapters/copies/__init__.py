"""Ways to keep a copy of a class of data on the standby.

`build(name, settings, *, node, folder)`: `name` is that of [copies.NAME], `node` this node's, `folder` is where the
snapshots of this class are kept.
"""

from understudy.adapters.kind import Catalogue, Kind
from understudy.ports import Copy

from . import rsync, sqlite

COPIES: Catalogue[Copy] = {
    "rsync": Kind(
        rsync.Settings,
        rsync.Rsync,
        "Folders and files, by rsync(1) over the other node's way in.",
    ),
    "sqlite": Kind(
        sqlite.Settings,
        sqlite.build,
        "A SQLite database in use, such as Asterisk's astdb: copied whole, and never locked.",
    ),
}
