"""What a right file means."""

from dataclasses import replace
from pathlib import Path

import pytest

from config.catalogues import CATALOGUES, VALID, Nrpe, Record, Rfc2136, Systemd, Tls
from understudy.config import rules
from understudy.config.load import load, parse
from understudy.config.schema import Chosen, Config, Detection, JournalSettings
from understudy.config.settings import DnsName, Host, HostPort, Port, Seconds, SecretFile
from understudy.core.policy import Agreement, Isolation

# DESIGN.md, "What users and scripts meet", without [copies], and with three check points.
DESIGN = """\
[pair]
name = "acme"
service = "sip.example.com"      # what phones and providers call
preferred = "pbx01"

[nodes.pbx01]
host = "pbx01.example.com"       # what the service name points to
address = "192.0.2.11"
ssh = "understudy@192.0.2.11"    # the other node's way in: a user of its own with a forced command
isolation = "keep"               # no default: init asks

[nodes.pbx02]
host = "pbx02.example.com"
address = "198.51.100.12"
ssh = "understudy@198.51.100.12"
isolation = "stop"

[detection]
interval = "60s"                 # the article's numbers are the defaults
patience = "5m"
announce = "45s"
claim_stale = "15s"
checkpoints_stale = "90s"
agreement = "unanimous"          # of those that answer

[checkpoints.cp1]
kind = "nrpe"
address = "192.0.2.21"           # port 5666, tls = "anonymous" | "verified" | "off"
command = "check_{node}"         # asked for each node: check_pbx01, check_pbx02

[checkpoints.cp2]
kind = "nrpe"
address = "203.0.113.22"

[checkpoints.cp3]
kind = "nrpe"
address = "198.51.100.23"

[claim]
kind = "dns"

[name]
kind = "rfc2136"
server = "203.0.113.53"
zone = "example.com"
record = "CNAME"                 # or A/AAAA, SRV
ttl = "30s"
key_file = "/etc/understudy/tsig.key"   # as tsig-keygen writes it

[service]
kind = "systemd"
unit = "asterisk"
stop_within = "25s"
active_only = ["cron-backup.timer"]     # further units that run on the active node alone

[notify.mail]
kind = "mail"
to = ["ops@example.com"]
"""


def test_the_sample_of_the_design_loads() -> None:
    config = read(DESIGN)
    assert config.pair.service == "sip.example.com"
    assert config.nodes["pbx01"].isolation is Isolation.KEEP
    assert list(config.checkpoints) == ["cp1", "cp2", "cp3"]
    assert config.names[0].settings.ttl == 30.0
    assert config.service.settings.active_only == ("cron-backup.timer",)
    assert config.notify["mail"].settings.to == ("ops@example.com",)


def test_the_articles_numbers_are_the_defaults() -> None:
    assert read(DESIGN).detection == Detection()
    assert float(Detection().patience) == 300
    assert Detection().agreement is Agreement.UNANIMOUS
    assert float(JournalSettings().keep) == 90 * 86_400


def test_every_type_of_value_is_read() -> None:
    config = read(
        VALID.replace('address = "192.0.2.21"', 'address = "2001:DB8::21"\ntls = "off"')
        .replace('zone = "example.com"', 'zone = "EXAMPLE.com."\nservers = ["[2001:db8::1]:53"]')
        .replace('unit = "asterisk"', 'unit = "asterisk"\nsip_ports = [5060, 5061]')
        .replace('ssh = "understudy@192.0.2.11"', 'door = ["bin/door", "--to", "pbx01"]')
    )
    assert config.checkpoints["cp1"].settings == Nrpe(
        address=Host("2001:DB8::21"), port=Port(5666), tls=Tls.OFF, timeout=Seconds(10.0)
    )
    assert config.names == (
        Chosen(
            "rfc2136",
            Rfc2136(
                server=Host("203.0.113.53"),
                zone=DnsName("example.com"),
                record=Record.CNAME,
                key_file=SecretFile(Path("/etc/understudy/tsig.key")),
                servers=(HostPort("[2001:db8::1]:53"),),
            ),
        ),
    )
    assert config.service.settings == Systemd(unit="asterisk", sip_ports=(Port(5060), Port(5061)))
    assert config.nodes["pbx01"].door == ("/etc/understudy/bin/door", "--to", "pbx01")


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tsig.key").touch(0o600)
    (tmp_path / "understudy.toml").write_text(VALID)
    monkeypatch.chdir("/")
    config = load(tmp_path / "understudy.toml", CATALOGUES)
    assert config.journal.path == tmp_path / "journal.sqlite3"
    assert config.names[0].settings.key_file == tmp_path / "tsig.key"
    monkeypatch.chdir(tmp_path)
    assert load(Path("understudy.toml"), CATALOGUES).journal.path == tmp_path / "journal.sqlite3"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "tsig.key").touch(0o600)
    path = tmp_path / "understudy.toml"
    path.write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode())
    assert load(path, CATALOGUES).pair.name == "acme"


def test_a_program_is_found_where_the_system_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "tsig.key").touch(0o600)
    path = tmp_path / "understudy.toml"
    path.write_text(VALID.replace('ssh = "understudy@192.0.2.11"', 'door = ["true"]'))
    assert load(path, CATALOGUES).nodes["pbx01"].door == ("true",)


