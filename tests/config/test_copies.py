"""What the real kinds of copies find wrong, on its line."""

from pathlib import Path

import pytest

from config.catalogues import VALID
from understudy import wiring
from understudy.errors import ConfigError


def refused(tmp_path: Path, table: str) -> str:
    (tmp_path / "tsig.key").write_text('key "k" { algorithm hmac-sha256; secret "aGVsbG8="; };\n')
    (tmp_path / "tsig.key").chmod(0o600)
    path = tmp_path / "understudy.toml"
    path.write_text(f"{table}\n{VALID}")
    with pytest.raises(ConfigError) as caught:
        wiring.load_config(path, check_files=False)
    (finding,) = caught.value.findings
    return finding.removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("table", "finding"),
    [
        (
            '[copies.astdb]\nkind = "sqlite"\npath = "/var/lib/asterisk/astdb.sqlite3"\nmax_age = "15s"',
            "4: copies.astdb.max_age is less than two times every",
        ),
        (
            '[copies.astdb]\nkind = "sqlite"\npath = "/var/lib/asterisk/astdb.sqlite3"\nkeep = 0',
            "4: copies.astdb.keep is 0.  Write 1 or more",
        ),
        (
            '[copies.all]\nkind = "rsync"\npaths = ["/etc"]',
            "3: copies.all.paths has /etc, which is not the PBX's alone",
        ),
        (
            '[copies.config]\nkind = "rsync"\npaths = ["/etc/asterisk/"]\nnode_values = [\n'
            '"pbx1 /etc/asterisk/a.conf k = 1", "pbx02 /etc/asterisk/a.conf k = 2"]',
            '4: copies.config.node_values has a value for "pbx1", which is no node.  Write "pbx01" or "pbx02".  '
            "Did you mean pbx01?",
        ),
        (
            '[copies.config]\nkind = "rsync"\npaths = ["/etc/asterisk/"]\n'
            'node_values = ["pbx02 /etc/asterisk/a.conf k = 2"]',
            "4: copies.config.node_values has a value for k of /etc/asterisk/a.conf on pbx02 alone",
        ),
    ],
)
def test_it_is_found_on_its_line(tmp_path: Path, table: str, finding: str) -> None:
    assert refused(tmp_path, table).startswith(finding)
