"""What a node's MariaDB gets, as a real server takes it."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.mariadb_servers import Server, need_programs, servers
from adapters.systemd_host import require_root
from hosts.pieces_for import config
from understudy.adapters.copies.mariadb.settings import Settings
from understudy.config.schema import Chosen, Config
from understudy.hosts import apply, bundle, mariadb, plan
from understudy.hosts.piece import Choices, Piece

PASSWORD = """it's \\ a "pass" `word`; --"""  # noqa: S105
AGENT = "nobody"


def copying(folder: Path, **changes: object) -> Config:
    """Two databases by MariaDB; both nodes on this machine."""
    given = {
        "databases": ("asterisk", "call_detail"),
        "socket": folder / "no.sock",
        "replication_password_file": folder / "etc/understudy/mariadb.password",
        **changes,
    }
    made = config(folder, nodes__pbx01__address="127.0.0.1", nodes__pbx02__address="127.0.0.2")
    chosen = Chosen(kind="mariadb", settings=Settings(**given))  # type: ignore[arg-type]
    return replace(made, copies={"database": chosen})


def of(made: Config, node: str, choices: Choices | None = None) -> list[Piece]:
    found = mariadb.pieces(made, choices or Choices())
    assert set(found) <= set(plan.pieces(made, choices or Choices()))
    return [each for each in found if each.host == node]


def one(found: list[Piece], path: str) -> Piece:
    (only,) = [each for each in found if each.path == path]
    return only


def write_password(made: Config, text: str = PASSWORD + "\n") -> Path:
    file = mariadb.chosen(made)[0].replication_password_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def options(text: str) -> dict[str, str]:
    """Of an option file."""
    rows = [row for row in text.splitlines() if row and row[0] not in "#["]
    return {name.strip(): value.strip() for name, _, value in (row.partition("=") for row in rows)}


def test_who_copies_nothing_by_mariadb_gets_nothing(tmp_path: Path) -> None:
    made = config(tmp_path)
    assert mariadb.pieces(made, Choices()) == ()
    assert not [flow for flow in plan.flows(made) if flow.port == "3306"]


def test_every_piece_says_why_and_has_something_to_do(tmp_path: Path) -> None:
    made = copying(tmp_path)
    for known in (False, True):
        if known:
            write_password(made)
        for each in mariadb.pieces(made, Choices()):
            assert each.why.endswith("."), each
            assert not each.path or each.text.endswith("\n"), each
            assert each.path or each.then or each.by_hand, each
            assert each.secret == (PASSWORD in each.text)
            assert PASSWORD not in "".join(each.then + each.by_hand)


def test_the_nodes_have_numbers_of_their_own_and_reach_each_other(tmp_path: Path) -> None:
    made = copying(tmp_path, port=3307)
    numbers = [
        options(one(of(made, node), mariadb.SERVER).text)["server-id"] for node in made.nodes
    ]
    assert numbers == ["1", "2"]
    flows = {(f.source, f.target, f.protocol) for f in plan.flows(made) if f.port == "3307"}
    first, second = "pbx01 127.0.0.1", "pbx02 127.0.0.2"
    assert flows == {(first, second, "tcp"), (second, first, "tcp")}


# The password


def test_the_preferred_node_makes_a_password_and_keeps_it(tmp_path: Path) -> None:
    made = copying(tmp_path)
    file = mariadb.chosen(made)[0].replication_password_file
    (make,) = of(made, "pbx01")[0].then
    assert not apply.shell(make)
    held = file.read_text()
    assert len(held.strip()) == 48
    assert file.stat().st_mode & 0o777 == 0o600
    assert not apply.shell(make)
    assert file.read_text() == held
    assert list(file.parent.iterdir()) == [file]


def test_the_other_node_gets_the_same_password_with_its_bundle(tmp_path: Path) -> None:
    made = copying(tmp_path)
    (told,) = of(made, "pbx02")[0].by_hand
    assert "understudy init --output" in told
    file = write_password(made)
    for node in made.nodes:
        top = bundle.write(tmp_path / "out", node, of(made, node), is_node=True)
        brought = top / str(file).lstrip("/")
        assert brought.read_text() == PASSWORD + "\n"
        assert brought.stat().st_mode & 0o777 == 0o600
        assert f"put {str(file).lstrip('/')} 0600 root:root" in (top / bundle.SCRIPT).read_text()


