"""Copies by rsync: whole snapshots or none, nothing but what is configured, and no wiped source empties a standby."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.sshd import daemon
from understudy.adapters.copies.rsync import Rsync, Settings, put
from understudy.adapters.copies.rsync.difference import difference
from understudy.adapters.copies.threads import in_thread
from understudy.adapters.peers.ssh import over_ssh
from understudy.config.settings import Seconds
from understudy.errors import ConfigError, Denied, Unreachable, told
from understudy.ports import Pulled, Source

CODE = Path(__file__).parents[2] / "src"
FAR_SIDE = """
import json, os, sys
from pathlib import Path
from understudy.adapters.copies.rsync import Rsync, Settings
from understudy.errors import UnderstudyError, told

known = json.loads(Path(__file__).with_suffix(".json").read_text())
line = os.environ.get("SSH_ORIGINAL_COMMAND") or " ".join(sys.argv[1:])
copy, name, epoch, *words = line.split(" ")
assert (copy, name, epoch) == ("copy", "etc", "7"), line
if known["user"]:
    os.setgroups([])
    os.setgid(known["user"])
    os.setuid(known["user"])
try:
    settings = Settings(paths=tuple(map(Path, known["paths"])))
    Rsync("etc", settings, node="pbx01", folder=Path("/nowhere")).serve(words)
except UnderstudyError as error:
    print(f"understudy: {told(error)}", file=sys.stderr)
    sys.exit(1)
