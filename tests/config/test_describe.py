"""The sample file and the manual page."""

import re
import subprocess
import sys
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_type_hints

import pytest

from config.catalogues import CATALOGUES, FAMILIES
from understudy.adapters.claims import CLAIMS
from understudy.adapters.copies import COPIES
from understudy.adapters.names import NAMES
from understudy.adapters.notify import NOTIFIERS
from understudy.adapters.probes import PROBES
from understudy.adapters.services import SERVICES
from understudy.config import describe, values
from understudy.config.load import Catalogues, parse
from understudy.config.schema import Detection, JournalSettings, NodeSettings, PairSettings

ROOT = Path(__file__).parent.parent.parent
ETC = Path("/etc/understudy/understudy.toml")
REAL: describe.Families = {
    "checkpoints": PROBES,
    "claim": CLAIMS,
    "name": NAMES,
    "service": SERVICES,
    "copies": COPIES,
    "notify": NOTIFIERS,
}
REAL_CATALOGUES: Catalogues = {
    family: {kind: member.settings for kind, member in kinds.items()}
    for family, kinds in REAL.items()
}
ALL_SETTINGS = [
    *(PairSettings, NodeSettings, Detection, JournalSettings),
    *(settings for kinds in REAL_CATALOGUES.values() for settings in kinds.values()),
]
OPTIONAL = re.compile(r"^#(?! )", re.MULTILINE)


@pytest.mark.parametrize(
    ("families", "catalogues"), [(FAMILIES, CATALOGUES), (REAL, REAL_CATALOGUES)]
)
def test_the_sample_loads_as_it_is(families: describe.Families, catalogues: Catalogues) -> None:
    config = parse(describe.sample(families), ETC, catalogues, check_files=False)
    assert config.detection == Detection()
    assert len(config.checkpoints) == 3
    assert config.notes == ()


def test_the_sample_loads_with_every_setting_written_out() -> None:
    text = OPTIONAL.sub("", describe.sample(FAMILIES))
    text = "".join(line + "\n" for line in text.splitlines() if not line.startswith("door ="))
    config = parse(text, ETC, CATALOGUES, check_files=False)
    assert config.detection == Detection()
    assert config.journal == JournalSettings()


def test_each_default_in_the_sample_is_toml() -> None:
    for line in describe.sample(REAL).splitlines():
        if OPTIONAL.match(line):
            assert tomllib.loads(line.removeprefix("#"))


def test_the_sample_explains_and_shows_every_setting() -> None:
    sample = describe.sample(REAL)
    for settings in ALL_SETTINGS:
        for field in fields(settings):
            assert re.search(rf"^(#   )?#?{field.name} = ", sample, re.MULTILINE), field.name
    assert max(map(len, sample.splitlines())) <= 110


@pytest.mark.parametrize(
    "settings", ALL_SETTINGS, ids=lambda one: f"{one.__module__}.{one.__name__}"
)
def test_every_setting_is_explained_and_can_be_written(settings: type) -> None:
    hints = get_type_hints(settings)
    place = values.Place(ETC.parent, check_files=False)
    for field in fields(settings):
        where = f"{settings.__module__}: {field.name}"
        doc = field.metadata["doc"]
        assert doc.endswith("."), f"{where}: {doc!r} does not end with a full stop"
        assert values.form(hints[field.name]), where
        example = field.metadata["example"]
        if field.default is MISSING or field.default is None:
            assert example not in (MISSING, None), f"{where} shows no example"
        for shown in (field.default, example):
            if shown not in (MISSING, None):
                written = values.as_toml(hints[field.name], shown)
                tomllib.loads(f"x = {values.text(written)}")
                values.read(hints[field.name], written, place)


def test_the_manual_says_what_must_be_written_and_what_is_the_default() -> None:
    page = describe.reference(FAMILIES)
    assert '| `patience` | duration | `"5m"` |' in page
    assert '| `isolation` | `"stop"` or `"keep"` | none: must be written |' in page
    assert "| `servers` | list, each host and port | left out |" in page
    assert '### `[claim]` with `kind = "file"`' in page


def test_the_pages_in_docs_are_not_stale() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "script" / "generate_docs.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
