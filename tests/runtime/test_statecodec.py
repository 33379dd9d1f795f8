"""What a node remembers survives its journal, and nonsense is refused by name."""

import json
import random
from dataclasses import fields, replace
from typing import Any

import pytest

from runtime.journal_world import some
from understudy.core.claim import Claim, first
from understudy.core.model import NEVER, Evidence, Lineage, Phase, Runbook, State, newborn
from understudy.core.observations import PeerAnswer, Ready
from understudy.core.policy import Policy
from understudy.errors import JournalError
from understudy.runtime import statecodec


@pytest.mark.parametrize("kind", [State, Policy, Claim])
def test_every_value_comes_back_as_it_was(kind: Any) -> None:
    dice = random.Random(2011)
    for _ in range(700):
        value = some(kind, dice)
        text = statecodec.dumps(value)
        assert statecodec.loads(kind, text) == value
        assert json.loads(text, parse_constant=pytest.fail) is not None


def test_a_state_comes_back_with_its_enums_and_its_never() -> None:
    state = statecodec.loads(State, statecodec.dumps(newborn(7.0)))
    assert state == newborn(7.0)
    assert isinstance(state.phase, Phase)
    assert state.evidence.up_at == NEVER


def test_what_a_newer_version_has_added_is_ignored() -> None:
    found = statecodec.to_json(newborn(1.0))
    found["mood"] = {"good": True}
    found["evidence"]["smell"] = [1, 2]
    assert statecodec.from_json(State, found) == newborn(1.0)


def test_what_an_older_version_did_not_have_gets_its_default() -> None:
    found = {"phase": "standby", "since": 5}
    assert statecodec.from_json(State, found) == State(phase=Phase.STANDBY, since=5.0)


def test_what_has_no_default_is_missed_by_name() -> None:
    with pytest.raises(JournalError, match=r"^state\.since is missing$"):
        statecodec.from_json(State, {"phase": "standby"})


@pytest.mark.parametrize(
    ("path", "nonsense", "named"),
    [
        (("phase",), "asleep", r"state\.phase is \"asleep\"; it must be one of standby"),
        (("since",), "soon", r"state\.since"),
        (("since",), None, r"state\.since"),
        (("since",), True, r"state\.since"),
        (("epoch",), 7.5, r"state\.epoch is 7\.5; it must be a whole number"),
        (("epoch",), True, r"state\.epoch"),
        (("automatic",), 1, r"state\.automatic"),
        (("runbook",), "dance", r"state\.runbook"),
        (("lineage",), "pbx01", r"state\.lineage is \"pbx01\"; it must be an object"),
        (("lineage", "epoch"), "1", r"state\.lineage\.epoch"),
        (("evidence", "claim", "how"), "stolen", r"state\.evidence\.claim\.how"),
        (("evidence", "strikes"), 3, r"state\.evidence\.strikes is 3; it must be a list"),
        (("evidence", "strikes"), [1, "x"], r"state\.evidence\.strikes\[1\]"),
        (("evidence", "peer", "ready"), "perhaps", r"state\.evidence\.peer\.ready"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_its_field(
    path: tuple[str, ...], nonsense: object, named: str
) -> None:
    found = statecodec.to_json(whole())
    place = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = nonsense
    with pytest.raises(JournalError, match=named):
        statecodec.from_json(State, found)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"state"', "7", "[" * 100_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(JournalError, match="state"):
        statecodec.loads(State, text)


def test_infinity_and_what_is_no_number_are_refused() -> None:
    for text in ("Infinity", "-Infinity", "NaN", "1e999"):
        with pytest.raises(JournalError, match=r"state\.since"):
            statecodec.loads(State, '{"phase": "standby", "since": ' + text + "}")


def test_every_field_is_written_so_that_a_changed_default_changes_no_memory() -> None:
    found = statecodec.to_json(whole())
    assert set(found) == {field.name for field in fields(State)}
    assert set(found["evidence"]) == {field.name for field in fields(Evidence)}
    assert set(found["evidence"]["claim"]) == {field.name for field in fields(Claim)}


def whole() -> State:
    """A state in which nothing is left out."""
    return replace(
        newborn(3.0),
        runbook=Runbook.TAKE,
        lineage=Lineage("pbx01", 6),
        evidence=Evidence(
            claim=first("pbx01", digest="d"),
            peer=PeerAnswer(asked_at=1.0, ready=Ready.YES, epoch=7),
            strikes=(1.0, 2.0),
        ),
    )
