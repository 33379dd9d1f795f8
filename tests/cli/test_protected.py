"""Protected or not, with real agents: `status` and `check` say it first, the journal and the log too."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.pair import CliPair, pair, until


@pytest.fixture
def two(tmp_path: Path) -> Iterator[CliPair]:
    with pair(tmp_path) as made:
        made.begin("pbx01")
        yield made


def test_the_active_node_says_whether_the_standby_could_take_over(two: CliPair) -> None:
    agent = two.start("pbx01", "run")
    why = "no agent has run on pbx02 yet: systemctl start understudy there"
    until(lambda: "NOT PROTECTED" in two.said("pbx01"), within=40, what="a line in the log")
    assert f"NOT PROTECTED: {why}" in two.said("pbx01")
    assert two.here("pbx01", "status").out.startswith("NOT PROTECTED since ")
    found = two.json("pbx01", "status")
    assert (found["protected"], found["not_protected_reasons"]) == (False, [why])
    done = two.here("pbx01", "check")
    assert done.code in (1, 2)
    assert " protected=0;;;0;1" in done.out

    two.start("pbx02", "run")
    until(lambda: two.json("pbx01", "status")["protected"], within=40, what="PROTECTED")
    first = two.here("pbx01", "status").out.splitlines()[0]
    assert first.startswith("PROTECTED since ")
    assert first.endswith(": pbx02 could take over")
    assert " protected=1;;;0;1" in two.here("pbx01", "check").out
    assert "PROTECTED again after " in two.here("pbx01", "events").out
    assert two.here("pbx02", "status").out.startswith("PROTECTED since ")

    # A pause is seen at once, without waiting for the agent.
    assert two.here("pbx01", "pause", "--for", "1h").code == 0
    for node in ("pbx01", "pbx02"):
        assert "NOT PROTECTED since" in two.here(node, "status").out
        assert (
            "automatic failover is paused until"
            in two.json(node, "status")["not_protected_because"]
        )

    agent.terminate()
    agent.wait(10)
    found = two.json("pbx01", "status")
    assert "no agent runs on pbx01, so nobody watches pbx02" in found["not_protected_because"]


def test_a_standby_knows_what_is_wrong_with_it(two: CliPair) -> None:
    two.run("pbx02", "tick")
    assert two.json("pbx02", "status")["protected"] is True
    assert two.here("pbx02", "check").code == 0
    config = two.config("pbx02")
    config.write_text(config.read_text().replace('patience = "10s"', 'patience = "11s"'))
    done = two.here("pbx02", "check")
    assert done.code == 1
    assert "pbx02 has another configuration than the claim names" in done.out
    answer = json.loads(two.here("pbx02", "answer", "status").out)
    assert answer["digest"] != two.claim.digest
    (two.folder / "break-glass").touch()
    assert json.loads(two.here("pbx02", "answer", "status").out)["glass"] is True
