"""The key file, as tsig-keygen writes it and as people change it."""

import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from adapters.bind import ALGORITHMS, make_key, need_programs
from understudy.adapters.tsigkey import load_key
from understudy.errors import ConfigError

SECRET = b64encode(b"secret words of this test").decode()


@pytest.mark.real
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_tsig_keygen_writes_is_read(tmp_path: Path, algorithm: str) -> None:
    need_programs("tsig-keygen")
    key = load_key(make_key(tmp_path / "key", "understudy.acme", algorithm))
    assert key.name.to_text() == "understudy.acme."
    assert key.algorithm.to_text().lower().startswith(algorithm)
    assert len(key.secret) >= 16


def test_comments_and_another_layout_are_read(tmp_path: Path) -> None:
    path = _private(
        tmp_path,
        f"""# made by hand
        /* two
           lines */ key failover {{ secret {SECRET}; // without quotes
        algorithm HMAC-SHA512; }};
        """,
    )
    key = load_key(path)
    assert (key.name.to_text(), key.algorithm.to_text()) == ("failover.", "hmac-sha512.")
    assert key.secret == b"secret words of this test"


def test_slashes_in_a_bare_secret_are_no_comment(tmp_path: Path) -> None:
    path = _private(
        tmp_path, "key a { algorithm hmac-sha256; secret ab//cd##; };".replace("#", "+")
    )
    assert load_key(path).secret == b"\x69\xbf\xff\x71\xdf\xbe"


def test_of_several_keys_the_first_is_ours_unless_one_is_named(tmp_path: Path) -> None:
    path = _private(tmp_path, _key("one") + _key("two"))
    assert load_key(path).name.to_text() == "one."
    assert load_key(path, "two").name.to_text() == "two."
    assert load_key(path, "TWO.").name.to_text() == "two."
    with pytest.raises(ConfigError, match='no key "three" in it, but one, two'):
        load_key(path, "three")


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_a_key_that_everybody_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = _private(tmp_path, _key("one"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod o= {path}"):
        load_key(path)


def test_a_key_that_the_group_may_read_is_accepted(tmp_path: Path) -> None:
    path = _private(tmp_path, _key("one"))
    path.chmod(0o640)
    assert load_key(path).name.to_text() == "one."


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "there is no key"),
        ("\n\n# nothing\n", 1, "there is no key"),
        (f'key "a" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET[:-3]}";\n}};', 3, "not base64"),
        (
            f'key "a" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET[:5]}*{SECRET[5:]}";\n}};',
            3,
            "not base64",
        ),
        ('key "a" {\n\talgorithm hmac-sha256;\n\tsecret "";\n};', 3, "not base64"),
        (f'key "a" {{ algorithm rot13; secret "{SECRET}"; }};', 1, "do not know this algorithm"),
        ('key "a" { algorithm hmac-sha256; };', 1, "lacks its algorithm or its secret"),
        (f'key "a" {{ secret "{SECRET}"; }};', 1, "lacks its algorithm or its secret"),
        (f'key "a" {{ algorithm hmac-sha256; secret "{SECRET}"; }}', 1, "the file ends"),
        (f'key "a" {{ algorithm hmac-sha256 secret "{SECRET}"; }};', 1, "should be a `;`"),
        (f'key "a" {{ algorithm hmac-sha256; secret "{SECRET}; }};', 1, 'a `"` is not closed'),
        (f'key "a" {{ algorithm hmac-sha256; password "{SECRET}"; }};', 1, "nothing else"),
        (f'zone "x" {{ }};\n{SECRET}', 1, "only `key"),
        (f'key "a..b" {{ algorithm hmac-sha256; secret "{SECRET}"; }};', 1, "no domain name"),
        (SECRET, 1, "only `key"),
    ],
)
def test_a_broken_file_is_refused_with_its_line_and_without_its_secret(
    tmp_path: Path, text: str, line: int, why: str
) -> None:
    path = _private(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_key(path)
    (finding,) = caught.value.findings
    assert finding.startswith(f"{path}:{line}: ")
    assert why in finding
    assert SECRET[:6] not in finding


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_key(tmp_path / "none")
    path = tmp_path / "key"
    path.write_bytes(b"\xff\xfe\x00")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="it is not text"):
        load_key(path)


@pytest.mark.real
def test_bind_reads_what_we_read(tmp_path: Path) -> None:
    need_programs("named-checkconf")
    path = _private(tmp_path, f"/* x */ key a.b {{ secret {SECRET}; algorithm hmac-sha1; }}; # y\n")
    subprocess.run(["named-checkconf", str(path)], check=True, timeout=10)
    assert load_key(path).name.to_text() == "a.b."


def _key(name: str) -> str:
    return f'key "{name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n'


def _private(directory: Path, text: str) -> Path:
    path = directory / "key"
    path.write_text(text)
    path.chmod(0o600)
    return path
