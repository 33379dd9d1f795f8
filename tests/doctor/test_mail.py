"""A test message goes out, or doctor says why not."""

import asyncio
from pathlib import Path

from cli.pair import CliPair
from doctor.world import append, here, levels, only
from understudy.doctor.finding import Finding, Level
from understudy.doctor.mail import mail


def sent(pair: CliPair) -> list[Finding]:
    place = here(pair)
    return asyncio.run(mail(place.node, place.config))


def way(pair: CliPair, name: str, line: str) -> None:
    program = pair.folder / name
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    append(pair.config("pbx01"), f'[notify.{name}]\nkind = "command"\ncommand = ["{program}"]\n')


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
