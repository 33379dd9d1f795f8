"""The way to the other node: does it work for the agent's user, and does it open the door and nothing else?"""

import json
import shlex

from understudy.adapters.processes import Finished
from understudy.errors import AdapterError
from understudy.wiring import way_prefix

from . import catalogue as c
from .finding import Finding, printable
from .here import Here

WITHIN = 12.0  # Seconds for each try.
STRANGE = "id"  # A command that the door does not know, and a shell does.
STRANGER = "Host key verification failed"
LOCKED_OUT = "Permission denied"


async def way(here: Here) -> list[Finding]:
    """Asks for what is no request: the forced command says so, and a shell obeys."""
    prefix = way_prefix(here.config, here.peer)
    if not prefix:
        said = f"no way to {here.peer} is configured"
        mend = f'[nodes.{here.peer}] ssh = "understudy@ADDRESS"'
        return [c.SSH.bad(here.me, said, mend=mend)]
    try:
        done = await here.run(*here.as_agent, *prefix, STRANGE, within=WITHIN)
    except AdapterError as error:
        said = f"{here.peer} cannot be reached: {error}"
        return [c.SSH.bad(here.me, said, command=_by_hand(here, prefix))]
    return [*_judge(here, done, prefix), *await _forwarding(here, prefix)]


def _judge(here: Here, done: Finished, prefix: tuple[str, ...]) -> list[Finding]:
    if _is_refusal(done.out):
        return [
            c.SSH.well(here.me, f"the door of {here.peer} answers"),
            c.SSH_FORCED.well(here.me, f"the door of {here.peer} refuses what is no request"),
        ]
    if "uid=" in done.out:
        said = f"{here.peer} runs any command for our key: it ran `{STRANGE}`"
        return [c.SSH_FORCED.bad(here.me, said, node=here.peer)]
    by_hand = _by_hand(here, prefix)
    if STRANGER in done.err:
        said = (
            f"{here.peer} is a stranger to the agent's user: its host key is not known, or another"
        )
        return [
            c.SSH.bad(here.me, said, command=f"put its host key into known_hosts; then: {by_hand}")
        ]
    if LOCKED_OUT in done.err:
        said = f"{here.peer} does not let our key in: {done.said}"
        return [c.SSH.bad(here.me, said, command=f"understudy init --keys; then: {by_hand}")]
    return [c.SSH.bad(here.me, f"no agent's door at {here.peer}: {done.said}", command=by_hand)]


async def _forwarding(here: Here, prefix: tuple[str, ...]) -> list[Finding]:
    """ssh(1) -W: through the other node to its own SSH server, which begins with its banner."""
    if prefix[0] != "ssh" or "--" not in prefix:
        return []
    end = prefix.index("--")
    # Of several values ssh takes the first (ssh_config(5)): at ERROR it would not say why it failed.
    loud = (prefix[0], "-o", "LogLevel=INFO", *prefix[1:end])
    through = (*loud, "-W", "127.0.0.1:22", *prefix[end:])
    try:
        done = await here.run(*here.as_agent, *through, within=WITHIN)
    except AdapterError:
        return []  # It hangs or cannot be asked: that it forwards is not seen.
    if done.out.startswith("SSH-") or "Connection refused" in done.err:
        # Refused by the port behind it: then it was asked.
        said = f"{here.peer} forwards connections for our key"
        return [c.SSH_FORWARDING.bad(here.me, said, node=here.peer)]
    return [c.SSH_FORWARDING.well(here.me, f"{here.peer} forwards nothing for our key")]


def _is_refusal(out: str) -> bool:
    try:
        answer = json.loads(out)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and answer.get("ok") is False and "why" in answer


def _by_hand(here: Here, prefix: tuple[str, ...]) -> str:
    return printable(shlex.join((*here.as_agent, *prefix, "status")))
