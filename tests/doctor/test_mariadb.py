"""MariaDB, as doctor sees it on one node: real servers that copy from each other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.mariadb_servers import Server, servers
from adapters.systemd_host import require_root
from cli.pair import CliPair
from doctor.world import claim, levels, only, run
from doctor.world import here as plain_here
from understudy.adapters.copies.mariadb.settings import Settings
from understudy.config.schema import Chosen
from understudy.doctor import mariadb
from understudy.doctor.finding import Finding, Level
from understudy.doctor.here import Here
from understudy.hosts import mariadb as host

AGENT = "nobody"
SECRET = "password"  # noqa: S105
REPLICATION = (
    "SET sql_log_bin = 0",
    f"CREATE USER repl@'127.0.0.1' IDENTIFIED BY '{SECRET}'",
    "GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'",
)


class Nodes:
    """pbx01 is active, and pbx02 copies from it."""

    def __init__(self, folder: Path, pair: CliPair, found: list[Server]) -> None:
        self.folder, self.pair = folder, pair
        self.servers = dict(zip(("pbx01", "pbx02"), found, strict=True))
        self.password = folder / "mariadb.password"
        self.password.write_text(SECRET + "\n")
        self.password.chmod(0o600)

    def here(self, node: str, *, active: str | None = "pbx01", **changes: Any) -> Here:
        server = self.servers[node]
        given = {
            "socket": server.socket,
            "port": server.port,
            "databases": ("asterisk",),
            "merge": ("asterisk.cdr uniqueid",),
            "replication_password_file": self.password,
            **changes,
        }
        chosen = Chosen(kind="mariadb", settings=Settings(**given))
        base = plain_here(self.pair, node, claim=claim(active) if active else None)
        return replace(base, config=replace(base.config, copies={"calls": chosen}))

    def look(self, node: str, **changes: Any) -> list[Finding]:
        return run(mariadb.look, self.here(node, **changes))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("mariadb")
    with servers(folder) as found:
        active, standby = found
        for each in found:
            each.do("SET sql_log_bin = 0", "CREATE DATABASE asterisk")
            each.do("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
            each.do(*REPLICATION)
        active.do("SET GLOBAL read_only = 0")
        standby.do(
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={active.port}, MASTER_USER='repl',"
            f" MASTER_PASSWORD='{SECRET}', MASTER_SSL=1, MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        )
        active.do(
            "CREATE TABLE asterisk.cdr (uniqueid VARCHAR(32) PRIMARY KEY, src VARCHAR(80)) ENGINE=InnoDB"
        )
        caught_up(active, standby)
        yield Nodes(folder, CliPair(folder), found)


def caught_up(active: Server, standby: Server) -> None:
    written = active.value("SELECT @@gtid_binlog_pos")
    assert standby.value("SELECT MASTER_GTID_WAIT(%s, 30)", written) == 0


def bad(found: list[Finding]) -> set[str]:
    return {each.check for each in found if each.level is not Level.OK}


# All is well


def test_where_nothing_is_copied_by_mariadb_nothing_is_asked(tmp_path: Path) -> None:
    assert run(mariadb.look, plain_here(CliPair(tmp_path))) == []


@pytest.mark.real
@pytest.mark.parametrize("node", ["pbx01", "pbx02"])
def test_two_servers_that_copy_are_well(nodes: Nodes, node: str) -> None:
    # What the option file of this machine's own server says is another test's.
    found = [each for each in nodes.look(node) if each.check != "mariadb-boot"]
    assert {each.level for each in found} == {Level.OK}, found
    assert levels(found, "mariadb-semi-sync") == ([Level.OK] if node == "pbx01" else [])
    assert levels(found, "mariadb-replication") == ([Level.OK] if node == "pbx02" else [])


# Who may ask


@pytest.mark.real
def test_a_server_that_is_gone_is_critical_and_named(nodes: Nodes, tmp_path: Path) -> None:
    found = nodes.look("pbx02", socket=tmp_path / "gone.sock")
    assert only(found, "mariadb").level is Level.CRITICAL
    assert str(tmp_path / "gone.sock") in only(found, "mariadb").what
    assert levels(found, "mariadb-rights") == []


@pytest.mark.real
def test_a_user_whom_the_server_does_not_know_is_told(nodes: Nodes) -> None:
    found = nodes.look("pbx02", user="stranger")
    assert only(found, "mariadb").level is Level.CRITICAL
    assert "stranger" in only(found, "mariadb").what
    assert "stranger" in only(found, "mariadb-rights").what


@pytest.mark.real
def test_a_server_that_is_too_old_is_refused_by_name(nodes: Nodes, tmp_path: Path) -> None:
    with servers(tmp_path, count=1, options=("version=10.4.34-MariaDB",)) as (old,):
        found = nodes.look("pbx01", socket=old.socket)
    assert only(found, "mariadb").level is Level.CRITICAL
    assert only(found, "mariadb").what.startswith("MariaDB 10.4.34-MariaDB")
    assert only(found, "mariadb").what.endswith("is too old: 10.5.9 is the least")


@pytest.mark.real
def test_each_right_that_the_agents_user_lacks_is_named(nodes: Nodes) -> None:
    require_root("runuser")
    server = nodes.servers["pbx02"]
    server.sockets.chmod(0o755)
    here = nodes.here("pbx02")
    journal = here.node.journal_path.parent
    journal.mkdir(parents=True, exist_ok=True)
    os.chown(journal, 65534, 65534)  # nobody's: whose agent this is.
    try:
        found = only(run(mariadb.look, here), "mariadb-rights")
        assert found.level is Level.CRITICAL
        assert "Access denied for user 'nobody'@'localhost'" in found.what
        quiet = "SET sql_log_bin = 0"
        server.do(quiet, f"CREATE USER {AGENT}@localhost IDENTIFIED VIA unix_socket")
        server.do(quiet, *(each.rstrip(";") for each in host.grants(AGENT, ("asterisk",))))
        assert only(run(mariadb.look, here), "mariadb-rights").level is Level.OK
        everywhere = [(right, "*.*") for right in host.EVERYWHERE]
        each_database = [(right, "`asterisk`.*") for right in host.EACH_DATABASE]
        for right, place in [*everywhere, *each_database, ("SELECT", "`mysql`.*")]:
            server.do(quiet, f"REVOKE {right} ON {place} FROM {AGENT}@localhost")
            found = only(run(mariadb.look, here), "mariadb-rights")
            assert found.level is Level.CRITICAL
            assert found.what.endswith(f"the right to {right} on {place}")
            server.do(quiet, f"GRANT {right} ON {place} TO {AGENT}@localhost")
    finally:
        os.chown(journal, 0, 0)


# The server


@pytest.mark.real
def test_a_server_with_another_number_or_format_is_told_what_is_wrong(nodes: Nodes) -> None:
    server = nodes.servers["pbx02"]
    server.do("SET GLOBAL server_id = 7", "SET GLOBAL sync_binlog = 0")
    try:
        found = [each for each in nodes.look("pbx02") if each.check == "mariadb-settings"]
    finally:
        server.do("SET GLOBAL server_id = 2", "SET GLOBAL sync_binlog = 1")
    assert [each.level for each in found] == [Level.CRITICAL, Level.WARNING]
    assert "server_id is 7, not 2" in found[0].what
    assert "sync_binlog is 0, not 1" in found[1].what
    assert "port is" in only(nodes.look("pbx02", port=3999), "mariadb-settings").what


@pytest.mark.real
@pytest.mark.parametrize(
    ("options", "level"),
    [
        ("read-only = ON", Level.OK),
        ("read_only", Level.OK),
        ("read-only = 0", Level.CRITICAL),
        ("read-only\nskip-read-only", Level.CRITICAL),
        ("", Level.CRITICAL),
    ],
)
def test_an_agents_read_only_does_not_hide_what_the_file_says(
    nodes: Nodes, tmp_path: Path, options: str, level: Level
) -> None:
    """pbx01's was set by SQL."""
    file = tmp_path / "my.cnf"
    file.write_text(f"[mysqld]\n{options}\n")
    fake = tmp_path / "prefix"
    fake.write_text(
        # The program itself, with an option file of ours.
        f'#!/bin/sh\ntest "$1" != my_print_defaults || set -- "$1" --defaults-file={file} --mysqld\nexec "$@"\n'
    )
    fake.chmod(0o755)
    here = replace(nodes.here("pbx01"), prefix=(str(fake),))
    assert only(run(mariadb.look, here), "mariadb-boot").level is level


