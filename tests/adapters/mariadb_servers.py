"""Starts real MariaDB servers for a test, as hosts/ configures them: read-only at boot, TLS, semi-synchronous.

Each listens at a port of 127.0.0.1, and at a socket where whoever runs the tests is its administrator.
"""

import atexit
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adapters import certificates
from adapters.bind import free_port
from understudy.adapters.copies.mariadb.sql import Sql
from understudy.errors import AdapterError

PROGRAMS = (
    "mariadbd",
    "mariadb-install-db",
    "mariadb-dump",
    "mariadb-binlog",
    "mariadb",
    "openssl",
)
OPTIONS = (
    "log-bin=binlog",
    "log-slave-updates",
    "binlog-format=ROW",
    "gtid-strict-mode=ON",
    "read-only=ON",
    "rpl-semi-sync-master-enabled=ON",
    "rpl-semi-sync-slave-enabled=ON",
    "rpl-semi-sync-master-timeout=2000",
    "rpl-semi-sync-slave-kill-conn-timeout=1",
    "slave-net-timeout=5",
    "sync-binlog=1",
    "skip-name-resolve",
    "bind-address=127.0.0.1",
    "innodb-log-file-size=8M",
    "innodb-buffer-pool-size=16M",
    "key-buffer-size=1M",
    "performance-schema=OFF",
)


@dataclass
class Server:
    """One mariadbd, ended by its own pid."""

    folder: Path
    sockets: Path  # A short path: a socket's may have 107 bytes (unix(7)).
    number: int  # Its server-id.
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        return self.sockets / f"{self.number}.sock"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def certificate_authority(self) -> Path:
        return _template() / "ca.pem"

    def start(self) -> None:
        tls = _template()
        words = (
            *OPTIONS,
            f"server-id={self.number}",
            f"datadir={self.folder / 'data'}",
            f"socket={self.socket}",
            f"port={self.port}",
            f"pid-file={self.folder / 'pid'}",
            f"ssl-ca={tls / 'ca.pem'}",
            f"ssl-cert={tls / 'server.pem'}",
            f"ssl-key={tls / 'server.key'}",
            f"user={getpass.getuser()}",
            *self.options,
        )
        argv = [_program("mariadbd"), "--no-defaults", *(f"--{each}" for each in words)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                with Sql(self.socket):
                    return
            except AdapterError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"mariadbd did not start: {error}\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def stop(self) -> None:
        """In order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a power cut, but for what the kernel still writes."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def rows(self, sql: str, *args: object) -> list[dict[str, Any]]:
        with Sql(self.socket, within=30.0) as db:
            return db.rows(sql, args)

    def value(self, sql: str, *args: object) -> Any:
        with Sql(self.socket, within=30.0) as db:
            return db.value(sql, args)

    def do(self, *statements: str) -> None:
        """In one connection."""
        with Sql(self.socket, within=30.0) as db:
            for each in statements:
                db.do(each)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)
            self.process = None


@contextmanager
def servers(folder: Path, count: int = 2, *, options: Sequence[str] = ()) -> Iterator[list[Server]]:
    """Empty ones that run, with the server-ids 1 and so on; their files are in `folder`."""
    need_programs()
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="maria-")))
        sockets.chmod(0o755)  # For other users, as in life: the server knows them by it.
        made = []
        for number in range(1, count + 1):
            home = folder / f"mariadb{number}"
            shutil.copytree(_template() / "data", home / "data")
            server = Server(home, sockets, number, free_port(), tuple(options))
            stack.callback(server.kill)
            server.start()
            made.append(server)
        yield made


def need_programs() -> None:
    """Skip loudly where a Debian package is missing; fail where that must not be."""
    missing = [each for each in PROGRAMS if shutil.which(each, path=_path()) is None]
    if missing:
        reason = f"NOT TESTED: {', '.join(missing)} missing: apt-get install mariadb-server-core mariadb-client openssl"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


def _program(name: str) -> str:
    found = shutil.which(name, path=_path())
    assert found is not None
    return found


@cache
def _template() -> Path:
    """A fresh data folder and a certificate, made once by each process that runs tests."""
    home = Path(tempfile.mkdtemp(prefix="maria-template-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    user = getpass.getuser()
    argv = [
        _program("mariadb-install-db"),
        "--no-defaults",
        f"--user={user}",
        f"--datadir={home / 'data'}",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={user}",
        "--skip-test-db",
        "--innodb-log-file-size=8M",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    certificates.authority(home, "ca")
    certificates.sign(home, "server", "ca", "subjectAltName=IP:127.0.0.1")
    return home
