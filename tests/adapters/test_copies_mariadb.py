"""A standby's server is filled, follows, takes over and comes back; what only one server had is never lost unseen."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters import certificates
from adapters.mariadb_servers import Server, servers
from understudy.adapters.copies.mariadb.replica import MariaDb
from understudy.adapters.copies.mariadb.settings import LOADING, SCRATCH, Settings
from understudy.adapters.copies.mariadb.sql import Sql
from understudy.config.settings import Seconds
from understudy.errors import AdapterError, Denied, Refused, Unreachable, told
from understudy.hosts.mariadb import grants
from understudy.ports import Pulled, Source

SRC = Path(__file__).parents[2] / "src"
PASSWORD = "not-for-the-log"  # noqa: S105
NODES = ("pbx01", "pbx02")

# A node in a process of its own.  argv: NODE HOW VERB, or as the other node's door: NODE HOW answer copy NAME EPOCH ...
NODE = """
import asyncio, json, os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from understudy.adapters.copies.mariadb.replica import MariaDb
from understudy.adapters.copies.mariadb.settings import Settings
from understudy.adapters.peers.requests import render_answer
from understudy.errors import Refused, UnderstudyError, told

home = Path(__file__).parent
told_of = json.loads((home / "pair.json").read_text())
node, how, verb, *words = sys.argv[1:]
settings = Settings(
    socket=Path(told_of["sockets"][node]), databases=("pbx", "cdrdb"), merge=tuple(told_of["merge"]),
    replication_password_file=home / node / "password",
)
copy = MariaDb("db", settings, node=node, folder=home / node / "store", addresses=told_of["addresses"])
if verb == "answer":
    assert words[:3] == ["copy", "db", "7"]
    with (home / node / "asked").open("a") as log:
        print(*words[3:], file=log)
    if (home / node / "cut").exists() and words[3] == "dump":
        sys.stdout.buffer.write(b"\\x1f\\x8b" + b"x" * 1000)
        sys.exit(0)
if how == "as-nobody":
    # Python's own files may be out of reach from here on.
    "x".encode("idna"), asyncio.run(asyncio.to_thread(int))
    os.setegid(65534)
    os.seteuid(65534)
try:
    if verb != "answer":
        asyncio.run(getattr(copy, verb)())
        sys.exit(0)
    sys.exit(copy.serve(words[3:]))
except UnderstudyError as error:
    print(render_answer(Refused(told(error))))
    sys.exit(1)
