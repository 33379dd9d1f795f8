"""Values of a node in a file that is otherwise copied: only the value changes, and only where it is meant."""

from pathlib import Path

import pytest

from understudy.adapters.copies.node_values import NodeValue, apply, missing, parse

PJSIP = """\
;--
[transport-udp]
external_media_address = 192.0.2.1   ;-- nested
--;
still a comment --;
[global](!)
user_agent=PBX

[transport-udp](global)  ; the one that the providers see
type = transport
external_media_address = 198.51.100.11  ; ours
external_signaling_address=>198.51.100.11;ours
;external_media_address = 203.0.113.1
bind\t=\t0.0.0.0

[transport-tcp]
external_media_address = 198.51.100.11
#include pjsip_custom.conf
"""


def value(text: str) -> NodeValue:
    return parse(f"pbx02 /etc/asterisk/pjsip.conf {text}")


def changed(text: str, *written: str) -> list[tuple[str, str]]:
    """The lines that differ afterwards, with what they become."""
    after = apply(text, [value(each) for each in written])
    assert apply(after, [value(each) for each in written]) == after
    before, lines = text.split("\n"), after.split("\n")
    assert len(before) == len(lines)
    return [(old, new) for old, new in zip(before, lines, strict=True) if old != new]


def test_only_the_value_in_its_section_changes() -> None:
    assert changed(PJSIP, "[transport-udp] external_media_address = 198.51.100.12") == [
        (
            "external_media_address = 198.51.100.11  ; ours",
            "external_media_address = 198.51.100.12  ; ours",
        )
    ]


def test_without_a_section_every_section_is_meant() -> None:
    assert changed(PJSIP, "external_media_address = 198.51.100.12") == [
        (
            "external_media_address = 198.51.100.11  ; ours",
            "external_media_address = 198.51.100.12  ; ours",
        ),
        ("external_media_address = 198.51.100.11", "external_media_address = 198.51.100.12"),
    ]


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("name=>old;ours", "name=>new;ours"),
        ("name\t=\told", "name\t=\tnew"),
        ("  name = old words  ", "  name = new  "),
        ("name =", "name =new"),
        ("name = ; nothing yet", "name = new; nothing yet"),
        (r"name = a\;b ; c", "name = new ; c"),
        ("name = old\\", "name = new"),
        ("name = old\r", "name = new\r"),
        ("name = old\\\r", "name = new\r"),
        ("NAME = old", "NAME = new"),
        ("name = a=b", "name = new"),
    ],
)
def test_the_rest_of_the_line_stays(line: str, after: str) -> None:
    assert changed(f"[s]\n{line}\nlast", "[s] name = new") == [(line, after)]


@pytest.mark.parametrize(
    "line",
    [
        "; name = old",
        "names = old",
        "my name = old",
        "#name = old",
        "name",
        "[name = old]",
        ";-- name = old",
        r"name\; = old",
    ],
)
def test_other_lines_are_none(line: str) -> None:
    meant = value("name = new")
    assert missing(f"[s]\n{line}\n", [meant]) == (meant,)
    assert apply(f"[s]\n{line}\n", [meant]) == f"[s]\n{line}\n"


def test_a_value_that_finds_no_line_is_told_and_the_others_are_not() -> None:
    there, elsewhere, nowhere = (
        value("[transport-tcp] external_media_address = 1"),
        value("[transport-tcp] bind = 1"),
        value("qualify = 1"),
    )
    assert missing(PJSIP, [there, elsewhere, nowhere]) == (elsewhere, nowhere)
    assert elsewhere.place == "bind in [transport-tcp] of /etc/asterisk/pjsip.conf"
    assert nowhere.place == "qualify of /etc/asterisk/pjsip.conf"


def test_a_comment_ends_where_asterisk_ends_it() -> None:
    # ";---" begins none, and a ";--" in the rest of a comment neither.
    text = "[s]\n;--- rule\nname = 1\n; see ;-- here\nname = 2\n;-- a\nname = 3 --;\nname = 4"
    assert changed(text, "name = new") == [
        ("name = 1", "name = new"),
        ("name = 2", "name = new"),
        ("name = 4", "name = new"),
    ]


def test_no_other_sign_ends_a_line() -> None:
    # U+0085 and U+2028 are line ends to str.splitlines, and none to Asterisk.
    text = "; \x85name = 1\u2028name = 2\x0cname = 3\nname = 4\n"
    assert changed(text, "name = new") == [("name = 4", "name = new")]


def test_it_is_read_as_written() -> None:
    assert parse("pbx02 /etc/asterisk/a.conf [my section] key => a = b \\; c") == NodeValue(
        node="pbx02",
        file=Path("/etc/asterisk/a.conf"),
        section="my section",
        key="key",
        value="a = b \\; c",
    )
    assert parse("pbx02 /a.conf key=1").section is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pbx02",
        "pbx02 /etc/a.conf",
        "pbx02 /etc/a.conf key",
        "pbx02 /etc/a.conf key =",
        "pbx02 /etc/a.conf [] key = 1",
        "pbx02 /etc/a.conf [s = 1",
        "pbx02 /etc/a.conf two words = 1",
        "pbx02 etc/a.conf key = 1",
        "pbx02 /etc/../a.conf key = 1",
        "pbx02 /etc/a*.conf key = 1",
        "pbx02 /etc/a.conf key = 1\nother = 2",
        "pbx02 /etc/a.conf key = 1 ; two",
    ],
)
def test_anything_else_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^node_values .*\.$"):
        parse(text)
