"""Root's commands work as the agent's user.

Root may do everything, and what root writes beside the journal the agent could not write again.  So whoever owns the
journal's folder is who a command becomes.
"""

import os
import pwd
from pathlib import Path

from understudy.errors import ConfigError, Refused


def become_owner(folder: Path) -> None:
    """If this process is root's and `folder` is not: be the folder's owner, for good.

    With that user's groups, so that a key that its group may read can be read.  Raises Refused when the kernel does
    not let us, ConfigError when that user cannot read this program.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = folder.stat()
    except OSError:
        return  # Nothing is there yet that could be spoiled.
    if owner.st_uid == 0:
        return
    name, group, home = _account(owner)
    try:
        os.initgroups(name, group) if name else os.setgroups([group])
        os.setresgid(group, group, group)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    except OSError as error:
        who = name or str(owner.st_uid)
        raise Refused(
            f"this is root's process, {folder} belongs to {who}, and it may not become {who}: "
            f"{error.strerror}",
            hint=f"Run it as {who}.",
        ) from error
    os.environ.update({"HOME": home, "USER": name, "LOGNAME": name})
    _insist_on_program(name or str(owner.st_uid))


def _account(owner: os.stat_result) -> tuple[str, int, str]:
    """Name, group and home of a folder's owner.  A number without an account has the folder's group, and no home."""
    try:
        account = pwd.getpwuid(owner.st_uid)
    except KeyError:
        return "", owner.st_gid, "/"
    return account.pw_name, account.pw_gid, account.pw_dir


def _insist_on_program(who: str) -> None:
    """Modules are read as they are needed: better to say this now than to break off later."""
    for file in (__file__, os.__file__):
        if not os.access(file, os.R_OK):
            raise ConfigError(
                [
                    f"{who}, who runs the agent here, may not read {file}.  "
                    "Install the program where every user can read it, as in /usr/lib or /opt."
                ]
            )
