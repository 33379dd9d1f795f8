"""Verbs that change nothing."""

import json
from pathlib import Path

import pytest

from cli.pair import CliPair
from understudy.cli.main import main

VIEW = {
    *("pair", "service", "node", "peer", "phase", "since", "active", "serving", "nobody_serves"),
    *("epoch", "pbx", "claim", "claim_trouble", "nodes", "patience", "proofs", "paused_until"),
    *("waiting_for", "agent", "troubles", "events", "protected", "not_protected_because"),
    *("protected_since", "not_protected_reasons", "version", "digest", "disk_free", "glass"),
}


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    """Nothing of it runs."""
    return CliPair(tmp_path)


def test_no_configuration_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "/nonexistent.toml", "status"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("understudy: /nonexistent.toml: there is no such file.")


def test_an_unknown_verb_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fail-over"]) == 2
    assert "No such command 'fail-over'" in capsys.readouterr().err


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "may-start" in capsys.readouterr().out


def test_errors_speak_json_too(pair: CliPair, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(pair.config("pbx01")), "--node", "pbx03", "status", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["exit"] == 2
    assert "pbx01 or pbx02" in found["error"]


def test_the_node_is_told_by_its_file(pair: CliPair, tmp_path: Path) -> None:
    from understudy.errors import ConfigError
    from understudy.wiring import load_config, node_name

    config = load_config(pair.config("pbx01"))
    file = tmp_path / "node"
    file.write_text("pbx02\n")
    assert node_name(config, node_file=file) == "pbx02"
    assert node_name(config, "pbx01", node_file=file) == "pbx01"
    file.write_text("pbx09\n")
    with pytest.raises(ConfigError, match=r"pbx09, which is no node\.  Write pbx01 or pbx02"):
        node_name(config, node_file=file)
    with pytest.raises(ConfigError, match="which node is this"):
        node_name(config, node_file=tmp_path / "none")


def test_both_nodes_judge_alike(pair: CliPair) -> None:
    from understudy.wiring import load_config, policy_of

    one, two = (load_config(pair.config(node)) for node in ("pbx01", "pbx02"))
    assert one.digest == two.digest
    policy = policy_of(two, "pbx02")
    assert (policy.me, policy.peer, policy.checkpoints) == ("pbx02", "pbx01", 3)
    assert (policy.question, policy.claim_reading, policy.stop_within) == (0.5, 0.5, 2.0)


def test_a_wrong_configuration_is_told_with_all_findings(pair: CliPair) -> None:
    path = pair.config("pbx01")
    path.write_text(path.read_text().replace('patience = "10s"', 'patience = "3s"'))
    done = pair.here("pbx01", "config", "check")
    assert done.code == 2
    assert "detection.patience is 3s" in done.err


def test_a_right_configuration_is_checked_and_shown(pair: CliPair) -> None:
    assert "pbx01.toml is right; this is pbx01" in pair.here("pbx01", "config", "check").out
    shown = pair.here("pbx01", "config", "show").out
    assert '[nodes.pbx02]\nhost = "pbx02.example.test"' in shown
    assert 'keep = "90d"' in shown
    assert pair.json("pbx01", "config", "show")["detection"]["patience"] == "10s"


def test_status_that_can_tell_nothing_says_so(pair: CliPair) -> None:
    done = pair.here("pbx01", "status")
    assert done.code == 3
    assert "not known: there is no claim" in done.out
    assert "there is no journal" in done.out


def test_status_has_stable_keys_before_an_agent_ran(pair: CliPair) -> None:
    pair.begin()
    found = pair.json("pbx02", "status")
    assert found.keys() >= VIEW
    assert found["active"] == "pbx01"
    assert found["protected"] is False
    assert found["not_protected_reasons"] == [
        "no agent has run on pbx02 yet: systemctl start understudy here"
    ]
    assert found["not_protected_because"] == found["not_protected_reasons"][0]


def test_check_without_an_agent_is_unknown(pair: CliPair) -> None:
    pair.begin()
    done = pair.here("pbx02", "check")
    assert done.code == 3
    assert done.out.startswith("UNDERSTUDY UNKNOWN: ")
    assert "|" in done.out
    assert done.out.count("\n") == 1


def test_check_without_a_configuration_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "/nonexistent.toml", "check"]) == 3
    assert capsys.readouterr().out.startswith("UNDERSTUDY UNKNOWN: ")


def test_a_story_can_be_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = tmp_path / "story.txt"
    story.write_text("power off pbx01\nwait 10m\n")
    assert main(["simulate", str(story)]) == 0
    assert "pbx02" in capsys.readouterr().out


def test_a_story_that_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = tmp_path / "story.txt"
    story.write_text("dance\n")
    assert main(["simulate", str(story)]) == 1
    assert "line 1" in capsys.readouterr().err


def test_explain_prints_the_rows_of_a_phase(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "suspecting"]) == 0
    assert "`patience-spent`" in capsys.readouterr().out
    assert main(["explain", "dancing"]) == 2


def test_every_row_stands_in_the_page_of_phases() -> None:
    from understudy.core.explain import page
    from understudy.core.rules import RULES

    text = "\n".join(page())
    for phase, rules in RULES.items():
        assert f"## {phase}" in text
        for rule in rules:
            assert f"| `{rule.name}` | {rule.because} |" in text


def test_every_verb_is_in_the_manual() -> None:
    from understudy.cli.main import VERBS
    from understudy.cli.manual import page

    text = "\n".join(page())
    for verb in VERBS:
        assert f"`understudy {verb}" in text


def test_what_no_door_understands_is_refused(pair: CliPair) -> None:
    done = pair.here("pbx01", "answer", "rm", "-rf", "/")
    assert done.code == 1
    assert json.loads(done.out)["ok"] is False