"""


@dataclass(frozen=True)
class Pair:
    """Both nodes on one machine: what is in `data` is the source's for a pull, and the standby's for a put."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data" / "asterisk"

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.data / name).parent.mkdir(parents=True, exist_ok=True)
            (self.data / name).write_text(text)

    def copy(self, *, node: str = "pbx02", **changed: Any) -> Rsync:
        settings = Settings(**{"paths": (self.data,), **changed})
        return Rsync("etc", settings, node=node, folder=self.folder / "store")

    def far(self, *paths: Path, user: int = 0) -> tuple[str, ...]:
        """The command that reaches the source."""
        script = self.folder / "far.py"
        script.write_text(FAR_SIDE)
        known = {"paths": [str(path) for path in paths or (self.data,)], "user": user}
        script.with_suffix(".json").write_text(json.dumps(known))
        return ("env", f"PYTHONPATH={CODE}", sys.executable, str(script))

    def pull(self, copy: Rsync | None = None, reach: Sequence[str] | None = None) -> Pulled:
        return asyncio.run((copy or self.copy()).pull(self.source(reach)))

    def source(self, reach: Sequence[str] | None = None) -> Source:
        return Source(node="pbx01", epoch=7, reach=tuple(reach or self.far()))

    def put(self, copy: Rsync | None = None) -> bool:
        return asyncio.run((copy or self.copy()).put())

    def snapshots(self) -> list[Path]:
        """The folder copied, in each snapshot, the oldest first."""
        found = sorted((self.folder / "store").glob("2*Z"))
        return [each / "root" / self.data.relative_to("/") for each in found]

    def script(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """With something of everything."""
    made = Pair(tmp_path)
    made.write(
        {"extensions.conf": "exten => 100", "keys/ca.pem": "secret", "moh/a.wav": 9999 * "~"}
    )
    (made.data / "empty").mkdir(mode=0o750)
    (made.data / "link").symlink_to("../nowhere")
    (made.data / "keys" / "ca.pem").chmod(0o640)
    os.utime(made.data / "extensions.conf", ns=(1, 1_600_000_000_123_456_789))
    return made


def shape(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that counts about a tree."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            what: tuple[object, ...] = (path.readlink(),)
        elif path.is_dir():
            what = ()
        else:
            what = (path.read_bytes(), status.st_mtime_ns)
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, status.st_gid, *what)
    return found


# Pull


def test_the_first_pull_brings_everything(pair: Pair) -> None:
    pulled = pair.pull()
    assert (pulled.changed, pulled.files) == (True, 4)
    assert pulled.bytes > 9999
    (snapshot,) = pair.snapshots()
    assert shape(snapshot) == shape(pair.data)
    assert snapshot.stat().st_mtime_ns == pair.data.stat().st_mtime_ns
    assert sorted(each.name for each in (pair.folder / "store").iterdir()) == [
        snapshot.relative_to(pair.folder / "store").parts[0]
    ]


def test_a_pull_that_brings_nothing_new_leaves_nothing(pair: Pair) -> None:
    pair.pull()
    lock = pair.data / "x.lock"
    lock.touch()
    copy = pair.copy(exclude=("*.lock",))
    assert pair.pull(copy) == Pulled(changed=False)
    lock.unlink()  # The folder's time has changed twice.
    assert pair.pull(copy) == Pulled(changed=False)
    assert len(list((pair.folder / "store").iterdir())) == 1


def change_in_the_same_second(data: Path) -> None:
    status = (data / "extensions.conf").stat()
    (data / "extensions.conf").write_text("exten => 101")
    os.utime(data / "extensions.conf", ns=(1, status.st_mtime_ns + 1))


def become_a_folder(data: Path) -> None:
    (data / "extensions.conf").unlink()
    (data / "extensions.conf").mkdir()


def point_elsewhere(data: Path) -> None:
    (data / "link").unlink()
    (data / "link").symlink_to("../elsewhere")


@pytest.mark.parametrize(
    ("change", "files"),
    [
        (lambda data: (data / "extensions.conf").write_text("exten => 100,1"), 1),
        (change_in_the_same_second, 1),
        (lambda data: os.utime(data / "extensions.conf"), 1),
        (lambda data: (data / "new.conf").touch(), 1),
        (lambda data: (data / "extensions.conf").unlink(), 0),
        (lambda data: (data / "empty").rmdir(), 0),
        (lambda data: (data / "empty" / "folder").mkdir(), 0),
        (lambda data: (data / "keys" / "ca.pem").chmod(0o600), 1),
        (lambda data: data.chmod(0o700), 0),
        (lambda data: (data / "keys").rename(data / "key"), 1),
        (become_a_folder, 0),
        (point_elsewhere, 1),
    ],
)
def test_every_change_makes_a_new_snapshot_and_leaves_the_old_one(
    pair: Pair, change: Any, files: int
) -> None:
    before = shape(pair.data)
    pair.pull()
    change(pair.data)
    pulled = pair.pull()
    assert (pulled.changed, pulled.files) == (True, files)
    old, new = pair.snapshots()
    assert shape(old) == before
    assert shape(new) == shape(pair.data) != before
    assert (old / "moh" / "a.wav").samefile(new / "moh" / "a.wav")
    assert pair.pull() == Pulled(changed=False)


def test_where_times_are_of_whole_seconds_the_content_tells(tmp_path: Path) -> None:
    # On such a disk rsync links nothing, and what it writes gets the time of what was there before.
    new, old = tmp_path / "new", tmp_path / "old"

    def is_changed(text: str) -> bool:
        for path, content in ((new, text), (old, "exten => 100")):
            path.write_text(content)
            os.utime(path, ns=(1, 1_600_000_000 * 10**9))
        return difference(new, old).changed

    assert not is_changed("exten => 100")
    assert is_changed("exten => 101")


def test_a_path_may_be_a_file(pair: Pair) -> None:
    one, other = pair.data / "extensions.conf", pair.data / "keys"
    reach = pair.far(one, other)
    copy = pair.copy(paths=(one, other), exclude=("*.conf",))
    assert pair.pull(copy, reach).files == 2
    assert pair.pull(copy, reach) == Pulled(changed=False)
    one.write_text("changed")
    assert pair.pull(copy, reach).files == 1
    old, new = pair.snapshots()
    assert (new / "extensions.conf").read_text() == "changed"
    assert (old / "keys" / "ca.pem").samefile(new / "keys" / "ca.pem")


def test_what_is_excluded_is_left_alone_at_both_ends(pair: Pair) -> None:
    pair.write(
        {
            "a.lock": "1",
            "keys/b.lock": "1",
            "asterisk": "1",
            "asterisk.pid": "1",
            "keys/asterisk.pid": "1",
        }
    )
    # The second is the name of the path itself as well.
    copy = pair.copy(exclude=("*.lock", "asterisk", "/asterisk.pid"))
    pair.pull(copy)
    (snapshot,) = pair.snapshots()
    gone = {"a.lock", "keys/b.lock", "asterisk", "asterisk.pid"}
    assert shape(pair.data).keys() - shape(snapshot).keys() == gone

    pair.write({"a.lock": "2", "keys/b.lock": "2", "asterisk.pid": "2", "keys/asterisk.pid": "2"})
    (pair.data / "asterisk").unlink()
    assert pair.put(copy)
    assert (pair.data / "a.lock").read_text() == "2"
    assert (pair.data / "keys" / "b.lock").read_text() == "2"
    assert (pair.data / "asterisk.pid").read_text() == "2"
    assert (pair.data / "keys" / "asterisk.pid").read_text() == "1"
    assert not (pair.data / "asterisk").exists()


def test_the_way_there_may_have_any_signs(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.write({"a.conf": "1"})
    odd = Pair(tmp_path / 'it\'s "the" $HOME `way`\\ there *')
    odd.folder.mkdir()
    assert pair.pull(reach=odd.far(pair.data)).files == 1


# What a pull does not believe


def fill(pair: Pair, count: int) -> None:
    shutil.rmtree(pair.data)
    pair.write({f"{number}.conf": "x" for number in range(count)})


def test_a_source_that_lost_most_of_its_files_is_not_followed(pair: Pair) -> None:
    fill(pair, 20)
    pair.pull()
    fill(pair, 9)
    with pytest.raises(Denied, match=f"pbx01 has 9 files in {pair.data}, and .* 20") as denied:
        pair.pull()
    assert "understudy copies accept etc." in told(denied.value)
    assert len(list((pair.folder / "store").iterdir())) == 1
    fill(pair, 10)
    assert pair.pull().changed


def test_a_small_source_may_change_much_and_not_become_empty(pair: Pair) -> None:
    fill(pair, 19)
    pair.pull()
    fill(pair, 1)
    pair.pull()
    fill(pair, 0)
    (pair.data / "folder").mkdir(parents=True)
    with pytest.raises(Denied, match=r"pbx01 has 0 files in .* the newest copy has 1"):
        pair.pull()


def test_an_acceptance_lets_one_pull_through(pair: Pair) -> None:
    copy = pair.copy()
    copy.accept()
    fill(pair, 20)
    pair.pull()
    fill(pair, 1)
    with pytest.raises(Denied):
        pair.pull()
    copy.accept()
    with pytest.raises(Unreachable):
        pair.pull(reach=("false",))
    assert pair.pull().changed
    fill(pair, 0)
    pair.data.mkdir()
    with pytest.raises(Denied):
        pair.pull()


def test_an_acceptance_that_was_not_needed_is_used_up(pair: Pair) -> None:
    fill(pair, 20)
    pair.pull()
    pair.copy().accept()
    assert pair.pull() == Pulled(changed=False)
    fill(pair, 1)
    with pytest.raises(Denied):
        pair.pull()


def test_the_first_pull_does_not_empty_the_standby_either(pair: Pair) -> None:
    shutil.rmtree(pair.data)
    pair.data.mkdir()
    # The source is done with it before the standby has files there.
    after = pair.script(
        "after",
        "import subprocess, sys\n"
        f"done = subprocess.run(sys.argv[1:])\nopen({str(pair.data / 'mine')!r}, 'w')\n"
        "sys.exit(done.returncode)",
    )
    with pytest.raises(Denied, match=r"pbx01 has 0 files in .* and pbx02 has 1"):
        pair.pull(reach=(after, *pair.far()))
    (pair.data / "mine").unlink()
    assert pair.pull().changed


def test_a_path_that_is_missing_there_is_named(pair: Pair) -> None:
    pair.pull()
    shutil.rmtree(pair.data)
    with pytest.raises(Denied, match=f"pbx01 has no {pair.data}; the newest copy has 4 files"):
        pair.pull()
    assert len(pair.snapshots()) == 1


def test_what_cannot_be_read_there_is_named(pair: Pair) -> None:
    # Not below pytest's own folder: another user may not look in there.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        data = Path(name) / "data"
        data.mkdir()
        for number in range(5):
            (data / f"{number}.conf").touch()
        (data / "2.conf").chmod(0)
        (data / "4.conf").chmod(0)
        copy = pair.copy(paths=(data,))
        reach = pair.far(data, user=65534 if os.geteuid() == 0 else 0)
        with pytest.raises(Denied) as denied:
            pair.pull(copy, reach)
        assert str(denied.value) == (
            f"not all of {data} could be copied from pbx01: "
            f"{data}/2.conf (Permission denied), {data}/4.conf (Permission denied)"
        )
        assert list((pair.folder / "store").iterdir()) == []
        (data / "2.conf").chmod(0o644)
        (data / "4.conf").chmod(0o644)
        assert pair.pull(copy, reach).files == 5


# Passes everything on, and takes a file away between the source's list and its contents.
RELAY = """
import os, subprocess, sys, threading
victim, *command = sys.argv[1:]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def there():
    while chunk := os.read(0, 65536):
        child.stdin.write(chunk)
        child.stdin.flush()
threading.Thread(target=there, daemon=True).start()
seen = b""
while chunk := os.read(child.stdout.fileno(), 65536):
    seen += chunk
    if os.path.basename(victim).encode() in seen and os.path.exists(victim):
        os.unlink(victim)
    os.write(1, chunk)
sys.stdout.flush()
os._exit(child.wait())
"""


def test_a_file_that_vanishes_meanwhile_is_no_trouble(pair: Pair) -> None:
    victim = pair.data / "vanishing"
    victim.write_text("here")
    relay = pair.script("relay", RELAY)
    assert pair.pull(reach=(relay, str(victim), *pair.far())).files == 4
    assert not victim.exists()
    (snapshot,) = pair.snapshots()
    assert shape(snapshot) == shape(pair.data)


# Whatever goes wrong, the newest snapshot stays

# Passes on a part of what comes, tells its process group, and then nothing more.
STALL = """
import os, subprocess, sys, threading, time
told, limit, *command = sys.argv[1:]
child = subprocess.Popen(command, stdin=0, stdout=subprocess.PIPE)
left = int(limit)
while left and (chunk := os.read(child.stdout.fileno(), left)):
    left -= os.write(1, chunk)
with open(told + ".new", "w") as file:
    file.write(str(os.getpgid(0)))
os.rename(told + ".new", told)
time.sleep(600)
"""


@pytest.fixture
def stalled(pair: Pair) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The file that tells that it stands still, and the way to a source of which half arrives."""
    pair.pull()
    (pair.data / "moh" / "a.wav").write_bytes(os.urandom(400_000))
    told = pair.folder / "group"
    yield told, (pair.script("stall", STALL), str(told), "200000", *pair.far())
    assert len(pair.snapshots()) == 1
    assert pair.pull().files == 1
    old, new = pair.snapshots()
    assert (old / "moh" / "a.wav").stat().st_size == 9999
    assert shape(new) == shape(pair.data)
    give_up = time.monotonic() + 60
    while living(int(told.read_text())):
        assert time.monotonic() < give_up, "the transfer still runs"
        time.sleep(0.02)


async def until(path: Path) -> None:
    give_up = time.monotonic() + 60
    while not os.access(path, os.F_OK):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


def living(group: int) -> list[str]:
    """The processes of that group; not those which only wait for somebody to take notice of their end."""
    found = []
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(
            OSError
        ):  # proc_pid_stat(5): state, parent and group follow the name in brackets.
            state, _, its_group = each.read_text().rpartition(")")[2].split()[:3]
            if its_group == str(group) and state != "Z":
                found.append(each.parent.name)
    return found


def test_a_transfer_that_is_killed_midway_is_nothing(
    pair: Pair, stalled: tuple[Path, tuple[str, ...]]
) -> None:
    told, reach = stalled

    async def story() -> None:
        pull = asyncio.ensure_future(pair.copy().pull(pair.source(reach)))
        await until(told)
        assert list((pair.folder / "store" / "incoming").rglob(".a.wav.*"))
        os.killpg(int(told.read_text()), signal.SIGKILL)
        with pytest.raises(Unreachable, match=f"pbx01 did not send {pair.data}"):
            await pull

    asyncio.run(story())


def test_a_pull_that_is_cancelled_leaves_nothing_running(
    pair: Pair, stalled: tuple[Path, tuple[str, ...]]
) -> None:
    told, reach = stalled

    async def story() -> None:
        pull = asyncio.ensure_future(pair.copy().pull(pair.source(reach)))
        await until(told)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull

    asyncio.run(story())


def test_a_pull_has_a_deadline(pair: Pair) -> None:
    with pytest.raises(Unreachable, match=f"pbx01 did not send {pair.data} within 0.5 s"):
        pair.pull(pair.copy(within=Seconds(0.5)), ("sh", "-c", "sleep 600"))


def test_what_the_environment_says_of_rsync_changes_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSYNC_PROTECT_ARGS", "1")  # The path would not be among the words.
    monkeypatch.setenv("RSYNC_ICONV", "utf8,latin1")
    assert pair.pull().files == 4


def test_a_process_that_dies_in_a_pull_leaves_the_newest_snapshot(
    pair: Pair, stalled: tuple[Path, tuple[str, ...]]
) -> None:
    told, reach = stalled
    program = f"""
import asyncio
from pathlib import Path
from understudy.adapters.copies.rsync import Rsync, Settings
from understudy.ports import Source
folder = Path({str(pair.folder)!r})
copy = Rsync("etc", Settings(paths=(folder / "data" / "asterisk",)), node="pbx02", folder=folder / "store")
asyncio.run(copy.pull(Source(node="pbx01", epoch=7, reach={reach!r})))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(CODE)}
    )
    try:
        asyncio.run(until(told))
    finally:
        process.kill()
        process.wait(timeout=10)
    assert (pair.folder / "store" / "incoming").exists()
    os.killpg(int(told.read_text()), signal.SIGKILL)  # As systemd does with what a unit leaves.


