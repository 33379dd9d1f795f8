"""The way home by one command: what only the old node had is merged, and whoever is killed on the way goes on."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from end_to_end.outside import until
from end_to_end.pair import NODES, Pair
from end_to_end.test_bad_weather import wait_for
from end_to_end.test_copies import agents, copying, has, leave, log_in, messages

pytestmark = pytest.mark.real


def failed_over(pair: Pair) -> dict[str, "subprocess.Popen[str]"]:
    """pbx02 serves and has more of everything; pbx01 is back, with what was never copied.  Returns the copiers."""
    copiers = {}
    for node in NODES:
        pair.edit(node, 'paths = ["', 'merge = "files"\npaths = ["')
        pair.start(node)
        copiers[node] = pair.start(node, "copies", "run")
    wait_for(pair, "pbx01", "active")
    wait_for(pair, "pbx02", "standby")
    has(pair, "pbx02", {"one"}, {"PJSIP/6001"})
    pair.kill_host("pbx01")
    wait_for(pair, "pbx02", "active", within=30)
    leave(pair, "pbx01", "lost")
    log_in(pair, "pbx01", "PJSIP/6666")
    leave(pair, "pbx02", "three")
    log_in(pair, "pbx02", "PJSIP/6003")
    pair.start("pbx01")
    copiers["pbx01"] = pair.start("pbx01", "copies", "run")
    wait_for(pair, "pbx01", "outdated")
    return copiers


def planned(pair: Pair, node: str) -> str:
    done = pair.run(node, "failback", "plan")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"understudy failback apply (\w+)", done.stdout)
    assert found, done.stdout
    return found[1]


def test_nothing_is_lost_on_the_way_home(tmp_path: Path) -> None:
    with copying(tmp_path) as pair:
        failed_over(pair)

        shown = pair.run("pbx01", "failback", "plan").stdout
        assert "from pbx02 to pbx01, which is outdated" in shown
        assert re.search(r"voicemail .* 1 file is only here \(\S*lost\.txt\)", shown), shown
        assert re.search(r"astdb .* 1 row is only here .* kept aside", shown), shown
        assert messages(pair, "pbx01") == {"one", "lost"}  # Looking changes nothing.
        plan = planned(pair, "pbx01")
        assert planned(pair, "pbx02") == plan  # The same facts, from either node.

        refused = pair.run("pbx01", "failback", "apply", "0badf00d", "--yes")
        assert refused.returncode == 1
        assert "the facts have moved since plan 0badf00d: nothing was done" in refused.stderr
        wait_for(pair, "pbx01", "outdated")

        done = pair.run("pbx01", "failback", "apply", plan, "--yes", within=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pbx01 is active and serves: down about" in done.stdout
        wait_for(pair, "pbx01", "active", within=20)
        assert messages(pair, "pbx01") == {"one", "lost", "three"}
        assert agents(pair, "pbx01") == {"PJSIP/6001", "PJSIP/6003"}
        (aside,) = (pair.home("pbx01") / "journal/copies/astdb/aside").glob("*/only-here.txt")
        assert "6666" in aside.read_text()
        (report,) = (pair.home("pbx01") / "journal/copies/voicemail/aside").glob("*.merged.json")
        assert len(json.loads(report.read_text())["taken"]) == 1

        again = pair.run("pbx01", "failback", "apply", plan, "--yes")
        assert (again.returncode, again.stdout.strip()) == (
            0,
            "pbx01 is active: this failback is done",
        )


def test_killed_again_and_again_it_goes_on(tmp_path: Path) -> None:
    """The command, and the copiers of both nodes, at moments that nobody has chosen."""
    with copying(tmp_path) as pair:
        copiers = failed_over(pair)
        plan = planned(pair, "pbx02")
        for pause in (0.4, 0.8, 1.2, 1.6):
            apply = pair.start("pbx02", "failback", "apply", plan, "--yes")
            time.sleep(pause)
            for node, copier in copiers.items():
                copier.kill()
                copier.wait(10)
                copiers[node] = pair.start(node, "copies", "run")
            apply.kill()
            apply.wait(10)
        done = pair.run("pbx02", "failback", "apply", plan, "--yes", within=120)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_for(pair, "pbx01", "active", within=20)
        until(
            lambda: messages(pair, "pbx01") == {"one", "lost", "three"},
            within=10,
            what=lambda: f"{messages(pair, 'pbx01')}\n{pair.said('pbx01')}",
        )
        box = pair.home("pbx01") / "voicemail"
        assert len(list(box.rglob("*.txt"))) == 3  # None twice.
