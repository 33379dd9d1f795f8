"""What the agent costs, and how fast it is: on the demo's pair (rounds of 1 s, three check points, a claim in DNS).

CPU and memory are the kernel's own figures for the agents' processes (proc(5): stat, smaps_rollup).  Run it on a quiet
machine: `python benchmarks/agent.py [--seconds 60] [--json]`.
"""

import argparse
import asyncio
import compileall
import json
import os
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import dns.asyncquery
import dns.message

import understudy
from understudy.demo.stage import Stage

TICKS = os.sysconf("SC_CLK_TCK")
NAME = "sip.example.test"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--failovers", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    async with Stage() as stage:
        await ready(stage)
        figures |= await daemons(stage, arguments.seconds)
        figures["tick_cpu_s"] = await ticks(stage)
    figures["decision_to_name_s"] = [await failover() for _ in range(arguments.failovers)]
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:32} {value}")


async def ready(stage: Stage) -> None:
    """Both nodes run, and the first one serves."""
    await stage.power_on("pbx01")
    await stage.power_on("pbx02")
    if not await serves(stage, "pbx01", 30.0):
        raise SystemExit(f"pbx01 does not serve: see {stage.folder}")


async def serves(stage: Stage, name: str, within: float) -> bool:
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        status = stage.status(name)
        if status is not None and status.phase == "active":
            return True
        await asyncio.sleep(0.1)
    return False


async def daemons(stage: Stage, seconds: float) -> dict[str, object]:
    """An agent's own CPU and memory; and the CPU of the programs that it ran (the demo's status script)."""
    agents = stage.agent_pids()
    await asyncio.sleep(5.0)
    before = {name: (cpu(pid), programs(pid)) for name, pid in agents.items()}
    await asyncio.sleep(seconds)
    return {
        f"{name}_{what}": value
        for name, pid in agents.items()
        for what, value in (
            ("cpu_percent_of_a_core", percent(cpu(pid) - before[name][0], seconds)),
            ("programs_percent_of_a_core", percent(programs(pid) - before[name][1], seconds)),
            ("pss_mb", round(pss(pid), 1)),
        )
    }


def percent(spent: float, seconds: float) -> float:
    return round(100 * spent / seconds, 2)


def cpu(pid: int) -> float:
    """Seconds of user and system time, of the process alone."""
    return sum(int(field) for field in stat(Path(f"/proc/{pid}"))[11:13]) / TICKS


def programs(pid: int) -> float:
    """The same of its children that have ended."""
    return sum(int(field) for field in stat(Path(f"/proc/{pid}"))[13:15]) / TICKS


def stat(process: Path) -> list[str]:
    return (process / "stat").read_text().rpartition(")")[2].split()


def pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("no Pss in smaps_rollup")


async def ticks(stage: Stage) -> float:
    """CPU of one `understudy tick` on the standby, interpreter included; median of five."""
    compileall.compile_dir(Path(understudy.__file__).parent, quiet=1)  # As an installed package is.
    await stage.power_off("pbx02")
    (stage.hosts["pbx02"].folder / "no-power").unlink(missing_ok=True)
    found = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = await stage.person("pbx02", "tick")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.code:
            raise SystemExit(f"tick failed: {done.err}")
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(statistics.median(found), 3)


async def failover() -> float:
    """Seconds from the decision to take over until the name server answers with the new node."""
    async with Stage() as stage:
        await ready(stage)
        await asyncio.sleep(3.0)
        began = time.time()
        await stage.power_off("pbx01")
        async with asyncio.timeout(60):
            while "pbx02" not in await leads_to(stage):  # noqa: ASYNC110 - a name server tells nobody
                await asyncio.sleep(0.005)
        served = time.time()
        decided = [
            event.wall for event in stage.events("pbx02", began) if event.name == "patience-spent"
        ]
        return round(served - decided[0], 3)


async def leads_to(stage: Stage) -> str:
    host, port = stage.name_server
    query = dns.message.make_query(NAME, "CNAME")
    answer = await dns.asyncquery.udp(query, host, port=port, timeout=2)
    return " ".join(targets(answer))


def targets(answer: dns.message.Message) -> Iterator[str]:
    for rrset in answer.answer:
        for each in rrset:
            yield each.to_text()


if __name__ == "__main__":
    asyncio.run(main())