def test_a_way_that_leads_nowhere_is_told_with_its_own_words(pair: Pair) -> None:
    words = "echo Welcome >&2; echo 'ssh: connect to host pbx01 port 22: No route to host' >&2; exit 255"
    with pytest.raises(
        Unreachable, match=f"pbx01 did not send {pair.data}: ssh: .* No route to host"
    ):
        pair.pull(reach=("sh", "-c", words))
    with pytest.raises(Unreachable, match=r"pbx01 did not send .*not found"):
        pair.pull(reach=("/no/such/program",))
    with pytest.raises(Unreachable, match=r"pbx01 did not send .* is your shell clean\?"):
        pair.pull(reach=("echo", "hello"))
    with pytest.raises(Unreachable, match=r"pbx01 did not send .* unexpectedly closed"):
        pair.pull(reach=("true",))


def test_a_source_without_rsync_says_so(pair: Pair) -> None:
    with pytest.raises(Denied, match=r"pbx01 refuses: cannot run rsync here: .*apt install rsync"):
        pair.pull(reach=("env", "PATH=/nowhere", *_absolute(pair.far())))


def _absolute(command: Sequence[str]) -> tuple[str, ...]:
    program = shutil.which(command[0])
    assert program is not None
    return (program, *command[1:])


def test_a_full_disk_here_is_told_as_such(pair: Pair) -> None:
    if os.geteuid() != 0:
        pytest.skip("SKIPPED FOR WANT OF ROOT: this test needs a small disk")
    store = pair.folder / "store"
    store.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(store)], timeout=20, check=False
    )
    if made.returncode != 0:
        pytest.skip("SKIPPED: this kernel mounts no tmpfs for us")
    try:
        pair.pull()
        (pair.data / "moh" / "a.wav").write_bytes(os.urandom(400_000))
        with pytest.raises(Denied, match=f"{pair.data} could not be kept here: .*No space left"):
            pair.pull()
        assert len(pair.snapshots()) == 1
    finally:
        subprocess.run(["umount", "-l", str(store)], timeout=20, check=True)


