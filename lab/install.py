"""Understudy on the hosts, as an administrator puts it there: the package, then what `understudy init` says.

It is done once, on hosts that have booted, and kept: what it wrote becomes a layer of each host's file system.
So a host that is reset comes back installed, and its agent has never run.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import image, machines, network
from .hosts import CHECKPOINTS, HERE, HOME, HOSTS, IMAGE, NODES, LabError
from .profile import KEY, Profile, configuration

PROJECT = HERE.parent
LAYERS = HOME / "installed"  # One folder for each host; and `package`, which is below both nodes.
STAMP = LAYERS / "stamp"
CONFIG = "etc/understudy/understudy.toml"
NAMESERVER = "dns1"  # `nameserver` to init.
INSTALLED = (*NODES, *CHECKPOINTS, NAMESERVER)
# What the installation leaves that is none of it.
LITTER = (
    "var/log/journal",
    "var/lib/systemd",
    "run",
    "tmp",
    "var/tmp",
    "var/lib/understudy/.cache",
)


def build(profile: Profile) -> None:
    """Install anew if the sources, the hosts or the numbers have changed.  Raises LabError."""
    image.need()
    now = _stamp(profile)
    if STAMP.exists() and _is_as_it_should_be(STAMP.read_text(), now):
        return
    for name in INSTALLED:
        machines.forget(name)
    shutil.rmtree(LAYERS, ignore_errors=True)
    LAYERS.mkdir(parents=True)
    _package()
    network.up()
    for name in INSTALLED:
        machines.make(name, layers=_package_layer(name))
    machines.start(INSTALLED)
    if profile.data:
        _data()
    _init(profile)
    machines.power_off(INSTALLED)
    for name in INSTALLED:
        _keep(name)
    STAMP.write_text(now)


def _is_as_it_should_be(was: str, now: str) -> bool:
    # LAB_AS_IS: whoever works on the tests wants no new package after each change of the sources.
    return was == now or bool(os.environ.get("LAB_AS_IS") and was.split()[0] == now.split()[0])


def layers(name: str) -> tuple[Path, ...]:
    """Above the image, the highest first."""
    return (LAYERS / name, *_package_layer(name)) if name in INSTALLED else ()


def isolate(name: str, root: Path, isolation: dict[str, str]) -> None:
    """The one setting that tests change from run to run: written into the file as it is."""
    if name not in NODES:
        return
    text = (root / CONFIG).read_text(encoding="utf-8")
    for node, value in isolation.items():
        text = re.sub(rf'(\[nodes\.{node}\][^[]*isolation = )"\w+"', rf'\1"{value}"', text)
    (root / CONFIG).write_text(text, encoding="utf-8")


def package() -> Path:
    """The .deb that `build` has installed."""
    return next((HOME / "package").glob("understudy_*.deb"))


def _package() -> None:
    """Built by the distribution's own Python, and installed by its dpkg."""
    out = HOME / "package"
    shutil.rmtree(out, ignore_errors=True)
    built = _run(str(PROJECT / "script/build_deb"), "--root", str(IMAGE), "--out", str(out))
    deb = Path(built.strip().splitlines()[-1])
    layer, work, root = LAYERS / "package", HOME / "work", HOME / "root"
    for folder in (layer, work, root):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={IMAGE},upperdir={layer},workdir={work}"
    _run("mount", "-t", "overlay", "lab-package", "-o", options, str(root))
    try:
        shutil.copy(deb if deb.is_absolute() else PROJECT / deb, root / "understudy.deb")
        image.inside(root, "dpkg -i /understudy.deb && rm /understudy.deb")
    finally:
        _run("umount", str(root))
        shutil.rmtree(work)
        root.rmdir()


def _data() -> None:
    """A MariaDB on each node, and the PBX's database on the one that serves first: the other gets it as a copy."""
    for node in NODES:
        host = HOSTS[node]
        machines.render(HERE / "conf/data", host, host.folder / "root")
        # Where Asterisk would make them with the first message, and the first recording.
        folders = ("/var/spool/asterisk/voicemail", "/var/spool/asterisk/monitor")
        words = ("install", "-d", "-o", "asterisk", "-g", "asterisk", "-m", "2750")
        machines.execute(node, *words, *folders, check=True)
        machines.execute(node, "systemctl", "enable", "--now", "mariadb", check=True, timeout=60)
        # As mariadb-secure-installation does it.
        machines.execute(node, "mariadb", "-e", "DROP DATABASE IF EXISTS test", check=True)
    machines.execute(NODES[0], "sh", "-c", "mariadb </root/cdr.sql", check=True)


def _init(profile: Profile) -> None:
    """What docs/how-to/prepare-hosts.md tells an administrator to type."""
    key = (HERE / "conf/dns1/etc/bind/understudy.key").read_text(encoding="utf-8")
    first, second = NODES
    for path, text in ((CONFIG, configuration(profile)), (KEY, key)):
        words = (
            "install",
            "-D",
            "-m",
            "640",
            "-g",
            "understudy",
            "/dev/stdin",
            f"/{path.lstrip('/')}",
        )
        machines.execute(first, *words, stdin=text, check=True)
    _understudy(first, "init", "--install")
    _understudy(first, "init", "--output", "/root/hosts")
    _bring(first, second, second)
    line = _understudy(second, "init", "--keys").strip()
    _understudy(first, "init", "--install", "--peer-keys", line)
    line = _understudy(first, "init", "--keys").strip()
    _understudy(second, "init", "--install", "--peer-keys", line)
    for name in CHECKPOINTS:
        _bring(first, name, name)
    _bring(first, "nameserver", NAMESERVER)
    for node in NODES:
        machines.execute(
            node,
            "systemctl",
            "enable",
            "understudy-guard",
            "understudy-door",
            "understudy",
            check=True,
        )


def _understudy(node: str, *words: str) -> str:
    return machines.execute(node, "understudy", *words, check=True, timeout=60).stdout


def _bring(source: str, folder: str, host: str) -> None:
    """scp -rp, without a password: the laboratory reaches into both."""
    there = HOSTS[source].folder / "root/root/hosts" / folder
    target = HOSTS[host].folder / "root/root" / folder
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(there, target)
    machines.execute(host, "sh", f"/root/{folder}/install.sh", check=True, timeout=60)


def _keep(name: str) -> None:
    host = HOSTS[name]
    machines.unmount(host)
    for litter in LITTER:
        shutil.rmtree(host.folder / "up" / litter, ignore_errors=True)
    (host.folder / "up").rename(LAYERS / name)
    shutil.rmtree(host.folder)


def _package_layer(name: str) -> tuple[Path, ...]:
    return (LAYERS / "package",) if name in NODES else ()


def _stamp(profile: Profile) -> str:
    """Of the profile, and of all else that goes into it."""
    numbers = hashlib.blake2b(repr(profile).encode()).hexdigest()
    digest = hashlib.blake2b()
    for path in _sources():
        state = path.stat()
        digest.update(json.dumps([str(path), state.st_mtime_ns, state.st_size]).encode())
    return f"{numbers} {digest.hexdigest()}"


def _sources() -> Iterator[Path]:
    yield PROJECT / "pyproject.toml"
    for top in ("src", "packaging", "requirements", "lab"):
        for path in sorted((PROJECT / top).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _run(*argv: str) -> str:
    done = subprocess.run(argv, text=True, capture_output=True, check=False, timeout=600)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise LabError(f"{Path(argv[0]).name} failed:\n{tail}")
    return done.stdout
