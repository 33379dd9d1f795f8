"""Keeping aside the database that is in place here and would be lost by putting the newest snapshot there."""

import shutil
import time
from functools import partial

from understudy.adapters.copies.stop import Stop, beside
from understudy.errors import Denied

from . import only_here
from .about import Database, about_of, is_there
from .database import companions, why


async def keep(database: Database) -> str:
    """With its journal, where there is one, and a list of the rows that are in no other place.

    Raises Denied, Unreachable.
    """
    stop = Stop(database.settings.within, f"keeping {database.name} aside")
    try:
        return await beside(partial(_keep_aside, database, stop), stop)
    except OSError as error:
        where = database.store.folder
        raise Denied(f"{database.name} cannot be kept aside in {where}: {why(error)}") from error


def _keep_aside(database: Database, stop: Stop) -> str:
    path, snapshot = database.settings.path, database.store.newest()
    about = about_of(snapshot) if snapshot is not None else None
    if not path.exists() or (about is not None and is_there(path, about, stop)):
        return ""
    aside = database.store.begin_aside()
    for each in (path, *companions(path)):
        shutil.copy2(each, aside / each.name)
    if snapshot is not None:
        only_here.write(aside / path.name, snapshot, stop)
    return str(database.store.keep_aside(time.time()) or "")