def test_several_name_tables_keep_their_order() -> None:
    name = VALID[VALID.index("[name]") : VALID.index("[service]")]
    inside = name.replace("[name]", "[[name]]")
    outside = inside.replace("203.0.113.53", "203.0.113.54")
    claim = '[claim]\nkind = "dns"\n'
    own = claim + 'server = "203.0.113.53"\nzone = "example.com"\nkey_file = "tsig.key"\n'
    config = read(VALID.replace(name, inside + outside).replace(claim, own))
    assert [one.settings.server for one in config.names] == ["203.0.113.53", "203.0.113.54"]


def test_check_points_on_loopback_may_share_an_address() -> None:
    text = VALID
    for address in ("192.0.2.21", "203.0.113.22", "198.51.100.23"):
        text = text.replace(f'address = "{address}"', 'address = "127.0.0.1"')
    assert len(read(text).checkpoints) == 3


def test_every_sum_of_the_default_numbers_has_room() -> None:
    for row in rules.sums(read(DESIGN)):
        assert row.holds, row


def test_a_sum_that_is_just_met_is_met() -> None:
    assert read(VALID.replace('announce = "45s"', 'announce = "43s"')).notes == ()


@pytest.mark.parametrize(
    ("old", "new", "where", "note"),
    [
        ('isolation = "stop"', 'isolation = "keep"', "isolation", 'isolation = "keep" on pbx01'),
        ('ssh = "understudy@192.0.2.11"\n', "", "[nodes.pbx01]", "pbx01 has no ssh"),
        (
            "[claim]",
            '[checkpoints.cp4]\nkind = "nrpe"\naddress = "192.0.2.99"\n\n[claim]',
            "[checkpoints.cp1]",
            "4 check points bear no more failures than 3 would: a majority of 4 is 3.",
        ),
        (
            '"unanimous"',
            '"all"',
            "agreement",
            'agreement = "all": while one check point is itself dead',
        ),
        ('ttl = "30s"', 'ttl = "1h"', "ttl", 'ttl = "1h": that long after a failover'),
        (
            'server = "203.0.113.53"',
            'server = "192.0.2.11"',
            "server",
            "the server is pbx01 itself",
        ),
        (
            'kind = "dns"',
            'kind = "file"\npath = "claim"',
            'kind = "file"',
            "a claim in a file is for a pair on one",
        ),
        (
            'announce = "45s"',
            'announce = "280s"',
            "[detection]",
            "a standby announces after 10s (patience less announce and one question): a PBX that dies alone is then",
        ),
    ],
)
def test_what_is_allowed_and_worth_knowing_is_noted(
    old: str, new: str, where: str, note: str
) -> None:
    text = VALID.replace(old, new, 1)
    (found,) = read(text).notes
    place, line, sentence = found.split(":", 2)
    assert (place, note in sentence) == ("/etc/understudy/understudy.toml", True)
    assert line == str(text[: text.index(where)].count("\n") + 1)


def test_a_plain_pair_has_no_notes() -> None:
    assert read(VALID).notes == ()


def test_the_digest_is_that_of_nodes_detection_and_check_points() -> None:
    digest = read(VALID).digest
    assert len(digest) == 16
    for old, new in (
        ('patience = "5m"', 'patience = "6m"'),
        ('isolation = "stop"', 'isolation = "keep"'),
        ('address = "192.0.2.21"', 'address = "192.0.2.22"'),
        ('stop_within = "25s"', 'stop_within = "24s"'),  # It is in the sums.
        ("[checkpoints.cp3]", "[checkpoints.cp4]"),
    ):
        assert read(VALID.replace(old, new, 1)).digest != digest, new


def test_the_digest_does_not_depend_on_how_it_is_written() -> None:
    digest = read(VALID).digest
    nodes = VALID.index("[nodes.pbx02]")
    detection = VALID.index("[detection]")
    for text in (
        "# A comment.\n" + VALID.replace("\n\n", "\n\n\n"),
        VALID[:nodes] + VALID[detection:] + VALID[nodes:detection],
        VALID.replace('"5m"', '"300s"'),
        VALID.replace('patience = "5m"\n', ""),  # It is the default.
        VALID.replace('name = "acme"', 'name = "Acme"'),
        VALID.replace("tsig.key", "other.key"),
        VALID.replace('address = "192.0.2.21"', 'address = "192.0.2.21"\nca_file = "ca.pem"'),
        VALID.replace('path = "journal.sqlite3"', 'path = "/elsewhere"'),
    ):
        assert read(text).digest == digest


def test_a_digest_is_stable_from_version_to_version() -> None:
    """A change of it makes the two nodes of a pair disagree while one of them is upgraded (C6)."""
    config = read(VALID)
    assert config.digest == replace(config, notes=("x",)).digest == "aa0091a259d1047f"
    changed = replace(config, detection=replace(config.detection, first_proof=Seconds(16.0)))
    assert changed.digest != config.digest


def read(text: str) -> Config:
    """Where /etc/understudy need not be on this machine."""
    return parse(text, Path("/etc/understudy/understudy.toml"), CATALOGUES, check_files=False)
