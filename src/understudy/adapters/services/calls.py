"""How many calls are in progress: the answer of a program that the operator names, on the machine of the PBX."""

import re
from collections.abc import Sequence
from pathlib import Path

from understudy.adapters.processes import run
from understudy.errors import Denied, Unreachable

WITHIN = 5.0  # Seconds for the program.

PROGRAMS: dict[str, tuple[str, ...]] = {
    "asterisk": ("/usr/sbin/asterisk", "-rx", "core show channels count"),
    "freeswitch": ("/usr/bin/fs_cli", "-x", "show calls count"),
    "kamailio": ("/usr/sbin/kamcmd", "dlg.stats_active"),  # Modules ctl and dialog.
}

# Never just the first number in sight: Asterisk counts channels first, Kamailio calls that are only ringing, and a
# complaint may hold a number too.
_SAID = (
    re.compile(r"\b(\d+) active calls?\b"),  # Asterisk.
    re.compile(r"^\s*(\d+) total\b", re.MULTILINE),  # FreeSWITCH.
    re.compile(r"^\s*all: (\d+)\s*$", re.MULTILINE),  # Kamailio.
    re.compile(r"\A\s*(\d+)\s*\Z"),  # A script: the number alone.
)


async def count(command: Sequence[str], *, within: float = WITHIN) -> int:
    """Calls in progress on this machine, by `command`: a program with its whole path, and its arguments.

    Raises Unreachable when it cannot be started, Unanswered after `within` seconds, Denied when it fails, or says
    nothing that is a number of calls.
    """
    if not command:
        raise Unreachable("no program is named that counts them")
    name = Path(command[0]).name
    done = await run(command, within=within)
    if done.code != 0:
        raise Denied(f"{name}: {done.said}")
    number = calls_in(done.out)
    if number is None:
        raise Denied(
            f"{name} does not say how many: {done.said}",
            hint='It must say "N active calls", "N total", "all: N", or a number alone.',
        )
    return number


def calls_in(text: str) -> int | None:
    """What `text` says: "N active call(s)", else "N total", else "all: N" in a line, else N and nothing else.

    None where it says none of them.
    """
    for said in _SAID:
        if found := said.search(text):
            return int(found[1])
    return None
