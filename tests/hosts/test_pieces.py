"""What each host must have, as the programs that read it see it."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.bind import need_programs
from adapters.systemd_host import require_program
from hosts.pieces_for import KEYS, TSIG, config, piece
from understudy.adapters.peers.ssh import over_ssh
from understudy.adapters.services.systemd import Systemd
from understudy.config.settings import HostPort
from understudy.hosts import bundle, plan, privileges
from understudy.hosts.piece import Choices, Keys, NameServerKind, PbxKind, Piece

KNOWN = Choices(keys=KEYS, tsig_key=TSIG)


def test_every_piece_says_why_and_is_below_the_root(tmp_path: Path) -> None:
    found = plan.pieces(config(tmp_path, active_only="backup.timer"), KNOWN)
    assert {each.host for each in found} == {"pbx01", "pbx02", "cp1", "cp2", "cp3", "nameserver"}
    places = [(each.host, each.path) for each in found if each.path]
    assert len(places) == len(set(places))
    for each in found:
        assert each.why.endswith("."), each
        assert not each.path or (each.path.startswith("/") and each.text.endswith("\n")), each
        assert each.path or each.then or each.by_hand, each


def test_the_guard_is_on_every_unit_that_only_the_active_node_runs(tmp_path: Path) -> None:
    made = config(tmp_path, active_only="backup.timer panel")
    for unit in ("asterisk.service", "panel.service"):
        guard = piece(made, "pbx02", f"{unit}.d/understudy.conf")
        assert "\nExecStartPre=+/usr/bin/understudy" in guard.text
        assert guard.then == ("systemctl daemon-reload", f"systemctl disable {unit}")
    # A timer has no ExecStartPre=.
    timer = piece(made, "pbx02", "backup.timer.d/understudy.conf")
    assert "Requires=understudy-may-start.service" in timer.text
    assert (
        "ExecStart=/usr/bin/understudy" in piece(made, "pbx02", "understudy-may-start.service").text
    )


@pytest.mark.parametrize("pbx", PbxKind)
def test_asterisk_alone_qualifies_its_phones_after_a_start(tmp_path: Path, pbx: PbxKind) -> None:
    made = config(tmp_path, active_only="panel")
    found = plan.pieces(made, Choices(pbx=pbx))
    after = "\nExecStartPost=-+/usr/bin/systemctl --no-block restart understudy-qualify.service\n"
    told = {(each.host, each.path) for each in found if after in each.text}
    units = [each for each in found if each.path.endswith("/understudy-qualify.service")]
    if pbx is not PbxKind.ASTERISK:
        assert not told
        assert not units
        return
    drop_in = "/etc/systemd/system/asterisk.service.d/understudy.conf"
    assert told == {("pbx01", drop_in), ("pbx02", drop_in)}
    assert [each.host for each in units] == ["pbx01", "pbx02"]
    for unit in units:
        assert "\nExecStart=/usr/bin/understudy" in unit.text
        assert " qualify\n" in unit.text


def test_secrets_are_marked(tmp_path: Path) -> None:
    for each in plan.pieces(config(tmp_path), KNOWN):
        assert each.secret == ("MDEyMzQ1" in each.text)
        assert not each.secret or each.mode == 0o640


@pytest.mark.parametrize("pbx", PbxKind)
def test_every_pbx_is_told_about_every_check_point(tmp_path: Path, pbx: PbxKind) -> None:
    found = plan.pieces(config(tmp_path, pbx=pbx, unit="pbx"), Choices(pbx=pbx))
    told = "".join(
        f"{p.text}{p.by_hand}" for p in found if p.host == "pbx01" and "OPTIONS" in p.why
    )
    for address in ("192.0.2.21", "198.51.100.22", "203.0.113.23"):
        assert address in told


def test_a_name_server_that_is_not_bind_is_told_in_words(tmp_path: Path) -> None:
    found = plan.pieces(config(tmp_path), Choices(name_server=NameServerKind.OTHER))
    (only,) = [each for each in found if each.host == "nameserver"]
    assert not only.path
    assert "CNAME at sip.example.test; TXT at _understudy.sip.example.test" in only.by_hand[1]


def test_the_firewall_table_has_every_way(tmp_path: Path) -> None:
    flows = {(f.source, f.target, f.port) for f in plan.flows(config(tmp_path, mail=""))}
    assert ("pbx01 192.0.2.11", "cp1 192.0.2.21", "5666") in flows
    assert ("cp1 192.0.2.21", "pbx02 198.51.100.12", "5060") in flows
    assert ("pbx02 198.51.100.12", "pbx01 192.0.2.11", "22") in flows
    assert ("pbx01 192.0.2.11", "203.0.113.53", "53") in flows
    assert ("pbx02 198.51.100.12", "all name servers of example.test", "53") in flows
    assert len(flows) == 20


# sudo


@pytest.mark.real
def test_sudoers_is_right_and_allows_every_line_of_the_adapter(tmp_path: Path) -> None:
    require_program("visudo")
    made = config(tmp_path, use_sudo="yes", active_only="backup.timer panel")
    rules = tmp_path / "sudoers"
    rules.write_text(piece(made, "pbx01", "sudoers.d/understudy").text)
    rules.chmod(0o440)
    done = subprocess.run(["visudo", "-c", "-f", rules], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    ran = lines_of_adapter(tmp_path, made.service.settings)
    allowed = privileges.commands(made.service.settings)
    for line in ran:
        whole = (f"/usr/{'sbin' if line[0] == 'nft' else 'bin'}/{line[0]}", *line[1:])
        assert whole in allowed
    assert {(Path(each[0]).name, *each[1:]) for each in allowed} == set(ran)
    # The agent's unit is too tight for sudo.
    assert "NoNewPrivileges=no" in piece(made, "pbx01", "understudy-sudo.conf").text


def lines_of_adapter(folder: Path, settings: object) -> list[tuple[str, ...]]:
    """What adapters/services/ gives to sudo when it is asked for all that it can."""
    log = folder / "ran"
    fake = folder / "bin" / "sudo"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\nshift\nprintf "%s\\037" "$@" >>{log}\necho >>{log}\n'
        # It runs until it has been asked to stop twice; then it is gone.
        f'n=$(grep -c "kill" {log})\ncase "$*" in\n'
        "*show*) s=active; test $n -ge 1 && s=inactive\n"
        "  printf 'LoadState=loaded\\nActiveState=%s\\nSubState=x\\nResult=success\\n' $s ;;\n"
        "*is-active*) echo inactive; echo inactive ;;\n"
        "nft\\ list*) exit 0 ;;\nesac\n"
    )
    fake.chmod(0o755)
    from dataclasses import replace

    quick = replace(settings, sip=HostPort("127.0.0.1:9"), stop_within=8.0, start_within=0.3)  # type: ignore[type-var]
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{fake.parent}:{path}"

    async def all_of_it() -> None:
        pbx = Systemd(quick)  # type: ignore[arg-type]
        await pbx.start()
        await pbx._start_companions()
        await pbx.stop()
        await pbx.shut_off()

    try:
        asyncio.run(all_of_it())
    finally:
        os.environ["PATH"] = path
    return [tuple(row.split("\037")[:-1]) for row in log.read_text().splitlines() if row]


# BIND


@pytest.mark.real
@pytest.mark.parametrize("record", ["CNAME", "A", "SRV"])
def test_named_takes_the_key_and_the_policy(tmp_path: Path, record: str) -> None:
    need_programs("named-checkconf")
    made = config(tmp_path, record=record)
    key = tmp_path / "understudy.key"
    key.write_text(piece(made, "nameserver", "understudy.key", KNOWN).text)
    policy = tmp_path / "policy"
    policy.write_text(piece(made, "nameserver", "understudy-policy.example.test", KNOWN).text)
    named = tmp_path / "named.conf"
    named.write_text(
        f'include "{key}";\n'
        f'zone "example.test" {{ type primary; file "zone"; include "{policy}"; }};\n'
    )
    done = subprocess.run(["named-checkconf", named], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr
    types = {"CNAME": "CNAME", "A": "A AAAA", "SRV": "SRV"}[record]
    assert f"sip.example.test. {types};" in policy.read_text()
    assert "grant understudy name _understudy.sip.example.test. TXT;" in policy.read_text()


# SSH


def test_the_line_of_keys_is_read_as_it_was_printed() -> None:
    assert Keys.read(KEYS["pbx01"].line("pbx01")) == ("pbx01", KEYS["pbx01"])
    for wrong in ("", "pbx01 ssh-ed25519 AAAA", 'pbx01 ssh-ed25519 AA"A ssh-ed25519 BBBB'):
        with pytest.raises(ValueError, match=r"init --keys|no public SSH key"):
            Keys.read(wrong)


def test_the_way_uses_our_key_and_our_known_host_where_they_are(tmp_path: Path) -> None:
    assert not [word for word in over_ssh("u@h", folder=tmp_path) if "Identit" in word]
    (tmp_path / "id_ed25519").touch()
    (tmp_path / "known_hosts").touch()
    argv = over_ssh("u@h", folder=tmp_path)
    assert f"IdentityFile={tmp_path}/id_ed25519" in argv
    assert f"UserKnownHostsFile={tmp_path}/known_hosts" in argv
    assert argv[-2:] == ("--", "u@h")


# What is copied to a host


def test_the_script_puts_everything_in_its_place(tmp_path: Path) -> None:
    """Run as it is, in a root of its own; the commands of a check point are not ours to run here."""
    made = config(tmp_path)
    mine = [
        Piece(host="cp1", path=each.path, text=each.text, mode=each.mode, why=each.why)
        for each in plan.pieces(made, KNOWN)
        if each.host == "cp1"
    ]
    top = bundle.write(tmp_path / "out", "cp1", mine, is_node=False)
    root = tmp_path / "root"
    (root / "etc/nagios/nrpe.d").mkdir(parents=True)
    (root / "etc/nagios/nrpe.d/understudy.cfg").write_text("mine\n")
    script = (top / "install.sh").read_text().replace('"/', f'"{root}/')
    if os.geteuid() != 0:
        script = script.replace(' -o "${3%:*}" -g "${3#*:}"', "")
    (top / "install.sh").write_text(script)
    for _ in range(2):
        done = subprocess.run(
            ["sh", top / "install.sh"], capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, done.stderr
    plugin = root / "usr/lib/nagios/plugins/check_sip"
    assert stat.S_IMODE(plugin.stat().st_mode) == 0o755
    shown = subprocess.run([sys.executable, plugin, "-V"], capture_output=True, timeout=20)
    assert shown.returncode == 3
    assert (root / "etc/nagios/nrpe.d/understudy.cfg.old").read_text() == "mine\n"
    assert not list(root.rglob("*.new"))


def test_the_script_of_a_node_leaves_the_rest_to_the_program(tmp_path: Path) -> None:
    found = [each for each in plan.pieces(config(tmp_path), KNOWN) if each.host == "pbx02"]
    script = bundle.script("pbx02", found, is_node=True)
    assert script.count("\nput ") == 3  # Which node it is, the name server's key, the other's keys.
    assert script.endswith("understudy init --install\n")
    checked = subprocess.run(["sh", "-n"], input=script, text=True, timeout=20, check=False)
    assert checked.returncode == 0
