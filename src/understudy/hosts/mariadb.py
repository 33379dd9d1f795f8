"""What MariaDB needs on a node so that the two nodes' servers can copy from each other.

Its settings, a certificate, and two users: the agent's, who comes by the socket and needs no password
(https://mariadb.com/kb/en/authentication-plugin-unix-socket/), and the other node's, who comes over TLS with one.
Users are made on each node by itself: `sql_log_bin` is off, so that they are no transactions that only one node has.

The rights were tried one by one with MariaDB 10.11 and 11.8; they have had these names since 10.5.9
(https://mariadb.com/kb/en/grant/).
"""

import ipaddress
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from understudy.adapters.copies.mariadb.settings import LOADING, Settings
from understudy.config.schema import Config
from understudy.config.values import is_ip

from .piece import Choices, Piece, other_node

FOLDER = "/etc/mysql/mariadb.conf.d"
SERVER = f"{FOLDER}/90-understudy.cnf"  # After the administrator's: what copying needs must hold.
TLS = f"{FOLDER}/10-understudy-tls.cnf"  # Before it: an administrator's certificate goes first.
CERTIFICATE, KEY = "/etc/mysql/understudy.crt", "/etc/mysql/understudy.key"
USERS = "/etc/understudy/mariadb-users.sql"
DAYS = 3650  # That the certificate is good for.

EVERYWHERE = (
    "BINLOG MONITOR",  # What has been written: SHOW MASTER STATUS, SHOW BINARY LOGS.
    "READ_ONLY ADMIN",  # SET GLOBAL read_only.
    "RELOAD",  # FLUSH TABLES WITH READ LOCK, RESET SLAVE.
    "REPLICATION SLAVE ADMIN",  # STOP SLAVE, CHANGE MASTER.
    "SLAVE MONITOR",  # SHOW SLAVE STATUS.
)
"""The rights of the agent's user on *.*, as SHOW GRANTS names them."""

EACH_DATABASE = ("EVENT", "SELECT", "SHOW VIEW", "TRIGGER")
"""Its rights on each database that is dumped.  Without TRIGGER mariadb-dump leaves triggers out, and says nothing."""

SYSTEM = "`mysql`.*"
"""Must be readable: a new standby is given the users, with the hashes of their passwords, and functions and procedures,
which mariadb-dump otherwise leaves out, and says nothing."""


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    """None where there is no [copies.NAME] of this kind."""
    found = chosen(config)
    if not found:
        return ()
    return tuple(piece for node in config.nodes for piece in _of_node(node, found, config, choices))


def chosen(config: Config) -> tuple[Settings, ...]:
    """Of each [copies.NAME] of this kind."""
    return tuple(c.settings for c in config.copies.values() if isinstance(c.settings, Settings))


def server_id(config: Config, node: str) -> int:
    """1 for the node that the configuration names first, and 2 for the other."""
    return list(config.nodes).index(node) + 1


def on_database(name: str) -> str:
    r"""As GRANT wants it, and SHOW GRANTS shows it: `_` alone would be any character there."""
    return f"`{name.replace('_', chr(92) + '_')}`.*"


def _of_node(
    node: str, found: Sequence[Settings], config: Config, choices: Choices
) -> Iterator[Piece]:
    for file in dict.fromkeys(each.replication_password_file for each in found):
        yield _password(node, file, config)
    yield _certificate(node, config)
    yield _tls(node)
    yield _server(node, found[0], config)
    yield _statements(node, found, config, choices)
    yield _users(node, found[0])
    yield from _users_by_hand(node, found)


# The password


def _password(node: str, file: Path, config: Config) -> Piece:
    """The first node to be prepared makes it; what `init --output` writes there brings it to the other."""
    text = _text(file)
    why = "The password by which the other node's MariaDB is known; the same on both nodes."
    if text:
        return Piece(
            host=node, path=str(file), text=text, mode=0o600, secret=True, first=True, why=why
        )
    quoted = shlex.quote(str(file))
    if node == config.pair.preferred:
        make = f"umask 077; mkdir -p {shlex.quote(str(file.parent))}; openssl rand -hex 24 >{quoted}.new"
        return Piece(
            host=node,
            why=why,
            then=(f"test -s {quoted} || {{ {make} && mv {quoted}.new {quoted}; }}",),
        )
    first = config.pair.preferred
    return Piece(
        host=node,
        why=why,
        by_hand=(
            f"once {first} has been prepared, there: understudy init --output DIR; it brings {file} here too",
        ),
    )


