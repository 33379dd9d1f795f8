"""docs/tutorial.md, typed as written on hosts as they come from Debian, ends with PROTECTED."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab import install, machines, pair
from lab.hosts import HERE, HOSTS, NODES
from lab.profile import find

from end_to_end.lab.conftest import PROFILE, skip_unless_possible
from end_to_end.lab.stage import until
from end_to_end.lab.terminal import Terminal

TUTORIAL = HERE.parent / "docs/tutorial.md"
WHERE = re.compile(r"\b[Oo]n (pbx01|pbx02|both nodes|the name server)\b")
HERE_TYPED = {"both nodes": NODES, "the name server": ("dns1",)}
# What the person knows: words of the question, and the answer.  Enter for what is not here.
ANSWERS = (
    ("call this pair", "acme"),
    ("Which name do phones", "sip.example.test"),
    ("pbx01: where the other node", "192.0.2.11"),
    ("pbx02: where the other node", "198.51.100.12"),
    ("pbx01: keep or stop", "keep"),
    ("pbx02: keep or stop", "stop"),
    ("Measure it?", "y"),
    ("before the other one takes over", "25s"),
    ("At least three check points", "cp1=192.0.2.21 cp2=198.51.100.22 cp3=203.0.113.23"),
    ("The primary name server", "203.0.113.53"),
    ("A mail address for news", "ops@example.test"),
    ("The mail server that takes it", "203.0.113.80"),
    ("[y/N]", "y"),
)
NAMED = "/etc/bind/named.conf"


@dataclass(frozen=True, slots=True)
class Line:
    host: str
    text: str
    section: int


def lines() -> Iterator[Line]:
    """What there is to type, in order, and at which host: the last one that the text has named."""
    hosts: tuple[str, ...] = ()
    section = 0
    for row in TUTORIAL.read_text(encoding="utf-8").splitlines():
        if row.startswith("## "):
            section = int(row.split()[1].rstrip("."))
        if not row.startswith("    "):
            for found in WHERE.finditer(row):
                hosts = HERE_TYPED.get(found[1], (found[1],))
            continue
        here = WHERE.search(row)
        for host in (here[1],) if here else hosts:
            yield Line(host, row.strip(), section)


@pytest.fixture
def fresh_hosts() -> Iterator[None]:
    """No Understudy anywhere; Asterisk serves at pbx01 and, as in the tutorial, runs at pbx02 too."""
    skip_unless_possible()
    pair.down()
    install.build(find(PROFILE))  # For the package.
    pair.up("")
    try:
        deb = install.package()  # The file that the person has downloaded.
        for node in NODES:
            target = HOSTS[node].folder / "root/root" / deb.name
            target.write_bytes(deb.read_bytes())
            machines.execute(node, "systemctl", "start", "asterisk", check=True)
        # A BIND that knows nothing of us.
        text = machines.execute("dns1", "cat", NAMED, check=True).stdout
        text = "".join(row for row in text.splitlines(keepends=True) if "understudy" not in row)
        machines.execute("dns1", "tee", NAMED, stdin=text, check=True)
        machines.execute("dns1", "sh", "-c", "rm -f /etc/bind/understudy*", check=True)
        machines.execute("dns1", "rndc", "reconfig", check=True)
        yield
    finally:
        pair.down()


@pytest.mark.real
@pytest.mark.timeout(600)
def test_typed_as_written_it_ends_with_protected(fresh_hosts: None) -> None:
    del fresh_hosts
    terminals = {host: Terminal(host) for host in (*NODES, "dns1")}
    began = time.time()
    try:
        for line in lines():
            type_it(terminals, line)
            if line.section == 5 and line.text.startswith("understudy status"):
                took = time.time() - began
        print(f"what the tutorial has to be typed took {took:.0f} s without the typing")
    finally:
        for terminal in terminals.values():
            terminal.close()


def type_it(terminals: dict[str, Terminal], line: Line) -> None:
    terminal = terminals[line.host]
    command, _, comment = (part.strip() for part in line.text.partition(" # "))
    so_far = terminals["pbx01"].screen
    if command.startswith("scp "):
        assert command in so_far, f"init --output did not print this line: {command}"
    if "--peer-keys" in command:
        printed = re.findall(r"understudy init --install --peer-keys '[^'.]+'", so_far)
        assert printed, f"pbx02 has printed no line with its keys:\n{so_far}"
        command = printed[-1]
    if command.startswith("named-checkconf"):
        write_named_conf(so_far)
    status, said = terminal.type(command, answers=ANSWERS)
    if comment.startswith("until it says: "):
        wanted = comment.removeprefix("until it says: ")
        until(
            lambda: wanted in terminal.type(command)[1], within=60,
            what=lambda: f"{wanted}: {terminal.type(command)[1]}",
        )  # fmt: skip
    elif "refused" in comment:
        assert status != 0, said
        assert "the claim names pbx01" in said, said
    elif line.section == 5:
        until(
            lambda: terminal.type(command)[0] == 0, within=90,
            what=lambda: f"`{command}` has nothing to say: {terminal.type(command)[1]}",
        )  # fmt: skip
        if "status" in command:
            said = terminal.type(command)[1]
            assert re.search("^PROTECTED since ", said, re.MULTILINE), said
    else:
        assert status == 0, f"{line.host}: {command}\n{said}"


def write_named_conf(printed: str) -> None:
    """As the name server's install.sh says: one line for the file, and one for the zone."""
    key = re.search(r'in named\.conf: (include "[^"]+";)', printed)
    policy = re.search(r'in its zone "([^"]+)" \{ \.\.\. \}: (include "[^"]+";)', printed)
    assert key, printed
    assert policy, printed
    text = machines.execute("dns1", "cat", NAMED, check=True).stdout
    zone = f'zone "{policy[1]}" {{\n'
    assert zone in text, text
    text = f"{key[1]}\n" + text.replace(zone, f"{zone}\t{policy[2]}\n")
    machines.execute("dns1", "tee", NAMED, stdin=text, check=True)
