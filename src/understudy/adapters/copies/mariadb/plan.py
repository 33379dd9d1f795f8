"""What a pull has found out, for `keep` and `put`: a file in the store, so that it outlives the copier.

STORE/plan.json   class Plan
STORE/kept        up to which transaction of this server all is kept aside already
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.adapters.disk import sync_folder
from understudy.errors import Denied

from . import gtid
from .gtid import Gtid

PLAN, KEPT = "plan.json", "kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    source: str  # The node to copy from.
    position: frozenset[Gtid]  # Of the source, when it was asked.
    history: frozenset[Gtid]  # Of the source, by server.
    seed: str = ""  # The snapshot to be loaded first; empty: go on from what is here.


def read(folder: Path) -> Plan | None:
    """Raises Denied."""
    path = folder / PLAN
    try:
        told: Any = json.loads(path.read_bytes())
        return Plan(
            source=str(told["source"]),
            position=gtid.parse(told["position"]),
            history=gtid.parse(told["history"]),
            seed=str(told["seed"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Denied(
            f"{path} cannot be understood", hint="Remove it: the next pull writes it."
        ) from error


def write(folder: Path, plan: Plan) -> None:
    told = {
        "source": plan.source,
        "position": gtid.show(plan.position),
        "history": gtid.show(plan.history),
        "seed": plan.seed,
    }
    replace(folder / PLAN, json.dumps(told))


def replace(path: Path, text: str) -> None:
    """Whole or not at all, also after a power cut."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)