def _text(file: Path) -> str:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if not text or text.endswith("\n") else f"{text}\n"


# The server


def _certificate(node: str, config: Config) -> Piece:
    """One of its own: MariaDB has made itself one since 11.4 alone."""
    address = config.nodes[node].address
    subject = f"{'IP' if is_ip(address) else 'DNS'}:{address}"
    new = f"{CERTIFICATE}.new"
    make = (
        f"umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days {DAYS} "
        f"-subj {shlex.quote(f'/CN={node}')} -addext {shlex.quote(f'subjectAltName={subject}')} "
        f"-keyout {KEY} -out {new} 2>/dev/null && chown mysql: {KEY} && chmod 400 {KEY} && chmod 644 {new} "
        # The certificate comes last: with it there, all is done.
        f"&& mv {new} {CERTIFICATE}"
    )
    return Piece(
        host=node,
        why="A certificate for MariaDB: what is copied is not to be read on the way.  Its key never leaves this node.",
        then=(f"test -s {CERTIFICATE} || {{ {make}; }}",),
        only_if=FOLDER,
    )


def _tls(node: str) -> Piece:
    return Piece(
        host=node,
        path=TLS,
        text=(
            "# Understudy (understudy init): where no other file here names a certificate, this one.\n"
            f"[mysqld]\nssl-cert = {CERTIFICATE}\nssl-key = {KEY}\n"
        ),
        why="MariaDB speaks TLS to the other node's.",
        only_if=FOLDER,
    )


def _server(node: str, settings: Settings, config: Config) -> Piece:
    bind = "0.0.0.0" if all(_is_ipv4(each.address) for each in config.nodes.values()) else "*"  # noqa: S104
    return Piece(
        host=node,
        path=SERVER,
        text=(
            "# Understudy (understudy init): what the two nodes' servers need to copy from each other.\n"
            "[mysqld]\n"
            "# Whoever serves is opened by its agent.  A node that comes back at night takes no writes.\n"
            "read-only = ON\n"
            f"server-id = {server_id(config, node)}\n"
            "# Both write a log, as each copies from the other one day.\n"
            "log-bin = mariadb-bin\n"
            "relay-log = mariadb-relay-bin\n"
            "log-slave-updates = ON\n"
            "binlog-format = ROW\n"
            "binlog-annotate-row-events = ON\n"
            "gtid-strict-mode = ON\n"
            "# By rows this is safe; without it applications could make no functions any more.\n"
            "log-bin-trust-function-creators = ON\n"
            "# What was acknowledged is on the disk.\n"
            "sync-binlog = 1\n"
            "innodb-flush-log-at-trx-commit = 1\n"
            "# ... and at the standby too; milliseconds after which the active node goes on without it.\n"
            "rpl-semi-sync-master-enabled = ON\n"
            "rpl-semi-sync-slave-enabled = ON\n"
            "rpl-semi-sync-master-timeout = 1000\n"
            "# Seconds: a server that is gone keeps a take-over no longer than this.\n"
            "rpl-semi-sync-slave-kill-conn-timeout = 1\n"
            "# Seconds until a standby sees that the connection is dead, and makes another.\n"
            "slave-net-timeout = 10\n"
            "# A standby that was away for longer is given everything anew.  The disk of the active one is finite,\n"
            "# whether anybody is connected or not (MariaDB >= 11.4 would wait).\n"
            "expire-logs-days = 7\n"
            "loose-slave-connections-needed-for-purge = 0\n"
            "# The other node comes in here: the firewall should let nobody else.\n"
            f"bind-address = {bind}\n"
            f"port = {settings.port}\n"
        ),
        why="Each node's MariaDB can copy from the other's, and takes no writes before its agent says so.",
        # A wrong line would be found when MariaDB is started next, which may be at night.
        then=("mariadbd --verbose --help >/dev/null",),
        by_hand=(
            "systemctl restart mariadb, once the agent runs here, on the standby first: the PBX's database is away "
            "for a second, and read-only until the agent opens it again, within two",
        ),
        only_if=FOLDER,
    )


