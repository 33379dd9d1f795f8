"""The questions of `init`, and the configuration that the answers make."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes

import click

from understudy import wiring
from understudy.config import findings, load, values
from understudy.errors import ConfigError, Refused
from understudy.hosts import draft

from .session import about

GROUP = "understudy"  # May read the configuration and the key.
SPARE = 2.0  # A stop under load takes longer than the one that was measured.


def given(file: Path | None, said: tuple[str, ...]) -> dict[str, str]:
    """The answers from a file and from flags; a flag counts more.  Raises ConfigError, UsageError."""
    answers: dict[str, str] = {}
    if file is not None:
        try:
            answers = draft.flat(tomllib.loads(file.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError([f"{file}: these are no answers in TOML: {error}"]) from None
    for each in said:
        key, equals, value = each.partition("=")
        if not equals:
            raise click.UsageError(f"--answer {each}: write KEY=VALUE, e.g. --answer patience=25s")
        answers[key] = value
    return answers


def configure(path: Path, answers: dict[str, str]) -> None:
    """Ask for what is missing, and write `path`, whole or not at all.  Raises ConfigError, Refused."""
    ask = Ask(answers, person=sys.stdin.isatty())
    made = draft.interview(ask, wiring.CATALOGUES, values.Place(path.parent, check_files=False))
    ask.check_all_used()
    text = draft.text(made.tables)
    config = load.parse(text, path, wiring.CATALOGUES, check_files=False)  # All its rules.
    _write(path, text.encode())
    click.echo(f"{path} is written.", err=True)
    for note in config.notes:
        click.echo(note, err=True)
    key = Path(getattr(config.names[0].settings, "key_file", path.parent / "tsig.key"))
    if not key.exists():
        _write(key, _tsig_key().encode())
        click.echo(f"{key} is written: a new key for the name server.", err=True)


class Ask:
    """draft.Ask: what was given, else what a person types, else the default."""

    def __init__(self, answers: dict[str, str], *, person: bool) -> None:
        self._answers, self._person = answers, person
        self._asked: dict[str, str] = {}

    def __call__(
        self,
        key: str,
        question: str,
        default: str | None = None,
        check: Callable[[str], None] | None = None,
        *,
        aside: bool = False,
    ) -> str:
        written = self._answers.get(key)
        if written is None and self._person and not aside:
            return self._of_person(key, question, default, check)
        if written is None:
            written = default
        if written is None:
            asked = question.partition("\n")[0]
            raise ConfigError([f"{key} is not answered: {asked}  Write --answer {key}=..."])
        wrong = _wrong(check, written)
        if wrong:
            raise ConfigError([f"{key} {wrong}"])
        self._asked[key] = written
        return written

    def check_all_used(self) -> None:
        """Raises ConfigError for an answer that nothing asked for."""
        unused = [key for key in self._answers if key not in self._asked and "." not in key]
        known = list(self._asked)
        unused += [key for key in self._answers if "." in key and key not in self._asked]
        if unused:
            raise ConfigError(
                [f"{key} is no answer.{findings.did_you_mean(key, known)}" for key in unused]
            )

    def _of_person(
        self, key: str, question: str, default: str | None, check: Callable[[str], None] | None
    ) -> str:
        if key == "stop_within":
            default = _measured(self._asked.get("unit", "")) or default
        while True:
            written = str(click.prompt(question, default=default, err=True)).strip()
            wrong = _wrong(check, written)
            if not wrong:
                self._asked[key] = written
                return written
            click.echo(f"That {wrong}", err=True)


def _wrong(check: Callable[[str], None] | None, written: str) -> str:
    if check is None:
        return ""
    try:
        check(written)
    except values.WrongValueError as wrong:
        return str(wrong)
    return ""


def _measured(unit: str) -> str:
    """What a stop takes here, with some spare; "" where nobody wants to know."""
    if not unit or _systemctl("is-active", unit) != "active":
        return ""
    if not click.confirm(
        f"Measure it?  {unit} is stopped and started at once: all calls are dropped", err=True
    ):
        return ""
    before = time.monotonic()
    _systemctl("stop", unit)
    took = time.monotonic() - before
    _systemctl("start", unit)
    if _systemctl("is-active", unit) != "active":
        raise Refused(
            f"{unit} was stopped and has not come back", hint=f"See: systemctl status {unit}"
        )
    spare = max(5.0, SPARE * took + 2.0)
    click.echo(f"The stop took {took:.1f} s.", err=True)
    return about(spare)


def _systemctl(verb: str, unit: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", verb, "--", unit],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _write(path: Path, text: bytes) -> None:
    """Whole or not at all; what was there stays as .old."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            shutil.copy2(path, path.with_name(f"{path.name}.old"))
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
            with suppress(OSError, LookupError):  # Where the package has not made the group.
                shutil.chown(fresh, group=GROUP)
            os.fchmod(file.fileno(), 0o640)
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", hint="Run as root.") from error


def _tsig_key() -> str:
    """As tsig-keygen(8) prints it, of 256 bits."""
    secret = b64encode(token_bytes(32)).decode()
    return f'key "understudy" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n'
