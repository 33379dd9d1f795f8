"""`init`: from answers to a configuration that loads, or to a sentence; and never half a file."""

import io
import json
import os
import stat
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from cli.pair import Done
from understudy.adapters.tsigkey import load_key
from understudy.cli.main import main
from understudy.config import durations
from understudy.wiring import load_config

ANSWERS = """\
pair = "acme"
service = "sip.example.com"
server = "203.0.113.53"
patience = "25s"
stop_within = "8s"
mail = "ops@example.com"
[nodes.pbx01]
address = "192.0.2.11"
isolation = "keep"
[nodes.pbx02]
address = "198.51.100.12"
isolation = "stop"
[checkpoints]
cp1 = "192.0.2.21"
cp2 = "198.51.100.22"
cp3 = "203.0.113.23"
"""


class Machine:
    """A folder for the configuration and the answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "etc" / "understudy.toml"
        self.answers = folder / "answers.toml"
        self.answers.write_text(ANSWERS)

    def __call__(self, *words: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--config", str(self.config), "--node", "pbx01", "init", *words])
        return Done(code, out.getvalue(), err.getvalue())

    def write(self, *said: str) -> Done:
        key = f"key_file={self.folder / 'etc' / 'tsig.key'}"
        flags = [word for each in (key, *said) for word in ("--answer", each)]
        return self("--answers", str(self.answers), *flags)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Machine(tmp_path)


# The configuration


def test_answers_make_a_configuration_that_loads_and_a_key(machine: Machine) -> None:
    done = machine.write()
    assert done.code == 0, done.err
    found = load_config(machine.config)  # With its files.
    assert durations.show(found.detection.patience) == "25s"
    assert [node.isolation for node in found.nodes.values()] == ["keep", "stop"]
    assert found.nodes["pbx01"].ssh == "understudy@192.0.2.11"
    assert found.notify["mail"].settings.to == ("ops@example.com",)
    key = machine.folder / "etc" / "tsig.key"
    assert load_key(key).name.to_text() == "understudy."
    assert stat.S_IMODE(key.stat().st_mode) == 0o640
    assert 'isolation = "keep" on pbx01' in done.err


def test_what_a_setting_means_stands_above_it_once(machine: Machine) -> None:
    machine.write()
    text = machine.config.read_text()
    assert text.count("# What this node does when it can see neither") == 1
    assert text.count("# How long the verdict must stay down") == 1
    assert all(len(row) <= 100 for row in text.splitlines())


def test_a_flag_counts_more_than_the_file(machine: Machine) -> None:
    assert machine.write("patience=2m", "nodes.pbx02.address=198.51.100.99").code == 0
    found = load_config(machine.config, check_files=False)
    assert found.detection.patience == 120.0
    assert found.nodes["pbx02"].address == "198.51.100.99"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("patience=10s", "the smallest patience is 13s100ms"),
        ("patience=5", "patience is"),
        ("service=192.0.2.1", "service is"),
        ("nodes.pbx01.isolation=perhaps", 'Write "stop" or "keep"'),
        ("nodes.pbx02.address=192.0.2.11", "Give each node an address of its own"),
        ("checkpoints=cp1=192.0.2.21", "is not three check points"),
        ("checkpoints=a=192.0.2.21 b=192.0.2.21 c=192.0.2.23", "one host has one vote"),
        ("zone=example.org", "does not hold sip.example.com"),
        ("record=CNAMES", 'Write "CNAME"'),
        ("pbx=3cx", "is none of asterisk"),
        ("patiance=5m", "Did you mean patience?"),
        ("nodes.pbx03.address=192.0.2.1", "is no answer"),
    ],
)
def test_nonsense_is_refused_and_nothing_is_written(
    machine: Machine, said: str, sentence: str
) -> None:
    done = machine.write(said)
    assert done.code == 2
    assert sentence in done.err
    assert not machine.config.parent.exists()


def test_what_is_missing_is_named_with_the_flag_for_it(machine: Machine) -> None:
    machine.answers.write_text(ANSWERS.replace('isolation = "keep"\n', ""))
    done = machine.write()
    assert done.code == 2
    assert "--answer nodes.pbx01.isolation=" in done.err


def test_a_configuration_is_not_overwritten_without_force(machine: Machine) -> None:
    machine.write()
    before = machine.config.read_text()
    done = machine.write("pair=other")
    assert (done.code, machine.config.read_text()) == (1, before)
    assert "--force" in done.err
    assert machine("--force", "--answers", str(machine.answers), "--answer", "pair=other").code == 0
    assert 'name = "other"' in machine.config.read_text()
    assert machine.config.with_name("understudy.toml.old").read_text() == before


def test_a_write_that_fails_leaves_what_was_there(machine: Machine) -> None:
    machine.write()
    before = machine.config.read_text()
    blocked = machine.config.with_name("understudy.toml.new")
    blocked.mkdir()
    done = machine("--force", "--answers", str(machine.answers))
    assert done.code == 1
    assert "cannot be written" in done.err
    assert machine.config.read_text() == before


# A person


@pytest.mark.skipif(sys.platform != "linux", reason="SKIPPED: needs a terminal of Linux")
def test_a_person_is_asked_until_the_answer_makes_sense(machine: Machine) -> None:
    typed = [
        *("acme", "192.0.2.1", "sip.example.com", ""),  # An address is no name.
        *("", "192.0.2.11", "perhaps", "keep"),
        *("", "198.51.100.12", "stop"),
        *("other", "no-such-pbx", "8s", "9s", "25s"),
        *("cp1=192.0.2.21", "cp1=192.0.2.21 cp2=198.51.100.22 cp3=203.0.113.23"),
        *("203.0.113.53", "", "", ""),
    ]
    ours, theirs = os.openpty()
    key = f"key_file={machine.folder / 'etc' / 'tsig.key'}"
    where = ["--config", str(machine.config), "--node", "pbx01"]
    asking = subprocess.Popen(
        [sys.executable, "-m", "understudy", *where, "init", "--answer", key],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        os.write(ours, "".join(f"{each}\n" for each in typed).encode())
        _, said = asking.communicate(timeout=60)
    finally:
        asking.kill()
        os.close(ours)
    assert asking.returncode == 0, said
    found = load_config(machine.config)
    assert found.service.settings.unit == "no-such-pbx"
    assert durations.show(found.detection.patience) == "25s"
    assert "nobody there can call the fire brigade" in said
    assert "the smallest patience is 13s100ms" in said
    assert "an IP address, not a domain name" in said


# The hosts


def test_it_prints_every_host_with_commands_and_the_firewalls(machine: Machine) -> None:
    machine.write()
    done = machine()
    assert done.code == 0, done.err
    for host in ("pbx01", "pbx02", "cp1", "cp2", "cp3", "nameserver"):
        assert f"\n=== {host}\n" in f"\n{done.out}"
    assert "$ systemctl disable asterisk.service" in done.out
    assert "firewalls" in done.out
    assert "understudy doctor" in done.out


def test_no_secret_is_shown(machine: Machine) -> None:
    machine.write()
    secret = (machine.folder / "etc" / "tsig.key").read_text().split('"')[3]
    for words in (
        (),
        ("--json",),
        ("--install", "--dry-run"),
        ("--install", "--dry-run", "--json"),
    ):
        done = machine(*words)
        assert done.code == 0, done.err
        assert secret not in done.out + done.err


def test_one_host_alone(machine: Machine) -> None:
    machine.write()
    shown = json.loads(machine("--host", "cp2", "--json").out)
    assert list(shown["hosts"]) == ["cp2"]
    assert {"ok", "config", "written", "notes", "hosts", "firewall"} == shown.keys()
    done = machine("--host", "cp9")
    assert (done.code, "cp1, cp2, cp3" in done.err) == (2, True)


def test_the_output_has_a_folder_for_each_host_and_the_way_there(machine: Machine) -> None:
    machine.write()
    out = machine.folder / "hosts"
    done = machine("--output", str(out))
    assert done.code == 0, done.err
    assert (
        f"scp -rp {out}/cp3 root@203.0.113.23: && ssh root@203.0.113.23 sh cp3/install.sh"
        in done.out
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert (out / "cp1/etc/nagios/nrpe.d/understudy.cfg").exists()
    assert 'secret "' in (out / "nameserver/etc/bind/understudy.key").read_text()
    copied = out / "pbx02" / str(machine.config).lstrip("/")
    assert copied.read_text() == machine.config.read_text()
    assert machine("--output", str(out)).code == 0  # And again.


def test_a_dry_run_of_install_changes_nothing(machine: Machine) -> None:
    machine.write()
    before = sorted(machine.folder.rglob("*"))
    done = machine("--install", "--dry-run")
    assert done.code == 0, done.err
    assert "would change" in done.out
    assert "ExecStartPre" in done.out
    assert sorted(machine.folder.rglob("*")) == before


def test_keys_of_a_stranger_are_no_keys(machine: Machine) -> None:
    machine.write()
    for line in ("nonsense", "pbx09 ssh-ed25519 AAAA ssh-ed25519 BBBB"):
        done = machine("--peer-keys", line)
        assert done.code == 2
        assert "--peer-keys" in done.err