def _is_ipv4(address: str) -> bool:
    return is_ip(address) and ipaddress.ip_address(address).version == 4


# The users


def grants(user: str, databases: Iterable[str]) -> tuple[str, ...]:
    """The statements that give `user`, of this machine, the agent's rights."""
    who = f"`{user}`@`localhost`"
    return (
        f"GRANT {', '.join(EVERYWHERE)} ON *.* TO {who};",
        *(
            f"GRANT {', '.join(EACH_DATABASE)} ON {on_database(name)} TO {who};"
            for name in databases
        ),
        f"GRANT SELECT ON {SYSTEM} TO {who};",
        # A database that nobody may read is not seen: while it stands, what is in place is not whole.
        f"GRANT SELECT ON {on_database(LOADING)} TO {who};",
    )


def _statements(node: str, found: Sequence[Settings], config: Config, choices: Choices) -> Piece:
    lines = []
    if any(not each.user for each in found):
        agent = f"`{choices.user}`@`localhost`"
        lines += [
            "",
            "-- The agent, and whoever answers the other node's copier.",
            f"CREATE USER IF NOT EXISTS {agent} IDENTIFIED VIA unix_socket;",
            f"ALTER USER {agent} IDENTIFIED VIA unix_socket;",
            *grants(choices.user, _databases(found, "")),
        ]
    other = config.nodes[other_node(config, node)].address
    source = str(ipaddress.ip_address(other)) if is_ip(other) else "%"
    for name in dict.fromkeys(each.replication_user for each in found):
        whole = f"`{name}`@`{source}` IDENTIFIED BY ', QUOTE(@password), ' REQUIRE SSL"
        lines += [
            "",
            "-- The other node's server.  @password is set before these lines, from its file.",
            f"EXECUTE IMMEDIATE CONCAT('CREATE USER IF NOT EXISTS {whole}');",
            f"EXECUTE IMMEDIATE CONCAT('ALTER USER {whole}');",
            f"GRANT REPLICATION SLAVE ON *.* TO `{name}`@`{source}`;",
        ]
    return Piece(
        host=node,
        path=USERS,
        text=(
            "-- Understudy (understudy init): who may do what in MariaDB.  The other node has its own.\n"
            "SET sql_mode = '', sql_log_bin = 0;\n" + "\n".join(lines) + "\n"
        ),
        why="The agent may open, close and read MariaDB, and change no row; the other node may copy, and nothing else.",
    )


def _users(node: str, settings: Settings) -> Piece:
    """The password goes in as hexadecimal on standard input: in no command line, and nothing in it is special."""
    file, socket = (
        shlex.quote(str(each)) for each in (settings.replication_password_file, settings.socket)
    )
    return Piece(
        host=node,
        why=f"MariaDB knows the users of {USERS}.",
        then=(
            f"test -s {file} || {{ echo {file} is not here yet >&2; exit 1; }}; "
            # As the copier reads it: without the line feed at its end.
            f"hex=$(od -An -v -tx1 {file} | tr -d ' \\n'); "
            f'{{ printf "SET @password = UNHEX(\'%s\');\\n" "${{hex%0a}}"; cat {USERS}; }} '
            f"| mariadb --socket={socket}",
        ),
    )


def _users_by_hand(node: str, found: Sequence[Settings]) -> Iterator[Piece]:
    for name in dict.fromkeys(each.user for each in found if each.user):
        yield Piece(
            host=node,
            why=f"MariaDB's user {name}, whom the configuration names, must have the agent's rights.",
            by_hand=grants(name, _databases(found, name)),
        )


def _databases(found: Sequence[Settings], user: str) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(name for each in found if each.user == user for name in each.databases)
    )
