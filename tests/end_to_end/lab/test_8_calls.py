"""After a failover providers of each kind reach the active node, and a phone dials out through it."""

import asyncio
import time

from lab import callers, machines, pair

from end_to_end.lab.stage import Stage, until

PROVIDERS_WITHIN = 30.0  # Seconds: the provider's own OPTIONS and the trunk's registration.
PHONES_WITHIN = 150.0  # They come at their next registration.


def test_providers_and_phones(stage: Stage) -> None:
    pair.settle()
    machines.power_cut(["pbx01"])
    stage.wait_for_failover()
    asyncio.run(reached())
    until(
        lambda: stage.run("pbx02", "asterisk", "-rx", "pjsip show contacts").count("600") >= 2,
        within=PHONES_WITHIN, what=lambda: "two phones are registered at pbx02",
    )  # fmt: skip


async def reached() -> None:
    async with callers.calling() as calling:
        begun = time.time()
        for kind, within in (
            ("dispatcher", PROVIDERS_WITHIN), ("registrar", PROVIDERS_WITHIN), ("name0", PROVIDERS_WITHIN),
            ("name", PROVIDERS_WITHIN + 30.0), ("pstn", PHONES_WITHIN), ("phones", PHONES_WITHIN),
        ):  # fmt: skip
            while not any(a.answered for a in calling.recent(kind, 5.0)):
                why = {a.why for a in calling.recent(kind, 10.0)}
                assert time.time() < begun + within, f"{kind} ({callers.KINDS[kind]}): {why}"
                await asyncio.sleep(0.5)