"""


@dataclass
class Pair:
    """Two nodes on one machine; pbx01 has server-id 1."""

    home: Path
    servers: dict[str, Server]
    merge: tuple[str, ...] = ("cdrdb.cdr uniqueid sequence",)
    reports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for node in NODES:
            (self.home / node).mkdir()
            self.set_password(node, PASSWORD)
        self.script.write_text(NODE.format(path=[str(SRC)]))
        self.describe()

    def describe(self) -> None:
        about = {
            "sockets": {node: str(server.socket) for node, server in self.servers.items()},
            "addresses": self.addresses,
            "merge": self.merge,
        }
        (self.home / "pair.json").write_text(json.dumps(about))

    @property
    def addresses(self) -> dict[str, str]:
        return {node: server.address for node, server in self.servers.items()}

    @property
    def script(self) -> Path:
        return self.home / "node.py"

    def set_password(self, node: str, password: str) -> None:
        (self.home / node / "password").write_text(f"{password}\n")

    def copy(self, node: str, *, within: float = 60.0, tls_ca: Path | None = None) -> MariaDb:
        settings = Settings(
            socket=self.servers[node].socket,
            databases=("pbx", "cdrdb"),
            merge=self.merge,
            within=Seconds(within),
            tls_ca=tls_ca,
            replication_password_file=self.home / node / "password",
        )
        return MariaDb(
            "db",
            settings,
            node=node,
            folder=self.home / node / "store",
            addresses=self.addresses,
            report=self.reports.append,
        )

    def source(self, node: str, how: str = "as-root") -> Source:
        reach = (sys.executable, str(self.script), node, how, "answer")
        return Source(node=node, epoch=7, reach=reach)

    def pull(self, node: str, copy: MariaDb | None = None) -> Pulled:
        return asyncio.run((copy or self.copy(node)).pull(self.source(other(node))))

    def keep(self, node: str) -> str:
        return asyncio.run(self.copy(node).keep())

    def put(self, node: str) -> bool:
        return asyncio.run(self.copy(node).put())

    def renew(self, node: str) -> str:
        """As the copier does in a new epoch; where it kept what only `node` had."""
        copy = self.copy(node)
        asyncio.run(copy.pull(self.source(other(node))))
        aside = asyncio.run(copy.keep())
        asyncio.run(copy.put())
        return aside

    def promote(self, node: str) -> None:
        asyncio.run(self.copy(node).promote())

    def demote(self, node: str) -> None:
        asyncio.run(self.copy(node).demote())

    def asked(self, node: str) -> list[str]:
        path = self.home / node / "asked"
        return path.read_text().splitlines() if path.exists() else []


def other(node: str) -> str:
    return NODES[1 - NODES.index(node)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with servers(tmp_path / "servers") as (one, two):
        (tmp_path / "home").mkdir()
        found = Pair(tmp_path / "home", {"pbx01": one, "pbx02": two})
        for server in (one, two):
            # As `hosts` does, on both, past the log.
            server.do(
                "SET sql_log_bin=0",
                f"CREATE USER understudy_repl@'%' IDENTIFIED BY '{PASSWORD}'",
                "GRANT REPLICATION SLAVE ON *.* TO understudy_repl@'%'",
            )
        one.do(
            "SET GLOBAL read_only=0",
            "CREATE DATABASE pbx",
            "CREATE TABLE pbx.users (extension VARCHAR(20) PRIMARY KEY, name VARCHAR(50))",
            "INSERT INTO pbx.users VALUES ('6001', 'Ann'), ('6002', 'Bob')",
            "CREATE DATABASE cdrdb",
            "CREATE TABLE cdrdb.cdr (id INT AUTO_INCREMENT PRIMARY KEY, calldate DATETIME NOT NULL, "
            "uniqueid VARCHAR(32) NOT NULL, sequence INT, note TEXT, answered TIMESTAMP NULL, raw BLOB, "
            "KEY (uniqueid))",
        )
        call(one, "1.1")
        yield found


def call(server: Server, uniqueid: str, sequence: int = 1) -> None:
    with Sql(server.socket) as db:
        db.do(
            "INSERT INTO cdrdb.cdr (calldate, uniqueid, sequence, note, answered, raw)"
            " VALUES ('2026-11-23 04:15:00', %s, %s, %s, '2026-11-23 04:15:07', %s)",
            (uniqueid, sequence, "it's\n„one“", b"\x00\xff'"),
        )


def calls(server: Server) -> list[str]:
    return [row["uniqueid"] for row in server.rows("SELECT uniqueid FROM cdrdb.cdr ORDER BY id")]


@pytest.fixture
def following(pair: Pair) -> Pair:
    """pbx01 is active, pbx02 its standby."""
    pair.renew("pbx02")
    return pair


def attached(server: Server) -> bool:
    rows = server.rows("SHOW SLAVE STATUS")
    return bool(rows) and (rows[0]["Slave_IO_Running"], rows[0]["Slave_SQL_Running"]) == (
        "Yes",
        "Yes",
    )


# A standby comes into being


def test_a_fresh_standby_is_filled_with_all_that_the_active_node_has(pair: Pair) -> None:
    one, two = pair.servers.values()
    assert pair.pull("pbx02").changed
    assert "pbx" not in {row["Database"] for row in two.rows("SHOW DATABASES")}, (
        "a pull changes nothing"
    )
    assert pair.keep("pbx02") == ""
    assert pair.put("pbx02")
    assert two.value("SELECT GROUP_CONCAT(name ORDER BY name) FROM pbx.users") == "Ann,Bob"
    assert calls(two) == ["1.1"]
    assert two.value("SELECT @@read_only") == 1
    assert attached(two)
    assert two.value("SELECT @@gtid_current_pos") == one.value("SELECT @@gtid_current_pos")
    assert LOADING not in {row["Database"] for row in two.rows("SHOW DATABASES")}


def test_a_second_put_finds_nothing_to_do(following: Pair) -> None:
    assert following.put("pbx02") is False


def test_rows_that_the_active_node_has_are_there_when_a_pull_returns(following: Pair) -> None:
    one, two = following.servers.values()
    for number in range(50):
        call(one, f"2.{number}")
    assert following.pull("pbx02") == Pulled(changed=False)
    assert len(calls(two)) == 51
    assert following.asked("pbx01").count("dump") == 1


def test_users_come_with_their_passwords_and_rights_but_not_the_administrators(pair: Pair) -> None:
    one, two = pair.servers.values()
    one.do(
        "CREATE USER freepbx@localhost IDENTIFIED BY 'of-the-active'",
        "GRANT ALL ON pbx.* TO freepbx@localhost",
        "GRANT SELECT ON cdrdb.* TO freepbx@localhost",
        "CREATE ROLE reader",
        "GRANT reader TO freepbx@localhost",
    )
    two.do("SET sql_log_bin=0", "CREATE USER freepbx@localhost IDENTIFIED BY 'of-the-standby'")
    root = two.value("SHOW CREATE USER CURRENT_USER()")
    pair.renew("pbx02")
    assert two.value("SHOW CREATE USER freepbx@localhost") == one.value(
        "SHOW CREATE USER freepbx@localhost"
    )
    assert two.rows("SHOW GRANTS FOR freepbx@localhost") == one.rows(
        "SHOW GRANTS FOR freepbx@localhost"
    )
    assert two.value("SHOW CREATE USER CURRENT_USER()") == root


def test_a_standby_with_data_of_its_own_keeps_it_aside_before_it_is_filled(pair: Pair) -> None:
    two = pair.servers["pbx02"]
    two.do(
        "SET sql_log_bin=0",
        "CREATE DATABASE cdrdb",
        "CREATE TABLE cdrdb.cdr (id INT AUTO_INCREMENT PRIMARY KEY, calldate DATETIME NOT NULL, "
        "uniqueid VARCHAR(32), sequence INT)",
        "INSERT INTO cdrdb.cdr (calldate, uniqueid, sequence) VALUES"
        " ('2026-01-01', '1.1', 1), ('2026-01-02', 'own', 1), ('2026-01-02', NULL, NULL)",
    )
    aside = Path(pair.renew("pbx02"))
    assert b"'own'" in gzip.decompress((aside / "before.sql.gz").read_bytes())
    assert (aside / "counts.txt").read_text() == "cdrdb.cdr: 3 rows\n"
    head, *rows = map(json.loads, (aside / "rows" / "cdrdb.cdr.jsonl").read_text().splitlines())
    assert head == {"table": "cdrdb.cdr", "columns": ["calldate", "uniqueid", "sequence"]}
    assert rows == [["2026-01-02 00:00:00", "own", "1"], ["2026-01-02 00:00:00", None, None]]
    assert calls(two) == ["1.1"]
    assert SCRATCH not in {row["Database"] for row in two.rows("SHOW DATABASES")}
    assert pair.servers["pbx02"].value("SELECT @@gtid_binlog_pos") == "", (
        "nothing of this is in its log"
    )


def test_who_has_nothing_of_his_own_goes_on_without_a_dump(following: Pair) -> None:
    one, two = following.servers.values()
    following.demote("pbx01")
    following.pull("pbx02")
    following.promote("pbx02")
    call(two, "2.1")
    assert following.renew("pbx01") == ""
    assert calls(one) == ["1.1", "2.1"]
    assert following.asked("pbx02") == ["position"]
    assert attached(one)
    # And back.
    following.demote("pbx02")
    following.pull("pbx01")
    following.promote("pbx01")
    call(one, "3.1")
    assert following.renew("pbx02") == ""
    assert calls(two) == ["1.1", "2.1", "3.1"]
    assert following.asked("pbx01").count("dump") == 1


def test_a_replaced_server_whose_source_has_thrown_its_logs_away_is_filled_anew(
    following: Pair,
) -> None:
    one, two = following.servers.values()
    two.stop()
    call(one, "2.1")
    one.do("FLUSH LOGS", "FLUSH LOGS")
    last = one.rows("SHOW BINARY LOGS")[-1]["Log_name"]
    one.do(f"PURGE BINARY LOGS TO '{last}'")
    assert len(one.rows("SHOW BINARY LOGS")) == 1
    two.start()
    until(lambda: two.rows("SHOW SLAVE STATUS")[0]["Last_IO_Errno"] == 1236)
    assert following.renew("pbx02") == ""
    assert calls(two) == ["1.1", "2.1"]
    assert following.asked("pbx01").count("dump") == 2


def test_a_dump_that_was_cut_off_leaves_no_snapshot(pair: Pair) -> None:
    (pair.home / "pbx01" / "cut").touch()
    with pytest.raises(Unreachable, match="pbx01 did not send db whole: the dump is"):
        pair.pull("pbx02")
    assert pair.copy("pbx02").store.all() == ()
    with pytest.raises(Denied, match="nothing has been copied yet for db"):
        pair.put("pbx02")


def test_a_dump_that_waits_to_be_loaded_is_not_brought_again(pair: Pair) -> None:
    one, two = pair.servers.values()
    pair.pull("pbx02")
    call(one, "2.1")
    assert pair.pull("pbx02").changed
    assert pair.asked("pbx01") == ["position", "dump", "position"]
    assert pair.put("pbx02")
    assert calls(two) == ["1.1", "2.1"], "what came after it was copied"


def test_a_source_without_the_database_says_which(pair: Pair) -> None:
    pair.servers["pbx01"].do("DROP DATABASE pbx")
    with pytest.raises(Denied, match="pbx01 refuses: there is no database pbx here"):
        pair.pull("pbx02")


def test_a_put_that_was_killed_is_done_again_and_nobody_is_promoted_in_between(pair: Pair) -> None:
    one, two = pair.servers.values()
    one.do(
        "USE pbx",
        "CREATE TABLE pbx.many (text CHAR(200))",
        "INSERT INTO pbx.many SELECT REPEAT('x', 200) FROM seq_1_to_400000",
    )
    pair.pull("pbx02")
    argv = [sys.executable, str(pair.script), "pbx02", "as-root", "put"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    try:
        until(lambda: has_rows(two), process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    with pytest.raises(Denied, match="half of a copy"):
        pair.promote("pbx02")
    assert two.value("SELECT @@read_only") == 1
    assert not two.rows("SHOW SLAVE STATUS"), "a server that restarts must not copy into half of it"
    with pytest.raises(Denied, match="on pbx02 is half of a copy"):
        asyncio.run(pair.copy("pbx01").pull(pair.source("pbx02")))
    assert pair.put("pbx02"), "again, from the same dump"
    assert two.value("SELECT COUNT(*) FROM pbx.many") == 400000
    pair.promote("pbx02")
    assert two.value("SELECT @@read_only") == 0


def test_a_pull_after_a_killed_put_brings_it_again(pair: Pair) -> None:
    two = pair.servers["pbx02"]
    pair.renew("pbx02")
    two.do("STOP SLAVE", "SET sql_log_bin=0", f"CREATE DATABASE {LOADING}", "DROP DATABASE pbx")
    assert pair.renew("pbx02") == ""
    assert two.value("SELECT COUNT(*) FROM pbx.users") == 2
    assert pair.asked("pbx01").count("dump") == 2


def has_rows(server: Server) -> bool:
    try:
        return bool(server.value("SELECT 1 FROM pbx.many LIMIT 1"))
    except AdapterError:
        return False


def until(is_so: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.01)


# A take-over


def test_what_was_acknowledged_before_a_crash_is_there_when_the_standby_is_promoted(
    following: Pair,
) -> None:
    one, two = following.servers.values()
    until(lambda: int(one.rows("SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'")[0]["Value"]) == 1)
    one.do("SET GLOBAL rpl_semi_sync_master_timeout=60000")
    acknowledged = []
    with Sql(one.socket) as db:
        for number in range(200):
            db.do("INSERT INTO cdrdb.cdr (calldate, uniqueid) VALUES (NOW(), %s)", (f"2.{number}",))
            acknowledged.append(f"2.{number}")
        one.kill()
    following.promote("pbx02")
    assert calls(two) == ["1.1", *acknowledged]
    assert two.value("SELECT @@read_only") == 0
    assert not two.rows("SHOW SLAVE STATUS")
    assert following.reports == []
    following.promote("pbx02")  # Safe to repeat.
    call(two, "3.1")


def test_a_promotion_with_transactions_that_cannot_be_applied_says_which_are_lost(
    following: Pair,
) -> None:
    one, two = following.servers.values()
    two.do("SET sql_log_bin=0", "DROP TABLE pbx.users")
    one.do("INSERT INTO pbx.users VALUES ('6003', 'Cid')")
    until(lambda: two.rows("SHOW SLAVE STATUS")[0]["Last_SQL_Errno"] != 0)
    lost = one.value("SELECT @@gtid_current_pos")
    one.kill()
    following.promote("pbx02")
    assert two.value("SELECT @@read_only") == 0
    (said,) = following.reports
    assert f"transactions up to {lost} were received" in said
    assert "pbx.users" in said


def test_the_last_row_before_a_demotion_is_there_and_none_comes_after_it(following: Pair) -> None:
    one, two = following.servers.values()
    one.do(
        "CREATE USER app@localhost IDENTIFIED VIA unix_socket",
        "GRANT ALL ON cdrdb.* TO app@localhost",
    )
    call(one, "2.1")
    following.demote("pbx01")
    following.demote("pbx01")  # Safe to repeat.
    assert one.value("SELECT @@read_only") == 1
    following.pull("pbx02")
    following.promote("pbx02")
    assert calls(two) == ["1.1", "2.1"]


def test_a_demotion_does_not_wait_for_ever_for_one_who_writes(following: Pair) -> None:
    one = following.servers["pbx01"]
    with Sql(one.socket, within=60.0) as db:
        db.do("LOCK TABLES cdrdb.cdr WRITE")
        with pytest.raises(Denied, match="1205"):
            following.demote("pbx01")
    following.demote("pbx01")
    assert one.value("SELECT @@read_only") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED FOR WANT OF ROOT: needs another user")
def test_the_agents_rights_are_enough_for_its_part_and_for_the_other_nodes_copier(
    pair: Pair,
) -> None:
    one, two = pair.servers.values()
    nobody = "nobody"
    one.do(
        "CREATE USER freepbx@localhost IDENTIFIED BY 'x'",
        "CREATE TRIGGER pbx.t BEFORE INSERT ON pbx.users"
        " FOR EACH ROW SET NEW.name = TRIM(NEW.name)",
    )
    for server in (one, two):
        server.do(
            "SET sql_log_bin=0",
            f"CREATE USER {nobody}@localhost IDENTIFIED VIA unix_socket",
            *(statement.rstrip(";") for statement in grants(nobody, ("pbx", "cdrdb"))),
        )
    asyncio.run(pair.copy("pbx02").pull(pair.source("pbx01", "as-nobody")))
    assert pair.put("pbx02")
    assert two.rows("SHOW TRIGGERS FROM pbx")
    assert two.value("SELECT COUNT(*) FROM mysql.user WHERE user = 'freepbx'") == 1
    for verb, closed in (("promote", 0), ("demote", 1)):
        words = [sys.executable, str(pair.script), "pbx02", "as-nobody", verb]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert two.value("SELECT @@read_only") == closed
    assert not two.rows("SHOW SLAVE STATUS")
    two.do("SET sql_log_bin=0", f"CREATE DATABASE {LOADING}")
    words = [sys.executable, str(pair.script), "pbx02", "as-nobody", "promote"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert "half of a copy" in done.stdout


# Two histories


@pytest.fixture
def diverged(following: Pair) -> Pair:
    """pbx01 was active and has calls that pbx02, active now, has not."""
    one, two = following.servers.values()
    following.pull("pbx02")
    two.do("STOP SLAVE IO_THREAD")  # The network between them is cut.
    call(one, "lost.1")
    call(one, "lost.2")
    one.do(
        "INSERT INTO cdrdb.cdr (calldate, uniqueid) VALUES (NOW(), 'came and went')",
        "DELETE FROM cdrdb.cdr WHERE uniqueid = 'came and went'",
        "UPDATE pbx.users SET name = 'Anna' WHERE extension = '6001'",
    )
    one.kill()
    following.promote("pbx02")
    call(two, "2.1")
    two.do("DELETE FROM cdrdb.cdr WHERE uniqueid = '1.1'")
    one.start()
    return following


def test_an_old_active_node_with_calls_of_its_own_keeps_them_aside_and_becomes_a_standby(
    diverged: Pair,
) -> None:
    one, two = diverged.servers.values()
    assert diverged.pull("pbx01").changed
    compared = asyncio.run(diverged.copy("pbx01").compare())
    assert (compared.unit, compared.only_here) == ("transactions", 5)
    assert "lost.1" in compared.examples[0]
    aside = Path(diverged.keep("pbx01"))
    assert diverged.keep("pbx01") == "", "once"
    assert diverged.put("pbx01")
    text = (aside / "only-here.sql").read_text(errors="replace")
    assert "'lost.1'" in text
    assert "'lost.2'" in text
    assert "@1='6001'" in text
    assert "'1.1'" not in text, "that is at both"
    assert (aside / "counts.txt").read_text().splitlines() == [
        "5 transactions",
        "cdrdb.cdr: 1 rows deleted",
        "cdrdb.cdr: 3 rows inserted",
        "pbx.users: 1 rows updated",
    ]
    head, *rows = map(json.loads, (aside / "rows" / "cdrdb.cdr.jsonl").read_text().splitlines())
    assert head["table"] == "cdrdb.cdr"
    assert "id" not in head["columns"]
    assert [row[head["columns"].index("uniqueid")] for row in rows] == ["lost.1", "lost.2"]
    assert calls(one) == calls(two) == ["2.1"]
    assert one.value("SELECT name FROM pbx.users WHERE extension = '6001'") == "Ann"
    assert attached(one)
    assert one.value("SELECT @@read_only") == 1


def test_rows_that_only_the_old_active_node_had_are_taken_over_once(
    diverged: Pair, tmp_path: Path
) -> None:
    one, two = diverged.servers.values()
    aside = Path(diverged.renew("pbx01"))
    bundle = tmp_path / "bundle"
    assert diverged.copy("pbx01").bundle(aside, bundle)
    merged = asyncio.run(diverged.copy("pbx02").merge(bundle))
    assert (merged.taken, merged.known, merged.left) == (("cdrdb.cdr: 2 rows",), 0, ())
    assert calls(two) == ["2.1", "lost.1", "lost.2"], (
        "and what was deleted at the active node stays deleted"
    )
    (row,) = two.rows("SELECT * FROM cdrdb.cdr WHERE uniqueid = 'lost.1'")
    assert (row["note"], row["raw"], row["sequence"]) == ("it's\n„one“", b"\x00\xff'", 1)
    assert str(row["calldate"]) == "2026-11-23 04:15:00"
    assert two.value("SELECT COUNT(DISTINCT answered) FROM cdrdb.cdr") == 1
    again = asyncio.run(diverged.copy("pbx02").merge(bundle))
    assert (again.taken, again.known, again.left) == ((), 2, ())
    diverged.pull("pbx01")
    assert calls(one) == calls(two) == ["2.1", "lost.1", "lost.2"]


def test_an_aside_without_rows_to_merge_makes_no_bundle(following: Pair, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    assert not following.copy("pbx01").bundle(tmp_path / "aside", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (
            [{"table": "mysql.user", "columns": ["User"]}, ["evil"]],
            "mysql.user: `merge` does not name it",
        ),
        (
            [{"table": "cdrdb.cdr", "columns": ["uniqueid", "sequence", "x"]}, ["1", "2", "3"]],
            "no column x",
        ),
        ([{"table": "cdrdb.cdr", "columns": ["uniqueid"]}, ["1"]], "came without sequence"),
        (
            [
                {"table": "cdrdb.cdr", "columns": ["uniqueid", "sequence", "calldate"]},
                ["1", "2", "never"],
            ],
            "cdrdb.cdr: MariaDB says 1292",
        ),
    ],
)
def test_rows_that_do_not_fit_are_left(
    following: Pair, tmp_path: Path, lines: list[object], left: str
) -> None:
    bundle = tmp_path / "bundle"
    good = [
        {"table": "cdrdb.cdr", "columns": ["uniqueid", "sequence", "calldate"]},
        ["good", "1", "2026-11-23 00:00:00"],
    ]
    bundle.write_text("".join(json.dumps(line) + "\n" for line in (*lines, *good)))
    merged = asyncio.run(following.copy("pbx01").merge(bundle))
    assert merged.taken == ("cdrdb.cdr: 1 row",)
    (said,) = merged.left
    assert left in said
    assert calls(following.servers["pbx01"]) == ["1.1", "good"]


@pytest.mark.parametrize(
    "text",
    [
        "no json\n",
        '["a row first"]\n',
        '{"table": "cdrdb.cdr", "columns": ["uniqueid`", "sequence"]}\n["1", "2"]\n',
        '{"table": "cdrdb.cdr", "columns": ["uniqueid", "sequence"]}\n["1"]\n',
        '{"table": "cdrdb.cdr", "columns": ["uniqueid", "sequence"]}\n[{"b64": "!"}, "2"]\n',
        '{"table": "cdrdb.cdr", "columns": ["uniqueid", "sequence"]}\n["\\ud800", "2"]\n',
        "[" * 100_000,
    ],
)
def test_what_is_no_bundle_is_refused(following: Pair, tmp_path: Path, text: str) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_text(text)
    with pytest.raises(Denied, match="the bundle cannot be understood"):
        asyncio.run(following.copy("pbx01").merge(bundle))
    assert calls(following.servers["pbx01"]) == ["1.1"]


def test_a_row_that_somebody_wrote_on_the_standby_is_told_and_accepted(following: Pair) -> None:
    one, two = following.servers.values()
    two.do(
        "INSERT INTO pbx.users VALUES ('6666', 'Eve')"
    )  # An administrator: read_only does not stop him.
    with pytest.raises(Denied) as caught:
        following.pull("pbx02")
    said = told(caught.value)
    assert "MariaDB on pbx02 has what was written on it and not on pbx01: 0-2-" in said
    assert "INSERT INTO pbx.users VALUES ('6666', 'Eve')" in said
    assert "understudy copies accept db" in said
    call(one, "2.1")
    until(lambda: two.rows("SHOW SLAVE STATUS")[0]["Last_SQL_Errno"] == 1950)
    with pytest.raises(Denied, match=r"'6666'.*1950"):
        following.pull("pbx02")
    following.copy("pbx02").accept()
    assert following.pull("pbx02").changed
    assert following.put("pbx02"), "without a new epoch nobody calls keep"
    (aside,) = following.copy("pbx02").store.asides()
    assert "'6666'" in (aside / "only-here.sql").read_text(errors="replace")
    assert str(aside) in following.reports[0]
    assert two.value("SELECT COUNT(*) FROM pbx.users") == 2
    assert calls(two) == ["1.1", "2.1"]
    assert attached(two)
    two.do("INSERT INTO pbx.users VALUES ('6667', 'Eve')")
    with pytest.raises(Denied, match="6667"):
        following.pull("pbx02")


def test_a_standby_that_stopped_for_another_reason_says_the_servers_own(following: Pair) -> None:
    one, two = following.servers.values()
    two.do("SET sql_log_bin=0", "DELETE FROM pbx.users")
    one.do("DELETE FROM pbx.users WHERE extension = '6001'")
    with pytest.raises(Denied, match=r"copies nothing more from pbx01: .*1032"):
        following.pull("pbx02")


# What may be wrong


def test_a_wrong_password_is_told_without_it(pair: Pair) -> None:
    pair.pull("pbx02")
    pair.set_password("pbx02", "wrong-and-secret")
    with pytest.raises(Denied) as caught:
        pair.put("pbx02")
    said = told(caught.value)
    assert "1045" in said
    assert (
        f"Does {pair.home}/pbx02/password hold the password that understudy_repl has on pbx01?"
        in said
    )
    assert "wrong-and-secret" not in said
    assert "wrong-and-secret" not in pair.servers["pbx02"].log.read_text()
    pair.set_password("pbx02", PASSWORD)
    assert pair.pull("pbx02").changed
    assert pair.put("pbx02")
    assert attached(pair.servers["pbx02"])


@pytest.mark.parametrize("content", [None, ""])
def test_a_missing_or_empty_password_is_told(pair: Pair, content: str | None) -> None:
    path = pair.home / "pbx02" / "password"
    path.unlink() if content is None else path.write_text(content)
    pair.pull("pbx02")
    with pytest.raises(
        Unreachable, match=r"password .*/password (cannot be read: No such file|is empty)"
    ):
        pair.put("pbx02")


def test_a_certificate_is_checked_against_the_authority_that_was_named(
    pair: Pair, tmp_path: Path
) -> None:
    two = pair.servers["pbx02"]
    good = pair.copy("pbx02", tls_ca=two.certificate_authority)
    pair.pull("pbx02", good)
    assert asyncio.run(good.put())
    (row,) = two.rows("SHOW SLAVE STATUS")
    assert (row["Master_SSL_Allowed"], row["Master_SSL_Verify_Server_Cert"]) == ("Yes", "Yes")
    two.do("STOP SLAVE", "RESET SLAVE ALL")

    certificates.authority(tmp_path, "stranger")
    bad = pair.copy("pbx02", tls_ca=tmp_path / "stranger.pem")
    pair.pull("pbx02", bad)
    with pytest.raises(AdapterError, match=r"copies nothing from pbx01.*2026"):
        asyncio.run(bad.put())


def test_a_server_that_is_down_is_unreachable_at_either_end(following: Pair) -> None:
    one, two = following.servers.values()
    one.stop()
    with pytest.raises(Denied, match=f"pbx01 refuses: MariaDB does not answer at {one.socket}"):
        following.pull("pbx02")
    one.start()
    following.pull("pbx02")
    two.stop()
    for work in (following.pull, following.put, following.promote, following.demote):
        with pytest.raises(Unreachable, match=f"MariaDB does not answer at {two.socket}: "):
            work("pbx02")


def test_a_standby_that_was_restarted_follows_by_itself(following: Pair) -> None:
    one, two = following.servers.values()
    two.kill()
    call(one, "2.1")
    two.start()
    following.pull("pbx02")
    assert calls(two) == ["1.1", "2.1"]
    assert two.value("SELECT @@read_only") == 1


def test_whoever_stopped_the_copying_finds_it_begun_again(following: Pair) -> None:
    one, two = following.servers.values()
    two.do("STOP SLAVE", "SET GLOBAL read_only=0")
    call(one, "2.1")
    assert following.pull("pbx02").changed
    assert two.value("SELECT @@read_only") == 0, (
        "a pull changes nothing: the agent may promote at any moment"
    )
    assert following.put("pbx02")
    assert calls(two) == ["1.1", "2.1"]
    assert two.value("SELECT @@read_only") == 1


def test_two_servers_with_one_id_or_without_a_log_are_refused(pair: Pair) -> None:
    two = pair.servers["pbx02"]
    two.do("SET GLOBAL server_id=1")
    with pytest.raises(Denied, match="both have server_id 1"):
        pair.pull("pbx02")
    two.stop()
    two.options = ("skip-log-bin",)
    two.start()
    with pytest.raises(Denied, match="MariaDB on pbx02 writes no binary log"):
        pair.pull("pbx02")


def test_a_request_that_is_none_is_refused(following: Pair) -> None:
    for words in ([], ["position", "x"], ["dump", "--all"], ["keys"]):
        with pytest.raises(Refused, match="not what a pull of db asks for"):
            following.copy("pbx01").serve(words)


def test_now_and_then_a_dump_of_the_standby_is_kept_as_a_snapshot(following: Pair) -> None:
    one = following.servers["pbx01"]
    call(one, "2.1")
    copy = following.copy("pbx02")
    (first,) = copy.store.all()
    first.path.rename(first.path.with_name("2026-01-01T00-00-00.000Z"))

    async def pull() -> None:
        for _ in range(2):
            await copy.pull(following.source("pbx01"))
            await copy.history.settled()

    asyncio.run(pull())
    assert len(copy.store.all()) == 2
    newest = copy.store.all()[-1].path
    assert b"'2.1'" in gzip.decompress((newest / "dump.sql.gz").read_bytes())
    assert json.loads((newest / "about.json").read_text())["node"] == "pbx02"
    assert following.reports == []
    assert following.put("pbx02") is False
