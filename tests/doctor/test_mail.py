"""A test message goes out, or doctor says why not."""

import asyncio
from pathlib import Path

from cli.pair import CliPair
from doctor.world import append, here, levels, only
from understudy.doctor import mail
from understudy.doctor.finding import Finding, Level


def sent(pair: CliPair) -> list[Finding]:
    place = here(pair)
    return asyncio.run(mail.here(place.node, place.config))


def way(pair: CliPair, name: str, line: str, *, node: str = "pbx01") -> None:
    program = pair.folder / f"{name}-{node}"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    append(pair.config(node), f'[notify.{name}]\nkind = "command"\ncommand = ["{program}"]\n')


def test_a_message_that_is_taken_is_well(tmp_path: Path) -> None:
    pair = CliPair(tmp_path)
    way(pair, "sms", f'echo "$UNDERSTUDY_KIND" >{tmp_path}/told; cat >>{tmp_path}/told')
    assert levels(sent(pair), "mail") == [Level.OK]
    told = (tmp_path / "told").read_text()
    assert told.startswith("trial\n")
    assert "pbx01 of acme" in told


def test_one_way_that_fails_does_not_hold_up_another(tmp_path: Path) -> None:
    pair = CliPair(tmp_path)
    way(pair, "sms", "echo no credit left >&2; exit 1")
    way(pair, "pager", "cat >/dev/null")
    found = sent(pair)
    assert sorted(levels(found, "mail")) == [Level.CRITICAL, Level.OK]
    (one,) = [each for each in found if each.level is Level.CRITICAL]
    assert "no credit left" in one.what
    assert one.mend


def test_nobody_to_tell_is_a_warning(tmp_path: Path) -> None:
    assert only(sent(CliPair(tmp_path)), "mail").level is Level.WARNING


def test_the_other_node_sends_too_and_says_what_came_of_it(tmp_path: Path) -> None:
    """It is the one that will have to tell, when this one is dead."""
    pair = CliPair(tmp_path)
    way(pair, "sms", "cat >/dev/null")
    way(pair, "sms", "echo no credit left >&2; exit 1", node="pbx02")
    place = here(pair)
    found = asyncio.run(mail.both(place.node, place.config))
    assert [(each.node, each.level) for each in found] == [
        ("pbx01", Level.OK),
        ("pbx02", Level.CRITICAL),
    ]
    assert "no credit left" in found[1].what


def test_a_node_that_cannot_be_asked_to_send_is_an_open_question(tmp_path: Path) -> None:
    pair = CliPair(tmp_path)
    way(pair, "sms", "cat >/dev/null")
    (tmp_path / "pbx02.toml").write_text("nonsense")
    place = here(pair)
    (_, theirs) = asyncio.run(mail.both(place.node, place.config))
    assert (theirs.node, theirs.level) == ("pbx02", Level.UNKNOWN)
    assert "did not say whether its messages go out" in theirs.what