# What the source does for nobody

ASKED = ("--server", "--sender", "-logDtpre.iLsfxCIvu", "--timeout=60", ".")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("@0/asterisk",),
        ASKED,
        (*ASKED, "/etc/passwd"),
        (*ASKED, "@0/asterisk/keys"),
        (*ASKED, "@0/asterisk/"),
        (*ASKED, "@0/../asterisk"),
        (*ASKED, ".."),
        (*ASKED, "DATA"),
        (*ASKED, "@1/asterisk"),
        (*ASKED, "@-1/asterisk"),
        (*ASKED, "@٠/asterisk"),
        (*ASKED, "@0/*"),
        (*ASKED, "@0/asterisk", "@0/asterisk"),
        (*ASKED, "@0/asterisk", "/etc/passwd"),
        (*ASKED, "--files-from=/etc/passwd", "@0/asterisk"),
        (*ASKED[:4], "--files-from=-", ".", "@0/asterisk"),
        (*ASKED[:4], "--remove-source-files", ".", "@0/asterisk"),
        (*ASKED[:4], "/etc/passwd", "@0/asterisk"),
        (*ASKED[:4], "--write-batch=/tmp/batch", ".", "@0/asterisk"),
        (*ASKED[:4], "-e", "sh", ".", "@0/asterisk"),
        (*ASKED[:3], "--timeout=60\n--remove-source-files", ".", "@0/asterisk"),
        (*ASKED[:3], "--log-file=/etc/cron.d/x", ".", "@0/asterisk"),
        (*ASKED[:2], "-slogDtpre.iLsf", "--timeout=60", ".", "@0/asterisk"),
        (*ASKED[:2], "-logDtpr", "--timeout=60", ".", "@0/asterisk"),
        (*ASKED[:2], "-logDtpre.;sh", "--timeout=60", ".", "@0/asterisk"),
        (*ASKED[:2], "-vlogDtpre.iLsf", "--timeout=60", ".", "@0/asterisk"),
        ("--server", *ASKED[2:], "@0/asterisk"),
        ("--sender", *ASKED[2:], "@0/asterisk"),
        ("--server", "--daemon", *ASKED[2:], "@0/asterisk"),
        ("--daemon", "--config=/tmp/x"),
        ("--server", "--sender", "--receiver", *ASKED[2:], "@0/asterisk"),
    ],
    ids=lambda words: "_".join(words)[-60:] or "nothing",
)
def test_what_a_pull_does_not_ask_is_refused(pair: Pair, words: tuple[str, ...]) -> None:
    there = [word.replace("DATA", str(pair.data)) for word in words]
    done = subprocess.run(
        [*pair.far(), "copy", "etc", "7", *there],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("understudy: ")
    assert (
        "not what a pull of etc asks for" in done.stderr
        or "path 1 of etc is none here" in done.stderr
        or "and '*' there" in done.stderr
    )


def test_what_a_pull_asks_is_not(pair: Pair) -> None:
    # The same words as above, so that it is not they that were refused there.
    done = subprocess.run(
        [*pair.far(), "copy", "etc", "7", *ASKED, "@0/asterisk"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"understudy" not in done.stderr
    assert (
        done.stdout[:4] == (31).to_bytes(4, "little") or done.stdout[0] >= 30
    )  # rsync's protocol.


def test_a_refusal_arrives_as_the_sources_own_words(pair: Pair) -> None:
    copy = pair.copy(paths=(pair.data, pair.folder / "data" / "other"))
    with pytest.raises(
        Denied, match="pbx01 refuses: path 1 of etc is none here, and 'other' there"
    ):
        pair.pull(copy)
    assert list((pair.folder / "store").iterdir()) == []


def test_a_path_that_is_a_link_there_is_refused(pair: Pair) -> None:
    pair.data.rename(pair.folder / "elsewhere")
    pair.data.symlink_to(pair.folder / "elsewhere")
    with pytest.raises(Denied, match=f"pbx01 refuses: {pair.data} is a symbolic link here"):
        pair.pull()


# Over SSH


@pytest.mark.real
def test_over_ssh_a_forced_command_is_the_source(pair: Pair) -> None:
    command = shlex.join(pair.far())
    assert '"' not in command
    with daemon(pair.folder / "ssh", root_login="forced-commands-only") as sshd:
        sshd.authorize(f'restrict,command="{command}"')
        shutil.copy(sshd.folder / "user", sshd.folder / "id_ed25519")
        target = f"ssh://root@127.0.0.1:{sshd.port}"
        reach = over_ssh(target, folder=sshd.folder)
        assert pair.pull(reach=reach).files == 4
        assert pair.pull(reach=reach) == Pulled(changed=False)
        (pair.data / "extensions.conf").write_text("changed")
        assert pair.pull(reach=reach).files == 1
        assert shape(pair.snapshots()[-1]) == shape(pair.data)
        (pair.folder / "far.json").write_text('{"paths": ["/nowhere/asterisk"], "user": 0}')
        with pytest.raises(Denied, match="/nowhere"):
            pair.pull(reach=reach)
        (sshd.folder / "authorized_keys").write_text("")
        with pytest.raises(Unreachable, match=r"pbx01 did not send .*Permission denied"):
            pair.pull(reach=reach)


# Put


def inodes(folder: Path) -> set[int]:
    return {path.lstat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_what_is_put_in_place_is_exactly_the_copy_and_shares_nothing_with_it(pair: Pair) -> None:
    pair.pull()
    (snapshot,) = pair.snapshots()
    copied = shape(snapshot)
    shutil.rmtree(pair.data)
    assert pair.put()
    assert shape(pair.data) == copied
    assert not inodes(pair.data) & inodes(snapshot)
    assert not pair.put()

    with (pair.data / "extensions.conf").open(
        "a"
    ) as file:  # As a PBX writes: into the file itself.
        file.write("more")
    (pair.data / "empty").rmdir()
    (pair.data / "link").unlink()
    (pair.data / "keys" / "ca.pem").chmod(0o644)
    pair.write({"foreign/folder/file": "x", "foreign.conf": "x"})
    assert shape(snapshot) == copied
    assert pair.put()
    assert shape(pair.data) == copied
    assert not pair.put()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: (data / "keys" / "ca.pem").chmod(0o644),
        lambda data: (data / "foreign").touch(),
        lambda data: (data / "foreign").mkdir(),
        lambda data: (data / "empty").rmdir(),
        lambda data: os.utime(data / "moh" / "a.wav"),
        lambda data: (data / "link").unlink(),
        change_in_the_same_second,
        become_a_folder,
        point_elsewhere,
    ],
)
def test_every_difference_in_place_is_put_right(pair: Pair, change: Any) -> None:
    pair.pull()
    before = shape(pair.data)
    change(pair.data)
    assert shape(pair.data) != before
    assert pair.put()
    assert shape(pair.data) == before
    assert not pair.put()


def test_a_folder_that_goes_may_hold_what_is_excluded(pair: Pair) -> None:
    copy = pair.copy(exclude=("*.lock",))
    pair.pull(copy)
    pair.write({"gone/a.lock": "x", "gone/b": "x"})
    assert pair.put(copy)
    assert [path.name for path in (pair.data / "gone").iterdir()] == ["a.lock"]
    assert not pair.put(copy)


def test_what_a_put_left_that_was_killed_goes(pair: Pair) -> None:
    pair.pull()
    before = shape(pair.data)
    pair.write({".~tmp~/a": "half", "keys/.~tmp~/ca.pem": "half", "keys/.ca.pem.Xa2b3c": "half"})
    pair.put()
    assert shape(pair.data) == before


def test_what_a_put_left_there_that_was_killed_is_not_copied(pair: Pair) -> None:
    before = shape(pair.data)
    pair.write({"keys/.~tmp~/ca.pem": "half"})
    pair.pull()
    assert shape(pair.snapshots()[0]) == before


def test_a_folder_here_may_be_elsewhere(pair: Pair) -> None:
    pair.pull()
    copied = shape(pair.data)
    shutil.rmtree(pair.data)
    elsewhere = pair.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "old").touch()
    pair.data.symlink_to(elsewhere)
    assert pair.put()
    assert pair.data.is_symlink()
    assert shape(elsewhere) == copied


def test_a_link_in_the_store_leads_nowhere(pair: Pair) -> None:
    pair.pull()
    elsewhere = pair.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "foreign").touch()
    (snapshot,) = pair.snapshots()
    shutil.rmtree(snapshot)
    snapshot.symlink_to(elsewhere)
    with pytest.raises(Denied):
        pair.put()
    assert not (pair.data / "foreign").exists()


