"""What of the copies of MariaDB needs no server: settings, GTIDs, logs, dumps; and who imports the driver."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.adapters.copies.mariadb import dump, gtid, onlyhere
from understudy.adapters.copies.mariadb.server import Standing
from understudy.adapters.copies.mariadb.settings import Settings, endpoint
from understudy.adapters.copies.stop import Stop
from understudy.errors import Denied

SRC = Path(__file__).parents[2] / "src"


# Settings


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({"databases": ()}, "databases is empty"),
        ({"databases": ("pbx", "mysql")}, "names mysql, which each server has for itself"),
        ({"databases": ("MySQL",)}, "names MySQL, which each server has"),
        ({"databases": ("understudy_loading",)}, "which each server has"),
        ({"databases": ("--all-databases",)}, "names '--all-databases'"),
        ({"databases": ("a`b",)}, "letters, digits"),
        ({"merge": ("pbx.cdr",)}, "DATABASE.TABLE KEYCOLUMN"),
        ({"merge": ("cdr uniqueid",)}, "DATABASE.TABLE KEYCOLUMN"),
        ({"merge": ("pbx.cdr unique`id",)}, "DATABASE.TABLE KEYCOLUMN"),
        ({"merge": ("other.cdr uniqueid",)}, "databases has no other"),
        ({"merge": ("pbx.cdr uniqueid", "pbx.cdr id")}, "names pbx.cdr twice"),
        ({"user": "-x"}, "user is '-x'"),
        ({"replication_user": "a b"}, "replication_user is 'a b'"),
        ({"socket": Path("mysqld.sock")}, "socket is 'mysqld.sock'.  Write an absolute path"),
        ({"tls_ca": Path("ca.pem")}, "tls_ca is 'ca.pem'"),
        ({"snapshot_every": 0.0}, "snapshot_every is not above zero"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(written: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        Settings(**{"databases": ("pbx",), **written})  # type: ignore[arg-type]


def test_a_table_to_merge_is_named_with_the_columns_by_which_a_row_is_known() -> None:
    settings = Settings(databases=("pbx-1",), merge=("pbx-1.cdr uniqueid sequence",))
    (table,) = settings.tables
    assert (table.name, table.quoted, table.keys) == (
        "pbx-1.cdr",
        "`pbx-1`.`cdr`",
        ("uniqueid", "sequence"),
    )


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.11", ("192.0.2.11", 3306)),
        ("192.0.2.11:3307", ("192.0.2.11", 3307)),
        ("pbx01.example.com", ("pbx01.example.com", 3306)),
        ("2001:db8::1", ("2001:db8::1", 3306)),
        ("[2001:db8::1]:3307", ("2001:db8::1", 3307)),
    ],
)
def test_an_address_may_have_a_port(address: str, place: tuple[str, int]) -> None:
    assert endpoint(address, 3306) == place


# The driver


def test_nobody_imports_the_driver_who_does_not_build_this_kind() -> None:
    program = (
        "import sys; from understudy.adapters.copies import COPIES;"
        " COPIES['mariadb'].settings(databases=('pbx',)); sys.exit('pymysql' in sys.modules)"
    )
    assert run(program).returncode == 0


def test_without_the_driver_a_sentence_says_how_to_get_it() -> None:
    program = (
        "import sys; sys.modules['pymysql'] = None\n"
        "from pathlib import Path\n"
        "from understudy.adapters.copies import COPIES\n"
        "from understudy.errors import ConfigError\n"
        "kind = COPIES['mariadb']\n"
        "try:\n"
        "    kind.build('db', kind.settings(databases=('pbx',)), node='a', folder=Path('/x'), addresses={})\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    said = run(program).stdout
    assert said == "[copies.db]: kind mariadb needs PyMySQL (pip install understudy[mariadb])\n"


def test_the_other_kinds_take_addresses_and_need_none() -> None:
    program = (
        "from pathlib import Path\n"
        "from understudy.adapters.copies import COPIES\n"
        "kind = COPIES['sqlite']\n"
        "print(kind.build('db', kind.settings(path=Path('/x')), node='a', folder=Path('/y'), addresses={}).name)\n"
    )
    assert run(program).stdout == "db\n"


def run(program: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-c", program]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(SRC)}
    )
    assert not done.stderr, done.stderr
    return done


# Histories


@pytest.mark.parametrize("text", ["0-1", "0-1-2-3", "a-b-c", "0-1--5", "0-1-2,;"])
def test_what_is_no_gtid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a GTID"):
        gtid.parse(text)


def test_the_end_of_a_history_is_the_highest_number_of_each_domain_whoever_wrote_it() -> None:
    assert gtid.show(gtid.ends(gtid.parse("0-1-100, 0-2-50,\n1-2-7"))) == "0-1-100,1-2-7"
    assert gtid.ends(gtid.parse("")) == frozenset()


@pytest.mark.parametrize(
    ("ours", "theirs", "lacking", "shared"),
    [
        ("0-1-100", "0-1-100", "", {0: 100}),
        (
            "0-1-100,0-2-50",
            "0-1-120",
            "",
            {0: 100},
        ),  # Filled from us: older writers are not in their log.
        ("0-1-150,0-2-50", "0-1-120,0-2-140", "0-1-150", {0: 120}),
        ("0-2-101", "0-1-100", "0-2-101", {}),  # Another past.
        ("0-1-100,1-1-5", "0-1-100", "1-1-5", {0: 100}),
        ("", "0-1-100", "", {}),
    ],
)
def test_what_another_lacks_and_up_to_where_both_have_the_same(
    ours: str, theirs: str, lacking: str, shared: dict[int, int]
) -> None:
    assert gtid.show(gtid.lacking(gtid.parse(ours), gtid.parse(theirs))) == lacking
    assert gtid.common(gtid.parse(ours), gtid.parse(theirs)) == shared


def test_what_a_node_says_of_its_server_is_read_back_and_not_believed() -> None:
    standing = Standing.at(gtid.parse("0-1-5"), gtid.parse("0-1-5,0-2-3"))
    told = standing.as_json()
    assert Standing.from_json(told) == standing
    for wrong in ({"server_id": "1"}, {"read_only": 1}, {"position": "x"}, {"standbys": True}):
        with pytest.raises(ValueError, match=r"is|not"):
            Standing.from_json({**told, **wrong})
    with pytest.raises(KeyError):
        Standing.from_json({})


# Logs

LOG = rb"""DELIMITER /*!*/;
#261123  7:46:48 server id 1  end_log_pos 421 CRC32 0xb4b15401 	GTID 0-1-7 trans
START TRANSACTION
#Q> INSERT INTO cdrdb.cdr VALUES (1, 'both')
### INSERT INTO `cdrdb`.`cdr`
### SET
###   @1=1
###   @2='both'
# Number of rows: 1
COMMIT/*!*/;
#261123 17:46:49 server id 2  end_log_pos 421 CRC32 0xb4b15401 	GTID 0-2-8 trans
START TRANSACTION
#Q> INSERT INTO cdrdb.cdr
#Q> VALUES (2, 'it''s'), (-3, NULL)
### INSERT INTO `cdrdb`.`cdr`
### SET
###   @1=2
###   @2='it\'s \\ \x0a'
### INSERT INTO `cdrdb`.`cdr`
### SET
###   @1=-3 (4294967293)
###   @2=NULL
### UPDATE `pbx`.`users`
### WHERE
###   @1=1
### SET
###   @1=2
COMMIT/*!*/;
""".splitlines()


def test_of_a_log_only_what_is_above_the_shared_number_is_shown_and_counted() -> None:
    reader = onlyhere.Reader({0: 7}, columns={"cdrdb.cdr": {2: 0, 1: 1}})
    lines = list(reader.read(LOG))
    assert lines == LOG[10:]
    found = reader.found
    assert found.transactions == 1
    assert dict(found.rows) == {("cdrdb.cdr", "inserted"): 2, ("pbx.users", "updated"): 1}
    assert found.keys == {"cdrdb.cdr": [("it's \\ \n", "2"), (None, "-3")]}
    (first,) = found.first
    assert (
        str(first)
        == "0-2-8 of 2026-11-23 17:46:49: INSERT INTO cdrdb.cdr VALUES (2, 'it''s'), (-3, NULL)"
    )


def test_of_a_log_what_one_server_wrote_may_be_read_alone() -> None:
    reader = onlyhere.Reader({}, server=1)
    assert list(reader.read(LOG)) == LOG[1:10]


# Dumps


def packed(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content))
    return path


END = b"-- SET GLOBAL gtid_slave_pos='0-1-5,1-1-3';\n-- Dump completed on today\n"
TRAILER = f"\nSELECT '{dump.WHOLE}';\n".encode()


def test_the_position_of_a_dump_is_the_last_one_in_it(tmp_path: Path) -> None:
    body = b"-- SET GLOBAL gtid_slave_pos='9-9-9';\n" + b"x" * 20_000 + b"\n"
    path = packed(tmp_path / "dump", body + END + TRAILER)
    assert gtid.show(dump.check(path, Stop(10, "this"))) == "0-1-5,1-1-3"


@pytest.mark.parametrize("content", [b"", END, TRAILER, (END + TRAILER)[:-5]])
def test_a_dump_without_its_end_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Denied, match="the dump is cut off"):
        dump.check(packed(tmp_path / "dump", content), Stop(10, "this"))


@pytest.mark.parametrize("cut", [5, 40, -4])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    path = packed(tmp_path / "dump", END + TRAILER)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Denied, match="the dump is cut off or damaged"):
        dump.check(path, Stop(10, "this"))


def test_of_a_dump_one_table_is_taken_out_without_what_names_its_database() -> None:
    content = b"""/*!40101 SET NAMES utf8mb4 */;
-- Current Database: `a`
CREATE DATABASE `a`;
USE `a`;
-- Table structure for table `cdr`
CREATE TABLE `cdr` (x INT);
INSERT INTO `cdr` VALUES (1);
-- Table structure for table `other`
CREATE TABLE `other` (x INT);
-- Dumping routines for database 'a'
CREATE FUNCTION f() RETURNS INT RETURN 1;
-- Current Database: `b`
USE `b`;
-- Table structure for table `cdr`
CREATE TABLE `cdr` (y INT);
"""
    chunks = [content[i : i + 7] for i in range(0, len(content), 7)]
    assert b"".join(dump.only_tables(chunks, [("a", "cdr")])).splitlines() == [
        b"/*!40101 SET NAMES utf8mb4 */;",
        b"-- Table structure for table `cdr`",
        b"CREATE TABLE `cdr` (x INT);",
        b"INSERT INTO `cdr` VALUES (1);",
    ]