def test_without_a_password_no_user_is_made(tmp_path: Path) -> None:
    made = copying(tmp_path)
    (line,) = [line for each in of(made, "pbx02") for line in each.then if "UNHEX" in line]
    assert apply.shell(line).endswith("mariadb.password is not here yet")


# A real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Config, Path]]:
    """Set as `init` sets it, with its certificate and its users."""
    require_root("runuser", "od")
    need_programs()
    folder = tmp_path_factory.mktemp("mariadb")
    made = copying(folder)
    found = of(made, "pbx02", Choices(user=AGENT))
    (certify,) = [line for each in found for line in each.then if "openssl req" in line]
    within = certify.replace("/etc/mysql", str(folder)).replace("chown mysql:", "chown root:")
    assert not apply.shell(within)
    assert not apply.shell(within)  # Twice is once.
    given = {**options(one(found, mariadb.TLS).text), **options(one(found, mariadb.SERVER).text)}
    del given["port"]
    given["bind-address"] = (
        "127.0.0.2"  # As pbx02 has it: who asks there comes from 127.0.0.1, as pbx01 would.
    )
    words = [f"{name}={value.replace('/etc/mysql', str(folder))}" for name, value in given.items()]
    with servers(folder, count=1, options=words) as (running,):
        running.sockets.chmod(0o755)
        running.do(
            "CREATE DATABASE asterisk",
            "CREATE DATABASE call_detail",
            "CREATE DATABASE callXdetail",
            "CREATE TABLE asterisk.users (id INT PRIMARY KEY)",
            "CREATE TABLE callXdetail.other (id INT PRIMARY KEY)",
            "CREATE TRIGGER asterisk.ring BEFORE INSERT ON asterisk.users FOR EACH ROW SET NEW.id = 1",
            "CREATE FUNCTION asterisk.one() RETURNS INT RETURN 1",
            "CREATE EVENT asterisk.daily ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "CREATE VIEW asterisk.all_users AS SELECT * FROM asterisk.users",
        )
        made = copying(folder, socket=running.socket)
        write_password(made)
        make_users(running, made, folder)
        yield running, made, folder


def make_users(running: Server, made: Config, folder: Path) -> None:
    found = of(made, "pbx02", Choices(user=AGENT))
    file = folder / "users.sql"
    file.write_text(one(found, mariadb.USERS).text)
    (line,) = [line for each in found for line in each.then if "UNHEX" in line]
    assert PASSWORD not in line
    assert not apply.shell(line.replace(mariadb.USERS, str(file)))


def as_agent(running: Server, *argv: str) -> "subprocess.CompletedProcess[str]":
    words = ["runuser", "-u", AGENT, "--", argv[0], "--no-defaults", f"--socket={running.socket}"]
    return subprocess.run(
        [*words, *argv[1:]], capture_output=True, text=True, timeout=60, check=False
    )


def may(running: Server, statement: str) -> str:
    """Why not; "" if it may."""
    done = as_agent(running, "mariadb", "--execute", statement)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.real
def test_the_server_is_as_the_file_says(server: tuple[Server, Config, Path]) -> None:
    running = server[0]
    for name, value in (
        ("server_id", 2),
        ("log_bin", 1),
        ("log_slave_updates", 1),
        ("binlog_format", "ROW"),
        ("gtid_strict_mode", 1),
        ("rpl_semi_sync_master_enabled", 1),
        ("rpl_semi_sync_master_timeout", 1000),
        ("rpl_semi_sync_slave_kill_conn_timeout", 1),
        ("slave_net_timeout", 10),
        ("sync_binlog", 1),
        ("innodb_flush_log_at_trx_commit", 1),
        ("have_ssl", "YES"),
    ):
        assert running.value(f"SELECT @@global.{name}") == value, name
    assert float(running.value("SELECT @@global.expire_logs_days")) == 7
    assert running.value("SELECT @@log_bin_basename").endswith("/mariadb-bin")


