"""Every kind of mistake: found on its line, with a word about what would be right."""

import random
from pathlib import Path

import pytest

from config.catalogues import CATALOGUES, VALID
from understudy.config.load import load, parse
from understudy.config.schema import Config
from understudy.errors import ConfigError

HERE = "# HERE"
BAD = Path(__file__).parent / "bad"
CP3 = '[checkpoints.cp3]\nkind = "nrpe"\naddress = "198.51.100.23"'
NODE2 = VALID[VALID.index("[nodes.pbx02]") : VALID.index("[detection]")]
CLAIM = '[claim]\nkind = "dns"\n'
NAME = VALID[VALID.index("[name]") : VALID.index("[service]")]

# What is mistaken; the text of the valid file that is replaced; by what, with HERE on the line that
# is to be named; and what the message says.
CASES: tuple[tuple[str, str, str, str], ...] = (
    # Durations.
    (
        "not a duration",
        'patience = "5m"',
        'patience = "5x" # HERE',
        'detection.patience is "5x": not a duration.  Write e.g. "5m" or "300s".',
    ),
    ("bare number", 'interval = "60s"', "interval = 60 # HERE", 'Write e.g. "60s"'),
    ("number in quotes", 'interval = "60s"', 'interval = "60" # HERE', 'Write e.g. "5m"'),
    ("spaces", 'interval = "60s"', 'interval = "1 m" # HERE', "not a duration"),
    ("negative", 'interval = "60s"', 'interval = "-5s" # HERE', "not a duration"),
    ("units in disorder", 'interval = "60s"', 'interval = "5s1m" # HERE', "not a duration"),
    ("empty duration", 'interval = "60s"', 'interval = "" # HERE', "not a duration"),
    ("zero", 'claim_stale = "15s"', 'claim_stale = "0s" # HERE', 'Write more than that, e.g. "5s"'),
    ("too often", 'interval = "60s"', 'interval = "500ms" # HERE', 'is 500ms.  Write "1s" or more'),
    # Other values.
    ("text as number", 'name = "acme"', "name = 5 # HERE", "is a number, not text"),
    ("line break", 'name = "acme"', 'name = "a\\nb" # HERE', "invisible character"),
    ("empty name", 'name = "acme"', 'name = " " # HERE', 'Write e.g. name = "acme"'),
    (
        "choice",
        'agreement = "unanimous"',
        'agreement = "unanimus" # HERE',
        'Write "unanimous" or "majority" or "all".',
    ),
    (
        "choice as boolean",
        'isolation = "stop"\n\n[nodes.pbx02]',
        "isolation = true # HERE\n\n[nodes.pbx02]",
        'is true or false, not text.  Write "stop" or "keep".',
    ),
    (
        "port out of range",
        'address = "192.0.2.21"',
        'address = "192.0.2.21"\nport = 70000 # HERE',
        "Write a number from 1 to 65535",
    ),
    (
        "port in quotes",
        'address = "192.0.2.21"',
        'address = "192.0.2.21"\nport = "5666" # HERE',
        "Write digits alone, without quotes",
    ),
    (
        "whole number",
        'address = "192.0.2.21"',
        'address = "192.0.2.21"\nretries = 1.5 # HERE',
        "not a whole number",
    ),
    (
        "boolean as number",
        'address = "192.0.2.21"',
        'address = "192.0.2.21"\nretries = true # HERE',
        "not a whole number",
    ),
    (
        "boolean in quotes",
        'zone = "example.com"',
        'zone = "example.com"\nsecure = "yes" # HERE',
        "Write true or false, without quotes",
    ),
    (
        "text for a list",
        'unit = "asterisk"',
        'unit = "asterisk"\nactive_only = "x.timer" # HERE',
        'Write a list in brackets: ["...", "..."]',
    ),
    (
        "wrong item of a list",
        'unit = "asterisk"',
        'unit = "asterisk"\nsip_ports = [ # HERE\n  5060,\n  0,\n]',
        "item 2 is 0: not a port",
    ),
    (
        "host",
        'host = "pbx01.example.com"',
        'host = "pbx 01" # HERE',
        'Write e.g. "pbx01.example.com" or "192.0.2.11"',
    ),
    (
        "address that is none",
        'address = "192.0.2.11"',
        'address = "192.0.2.300" # HERE',
        "neither a host name nor an IP address",
    ),
    (
        "host with a port",
        'address = "192.0.2.11"',
        'address = "192.0.2.11:5060" # HERE',
        'a port does not belong here.  Write "192.0.2.11".',
    ),
    (
        "port missing",
        'zone = "example.com"',
        'zone = "example.com"\nservers = ["203.0.113.53"] # HERE',
        'item 1 is "203.0.113.53": the port is missing',
    ),
    (
        "IPv6 without brackets",
        'zone = "example.com"',
        'zone = "example.com"\nservers = ["2001:db8::1"] # HERE',
        '"[2001:db8::1]:5060"',
    ),
    (
        "port of a host that is none",
        'zone = "example.com"',
        'zone = "example.com"\nservers = ["a.example.com:sip"] # HERE',
        "the port must be a number from 1 to 65535",
    ),
    (
        "host of a port that is none",
        'zone = "example.com"',
        'zone = "example.com"\nservers = ["a b:53"] # HERE',
        "not a host and a port",
    ),
    (
        "domain name",
        'service = "sip.example.com"',
        'service = "sip..example.com" # HERE',
        'not a domain name.  Write e.g. "sip.example.com"',
    ),
    (
        "domain name with other letters",
        'service = "sip.example.com"',
        'service = "telefon.büro.example" # HERE',
        "xn-- form",
    ),
    (
        "address as domain name",
        'service = "sip.example.com"',
        'service = "192.0.2.1" # HERE',
        "an IP address, not a domain name",
    ),
    ("date", 'name = "acme"', "name = 2026-11-01 # HERE", "is a date, not text"),
    ("empty path", 'path = "journal.sqlite3"', 'path = "" # HERE', "is empty.  Write a path"),
    # Files and programs.
    (
        "secret that is not there",
        'key_file = "tsig.key"',
        'key_file = "nowhere.key" # HERE',
        "does not exist.  Write the path of a file that holds the secret",
    ),
    (
        "secret for everybody",
        'key_file = "tsig.key"',
        'key_file = "open.key" # HERE',
        "others may read or change (mode 0644).  Run: chmod 640",
    ),
    (
        "secret that the group may change",
        'key_file = "tsig.key"',
        'key_file = "group.key" # HERE',
        "(mode 0660).  Run: chmod 640",
    ),
    (
        "secret that is a directory",
        'key_file = "tsig.key"',
        'key_file = "." # HERE',
        "is not a regular file",
    ),
    ("secret in a table", 'key_file = "tsig.key"', "key_file = {} # HERE", "is no path"),
    (
        "file that is not there",
        'address = "192.0.2.21"',
        'address = "192.0.2.21"\nca_file = "ca.pem" # HERE',
        "ca.pem, which does not exist",
    ),
    (
        "program that is not there",
        'ssh = "understudy@192.0.2.11"',
        'door = ["no-such-program-here", "x"] # HERE',
        "is no program on this machine.  Install it, or write its whole path",
    ),
    (
        "command for a shell",
        'ssh = "understudy@192.0.2.11"',
        'door = "/bin/true x" # HERE',
        'Write a list in brackets, the program first: ["/usr/bin/program", "argument"]',
    ),
    (
        "empty command",
        'ssh = "understudy@192.0.2.11"',
        "door = [] # HERE",
        "not a list of text with a program in front",
    ),
    (
        "zero byte in a command",
        'ssh = "understudy@192.0.2.11"',
        'door = ["/bin/true", "\\u0000"] # HERE',
        "holds a zero byte",
    ),
    # Names that are not known, and names that are missing.
    (
        "misspelt key",
        'patience = "5m"',
        'patiense = "5m" # HERE',
        "detection.patiense is no setting.  Did you mean patience?",
    ),
    (
        "unknown key",
        'name = "acme"',
        'name = "acme"\nzzz = 1 # HERE',
        "pair.zzz is no setting.  There are these: name, service, preferred.",
    ),
    (
        "key below the wrong header",
        'name = "acme"',
        'name = "acme"\nstop_within = "25s" # HERE',
        "It belongs in [service].",
    ),
    (
        "misspelt table",
        "[detection]",
        "[detektion] # HERE",
        "detektion: there is no such table here.  Did you mean detection?",
    ),
    (
        "unknown table",
        "[pair]",
        "[zzz] # HERE\n\n[pair]",
        "There are these tables: pair, nodes, detection",
    ),
    (
        "key in front of all tables",
        "[pair]",
        'patience = "5m" # HERE\n\n[pair]',
        "patience: there is no such setting here.  It belongs in [detection].",
    ),
    (
        "missing key",
        '[nodes.pbx01]\nhost = "pbx01.example.com"',
        "[nodes.pbx01] # HERE",
        'nodes.pbx01.host is missing.  Write e.g. host = "pbx01.example.com".',
    ),
    (
        "no isolation",
        '[nodes.pbx01]\nhost = "pbx01.example.com"\naddress = "192.0.2.11"\n'
        'ssh = "understudy@192.0.2.11"\nisolation = "stop"',
        '[nodes.pbx01] # HERE\nhost = "pbx01.example.com"\naddress = "192.0.2.11"',
        'nodes.pbx01.isolation is missing.  Write isolation = "stop" or "keep".',
    ),
    (
        "missing key of an adapter",
        'zone = "example.com"\n',
        "",
        'name.zone is missing.  Write e.g. zone = "example.com".',
    ),
    (
        "missing table",
        VALID[: VALID.index("[nodes.pbx01]")],
        "# HERE\n",
        "[pair] is missing.  Write it, with name, service, preferred.",
    ),
    ("missing family", CLAIM, "", '[claim] is missing.  Write it, with kind = "dns" or "file".'),
    (
        "value for a named table",
        CP3,
        '[checkpoints]\ncp3 = "198.51.100.23" # HERE',
        "checkpoints.cp3 is not a table.  Write [checkpoints.cp3]",
    ),
    (
        "list of tables for named tables",
        VALID[VALID.index("[checkpoints.cp1]") : VALID.index("[claim]")],
        '[[checkpoints]] # HERE\nkind = "nrpe"\n',
        "checkpoints is not what we read.  Write [checkpoints.NAME] tables.",
    ),
    (
        "line break in a key",
        'name = "acme"',
        'name = "acme"\n"a\\nb" = 1 # HERE',
        'pair."a\\nb" is no setting.',
    ),
    (
        "missing kind",
        CP3,
        '[checkpoints.cp3] # HERE\naddress = "198.51.100.23"',
        'checkpoints.cp3.kind is missing.  Write kind = "nrpe" or "command".',
    ),
    (
        "unknown kind",
        CP3,
        '[checkpoints.cp3]\nkind = "nrp" # HERE',
        'no kind of checkpoints.  Write "nrpe" or "command".  Did you mean nrpe?',
    ),
    (
        "kind that is no text",
        CP3,
        "[checkpoints.cp3]\nkind = 7 # HERE",
        'Write "nrpe" or "command".',
    ),
    (
        "name of a check point",
        "[checkpoints.cp3]",
        '[checkpoints."CP 3"] # HERE',
        "Use small letters, digits and hyphens",
    ),
    (
        "what adapters find about one setting",
        CP3,
        CP3 + '\ncommand = "check_sip" # HERE',
        "checkpoints.cp3.command is the same for both nodes.  Put {node} into it.",
    ),
    (
        "what adapters find about a table",
        CP3,
        CP3.replace("]", "] # HERE") + "\nretries = 9",
        "[checkpoints.cp3]: three retries are enough.",
    ),
    # Who is told.
    (
        "a notifier without a reader",
        "[service]",
        '[notify.night] # HERE\nkind = "mail"\n\n[service]',
        'notify.night.to is missing.  Write e.g. to = ["ops@example.com"].',
    ),
    (
        "a notifier of no kind",
        "[service]",
        '[notify.night]\nkind = "mial" # HERE\n\n[service]',
        'which is no kind of notify.  Write "mail" or "command".  Did you mean mail?',
    ),
    (
        "a notifier without a name",
        "[service]",
        '[notify]\nkind = "mail" # HERE\n\n[service]',
        "notify.kind is not a table.  Write [notify.kind], and its settings below.",
    ),
    (
        "a notifier that may take no time",
        "[service]",
        '[notify.night]\nkind = "mail"\nto = ["a@b.example"]\ntimeout = "0s" # HERE\n\n[service]',
        'notify.night.timeout is "0s".  Write more than that',
    ),
    (
        "a copy of nothing",
        "[service]",
        '[copies.config] # HERE\nkind = "rsync"\n\n[service]',
        'copies.config.paths is missing.  Write e.g. paths = ["/etc/asterisk/"',
    ),
    # What must hold between settings.
    ("one node", NODE2, "", "nodes names 1 node.  Write two [nodes.NAME] tables"),
    (
        "three nodes",
        "[detection]",
        NODE2.replace("pbx02", "pbx03").replace("100.12", "100.13") + "[detection]",
        "nodes names 3 nodes.  Write two",
    ),
    (
        "preferred",
        'preferred = "pbx01"',
        'preferred = "pbx1" # HERE',
        'Write "pbx01" or "pbx02".  Did you mean pbx01?',
    ),
    (
        "same address",
        'address = "198.51.100.12"',
        'address = "192.0.2.11" # HERE',
        "and so is that of pbx01.  Give each node an address of its own.",
    ),
    (
        "same host",
        'host = "pbx02.example.com"',
        'host = "PBX01.example.com" # HERE',
        "Give each node a host of its own.",
    ),
    (
        "service name as host",
        'host = "pbx02.example.com"',
        'host = "sip.example.com" # HERE',
        "Write a host name that always means this node.",
    ),
    (
        "two ways in",
        'ssh = "understudy@192.0.2.11"',
        'ssh = "understudy@192.0.2.11"\ndoor = ["/bin/true"] # HERE',
        "Keep one of the two ways in.",
    ),
    (
        "option for ssh",
        'ssh = "understudy@192.0.2.11"',
        'ssh = "-oProxyCommand=x@192.0.2.11" # HERE',
        'Write e.g. ssh = "understudy@192.0.2.11".',
    ),
    ("two check points", CP3, "", "Write at least 3 [checkpoints.NAME] tables"),
    (
        "one host with two votes",
        CP3,
        CP3.replace('"198.51.100.23"', '"203.0.113.22" # HERE'),
        "and so is that of cp2: one host has one vote",
    ),
    (
        "check point on a node",
        CP3,
        CP3.replace('"198.51.100.23"', '"192.0.2.11" # HERE'),
        "which is pbx01: a node cannot be its own check point",
    ),
    (
        "announce",
        'announce = "45s"',
        'announce = "40s" # HERE',
        "is 40s, but claim_stale 15s + stop_within 25s + one claim reading 3s = 43s.  "
        'Set detection.announce to at least "43s", or shorten detection.claim_stale, '
        "service.stop_within or claim.timeout.",
    ),
    (
        "patience",
        'patience = "5m"',
        'patience = "2m" # HERE',
        "detection.patience is 2m, but checkpoints_stale 1m30s + stop_within 25s + 2 rounds 2m + "
        'one question 10s = 4m5s.  Set detection.patience to at least "4m5s", or shorten',
    ),
    (
        "patience below announce",
        'announce = "45s"',
        'announce = "10m"',
        "is 5m, but announce 10m + one question 10s = 10m10s.  Set detection.patience to at least "
        '"10m10s"',
    ),
    (
        "check points stale between rounds",
        'checkpoints_stale = "90s"',
        'checkpoints_stale = "70s" # HERE',
        "interval 1m + a tenth for jitter 6s + one question 10s = 1m16s",
    ),
    (
        "claim stale after one lost reading",
        'claim_stale = "15s"',
        'claim_stale = "8s" # HERE',
        'but 3 claim readings 9s.  Set detection.claim_stale to at least "9s"',
    ),
    (
        "questions longer than the interval",
        'interval = "60s"',
        'interval = "9s" # HERE',
        "is 9s, but one question 10s",
    ),
    (
        "zone of another",
        'zone = "example.com"',
        'zone = "xample.com" # HERE',
        'does not hold sip.example.com.  Write the zone that pair.service is in, e.g. "example.com"',
    ),
    (
        "CNAME at the head",
        'zone = "example.com"\nrecord = "CNAME"',
        'zone = "sip.example.com"\nrecord = "CNAME" # HERE',
        'Write record = "A"',
    ),
    (
        "CNAME to an address",
        'host = "pbx01.example.com"',
        'host = "192.0.2.11" # HERE',
        "an IP address, which a CNAME record cannot hold",
    ),
    (
        "claim without a server",
        NAME,
        NAME.replace("[name]", "[[name]]") + NAME.replace("[name]", "[[name]]"),
        "claim.server is missing, and several [[name]] tables have one.  Write server in [claim].",
    ),
    # Not TOML.
    ("no quotes", 'host = "pbx01.example.com"', "host = pbx01 # HERE", "Write text and durations"),
    (
        "open quote",
        'host = "pbx01.example.com"',
        'host = "pbx01 # HERE',
        "without its closing quote",
    ),
    ("no value", 'host = "pbx01.example.com"', "host # HERE", 'Write key = "value", or [table].'),
    (
        "table twice",
        "[nodes.pbx02]",
        "[nodes.pbx01] # HERE",
        "[nodes.pbx01] is written twice.  Keep one of them",
    ),
    (
        "key twice",
        'name = "acme"',
        'name = "acme"\nname = "acme" # HERE',
        "this is written twice.  Keep one of them.",
    ),
    ("open table", "[nodes.pbx02]", "[nodes.pbx02 # HERE", "this is not TOML"),
)


