"""All examinations of one node, side by side, each with a deadline; and what the other node is told of them."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from understudy.config.schema import Config
from understudy.errors import UnderstudyError, Unreachable, told
from understudy.runtime.daemon import Node

from . import catalogue as c
from . import checkpoints, copies, finding, machine, mariadb, settings, stage, units, way, zone
from .check import Check
from .checkpoints import Sighting
from .finding import Finding
from .here import Here, is_root

WITHIN = 40.0  # Seconds for all of it.  Door's deadline for the request is above it.
CLAIM_WITHIN = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    check: Check  # What is unknown when it does not come to an end.
    look: Callable[[Here], Awaitable[Sequence[Finding]]]
    within: float = 15.0  # Seconds.


EXAMINATIONS = (
    Examination(check=c.CLAIM, look=stage.claim),
    Examination(check=c.BREAK_GLASS, look=stage.glass),
    Examination(check=c.AGENT, look=stage.agent),
    Examination(check=c.PBX, look=stage.pbx),
    Examination(check=c.UNIT, look=units.pbx, within=30.0),
    Examination(check=c.AGENT_AT_BOOT, look=units.ours, within=30.0),
    Examination(check=c.LAST_RESORT, look=units.last_resort),
    Examination(check=c.NAME, look=zone.name, within=30.0),
    Examination(check=c.NAME_TTL, look=zone.ttl),
    Examination(check=c.TSIG_MAY, look=zone.rights),
    Examination(check=c.PRIMARY, look=zone.primary),
    Examination(check=c.CERTIFICATE, look=checkpoints.certificates, within=30.0),
    Examination(check=c.SSH, look=way.way, within=30.0),
    Examination(check=c.COPIER, look=copies.copier),
    Examination(check=c.COPY_READABLE, look=copies.readable, within=30.0),
    Examination(check=c.MARIADB, look=mariadb.look, within=30.0),
    Examination(check=c.DISK, look=machine.disk),
    Examination(check=c.SECRETS, look=machine.secrets),
    Examination(check=c.NTP, look=machine.ntp),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one node found, and what can only be judged beside the other's."""

    node: str
    version: str
    began: float  # When the process did, by the wall clock of that node, in seconds.
    ended: float  # When it had looked.
    digest: str
    settings: Mapping[str, str]
    findings: Sequence[Finding]
    sightings: Sequence[Sighting]
    identities: Mapping[str, str] = field(default_factory=dict)  # Of name servers, by server.


async def examine(node: Node, config: Config) -> Account:
    """Everything that can be seen from here.  Never raises for what it finds."""
    began = _process_began()
    here = await _with_claim(
        Here(node=node, config=config, version=version("understudy"), is_root=is_root())
    )
    found, sightings, identities = await asyncio.gather(
        asyncio.gather(*(_look(each, here) for each in EXAMINATIONS)),
        _bounded(checkpoints.ask(here), []),
        _bounded(zone.identities(here), {}),
    )
    return Account(
        node=here.me,
        version=here.version,
        began=began,
        ended=time.time(),
        digest=node.policy.digest,
        settings=settings.flat(config),
        findings=[*_notes(here), *(each for one in found for each in one)],
        sightings=sightings,
        identities=identities,
    )


async def _with_claim(here: Here) -> Here:
    try:
        async with asyncio.timeout(CLAIM_WITHIN):
            return replace(here, claim=await here.node.store.read())
    except TimeoutError:
        late = Unreachable(f"{here.node.store.where} was not read within {CLAIM_WITHIN:g} s")
        return replace(here, claim_trouble=late)
    except UnderstudyError as error:
        return replace(here, claim_trouble=error)


async def _look(examination: Examination, here: Here) -> Sequence[Finding]:
    """An examination that fails is an open question, and no reason to stop."""
    check = examination.check
    try:
        async with asyncio.timeout(examination.within):
            return await examination.look(here)
    except TimeoutError:
        said = f"not found out within {examination.within:g} s"
    except UnderstudyError as error:
        said = told(error)
    except Exception as error:
        said = f"the examination failed: {type(error).__name__}: {error}"
    return [check.unknown(here.me, said, mend=c.AS_ROOT if here.hidden else "")]


async def _bounded(work: Awaitable[Any], otherwise: Any) -> Any:
    try:
        async with asyncio.timeout(WITHIN):
            return await work
    except (TimeoutError, UnderstudyError, OSError):
        return otherwise


def _process_began() -> float:
    """Wall clock seconds, from field 22 of proc_pid_stat(5): the way to us ended there, not after our imports."""
    try:
        line = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        ticks = int(line.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return time.time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _notes(here: Here) -> list[Finding]:
    return [c.CONFIGURATION_NOTES.bad(here.me, each) for each in here.config.notes]


def to_json(account: Account) -> dict[str, Any]:
    return {
        "node": account.node,
        "version": account.version,
        "began": account.began,
        "ended": account.ended,
        "digest": account.digest,
        "settings": dict(account.settings),
        "findings": [finding.to_json(each) for each in account.findings],
        "sightings": [checkpoints.to_json(each) for each in account.sightings],
        "identities": dict(account.identities),
    }


def from_json(fields: Mapping[str, Any]) -> Account:
    """Raises Unreachable when it is none that this version understands."""
    try:
        return Account(
            node=finding.printable(str(fields["node"])),
            version=finding.printable(str(fields["version"])),
            began=float(fields["began"]),
            ended=float(fields["ended"]),
            digest=str(fields["digest"]),
            settings=_texts(fields["settings"]),
            findings=[finding.from_json(each) for each in fields["findings"]],
            sightings=[checkpoints.from_json(each) for each in fields["sightings"]],
            identities=_texts(fields["identities"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreachable(
            f"the other node's account cannot be read: {type(error).__name__}: {error}",
            hint="Do both nodes run the same version?",
        ) from error


def _texts(fields: Any) -> dict[str, str]:
    return {str(key): finding.printable(str(value)) for key, value in fields.items()}
