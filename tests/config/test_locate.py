"""Where each key of a TOML text begins."""

from understudy.config import locate

TEXT = '''\
# A comment with [brackets] and key = "value".
top = 1

[a]
x = [  # A list over several lines.
  "# no comment",
  "[no.header]",
]
"quoted key" = """
[not.a.header]
y = 2
"""
dotted.key = 3
inline = { one = 1, two = { three = 3 } }

[a.b]  # Below it.
z = 4

[[name]]
zone = "first"
[name.inner]
deep = 1

[[name]]
zone = "second"
[name.inner]
deep = 2

[c.d]
w = 5
'''


def test_every_key_is_found_on_its_line() -> None:
    found = locate.lines(TEXT)
    for path, text in (
        (("top",), "top = 1"),
        (("a",), "[a]"),
        (("a", "x"), "x = ["),
        (("a", "quoted key"), '"quoted key"'),
        (("a", "dotted", "key"), "dotted.key"),
        (("a", "inline", "two", "three"), "inline ="),
        (("a", "b"), "[a.b]"),
        (("a", "b", "z"), "z = 4"),
        (("name", 0), "[[name]]"),
        (("name", 0, "zone"), 'zone = "first"'),
        (("name", 0, "inner", "deep"), "deep = 1"),
        (("name", 1, "zone"), 'zone = "second"'),
        (("name", 1, "inner", "deep"), "deep = 2"),
        (("c",), "[c.d]"),
    ):
        assert found[path] == TEXT[: TEXT.index(text)].count("\n") + 1, path
    assert found[("name", 1)] == 24


def test_what_is_missing_is_looked_for_in_the_table_around_it() -> None:
    found = locate.lines(TEXT)
    assert locate.line(found, ("a", "b", "missing")) == found[("a", "b")]
    assert locate.line(found, ("name", 1, "missing")) == found[("name", 1)]
    assert locate.line(found, ("nowhere", "missing")) == 1


def test_one_table_is_found_by_the_number_of_its_place_too() -> None:
    found = locate.lines('[pair]\n[name]\nzone = "x"\n')
    assert locate.line(found, ("name", 0, "zone")) == 3
    assert locate.line(found, ("name", 0, "missing")) == 2


def test_a_table_that_has_its_rows_first_and_its_header_later_is_found_where_it_began() -> None:
    assert locate.lines("[a.b]\nx = 1\n[a]\ny = 1\n")[("a",)] == 1