def test_a_cancelled_put_writes_nothing_any_more() -> None:
    begun, go_on, written = threading.Event(), threading.Event(), []

    def write() -> None:
        begun.set()
        go_on.wait(60)
        written.append("all")

    async def story() -> None:
        work = asyncio.ensure_future(in_thread(write))
        await asyncio.to_thread(begun.wait, 60)
        work.cancel()
        await asyncio.wait([work], timeout=0.1)
        work.cancel()
        await asyncio.wait([work], timeout=0.1)
        assert not work.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert written == ["all"]

    asyncio.run(story())


def test_a_path_that_was_not_copied_yet_is_left_alone(pair: Pair) -> None:
    pair.pull()
    later = pair.folder / "data" / "later"
    later.mkdir()
    (later / "mine").touch()
    (pair.data / "foreign").touch()
    assert pair.put(pair.copy(paths=(pair.data, later)))
    assert (later / "mine").exists()
    assert not (pair.data / "foreign").exists()


def kept(pair: Pair, copy: Rsync | None = None) -> dict[str, str]:
    """What `keep` has put aside: by its place below the folder copied."""
    where = asyncio.run((copy or pair.copy()).keep())
    if not where:
        return {}
    top = Path(where) / "root" / pair.data.relative_to("/")
    return {
        str(each.relative_to(top)): each.read_text() for each in top.rglob("*") if each.is_file()
    }


