"""What a person may do where no agent runs."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.pair import NODES, CliPair, Done
from understudy.core.claim import How
from understudy.demo.sip_pbx import SipPbx
from understudy.wiring import load_config, policy_of


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[CliPair]:
    made = CliPair(tmp_path)
    yield made
    made.end()


def test_set_active_asks_before_it_writes(pair: CliPair) -> None:
    done = pair.run("pbx01", "set-active", "pbx01")
    assert done.returncode == 1
    assert "no terminal to ask at" in done.stderr
    assert "starts   the PBX on pbx01" in done.stderr
    assert not (pair.folder / "claim").exists()


def test_a_dry_run_writes_nothing(pair: CliPair) -> None:
    plan = pair.json("pbx01", "set-active", "pbx02", "--dry-run")
    assert plan["ok"] is True
    assert {"order", "node", "starts", "stops", "drops", "risks", "refused"} <= plan.keys()
    assert not (pair.folder / "claim").exists()


def test_set_active_creates_the_claim_and_is_journalled(pair: CliPair) -> None:
    done = pair.here("pbx01", "set-active", "pbx01", "--yes")
    assert done.code == 0, done.err
    assert (pair.claim.node, pair.claim.epoch, pair.claim.how) == ("pbx01", 1, How.SET)
    assert "a person: the claim says pbx01, epoch 1" in pair.here("pbx01", "events").out


def test_set_active_raises_the_epoch_above_all_that_was_seen(pair: CliPair) -> None:
    pair.begin("pbx01", epoch=7)
    done = pair.here("pbx02", "set-active", "pbx02", "--yes")
    assert done.code == 0, done.err
    assert (pair.claim.node, pair.claim.epoch) == ("pbx02", 8)
    pair.begin("pbx01", epoch=3)  # Somebody restores an old zone.
    pair.run("pbx02", "tick")
    assert pair.here("pbx02", "set-active", "pbx02", "--yes").code == 0
    assert pair.claim.epoch > 3


def test_set_active_refuses_while_the_other_node_is_seen_up(pair: CliPair) -> None:
    pair.begin("pbx01")
    done = _with_pbx(pair, "pbx01", "set-active", "pbx02", "--yes")
    assert done.code == 1
    assert "the check points say that pbx01 is up" in done.err
    assert "switchover" in done.err
    assert pair.claim.node == "pbx01"
    done = _with_pbx(pair, "pbx01", "set-active", "pbx02", "--yes", "--accept-two-active")
    assert done.code == 0
    assert pair.claim.node == "pbx02"


def test_a_node_declared_in_the_place_of_another_waits_for_its_stop(pair: CliPair) -> None:
    pair.begin("pbx01")
    waits = policy_of(load_config(pair.config("pbx02")), "pbx02").outlives
    done = pair.here("pbx02", "set-active", "pbx02", "--yes")
    assert done.code == 0, done.err
    assert pair.claim.how is How.MOVED
    assert f"starts its PBX {waits:.0f} s after" in done.out
    assert "--accept-two-active" in done.out
    assert f"starts   the PBX on pbx02, {waits:.0f} s after" in done.err
    done = pair.here("pbx02", "may-start")
    assert done.code == 1
    assert "may not have stopped yet" in done.err
    pair.here("pbx02", "set-active", "pbx02", "--yes")  # Said twice is not waited for less.
    assert pair.claim.how is How.MOVED


def test_who_accepts_two_active_does_not_wait(pair: CliPair) -> None:
    pair.begin("pbx01")
    done = pair.here("pbx02", "set-active", "pbx02", "--yes", "--accept-two-active")
    assert done.code == 0, done.err
    assert pair.claim.how is How.FORCED
    assert "starts its PBX" not in done.out
    assert pair.here("pbx02", "may-start").code == 0


def test_a_note_of_a_person_is_no_sign_of_life_of_an_agent(pair: CliPair) -> None:
    pair.begin("pbx01")
    assert pair.here("pbx01", "pause", "--for", "1h").code == 0
    assert pair.json("pbx01", "status")["agent"]["heartbeat_age"] is None
    assert "paused" in pair.here("pbx01", "events").out


@pytest.mark.parametrize("gone", ["pbx01/start", "tsig.key"])
def test_what_has_gone_from_the_disk_silences_no_one(gone: str, pair: CliPair) -> None:
    pair.begin("pbx01")
    pair.run("pbx02", "tick")
    pair.run("pbx01", "tick")
    (pair.folder / gone).unlink()
    assert pair.json("pbx01", "status")["node"] == "pbx01"
    assert pair.here("pbx01", "check").code in (0, 1, 2)
    for words in (["why"], ["events"], ["explain"], ["config", "show"], ["may-start"]):
        done = pair.here("pbx01", *words)
        assert done.code == 0, (words, done.err)
    fenced = pair.here("pbx01", "answer", "fence", "pbx01", "2")
    assert json.loads(fenced.out) == {"ok": True, "stopped": True}
    for words in (["run"], ["tick"], ["config", "check"]):
        assert pair.here("pbx01", *words).code == 2


def test_an_unknown_node_is_wrong_usage(pair: CliPair) -> None:
    assert pair.here("pbx01", "set-active", "pbx03", "--yes").code == 2


def test_a_pause_ends_by_itself_and_can_be_ended(pair: CliPair) -> None:
    pair.begin()
    done = pair.here("pbx02", "pause", "--for", "2h", "--reason", "new kernel")
    assert done.code == 0
    assert abs(pair.claim.pause - time.time() - 7200) < 60
    assert "new kernel" in pair.here("pbx02", "events").out
    assert pair.json("pbx02", "status")["paused_until"] == pair.claim.pause
    assert pair.json("pbx02", "resume")["pause"] == 0
    assert pair.claim.pause == 0


def test_a_pause_needs_a_claim(pair: CliPair) -> None:
    done = pair.here("pbx01", "pause", "--for", "2h")
    assert done.code == 3
    assert "set-active" in done.err


def test_a_pause_needs_a_duration(pair: CliPair) -> None:
    pair.begin()
    done = pair.here("pbx01", "pause", "--for", "soon")
    assert done.code == 2
    assert "Write it like 90s, 2h or 1h30m" in done.err


def test_orders_need_to_know_who_is_active(pair: CliPair) -> None:
    done = pair.here("pbx01", "failover", "--dry-run")
    assert done.code == 3
    assert "nobody knows who is active" in done.err


def test_a_plan_says_what_an_order_would_do(pair: CliPair) -> None:
    pair.begin("pbx01")
    plan = pair.json("pbx01", "failover", "--dry-run")
    assert plan["node"] == "pbx02"
    assert plan["starts"] == ["the PBX on pbx02", "sip.example.test leads to pbx02"]
    assert plan["stops"] == ["the PBX on pbx01: it must confirm that, or nothing is done"]
    assert pair.claim.node == "pbx01"


def test_a_switchover_needs_a_ready_node(pair: CliPair) -> None:
    pair.begin("pbx01")
    plan = pair.json("pbx01", "switchover", "--dry-run")
    assert plan["ok"] is False
    assert "no agent runs on pbx02" in plan["refused"]


# may-start


def test_the_pbx_may_not_start_where_another_node_is_active(pair: CliPair) -> None:
    pair.begin("pbx01")
    done = pair.here("pbx02", "may-start")
    assert done.code == 1
    assert "the claim names pbx01, epoch 1" in done.err


def test_the_pbx_may_start_where_the_claim_says_so(pair: CliPair) -> None:
    pair.begin("pbx01")
    assert pair.here("pbx01", "may-start").code == 0
    assert pair.json("pbx01", "may-start")["ok"] is True


def test_the_pbx_may_not_start_while_the_other_is_seen_up(pair: CliPair) -> None:
    pair.begin("pbx01")
    done = _with_pbx(pair, "pbx02", "may-start")
    assert done.code == 1
    assert "the check points say that pbx02 is up" in done.err


def test_the_pbx_may_not_start_under_an_announcement(pair: CliPair) -> None:
    pair.begin("pbx01", announced="pbx02")
    done = pair.here("pbx01", "may-start")
    assert done.code == 1
    assert "pbx02 has announced" in done.err


def test_the_pbx_may_not_start_without_a_claim(pair: CliPair) -> None:
    done = pair.here("pbx01", "may-start")
    assert done.code == 1
    assert "there is no claim" in done.err


def test_the_pbx_may_not_start_on_a_claim_older_than_one_that_was_seen(pair: CliPair) -> None:
    pair.begin("pbx02", epoch=5)
    pair.run("pbx01", "tick")
    pair.begin("pbx01", epoch=4)
    done = pair.here("pbx01", "may-start")
    assert done.code == 1
    assert "restored from an old backup" in done.err


def test_broken_glass_lets_the_pbx_start_and_is_journalled(pair: CliPair) -> None:
    pair.begin("pbx01")
    (pair.folder / "break-glass").touch()
    done = pair.here("pbx02", "may-start")
    assert done.code == 0
    assert "the glass is broken" in done.err
    assert "the glass is broken" in pair.here("pbx02", "events").out


def _with_pbx(pair: CliPair, running: str, *words: str) -> Done:
    """On the other node, while a PBX answers on `running`."""

    async def both() -> Done:
        other = next(node for node in NODES if node != running)
        async with SipPbx(running, pair.addresses[running], pair.port):
            return await asyncio.to_thread(pair.here, other, *words)

    return asyncio.run(both())
