"""The Asterisk of this machine, by its console: asterisk(8), -rx.

Its control socket is for the PBX's user and root alone.  What comes back are tables for people; `asterisk -rx` may end
with status 0 whatever happened, so that only what is said counts.
"""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence

from understudy.adapters.processes import Finished, run
from understudy.errors import AdapterError, Denied, Unanswered, Unreachable

AT_ONCE = 8  # Commands that run beside each other.
WITHIN = 10.0  # Seconds for one command.
ALL_WITHIN = 60.0  # Seconds for all endpoints together.
AGAIN = 0.2  # Seconds between two tries to reach an Asterisk that is starting.
ROOM = 64 * 1024 * 1024  # Bytes of a table; an endpoint takes about a kilobyte.


async def booted(within: float) -> None:
    """Return when Asterisk has loaded all its modules.  Raises Unreachable after `within` seconds."""
    give_up = time.monotonic() + within
    while True:
        try:
            done = await _console("core waitfullybooted", max(0.1, give_up - time.monotonic()))
        except Unanswered as error:
            raise Unreachable(f"Asterisk was still starting after {within:g} s") from error
        if "has fully booted" in done.out:
            return
        if time.monotonic() >= give_up:
            raise Unreachable(
                f"Asterisk did not answer within {within:g} s: {done.said}",
                hint="Run it as root, on the node whose Asterisk runs.",
            )
        await asyncio.sleep(AGAIN)


async def endpoints_with_contact() -> tuple[str, ...]:
    """Of chan_pjsip; none where that is not loaded.  Raises Unreachable, Unanswered, Denied."""
    done = await _console("pjsip show endpoints", ALL_WITHIN, limit=ROOM)
    if done.cut:
        raise Denied(f"the list of Asterisk's endpoints is longer than {ROOM // 1024 // 1024} MiB")
    if "No such command" in done.out:
        return ()
    if not any(known in done.out for known in ("<Endpoint/CID", "No objects found")):
        raise Denied(f"Asterisk does not list its endpoints: {done.said}")
    return tuple(dict.fromkeys(_with_contact(done.out)))


async def qualify(endpoints: Sequence[str]) -> dict[str, str]:
    """Have an OPTIONS sent to every contact of each; its answer is not waited for.  Returns those that failed: why.

    An AOR without qualify_frequency stays as it is, whether it answers or not (res_pjsip/pjsip_options.c).
    """
    failed: dict[str, str] = {}
    give_up = time.monotonic() + ALL_WITHIN
    waiting = iter(endpoints)

    async def work() -> None:
        for endpoint in waiting:
            why = await _qualify(endpoint, min(WITHIN, give_up - time.monotonic()))
            if why:
                failed[endpoint] = why

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return {endpoint: failed[endpoint] for endpoint in endpoints if endpoint in failed}


async def _qualify(endpoint: str, within: float) -> str:
    """Why it did not work, or ""."""
    if within <= 0:
        return f"it was not reached within {ALL_WITHIN:g} s"
    try:
        done = await _console(f"pjsip qualify {_word(endpoint)}", within)
    except AdapterError as error:
        return str(error)
    return "" if "Qualifying AOR" in done.out else done.said


async def _console(command: str, within: float, *, limit: int = 64 * 1024) -> Finished:
    return await run(("asterisk", "-rx", command), within=within, limit=limit)


# res_pjsip/pjsip_configuration.c and location.c write the table; the same from Asterisk 16 to 22:
#   " Endpoint:  101/Anna                                             Not in use    0 of inf"
#   "      Contact:  101/sip:101@192.0.2.7:5060                 3a5b1c9d7e Avail        12.345"
_ENDPOINT = re.compile(r"\s*Endpoint:  (?P<name>\S.*?) {2,}\S.*? \d+ of \S+\s*")
_CONTACT = re.compile(r"\s*Contact:  (?P<aor>[^<].*?)/.*")
_CUT = 51  # Bytes of "NAME/CALLERID" that are shown; AORs are never cut in front of a contact.


def _with_contact(table: str) -> Iterator[str]:
    """The endpoints below which a contact is listed."""
    endpoint = ""
    for line in table.splitlines():
        if found := _ENDPOINT.fullmatch(line):
            endpoint = found["name"]
        elif endpoint and (found := _CONTACT.fullmatch(line)):
            yield _whole_name(endpoint, found["aor"])
            endpoint = ""  # One is enough.


def _whole_name(shown: str, aor: str) -> str:
    """What is shown may be a name and a caller's number, or the first part of a very long name.

    Then it is that of its AOR, if that begins so: phones register to an AOR of their endpoint's name.
    """
    if "/" in shown:
        return shown.partition("/")[0]
    is_cut = len(shown.encode(errors="replace")) >= _CUT
    return aor if is_cut and aor.startswith(shown) else shown


def _word(name: str) -> str:
    """As main/cli.c, parse_args, takes words apart."""
    if re.fullmatch(r"[\w.@+-]+", name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