def test_what_only_this_node_has_is_kept_aside_and_nothing_else(pair: Pair) -> None:
    pair.pull()
    pair.put()
    assert kept(pair) == {}
    assert not (pair.folder / "store/aside/incoming").exists()
    pair.write({"INBOX/msg0007.txt": "only here", "extensions.conf": "changed here"})
    pair.write({"keys/b.lock": "excluded"})
    (pair.data / "moh/a.wav").unlink()
    copy = pair.copy(exclude=("*.lock",))
    wanted = {"INBOX/msg0007.txt": "only here", "extensions.conf": "changed here"}
    assert kept(pair, copy) == wanted
    # It shares nothing with what is in place; and once more is no less.
    pair.write({"extensions.conf": "later"})
    assert kept(pair, copy) == {**wanted, "extensions.conf": "later"}
    asides = sorted((pair.folder / "store/aside").iterdir())
    assert len(asides) == 2
    pair.put(copy)
    assert (
        asides[0] / "root" / pair.data.relative_to("/") / "extensions.conf"
    ).read_text() == "changed here"


def test_a_folder_that_is_elsewhere_here_is_kept_as_well(pair: Pair) -> None:
    pair.pull()
    pair.data.rename(pair.folder / "elsewhere")
    pair.data.symlink_to(pair.folder / "elsewhere")
    assert kept(pair) == {}
    pair.write({"mine": "only here"})
    assert kept(pair) == {"mine": "only here"}


