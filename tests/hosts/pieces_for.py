"""A configuration of a whole pair, as `init` writes it, and its pieces."""

from pathlib import Path
from typing import Any

from understudy import wiring
from understudy.config import load, values
from understudy.config.schema import Config
from understudy.hosts import draft, plan
from understudy.hosts.piece import Choices, Keys, Piece

ANSWERS = {
    "pair": "acme",
    "service": "sip.example.test",
    "nodes": "pbx01 pbx02",
    "nodes.pbx01.address": "192.0.2.11",
    "nodes.pbx01.isolation": "keep",
    "nodes.pbx02.address": "198.51.100.12",
    "nodes.pbx02.isolation": "stop",
    "checkpoints": "cp1=192.0.2.21 cp2=198.51.100.22 cp3=203.0.113.23",
    "server": "203.0.113.53",
}
KEYS = {
    "pbx01": Keys(agent="ssh-ed25519 AAAAagent1", host="ssh-ed25519 AAAAhost1"),
    "pbx02": Keys(agent="ssh-ed25519 AAAAagent2", host="ssh-ed25519 AAAAhost2"),
}
TSIG = 'key "understudy" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="; };\n'


def config(folder: Path, **more: str) -> Config:
    answers = {**ANSWERS, **{key.replace("__", "."): value for key, value in more.items()}}

    def ask(key: str, question: str, default: str | None = None, *_: Any, **__: Any) -> str:
        given = answers.get(key, default)
        assert given is not None, f"{key}: {question}"
        return given

    path = folder / "understudy.toml"
    made = draft.interview(ask, wiring.CATALOGUES, values.Place(folder, check_files=False))
    return load.parse(draft.text(made.tables), path, wiring.CATALOGUES, check_files=False)


def piece(config: Config, host: str, ending: str, choices: Choices | None = None) -> Piece:
    found = [
        each
        for each in plan.pieces(config, choices or Choices())
        if each.host == host and each.path.endswith(ending)
    ]
    assert len(found) == 1, [each.path for each in found]
    return found[0]
