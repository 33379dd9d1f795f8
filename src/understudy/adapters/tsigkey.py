"""Reads the key that a name server knows us by, as `tsig-keygen` writes it: named.conf(5), key.

key "understudy" {
        algorithm hmac-sha256;
        secret "...";
};
"""

import binascii
import re
import stat
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.name
import dns.tsig

from understudy.errors import ConfigError

ALGORITHMS = {
    "hmac-md5": dns.tsig.HMAC_MD5,
    "hmac-md5.sig-alg.reg.int": dns.tsig.HMAC_MD5,
    "hmac-sha1": dns.tsig.HMAC_SHA1,
    "hmac-sha224": dns.tsig.HMAC_SHA224,
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}


def load_key(path: Path, name: str | None = None) -> dns.tsig.Key:
    """The key called `name`, or the first one in the file.

    Raises ConfigError with `file:line: what is wrong.  What to do.`; never quotes the file, which
    holds a secret.
    """
    text = _read_private(path)
    keys = list(_Reader(path, text).keys())
    if not keys:
        raise _wrong(path, 1, f"there is no key in it.  Make one: tsig-keygen NAME > {path}")
    if name is None:
        return keys[0]
    wanted = dns.name.from_text(name)
    for key in keys:
        if key.name == wanted:
            return key
    held = ", ".join(_plain(key.name) for key in keys)
    raise _wrong(path, 1, f'there is no key "{name}" in it, but {held}.  Mend key_name.')


def _read_private(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise _wrong(path, 1, f"it is not text.  Make a key: tsig-keygen NAME > {path}") from None
    except OSError as error:
        raise ConfigError([f"{path}: the key file cannot be read: {error.strerror}."]) from error
    if mode & stat.S_IRWXO:
        raise ConfigError(
            [f"{path}: everybody on this machine may read the key.  Do: chmod o= {path}"]
        )
    return text


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    line: int
    quoted: bool = False


_TOKEN = re.compile(
    r"""
    (?P<comment> /\*.*?\*/ | //[^\n]* | \#[^\n]* )
    | "(?P<string>[^"\n]*)"
    | (?P<word> [{};] | [^\s{};"]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Reader:
    """Walks the words of one key file."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._last = 1
        self._tokens = self._split(text)

    def keys(self) -> Iterator[dns.tsig.Key]:
        while (token := next(self._tokens, None)) is not None:
            if token.text != "key" or token.quoted:
                raise _wrong(self._path, token.line, 'only `key "NAME" { ... };` may stand here.')
            yield self._key()

    def _key(self) -> dns.tsig.Key:
        name = self._next("the name of the key")
        self._expect("{")
        algorithm: dns.name.Name | None = None
        secret: bytes | None = None
        while (clause := self._next("algorithm, secret or }")).text != "}":
            value = self._next(f"the value of {_shown(clause)}")
            match clause.text:
                case "algorithm":
                    algorithm = self._algorithm(value)
                case "secret":
                    secret = self._secret(value)
                case _:
                    raise _wrong(
                        self._path,
                        clause.line,
                        "a key has an algorithm and a secret, nothing else.",
                    )
            self._expect(";")
        self._expect(";")
        if algorithm is None or secret is None:
            raise _wrong(self._path, name.line, "the key lacks its algorithm or its secret.")
        try:
            return dns.tsig.Key(dns.name.from_text(name.text), secret, algorithm)
        except dns.exception.DNSException:
            raise _wrong(self._path, name.line, "the name of the key is no domain name.") from None

    def _algorithm(self, token: _Token) -> dns.name.Name:
        try:
            return ALGORITHMS[token.text.lower().rstrip(".")]
        except KeyError:
            known = ", ".join(each for each in ALGORITHMS if "." not in each)
            raise _wrong(
                self._path, token.line, f"we do not know this algorithm; we know {known}."
            ) from None

    def _secret(self, token: _Token) -> bytes:
        try:
            secret = b64decode(token.text, validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not secret:
            raise _wrong(
                self._path,
                token.line,
                "the secret is not base64: a part of it is missing or changed.  Copy the file anew.",
            )
        return secret

    def _expect(self, text: str) -> None:
        token = self._next(text)
        if token.text != text or token.quoted:
            raise _wrong(self._path, token.line, f"there should be a `{text}` here.")

    def _next(self, what: str) -> _Token:
        token = next(self._tokens, None)
        if token is None:
            raise _wrong(self._path, self._last, f"the file ends where `{what}` should follow.")
        return token

    def _split(self, text: str) -> Iterator[_Token]:
        at, line = 0, 1
        while at < len(text):
            if text[at].isspace():
                line += text[at] == "\n"
                at += 1
                continue
            match = _TOKEN.match(text, at)
            if match is None:
                raise _wrong(self._path, line, 'a `"` is not closed.')
            self._last = line
            if match["string"] is not None:
                yield _Token(match["string"], line, quoted=True)
            elif match["word"] is not None:
                yield _Token(match["word"], line)
            line += match[0].count("\n")
            at = match.end()


def _shown(token: _Token) -> str:
    # A misplaced secret must not end up in a message.
    return token.text if token.text in ("algorithm", "secret") else "this"


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


def _wrong(path: Path, line: int, what: str) -> ConfigError:
    return ConfigError([f"{path}:{line}: {what}"])
