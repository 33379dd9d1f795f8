"""At the source: rsync's sender, in our place."""

import os
import re
from collections.abc import Sequence
from typing import NoReturn

from understudy.errors import Refused, Unreachable

from .files import Files
from .transfer import INSTALL, printable

# Word by word what it asks for; behind `e.` it tells what it is able to do (compat.c, client_info).
_ASKED = (
    *("--server", "--sender", r"-[logDtpr]{7}e[0-9]{0,3}\.[0-9]{0,3}[A-Za-z]{0,20}"),
    *(r"--timeout=[0-9]{1,6}", r"\.", r"@[0-9]{1,3}/[^/]+"),
)


def serve(files: Files, words: Sequence[str]) -> int:
    """rsync's sender for one of the paths, in our place: it does not return."""
    if len(words) == len(_ASKED) and all(map(re.fullmatch, _ASKED, words)):
        _send(files, words)
    raise Refused(
        f"not what a pull of {files.name} asks for: {printable(' '.join(words))[:200]!r}",
        hint="Do both nodes run the same version?",
    )


def _send(files: Files, words: Sequence[str]) -> NoReturn:
    number, _, name = words[-1].removeprefix("@").partition("/")
    here = dict(enumerate(files.settings.paths))
    path = here.get(int(number))
    if path is None or path.name != name:
        raise Refused(
            f"path {number} of {files.name} is {path or 'none'} here, and {printable(name)!r} there",
            hint="Give both nodes the same configuration.",
        )
    if path.is_symlink():
        raise Refused(f"{path} is a symbolic link here", hint="Write in `paths` where it leads.")
    try:
        os.execvp("rsync", ["rsync", *words[:-1], str(path)])
    except OSError as error:
        raise Unreachable(f"cannot run rsync here: {error.strerror}", hint=INSTALL) from error