@pytest.mark.parametrize(
    ("old", "new", "right"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_mistake_is_found_on_its_line(folder: Path, old: str, new: str, right: str) -> None:
    assert old in VALID, "the valid file has changed"
    text = VALID.replace(old, new, 1)
    found = [one for one in findings(folder, text) if right in one]
    assert found, findings(folder, text)
    where = f"understudy.toml:{line_of_here(text)}: " if HERE in text else "understudy.toml:"
    assert found[0].startswith(where)


def test_at_least_45_kinds_of_mistakes_are_tried() -> None:
    assert len({case[0] for case in CASES}) == len(CASES) >= 45


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_its_lines(folder: Path) -> None:
    found = findings(folder, (BAD / "many.toml").read_text())
    assert "\n".join(found) + "\n" == (BAD / "many.txt").read_text()


def test_whoever_follows_the_message_of_a_sum_is_not_sent_back(folder: Path) -> None:
    text = VALID.replace('patience = "5m"', 'patience = "2m"')
    found = findings(folder, text)
    assert ['Set detection.patience to at least "4m5s"' in one for one in found] == [True]
    load_text(folder, text.replace('patience = "2m"', 'patience = "4m5s"'))


def test_a_value_in_place_of_a_table_is_refused(folder: Path) -> None:
    text = 'service = "systemd"\n' + VALID[: VALID.index("[service]")]
    (found,) = findings(folder, text)
    assert found.startswith("understudy.toml:1: service is not a table.  Write [service]")


def test_an_address_record_needs_the_nodes_addresses(folder: Path) -> None:
    text = VALID.replace('record = "CNAME"', 'record = "A"')
    text = text.replace('address = "192.0.2.11"', 'address = "a.example.com" # HERE')
    (found,) = findings(folder, text)
    assert found.startswith(f"understudy.toml:{line_of_here(text)}: nodes.pbx01.address is")
    assert 'name.record = "A" needs an IP address' in found


def test_the_right_one_of_several_name_tables_is_blamed(folder: Path) -> None:
    wrong = NAME.replace("[name]", "[[name]]").replace('ttl = "30s"', 'ttl = "30" # HERE')
    text = VALID.replace(NAME, NAME.replace("[name]", "[[name]]") + wrong)
    found = findings(folder, text)
    assert found[0].startswith(f"understudy.toml:{line_of_here(text)}: name.ttl is")


@pytest.mark.parametrize("secret", ["aGVsbG8gc2VjcmV0IQ==", "/Gv8rPq0+x3SdkRJw==", "s3cr3t\\n"])
def test_a_secret_that_was_written_in_place_of_its_file_is_not_repeated(
    folder: Path, secret: str
) -> None:
    (found,) = findings(folder, VALID.replace("tsig.key", secret))
    assert secret not in found
    assert "never the secret itself" in found


def test_a_password_in_a_key_that_we_do_not_know_is_not_repeated(folder: Path) -> None:
    text = VALID.replace('unit = "asterisk"', 'unit = "asterisk"\npassword = "hunter2"')
    (found,) = findings(folder, text)
    assert "hunter2" not in found


def test_a_command_is_not_repeated(folder: Path) -> None:
    for door in ('"curl -u me:hunter2"', '["no-such-program-here", "hunter2"]'):
        text = VALID.replace('ssh = "understudy@192.0.2.11"', f"door = {door}")
        assert "hunter2" not in "".join(findings(folder, text))


def test_what_is_no_file_of_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[pair]\nname = "Büro"\n'.encode("latin-1"))
    for path, right in (
        (tmp_path / "nowhere.toml", "nowhere.toml: there is no such file.  Write one with"),
        (tmp_path, "this is a directory.  Name the file in it"),
        (latin, "latin.toml:2: this is not UTF-8 text.  Save the file in that encoding."),
        (tmp_path / ("x" * 300), "it cannot be read: File name too long."),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path, CATALOGUES)
        (found,) = caught.value.findings
        assert right in found


def test_an_empty_file_lacks_every_table_that_must_be_written(folder: Path) -> None:
    found = findings(folder, "")
    missing = ("[pair]", "nodes", "checkpoints", "[claim]", "[name]", "[service]")
    assert all(f"understudy.toml:1: {what} is missing." in "\n".join(found) for what in missing)
    assert len(found) == len(missing)


def test_whatever_is_done_to_a_file_it_is_read_or_refused_with_lines(folder: Path) -> None:
    """Anything but ConfigError would be a bug of ours."""
    dice = random.Random(2011)
    scraps = ("", "#", '"', "[", "]", "]]", "=", "1", "true", "\n", "{}", "[]", "x = 1\n", ".", "é")
    refused = 0
    for _ in range(1500):
        text = VALID
        for _ in range(dice.randrange(1, 4)):
            start = dice.randrange(len(text))
            text = text[:start] + dice.choice(scraps) + text[start + dice.randrange(30) :]
        try:
            parse(text, folder / "understudy.toml", CATALOGUES)
        except ConfigError as error:
            refused += 1
            last = text.count("\n") + 1
            lines = [int(one.removeprefix(str(folder)).split(":")[1]) for one in error.findings]
            assert lines == sorted(lines)
            assert 1 <= lines[0] <= lines[-1] <= last
    assert refused > 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, mode in (("tsig.key", 0o640), ("open.key", 0o644), ("group.key", 0o660)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    return tmp_path


def load_text(folder: Path, text: str) -> Config:
    path = folder / "understudy.toml"
    path.write_text(text)
    return load(path, CATALOGUES)


def findings(folder: Path, text: str) -> tuple[str, ...]:
    """Without the folder, which differs from run to run."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text)
    return tuple(one.replace(f"{folder}/", "") for one in caught.value.findings)


def line_of_here(text: str) -> int:
    return text[: text.index(HERE)].count("\n") + 1