def test_a_value_of_this_node_is_no_difference(pair: Pair) -> None:
    pair.write({"pjsip.conf": "[t]\nexternal = 1\n"})
    file = pair.data / "pjsip.conf"
    values = tuple(f"{node} {file} [t] external = {node}" for node in ("pbx01", "pbx02"))
    copy = pair.copy(node_values=values)
    pair.pull(copy)
    pair.put(copy)
    assert "external = pbx02" in file.read_text()
    assert kept(pair, copy) == {}
    file.write_text("[t]\nexternal = pbx02\nmore = here\n")
    assert kept(pair, copy) == {"pjsip.conf": "[t]\nexternal = pbx02\nmore = here\n"}


def test_nothing_copied_is_nothing_to_put(pair: Pair) -> None:
    before = shape(pair.data)
    with pytest.raises(Denied, match="nothing has been copied yet for etc"):
        pair.put()
    pair.pull()
    with pytest.raises(Denied, match="nothing has been copied yet for etc"):
        pair.put(pair.copy(paths=(pair.folder / "data" / "later",)))
    assert shape(pair.data) == before


def test_a_file_is_put_in_place_by_itself(pair: Pair) -> None:
    one = pair.data / "extensions.conf"
    copy = pair.copy(paths=(one,))
    pair.pull(copy, pair.far(one))
    text = one.read_text()
    shutil.rmtree(pair.data)
    assert pair.put(copy)
    assert shape(pair.data).keys() == {".", "extensions.conf"}
    assert one.read_text() == text
    assert not pair.put(copy)
    one.rename(pair.folder / "elsewhere")
    one.symlink_to(pair.folder / "elsewhere")
    assert not pair.put(copy)
    (pair.folder / "elsewhere").write_text("mine")
    assert pair.put(copy)
    assert (one.is_symlink(), one.read_text()) == (True, text)
    one.unlink()
    one.mkdir()
    with pytest.raises(Denied, match=f"{one} is a folder here and a file on the active node"):
        pair.put(copy)


def test_a_put_that_cannot_is_told(pair: Pair) -> None:
    pair.pull()
    shutil.rmtree(pair.data)
    pair.data.write_text("a file")
    with pytest.raises(Denied, match=f"{pair.data} could not be put in place: .*"):
        pair.put()
    assert pair.data.read_text() == "a file"


# Values of this node

VALUES = (
    "pbx01 {0}/pjsip.conf [udp] external = 198.51.100.11",
    "pbx02 {0}/pjsip.conf [udp] external = 198.51.100.12",
    "pbx01 {0}/pjsip.conf name = pbx-one",
    "pbx02 {0}/pjsip.conf name = pbx-two",
)
TEXT = b"; \xe4 is no UTF-8, and \xc3\xa4 is\r\n[udp]\r\nexternal = 198.51.100.11 ; ours\r\nname=pbx-one\r\n"


def with_values(pair: Pair, node: str = "pbx02", values: Sequence[str] = VALUES) -> Rsync:
    return pair.copy(node=node, node_values=tuple(each.format(pair.data) for each in values))


