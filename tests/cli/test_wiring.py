"""From a configuration to adapters."""

import asyncio
import re
from pathlib import Path

import pytest

from cli.pair import CliPair
from understudy import wiring
from understudy.adapters.names.rfc2136 import Rfc2136Name
from understudy.errors import ConfigError, Unreachable


@pytest.fixture
def pair(tmp_path: Path) -> CliPair:
    return CliPair(tmp_path)


def test_without_a_way_to_the_other_node_it_says_what_to_set(pair: CliPair) -> None:
    path = pair.config("pbx01")
    path.write_text(re.sub(r"door = .*\n", "", path.read_text()))
    node = wiring.build(wiring.load_config(path), "pbx01")
    with pytest.raises(Unreachable, match=r"no way to pbx02 is configured: set nodes\.pbx02\.ssh"):
        asyncio.run(node.peer.ask(1))
    asyncio.run(node.peer.wake())
    plan = pair.json("pbx01", "switchover", "--dry-run")
    assert plan["ok"] is False


def test_the_name_moves_only_with_the_claim_where_one_server_holds_both(pair: CliPair) -> None:
    assert _claim_that_guards_the_name(pair) is None  # The claim is in a file.
    _change(pair, r'kind = "file"\npath = .*', 'kind = "dns"')
    assert _claim_that_guards_the_name(pair) == "_understudy.sip.example.test."
    _change(pair, r'kind = "dns"', 'kind = "dns"\nserver = "127.0.0.9"')
    assert _claim_that_guards_the_name(pair) is None


def test_a_claim_in_dns_takes_from_the_name_what_it_does_not_say(pair: CliPair) -> None:
    _change(pair, r'kind = "file"\npath = .*', 'kind = "dns"')
    store = wiring.claim_store(wiring.load_config(pair.config("pbx01")))
    assert store.where == f"the claim at {pair.ns}:{pair.ns_port} (_understudy.sip.example.test)"


def test_a_key_that_is_none_is_a_mistake_in_the_configuration(pair: CliPair) -> None:
    (pair.folder / "tsig.key").write_text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
    with pytest.raises(ConfigError) as error:
        wiring.build(wiring.load_config(pair.config("pbx01")), "pbx01")
    assert "MDEy" not in str(error.value)
    assert pair.here("pbx01", "status").code == 2


def _change(pair: CliPair, pattern: str, text: str) -> None:
    path = pair.config("pbx01")
    path.write_text(re.sub(pattern, text, path.read_text()))


def _claim_that_guards_the_name(pair: CliPair) -> str | None:
    name = wiring.service_name(wiring.load_config(pair.config("pbx01")))
    assert isinstance(name, Rfc2136Name)
    return None if name._claim is None else str(name._claim)