@pytest.mark.real
def test_a_value_from_the_files_is_believed(nodes: Nodes) -> None:
    server = nodes.servers["pbx02"]
    assert only(nodes.look("pbx02"), "mariadb-boot").level is Level.OK
    origin = "SELECT GLOBAL_VALUE_ORIGIN FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = 'READ_ONLY'"
    assert server.value(origin) == "COMMAND-LINE"


# What is in it


@pytest.mark.real
def test_tables_without_transactions_are_named_with_the_cure(nodes: Nodes) -> None:
    active, standby = nodes.servers.values()
    active.do(
        "CREATE TABLE asterisk.queue_log (id INT) ENGINE=MyISAM",
        "CREATE TABLE asterisk.cel (id INT) ENGINE=Aria",
    )
    try:
        found = only(nodes.look("pbx01"), "mariadb-tables")
    finally:
        active.do("DROP TABLE asterisk.queue_log", "DROP TABLE asterisk.cel")
        caught_up(active, standby)
    assert found.level is Level.CRITICAL
    assert found.what == "not transactional: asterisk.cel (Aria), asterisk.queue_log (MyISAM)"
    for table in ("asterisk.cel", "asterisk.queue_log"):
        assert f"ALTER TABLE {table} ENGINE=InnoDB" in found.mend