@pytest.mark.real
def test_users_are_no_transactions_and_made_twice_are_the_same(
    server: tuple[Server, Config, Path],
) -> None:
    running, made, folder = server
    written = running.value("SELECT @@gtid_binlog_pos")
    held = running.rows("SELECT user, host, priv FROM mysql.global_priv ORDER BY user, host")
    make_users(running, made, folder)
    assert running.value("SELECT @@gtid_binlog_pos") == written
    after = running.rows("SELECT user, host, priv FROM mysql.global_priv ORDER BY user, host")
    assert [each["user"] for each in after] == [each["user"] for each in held]
    assert running.rows(f"SHOW GRANTS FOR {AGENT}@localhost")


@pytest.mark.real
def test_the_agent_may_do_what_a_failover_needs(server: tuple[Server, Config, Path]) -> None:
    running = server[0]
    for statement in (
        "SHOW SLAVE STATUS",
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1'",
        "STOP SLAVE",
        "RESET SLAVE ALL",
        "SET GLOBAL read_only = 0",
        "FLUSH TABLES WITH READ LOCK; SET GLOBAL read_only = 1; UNLOCK TABLES",
        "SELECT @@gtid_binlog_state, @@gtid_binlog_pos, @@gtid_current_pos, @@gtid_slave_pos",
        "SELECT MASTER_GTID_WAIT('', 0)",
        "SHOW MASTER STATUS; SHOW BINARY LOGS",
        "SHOW GLOBAL STATUS LIKE 'rpl_semi_sync%'",
        "SHOW CREATE USER understudy_repl@127.0.0.1; SHOW GRANTS FOR understudy_repl@127.0.0.1",
    ):
        assert may(running, statement) == "", statement


@pytest.mark.real
def test_the_agent_may_read_all_of_the_databases_and_write_none(
    server: tuple[Server, Config, Path],
) -> None:
    running = server[0]
    words = ("--single-transaction", "--gtid", "--master-data=1", "--routines", "--events")
    done = as_agent(running, "mariadb-dump", *words, "--databases", "asterisk", "call_detail")
    assert done.returncode == 0, done.stderr
    for each in (
        "TRIGGER",
        "FUNCTION `one`",
        "EVENT `daily`",
        "VIEW `all_users`",
        "gtid_slave_pos",
    ):
        assert each in done.stdout, each
    running.do("SET GLOBAL read_only = 0")
    assert "denied" in may(running, "INSERT INTO asterisk.users VALUES (1)")
    assert "denied" in may(running, "UPDATE mysql.global_priv SET user = user")
    running.do("CREATE DATABASE understudy_loading")
    seen = "SELECT schema_name FROM information_schema.schemata"
    assert "understudy_loading" in as_agent(running, "mariadb", "--execute", seen).stdout
    # `_` of call_detail means itself.
    assert "denied" in may(running, "SELECT * FROM callXdetail.other")


@pytest.mark.real
def test_the_other_node_comes_with_the_password_and_tls_or_not_at_all(
    server: tuple[Server, Config, Path],
) -> None:
    running, _, folder = server

    def comes(password: str, *words: str) -> str:
        file = folder / "client.cnf"
        quoted = password.replace("\\", "\\\\").replace('"', '\\"')
        file.write_text(f'[client]\npassword="{quoted}"\n')
        argv = ["mariadb", f"--defaults-file={file}", "--protocol=tcp", "--host=127.0.0.2"]
        argv += [f"--port={running.port}", "--user=understudy_repl", *words]
        done = subprocess.run(
            [*argv, "--execute", "SHOW GRANTS; SELECT * FROM asterisk.users"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout + done.stderr

    said = comes(
        PASSWORD, "--ssl", f"--ssl-ca={folder / 'understudy.crt'}", "--ssl-verify-server-cert"
    )
    assert "GRANT REPLICATION SLAVE ON *.*" in said
    assert "SELECT command denied" in said
    assert "Access denied for user" in comes(PASSWORD, "--skip-ssl")
    assert "Access denied for user" in comes("wrong", "--ssl")


def test_a_user_of_the_administrators_own_gets_the_rights_by_hand(tmp_path: Path) -> None:
    found = of(copying(tmp_path, user="backup"), "pbx01")
    assert "unix_socket" not in one(found, mariadb.USERS).text
    (told,) = [each.by_hand for each in found if "GRANT" in "".join(each.by_hand)]
    assert told == mariadb.grants("backup", ("asterisk", "call_detail"))