def test_a_node_gets_its_own_values_and_nothing_else_changes(pair: Pair) -> None:
    file = pair.data / "pjsip.conf"
    file.write_bytes(TEXT)
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 1234)
    before = file.stat()
    pair.pull()
    copied = shape(pair.snapshots()[0])
    assert pair.put(with_values(pair))
    ours = TEXT.replace(b"100.11", b"100.12").replace(b"pbx-one", b"pbx-two")
    assert file.read_bytes() == ours
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert not pair.put(with_values(pair))
    assert file.read_bytes() == ours
    assert shape(pair.snapshots()[0]) == copied

    file.chmod(0o644)
    assert pair.put(with_values(pair))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    file.unlink()
    assert pair.put(with_values(pair))
    assert file.read_bytes() == ours
    assert pair.put(with_values(pair, "pbx01"))
    assert file.read_bytes() == TEXT
    assert shape(pair.data).keys() == copied.keys()


def test_a_file_with_values_may_be_a_path(pair: Pair) -> None:
    file = pair.data / "pjsip.conf"
    file.write_bytes(TEXT)
    copy = pair.copy(paths=(file,), node_values=tuple(each.format(pair.data) for each in VALUES))
    pair.pull(copy, pair.far(file))
    shutil.rmtree(pair.data)
    assert pair.put(copy)
    assert b"100.12" in file.read_bytes()
    assert not pair.put(copy)


def test_a_value_without_a_line_stops_the_put_before_it_begins(pair: Pair) -> None:
    pair.write({"pjsip.conf": "[tcp]\nexternal = 1\n"})
    pair.pull()
    pair.write({"pjsip.conf": "mine", "foreign": "mine"})
    before = shape(pair.data)
    with pytest.raises(Denied) as denied:
        pair.put(with_values(pair))
    file = f"{pair.data}/pjsip.conf"
    assert f"there is no external in [udp] of {file}; there is no name of {file}" in str(
        denied.value
    )
    assert shape(pair.data) == before


def test_a_value_never_reaches_beyond_the_copy(pair: Pair) -> None:
    outside = pair.folder / "outside.conf"
    outside.write_bytes(TEXT)
    (pair.data / "pjsip.conf").symlink_to(outside)
    pair.pull()
    with pytest.raises(Denied, match=r"pjsip\.conf is not a file there"):
        pair.put(with_values(pair))
    (pair.data / "pjsip.conf").unlink()
    pair.pull()
    with pytest.raises(Denied, match=r"pjsip\.conf is not a file there"):
        pair.put(with_values(pair))
    assert outside.read_bytes() == TEXT


def test_where_there_is_selinux_what_was_put_gets_its_labels(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.pull()
    called = pair.folder / "called"
    folder = pair.folder / "sbin"
    folder.mkdir()
    monkeypatch.setattr(put, "SYSTEM_FOLDERS", (str(folder),))
    pair.script(
        "sbin/restorecon", f"import sys\nopen({str(called)!r}, 'w').write(' '.join(sys.argv[1:]))"
    )
    pair.put()
    assert not called.exists() or put.SELINUX.exists()
    monkeypatch.setattr(put, "SELINUX", pair.folder)
    pair.put()
    assert called.read_text() == f"-R {pair.data}"
    pair.script("sbin/restorecon", "import sys\nsys.exit('no such context')")
    with pytest.raises(Denied, match="without its SELinux labels: no such context"):
        pair.put()


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("paths", ()),
        ("paths", (Path("/"),)),
        ("paths", (Path("/etc"),)),
        ("paths", (Path("/var/lib"),)),
        ("paths", (Path("/usr/share"),)),
        ("paths", (Path("etc/asterisk"),)),
        ("paths", (Path("//etc/asterisk"),)),
        ("paths", (Path("/etc/../root/x"),)),
        ("paths", (Path("/etc/two words"),)),
        ("paths", (Path("/etc/ast*"),)),
        ("paths", (Path("/etc/$HOME"),)),
        ("paths", (Path("/etc/a"), Path("/etc/a"))),
        ("paths", (Path("/etc/a"), Path("/etc/a/b"))),
        ("exclude", ("+ *",)),
        ("exclude", ("- x",)),
        ("exclude", ("!",)),
        ("exclude", ("",)),
        ("exclude", ("a\nb",)),
        ("node_values", ("pbx01",)),
        ("node_values", ("pbx01 /etc/b a = 1", "pbx02 /etc/b a = 2")),
        ("node_values", ("pbx01 /etc/a/b a = 1",)),
        ("node_values", ("pbx01 /etc/a/b a = 1", "pbx01 /etc/a/b a = 2", "pbx02 /etc/a/b a = 3")),
        ("keep", 0),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_refused(setting: str, value: Any) -> None:
    good: dict[str, Any] = {"paths": (Path("/etc/a"),)}
    Settings(**good)
    with pytest.raises(ValueError, match=rf"^{setting} .*\.$"):
        Settings(**{**good, setting: value})


def test_the_examples_are_right() -> None:
    def example(name: str) -> list[str]:
        found: list[str] = Settings.__dataclass_fields__[name].metadata["example"]
        return found

    Settings(
        paths=tuple(map(Path, example("paths"))),
        exclude=tuple(example("exclude")),
        node_values=tuple(example("node_values")),
    )


def test_the_copies_are_not_among_what_is_copied(pair: Pair) -> None:
    with pytest.raises(ConfigError, match=r"\[copies.etc\]: the copies themselves are kept in"):
        pair.copy(paths=(pair.folder,))