@pytest.mark.real
def test_databases_that_are_not_here_or_not_named_are_told(nodes: Nodes) -> None:
    found = only(nodes.look("pbx01", databases=("asterisk", "gone")), "mariadb-databases")
    assert (found.level, found.what) == (Level.CRITICAL, "there is no database gone")
    # A new standby has none yet.
    found = only(nodes.look("pbx02", databases=("asterisk", "gone")), "mariadb-databases")
    assert found.level is Level.OK
    active, standby = nodes.servers.values()
    active.do("CREATE DATABASE wiki")
    caught_up(active, standby)
    try:
        found = only(nodes.look("pbx02"), "mariadb-databases")
    finally:
        active.do("DROP DATABASE wiki")
        caught_up(active, standby)
    assert found.level is Level.WARNING
    assert found.what.startswith("wiki would be missing")


@pytest.mark.real
def test_what_cannot_be_merged_is_told(nodes: Nodes) -> None:
    merge = ("asterisk.cdr uniqueid sequence", "asterisk.cel id")
    found = [each for each in nodes.look("pbx01", merge=merge) if each.check == "mariadb-merge"]
    assert [each.what for each in found] == [
        "asterisk.cdr has no column sequence",
        "there is no table asterisk.cel",
    ]


# Who copies from whom


@pytest.mark.real
def test_a_standby_that_takes_writes_or_an_active_node_that_takes_none(nodes: Nodes) -> None:
    for node, active in (("pbx01", "pbx02"), ("pbx02", "pbx02")):
        found = only(nodes.look(node, active=active), "mariadb-writes")
        assert found.level is Level.CRITICAL, found
    # And who is active is not known: then nothing is said.
    assert levels(nodes.look("pbx01", active=None), "mariadb-writes") == []


@pytest.mark.real
def test_a_standby_that_has_stopped_says_why(nodes: Nodes) -> None:
    active, standby = nodes.servers.values()
    key = "INSERT INTO asterisk.cdr VALUES ('1', 'x')"
    standby.do("SET sql_log_bin = 0", key)  # A person has written on the standby.
    active.do(key)
    try:
        standby.rows("SELECT MASTER_GTID_WAIT(@@gtid_slave_pos, 0)")
        ended = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND = 'Slave_SQL'"
        for _ in range(300):
            if standby.value(ended) == 0:
                break
            standby.value("SELECT SLEEP(0.1)")
        found = only(nodes.look("pbx02"), "mariadb-replication")
        assert found.level is Level.CRITICAL
        assert "does not copy from 127.0.0.1 any more (1062: " in found.what
    finally:
        standby.do(
            "SET sql_log_bin = 0",
            "DELETE FROM asterisk.cdr",
            "START SLAVE",
        )
        caught_up(active, standby)


@pytest.mark.real
def test_without_a_standby_nothing_waits_for_it_and_that_is_told(nodes: Nodes) -> None:
    active, standby = nodes.servers.values()
    standby.do("STOP SLAVE")
    try:
        active.do("INSERT INTO asterisk.cdr VALUES ('alone', 'x')")
        found = only(nodes.look("pbx01"), "mariadb-semi-sync")
        assert found.level is Level.WARNING
        found = only(nodes.look("pbx02"), "mariadb-replication")
        assert found.what == "MariaDB does not copy from 127.0.0.1 any more"
    finally:
        standby.do("START SLAVE")
        caught_up(active, standby)


@pytest.mark.real
def test_half_a_copy_is_critical(nodes: Nodes) -> None:
    standby = nodes.servers["pbx02"]
    quiet = "SET sql_log_bin = 0"
    standby.do(quiet, "CREATE DATABASE understudy_loading")
    try:
        found = only(nodes.look("pbx02"), "mariadb-replication")
    finally:
        standby.do(quiet, "DROP DATABASE understudy_loading")
    assert (found.level, found.what.split(":")[0]) == (
        Level.CRITICAL,
        "half of a copy that was being loaded is in place",
    )


# What lies on the disk


@pytest.mark.real
@pytest.mark.parametrize(
    ("mode", "text", "what"),
    [
        (0o644, "secret\n", "open to others (mode 0644)"),
        (0o660, "secret\n", "open to others (mode 0660)"),
        (0o600, "", "has 0 bytes"),
        (0o600, "x" * 98, "has 98 bytes"),
        (None, "", "No such file"),
    ],
)
def test_a_password_that_is_open_empty_or_gone(
    nodes: Nodes, tmp_path: Path, mode: int | None, text: str, what: str
) -> None:
    file = tmp_path / "password"
    if mode is not None:
        file.write_text(text)
        file.chmod(mode)
    found = only(nodes.look("pbx02", replication_password_file=file), "mariadb-password")
    assert found.level is Level.CRITICAL
    assert what in found.what


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("10.11.19-MariaDB-0+deb12u1-log", (10, 11, 19)),
        ("11.8.9-MariaDB-4 from Debian-log", (11, 8, 9)),
        ("10.4.34-MariaDB", (10, 4, 34)),
        ("8.4.3", ()),
    ],
)
def test_versions_are_read_as_servers_write_them(version: str, number: tuple[int, ...]) -> None:
    assert mariadb.number_of(version) == number


def test_no_driver_is_imported_where_mariadb_is_not_configured() -> None:
    words = "import sys, understudy.doctor.examine, understudy.hosts.plan; sys.exit('pymysql' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], check=False, timeout=60)
    assert done.returncode == 0
