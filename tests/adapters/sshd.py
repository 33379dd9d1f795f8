"""A real sshd on loopback, with keys of its own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.bind import free_port


@dataclass(frozen=True)
class Sshd:
    """It lets root in with the key `user` in `folder`, as `authorize` says; `known_hosts` there knows it."""

    folder: Path
    port: int

    def authorize(self, options: str) -> None:
        """sshd(8), AUTHORIZED_KEYS FILE FORMAT."""
        key = (self.folder / "user.pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{options} {key}".lstrip())


@contextmanager
def daemon(folder: Path, *, root_login: str) -> Iterator[Sshd]:
    """`folder` is to be made; `root_login` is sshd_config(5)'s PermitRootLogin."""
    program = _need_program()
    folder.mkdir(mode=0o700)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Its own, compiled in.
    for name in ("host", "user"):
        make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        subprocess.run(make, check=True, timeout=30)
    port = free_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPermitRootLogin {root_login}\n"
    )
    process = subprocess.Popen(
        [program, "-D", "-e", "-f", str(folder / "config")], stderr=subprocess.DEVNULL
    )
    try:
        _await_banner(port)
        yield Sshd(folder, port)
    finally:
        process.kill()
        process.wait(timeout=10)


def _need_program() -> str:
    if os.geteuid() != 0:
        pytest.skip("SKIPPED FOR WANT OF ROOT: sshd lets nobody else in")
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("needs sshd and ssh (apt install openssh-server openssh-client)")
        pytest.skip("SKIPPED: needs sshd and ssh (apt install openssh-server openssh-client)")
    return program


def _await_banner(port: int) -> None:
    """Until sshd has said what it is."""
    give_up = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                assert line.recv(4) == b"SSH-"
                return
        except OSError:
            assert time.monotonic() < give_up, "sshd does not listen"
            time.sleep(0.05)
