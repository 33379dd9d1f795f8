"""Real processes: agents from cron and as daemons, and people beside them."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.pair import CliPair, pair, until
from understudy.core.claim import How


@pytest.fixture
def two(tmp_path: Path) -> Iterator[CliPair]:
    with pair(tmp_path) as made:
        made.begin("pbx01")
        yield made


def test_ticks_start_and_fail_over_and_a_person_brings_the_old_node_back(two: CliPair) -> None:
    two.run("pbx01", "tick")
    assert two.pbx_pid("pbx01")
    two.run("pbx02", "tick")
    assert two.json("pbx02", "status")["phase"] == "standby"
    assert two.here("pbx02", "status").code == 0

    two.kill_pbx("pbx01")
    died = time.monotonic()
    while two.claim.node == "pbx01":
        assert time.monotonic() - died < 20
        two.run("pbx02", "tick")
        time.sleep(0.3)
    assert two.pbx_pid("pbx02")
    assert (two.claim.epoch, two.claim.how, two.claim.served) == (2, How.TAKEN, True)
    assert time.monotonic() - died < 16  # Patience is 10 s: cron makes it no later.

    two.run("pbx01", "tick")
    found = two.json("pbx01", "status")
    assert found["phase"] == "outdated"
    assert "outdated" in {each["code"] for each in found["troubles"]}
    assert two.pbx_pid("pbx01") == 0
    done = two.run("pbx01", "rejoin", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pbx01 is standby\n"


def test_the_first_agent_of_a_node_takes_over_a_pbx_that_serves_behind_broken_glass(
    two: CliPair,
) -> None:
    subprocess.run([two.folder / "pbx01" / "start"], check=True)
    until(lambda: two.pbx_pid("pbx01"), within=5, what="a PBX that nobody watches")
    pid = two.pbx_pid("pbx01")
    (two.folder / "break-glass").touch()  # As the tutorial says: no call drops.
    two.start("pbx01", "run")
    until(lambda: two.json("pbx01", "status")["phase"] == "active", within=15, what="active")
    (two.folder / "break-glass").unlink()
    until(lambda: two.json("pbx01", "status")["glass"] is False, within=5, what="whole glass")
    time.sleep(2)
    assert (two.phase("pbx01"), two.pbx_pid("pbx01")) == ("active", pid)


def test_a_second_agent_finds_the_first_at_work(two: CliPair) -> None:
    two.start("pbx02", "run")
    until(lambda: "standby" in two.said("pbx02"), within=8, what="pbx02 is standby")
    done = two.run("pbx02", "tick")
    assert done.returncode == 0
    assert "another agent" in done.stderr
    assert done.stderr.count("\n") == 1
    done = two.run("pbx02", "run")
    assert done.returncode == 1
    assert "another agent runs already" in done.stderr


def test_two_daemons_switch_over_and_fail_over_by_order(two: CliPair) -> None:
    two.start("pbx01", "run")
    two.start("pbx02", "run")
    until(lambda: two.json("pbx01", "status")["protected"], within=25, what="a protected pair")
    until(lambda: two.json("pbx02", "status")["phase"] == "standby", within=8, what="a standby")

    done = two.run("pbx02", "switchover", "--yes")  # Through the door: pbx01 must carry it out.
    assert done.returncode == 0, done.stderr
    said = r"pbx01 is standby, pbx02 is active and serves: down about \d+\.\d s\n"
    assert re.fullmatch(said, done.stdout)
    assert "active -> handing-over: a person ordered a switchover" in done.stderr
    assert (two.claim.node, two.claim.how) == ("pbx02", How.HANDED)
    assert (two.pbx_pid("pbx01"), bool(two.pbx_pid("pbx02"))) == (0, True)

    assert two.here("pbx02", "pause", "--for", "1h").code == 0  # Orders work in a pause.
    # A node that is well reads its claim again and again: it must not strike the order out.
    until(lambda: two.json("pbx02", "status")["phase"] == "active", within=12, what="proofs")
    done = two.run("pbx01", "failover", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["said"] == "pbx01 is active and serves"
    assert told["down_seconds"] > 0
    assert told["calls_lost"] is None  # Nobody has said how to count them.
    assert (bool(two.pbx_pid("pbx01")), two.pbx_pid("pbx02")) == (True, 0)
    events = two.json("pbx01", "events", "--since", "1m")["events"]
    assert {each["kind"] for each in events} == {"decision", "step", "order", "note"}
    assert "rule " in two.here("pbx01", "why").out
    assert two.json("pbx01", "why", "--at", "1s")["rule"]

    done = two.run("pbx01", "rejoin", "--dry-run")
    assert "carried out by pbx02" in done.stderr


def test_an_order_where_no_daemon_runs_is_carried_out_at_once(two: CliPair) -> None:
    config = two.config("pbx01")
    config.rename(two.folder / "away")  # The way to pbx01 leads nowhere.
    two.run("pbx02", "tick")
    done = two.run("pbx02", "failover", "--yes")
    assert done.returncode == 1
    assert "did not confirm that its PBX is stopped" in done.stderr
    assert "--accept-two-active" in done.stderr
    assert two.claim.node == "pbx01"

    done = two.run("pbx02", "failover", "--yes", "--accept-two-active")
    (two.folder / "away").rename(config)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pbx02 is active and serves\n"
    assert two.pbx_pid("pbx02")


def test_a_refused_order_says_why(two: CliPair) -> None:
    two.run("pbx01", "tick")
    two.run("pbx02", "tick")
    done = two.run("pbx02", "rejoin", "--yes")
    assert done.returncode == 1
    assert "pbx02 refuses the rejoin: the order does not fit a standby" in done.stderr


def test_sigterm_leaves_the_pbx_alone(two: CliPair) -> None:
    agent = two.start("pbx01", "run")
    until(lambda: "-> active" in two.said("pbx01"), within=10, what="pbx01 is active")
    pbx = two.pbx_pid("pbx01")
    agent.send_signal(signal.SIGHUP)
    until(lambda: "SIGHUP: a restart" in two.said("pbx01"), within=3, what="an answer to SIGHUP")
    agent.terminate()
    assert agent.wait(5) == 0
    assert two.pbx_pid("pbx01") == pbx
    assert "the agent ends (SIGTERM): the PBX is left as it is" in two.here("pbx01", "events").out


def test_an_agent_that_was_killed_goes_on_where_it_was(two: CliPair) -> None:
    agent = two.start("pbx01", "run")
    until(lambda: "-> active" in two.said("pbx01"), within=10, what="pbx01 is active")
    pbx = two.pbx_pid("pbx01")
    agent.kill()
    agent.wait()
    assert two.run("pbx01", "may-start").returncode == 0
    two.start("pbx01", "run")
    until(lambda: two.here("pbx01", "status").out.count("pbx01 is active"), within=5, what="active")
    time.sleep(3)  # Longer than first_proof.
    assert two.pbx_pid("pbx01") == pbx
    assert two.json("pbx01", "status")["phase"] in ("active", "doubted")


def test_who_serves_may_restart_its_pbx_while_the_claim_is_away(two: CliPair) -> None:
    two.start("pbx01", "run")
    until(lambda: two.json("pbx01", "status")["phase"] == "active", within=10, what="active")
    time.sleep(3)  # The check points prove it too.
    claim = two.folder / "claim"
    claim.rename(two.folder / "away")
    done = two.here("pbx01", "may-start")
    (two.folder / "away").rename(claim)
    assert done.code == 0, done.err
    assert re.search(r"proved this node active \d+s ago", done.err)


def test_a_living_agent_strikes_an_announcement_out_before_the_pbx_may_start(two: CliPair) -> None:
    two.start("pbx01", "run")
    until(lambda: two.json("pbx01", "status")["phase"] == "active", within=10, what="active")
    time.sleep(3)
    two.begin("pbx01", announced="pbx02", serial=50)
    assert two.here("pbx01", "may-start").code == 0
    assert two.claim.announced == ""


def test_a_fence_stops_the_pbx_where_no_agent_lives(two: CliPair) -> None:
    two.run("pbx01", "tick")
    assert two.pbx_pid("pbx01")
    refused = two.here("pbx01", "answer", "fence", "pbx02", "2")
    assert json.loads(refused.out) == {"ok": False, "why": "this is pbx01, not pbx02"}
    refused = two.here("pbx01", "answer", "fence", "pbx01", "1")
    assert json.loads(refused.out)["ok"] is False
    assert two.pbx_pid("pbx01")
    done = two.here("pbx01", "answer", "fence", "pbx01", "2")
    assert json.loads(done.out) == {"ok": True, "stopped": True}
    assert two.pbx_pid("pbx01") == 0


def test_a_fence_is_no_sign_of_life(two: CliPair) -> None:
    done = two.here("pbx01", "answer", "fence", "pbx01", "2")
    assert json.loads(done.out) == {"ok": True, "stopped": True}
    assert two.json("pbx01", "status")["agent"]["heartbeat_age"] is None


def test_a_fence_of_a_node_that_is_stopped_is_confirmed_at_once(two: CliPair) -> None:
    two.start("pbx02", "run")
    until(lambda: "standby" in two.said("pbx02"), within=8, what="pbx02 is standby")
    until(lambda: "stopped" in two.said("pbx02"), within=8, what="its PBX is stopped")
    began = time.monotonic()
    done = two.here("pbx02", "answer", "fence", "pbx02", "9")
    assert json.loads(done.out) == {"ok": True, "stopped": True}
    assert time.monotonic() - began < 2
    assert "fence" not in two.here("pbx02", "events").out


def test_the_daemon_tells_systemd_that_it_is_alive(
    two: CliPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"\0understudy-{os.getpid()}-{time.monotonic_ns()}"
        manager.bind(address)
        manager.settimeout(8)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + address[1:])
        agent = two.start("pbx02", "run")
        heard: list[str] = []
        while not any("STATUS=standby, epoch 1" in each for each in heard):
            heard.append(manager.recv(1000).decode())
        assert heard[0] == "READY=1"
        assert all("WATCHDOG=1" in each for each in heard[1:])
        agent.terminate()
        while heard[-1] != "STOPPING=1":
            heard.append(manager.recv(1000).decode())
        assert agent.wait(5) == 0
