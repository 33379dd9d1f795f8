"""What only an old active node had comes to the one that serves: once, whole, and never over something else."""

import asyncio
import fcntl
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adapters.merge_story import (
    SRC,
    Story,
    delete,
    leave,
    messages,
    move,
    texts,
)
from understudy.adapters.copies.rsync import Settings, voicemail
from understudy.adapters.copies.rsync.settings import Merge
from understudy.config.settings import Seconds
from understudy.errors import Denied, Unreachable, told
from understudy.ports import Merged

IS_ROOT = os.geteuid() == 0


def story(tmp_path: Path, merge: str = "files", **changed: Any) -> Story:
    settings = {"paths": (tmp_path / "spool" / "data",), "merge": Merge(merge), **changed}
    return Story(tmp_path, Settings(**settings))


def write(**files: str) -> Callable[[Path], None]:
    """`a__b_wav="x"` is a/b.wav."""

    def change(folder: Path) -> None:
        for name, text in files.items():
            path = folder / name.replace("__", "/").replace("_wav", ".wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return change


# Files


def test_a_recording_that_only_the_old_node_had_is_added(tmp_path: Path) -> None:
    it = story(tmp_path)

    def pbx01(spool: Path) -> None:
        write(day2__late_wav="only here")(spool)
        (spool / "day2/late.wav").chmod(0o640)
        os.utime(spool / "day2/late.wav", (1, 1_700_000_000))
        if IS_ROOT:
            shutil.chown(spool / "day2/late.wav", "daemon", "mail")

    def pbx02(spool: Path) -> None:
        write(day2b_wav="of pbx02")(spool)
        spool.chmod(0o750)
        if IS_ROOT:
            shutil.chown(spool, "news", "games")

    bundle = it.told(base=write(day1_wav="old"), pbx01=pbx01, pbx02=pbx02)
    late = it.spool / "day2/late.wav"
    assert it.merge(bundle) == Merged(taken=(str(late),))
    assert texts(it.spool) == {
        "day1.wav": "old",
        "day2b.wav": "of pbx02",
        "day2/late.wav": "only here",
    }
    status = late.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime, status.st_nlink) == (
        0o640,
        1_700_000_000,
        1,
    )
    assert stat.S_IMODE(late.parent.stat().st_mode) == 0o750
    if IS_ROOT:
        assert (late.owner(), late.group()) == ("daemon", "mail")
        assert (late.parent.owner(), late.parent.group()) == ("news", "games")
    assert it.merge(bundle) == Merged(known=1)


def test_an_owner_who_is_not_known_here_is_that_of_the_folder(tmp_path: Path) -> None:
    if not IS_ROOT:
        pytest.skip("NOT TESTED: only root may give files away")
    it = story(tmp_path)

    def base(spool: Path) -> None:
        shutil.chown(spool, "news", "games")

    def pbx01(spool: Path) -> None:
        write(a_wav="x")(spool)
        os.chown(spool / "a.wav", 54321, 54321)

    bundle = it.told(base=base, pbx01=pbx01)
    it.merge(bundle)
    assert ((it.spool / "a.wav").owner(), (it.spool / "a.wav").group()) == ("news", "games")


def test_nothing_becomes_setuid(tmp_path: Path) -> None:
    it = story(tmp_path)

    def pbx01(spool: Path) -> None:
        write(a_wav="x")(spool)
        (spool / "a.wav").chmod(0o4755)

    it.merge(it.told(base=write(b_wav="b"), pbx01=pbx01))
    assert stat.S_IMODE((it.spool / "a.wav").stat().st_mode) == 0o755


def test_what_was_deleted_or_changed_here_does_not_come_back(tmp_path: Path) -> None:
    it = story(tmp_path)

    def pbx02(spool: Path) -> None:
        (spool / "gone.wav").unlink()
        (spool / "changed.wav").write_text("changed here")

    base = write(gone_wav="1", changed_wav="2", same_wav="3")
    bundle = it.told(base=base, pbx02=pbx02)
    assert it.merge(bundle) == Merged(known=2)
    assert texts(it.spool) == {"changed.wav": "changed here", "same.wav": "3"}
    # Nor when the copy that knew of it is no more.
    shutil.rmtree(it.node("pbx02").store.all()[0].path)
    assert it.merge(bundle) == Merged(known=2)


def test_what_was_merged_and_deleted_does_not_come_back(tmp_path: Path) -> None:
    it = story(tmp_path)
    bundle = it.told(base=write(a_wav="1"), pbx01=write(b_wav="2"))
    assert len(it.merge(bundle).taken) == 1
    (it.spool / "b.wav").unlink()
    assert it.merge(bundle) == Merged(known=1)
    assert texts(it.spool) == {"a.wav": "1"}
    (entry,) = it.recorded()
    assert (entry["target"], len(entry["key"])) == (str(it.spool / "b.wav"), 64)


def test_another_file_of_that_name_is_not_overwritten(tmp_path: Path) -> None:
    it = story(tmp_path)
    bundle = it.told(
        base=write(a_wav="1"),
        pbx01=write(a_wav="of pbx01", b_wav="of pbx01", c_wav="both"),
        pbx02=write(a_wav="of pbx02", b_wav="of pbx02", c_wav="both"),
    )
    os.utime(it.spool / "c.wav")
    merged = it.merge(bundle)
    why = "another file of that name is here"
    assert merged.left == tuple(f"{it.spool}/{name}.wav: {why}" for name in "ab")
    assert (merged.taken, merged.known) == ((), 1)
    assert texts(it.spool) == {"a.wav": "of pbx02", "b.wav": "of pbx02", "c.wav": "both"}


def test_without_anything_of_its_own_there_is_no_bundle(tmp_path: Path) -> None:
    it = story(tmp_path)

    def pbx01(spool: Path) -> None:
        (spool / "link").symlink_to("a.wav")
        os.mkfifo(spool / "pipe")

    assert it.told(base=write(a_wav="1"), pbx01=pbx01) is None
    assert list(it.folder.glob("*bundle*")) == []


def test_configuration_is_not_merged(tmp_path: Path) -> None:
    it = story(tmp_path, merge="none")
    assert it.told(base=write(a_wav="1"), pbx01=write(a_wav="2", b_wav="3")) is None
    bundle = made(tmp_path / "some.bundle", file(it.spool / "b.wav"))
    with pytest.raises(Denied, match=r"^data is not merged: what the active node has counts"):
        it.merge(bundle)
    with pytest.raises(ValueError, match=r"^merge is \"files\", and there are node_values\."):
        story(tmp_path, node_values=(f"a {it.spool}/x k = 1", f"b {it.spool}/x k = 2"))


def test_a_path_may_be_a_file_here_as_well(tmp_path: Path) -> None:
    one = tmp_path / "spool" / "one.log"
    it = Story(tmp_path, Settings(paths=(one,), merge=Merge.FILES))
    one.parent.mkdir()
    bundle = made(tmp_path / "a.bundle", file("0"), file("1/two.log"))
    merged = it.merge(bundle)
    assert merged.taken == (str(one),)
    assert merged.left == ("/1/two.log: in none of the paths here",)
    assert one.read_text() == "content"


def test_what_is_excluded_here_does_not_come_as_rsync_understands_it(tmp_path: Path) -> None:
    it = story(tmp_path, exclude=("*.tmp", "/top", "deep/**/x", "folder/"))
    it.spool.mkdir(parents=True)
    names = [
        "a.tmp",
        "b/c.tmp",
        "top/a",
        "b/top/a",
        "deep/1/2/x",
        "deep/1/2/y",
        "folder/a",
        "b/folder",
    ]
    bundle = made(tmp_path / "a.bundle", *(file(it.spool / name) for name in names))
    merged = it.merge(bundle)
    stay = ["a.tmp", "b/c.tmp", "deep/1/2/x", "folder/a", "top/a"]
    assert merged.left == tuple(f"{it.spool}/{name}: excluded here" for name in stay)
    assert set(texts(it.spool)) == set(names) - set(stay)
    assert not (it.folder / "store-pbx02" / "merging").exists()


def test_long_and_odd_names_survive(tmp_path: Path) -> None:
    it = story(tmp_path)
    names = [
        "x" * 200 + "/" + "y" * 200,
        "Grüße an 'mich'.wav",
        "line\nfeed",
        os.fsdecode(b"\xff\xfe"),
    ]

    def pbx01(spool: Path) -> None:
        (spool / ("x" * 200)).mkdir()
        for name in names:
            (spool / name).write_text(name[:3].encode(errors="replace").decode())

    merged = it.merge(it.told(base=write(a_wav="1"), pbx01=pbx01))
    assert (len(merged.taken), merged.left) == (4, ())
    assert all("\n" not in line for line in merged.taken)
    assert all((it.spool / name).is_file() for name in names)


# Bundles that are none


def file(
    path: Path | str, content: bytes = b"content", **changed: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(str(path).removeprefix("/"))
    info.size, info.mode, info.mtime = len(content), 0o644, 1_700_000_000
    for name, value in changed.items():
        setattr(info, name, value)
    return info, content


def made(
    path: Path, *members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.GNU_FORMAT
) -> Path:
    spool = str(path.parent / "spool" / "data")[1:]
    with tarfile.open(path, "w", format=kind) as tar:
        for info, content in members:
            if info.name.startswith(spool):
                info.name = info.name.replace(spool, "0", 1)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([file("SPOOL/../../etc/x")], "it has a file named"),
        ([file("SPOOL/./x")], "it has a file named"),
        ([file("SPOOL//x")], "it has a file named"),
        ([file("SPOOL/")], "it has a file named"),
        ([file("/SPOOL/" + "x" * 300)], "it has a file named"),
        (
            [file("SPOOL/x", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0)],
            "other than files",
        ),
        ([file("SPOOL/x", type=tarfile.LNKTYPE, linkname="SPOOL/y", size=0)], "other than files"),
        ([file("SPOOL/x", type=tarfile.DIRTYPE, size=0)], "other than files"),
        ([file("SPOOL/x", type=tarfile.FIFOTYPE, size=0)], "other than files"),
        ([file("SPOOL/x", type=tarfile.CHRTYPE, size=0)], "other than files"),
        ([file("SPOOL/x"), file("SPOOL/x")], "it has a file twice"),
        ([file("SPOOL/x"), file("SPOOL/x/y")], "it has a file that is a folder as well"),
        ([file("SPOOL/x", mtime=-5)], "no possible time"),
        ([file("SPOOL/" + "x/" * 2100 + "x")], "other than files"),
    ],
)
def test_a_bundle_of_anything_but_files_is_refused_whole(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], why: str
) -> None:
    it = story(tmp_path)
    it.spool.mkdir(parents=True)
    for info, _ in members:
        info.name = info.name.replace("SPOOL", str(it.spool)[1:])
    bundle = made(tmp_path / "a.bundle", file(it.spool / "good"), *members)
    with pytest.raises(Denied, match=rf"the bundle is not one that can be merged: .*{why}"):
        it.merge(bundle)
    assert texts(it.spool) == {}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_only_the_plain_part_of_other_formats_is_read(tmp_path: Path, kind: int) -> None:
    it = story(tmp_path)
    it.spool.mkdir(parents=True)
    bundle = made(tmp_path / "a.bundle", file(it.spool / "plain"), kind=kind)
    assert len(it.merge(bundle).taken) == 1
    if kind == tarfile.PAX_FORMAT:
        made(bundle, file(it.spool / "grün"), kind=kind)
        with pytest.raises(Denied, match="it has something other than files"):
            it.merge(bundle)


@pytest.mark.parametrize("length", [0, 100, 511, 512, 600, 1024, 1100])
def test_a_bundle_that_was_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    it = story(tmp_path)
    it.spool.mkdir(parents=True)
    bundle = made(tmp_path / "a.bundle", file(it.spool / "x"))
    bundle.write_bytes(bundle.read_bytes()[:length])
    with pytest.raises(Denied, match="the bundle is not one that can be merged: "):
        it.merge(bundle)
    assert texts(it.spool) == {}


def test_a_bundle_that_is_a_link_or_rubbish_is_none(tmp_path: Path) -> None:
    it = story(tmp_path)
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="it is a symbolic link"):
        it.merge(tmp_path / "link")
    (tmp_path / "rubbish").write_bytes(os.urandom(4096))
    with pytest.raises(Denied, match="the bundle is not one that can be merged: "):
        it.merge(tmp_path / "rubbish")


# Where others may write, too


def test_a_link_here_leads_nowhere(tmp_path: Path) -> None:
    it = story(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "there").write_text("mine")
    it.spool.mkdir(parents=True)
    (it.spool / "folder").symlink_to(outside)
    (it.spool / "name").symlink_to(outside / "new")
    (it.spool / "there").symlink_to(outside / "there")
    (it.spool / "file").write_text("")
    os.mkfifo(it.spool / "pipe")
    names = ("file/x", "folder/x", "name", "pipe", "there")
    merged = it.merge(made(tmp_path / "a.bundle", *(file(it.spool / name) for name in names)))
    assert [line.partition(": ")[0] for line in merged.left] == [f"{it.spool}/{n}" for n in names]
    assert (merged.taken, merged.known) == ((), 0)
    assert texts(outside) == {"there": "mine"}


def test_a_path_is_followed_over_links_of_root_alone(tmp_path: Path) -> None:
    it = story(tmp_path)
    disk = tmp_path / "disk"
    (disk / "data").mkdir(parents=True)
    bundle = made(tmp_path / "a.bundle", file(it.spool / "x"))
    it.spool.parent.symlink_to("./disk")
    assert it.merge(bundle).taken == (f"{it.spool}/x",)
    assert texts(disk) == {"data/x": "content"}

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777)
    (theirs / "spool").symlink_to(disk)
    later = Story(tmp_path, Settings(paths=(theirs / "spool" / "data",), merge=Merge.FILES))
    (line,) = later.merge(made(tmp_path / "b.bundle", file("0/y"))).left
    assert line == f"{later.spool}/y: a symbolic link that others than root may change"
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    last = Story(tmp_path, Settings(paths=(loop / "data",), merge=Merge.FILES))
    (line,) = last.merge(made(tmp_path / "c.bundle", file("0/z"))).left
    assert "Too many levels of symbolic links" in line
    assert texts(disk) == {"data/x": "content"}


def test_a_path_that_is_not_here_is_not_made(tmp_path: Path) -> None:
    it = story(tmp_path)
    (line,) = it.merge(made(tmp_path / "a.bundle", file(it.spool / "x"))).left
    assert line == f"{it.spool}/x: No such file or directory"
    assert not it.spool.parent.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte: only root may mount it."""
    if not IS_ROOT:
        pytest.skip("NOT TESTED: a full disk; only root may mount a tmpfs")
    place = tmp_path / "spool"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk; this kernel mounts no tmpfs for us")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], timeout=20, check=True)


def test_a_merge_leaves_room_on_the_disk(tmp_path: Path, small_disk: Path) -> None:
    it = story(tmp_path)
    it.spool.mkdir()
    sizes = {"a": 600_000, "b": 400_000, "c": 100_000}
    members = [file(it.spool / name, size * b"~") for name, size in sizes.items()]
    bundle = made(tmp_path / "a.bundle", *members)
    merged = it.merge(bundle)
    assert merged.taken == (f"{it.spool}/a", f"{it.spool}/c")
    assert merged.left == (f"{it.spool}/b: no room: less than 5% of the disk would be free",)
    assert sorted(each.name for each in it.spool.iterdir()) == ["a", "c"]
    (it.spool / "a").unlink()
    assert it.merge(bundle) == Merged(taken=(f"{it.spool}/b",), known=2)


def test_a_record_that_cannot_be_written_stops_the_merge(tmp_path: Path, small_disk: Path) -> None:
    """The record is on the full disk this time."""
    it = story(tmp_path, paths=(tmp_path / "data",))
    it.spool.mkdir()
    (tmp_path / "store-pbx02").symlink_to(small_disk)
    bundle = made(tmp_path / "a.bundle", *(file(f"0/{name}") for name in "abc"))
    (small_disk / "merged.jsonl").touch()
    (small_disk / "filler").write_bytes(bytes(500_000))
    with suppress(OSError):
        while True:
            shutil.copy(
                small_disk / "filler", small_disk / f"filler{len(list(small_disk.iterdir()))}"
            )
    with pytest.raises(Denied, match=r"merged\.jsonl cannot be written: No space left on device"):
        it.merge(bundle)
    assert [each.name for each in it.spool.iterdir()] == ["a"]
    for filler in small_disk.glob("filler*"):
        filler.unlink()
    assert it.merge(bundle) == Merged(taken=(f"{it.spool}/b", f"{it.spool}/c"), known=1)


# The record


def test_half_a_line_in_the_record_is_none(tmp_path: Path) -> None:
    it = story(tmp_path)
    it.spool.mkdir(parents=True)
    bundle = made(tmp_path / "a.bundle", file(it.spool / "x"))
    it.merge(bundle)
    record = tmp_path / "store-pbx02" / "merged.jsonl"
    whole = record.read_text()
    record.write_text(whole + '{"key": "half')
    made(bundle, file(it.spool / "x"), file(it.spool / "y"))
    assert it.merge(bundle) == Merged(taken=(f"{it.spool}/y",), known=1)
    assert [each["target"] for each in it.recorded()] == [f"{it.spool}/x", f"{it.spool}/y"]
    record.write_text("no json\n")
    with pytest.raises(Denied, match=r"merged\.jsonl:1 cannot be understood") as denied:
        it.merge(bundle)
    assert "Remove that line" in told(denied.value)


def test_two_merges_do_not_go_on_at_once(tmp_path: Path) -> None:
    it = story(tmp_path)
    it.spool.mkdir(parents=True)
    bundle = made(tmp_path / "a.bundle", file(it.spool / "x"))
    record = tmp_path / "store-pbx02" / "merged.jsonl"
    record.parent.mkdir()
    with record.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Denied, match="another merge of the same is going on"):
            it.merge(bundle)
    assert len(it.merge(bundle).taken) == 1


def test_a_merge_has_a_deadline_and_goes_on_where_it_was(tmp_path: Path) -> None:
    it = story(tmp_path, within=Seconds(0.0))
    it.spool.mkdir(parents=True)
    bundle = made(tmp_path / "a.bundle", file(it.spool / "x"))
    with pytest.raises(Unreachable, match="merging data did not end within 0 s"):
        it.merge(bundle)
    assert len(story(tmp_path).merge(bundle).taken) == 1


# Voicemail


def test_a_message_comes_behind_those_that_are_here(tmp_path: Path) -> None:
    it = story(tmp_path, merge="voicemail")

    def base(spool: Path) -> None:
        for number, words in enumerate(
            ("kept", "deleted there", "deleted here", "moved there", "moved here")
        ):
            leave(spool / "default/6001/INBOX", number, words)

    def pbx01(spool: Path) -> None:
        inbox = spool / "default/6001/INBOX"
        delete(inbox, 1)
        move(inbox, 2, spool / "default/6001/Old", 0)
        leave(inbox, 3, "late at pbx01")
        leave(inbox, 4, "later at pbx01")
        leave(spool / "default/6002/INBOX", 0, "for a new mailbox")

    def pbx02(spool: Path) -> None:
        inbox = spool / "default/6001/INBOX"
        delete(inbox, 2)
        move(inbox, 3, spool / "default/6001/Old", 0)
        leave(inbox, 3, "new at pbx02")

    bundle = it.told(base=base, pbx01=pbx01, pbx02=pbx02)
    mailbox, other = it.spool / "default/6001", it.spool / "default/6002/INBOX"
    merged = it.merge(bundle)
    assert merged.taken == (
        f"{mailbox}/INBOX/msg0004 (was msg0003)",
        f"{mailbox}/INBOX/msg0005 (was msg0004)",
        f"{other}/msg0000",
    )
    assert merged.left == ()
    stay = ["kept", "deleted there", "moved there", "new at pbx02"]
    assert messages(mailbox / "INBOX") == [*stay, "late at pbx01", "later at pbx01"]
    assert messages(mailbox / "Old") == ["moved here"]
    assert messages(other) == ["for a new mailbox"]
    again = it.merge(bundle)
    assert (again.taken, again.left, again.known) == ((), (), merged.known + 3)

    # What its owner does with it is his affair.
    move(mailbox / "INBOX", 4, mailbox / "Old", 1)
    delete(mailbox / "INBOX", 4)
    delete(other, 0)
    assert it.merge(bundle) == again
    assert messages(mailbox / "INBOX") == stay
    assert messages(mailbox / "Old") == ["moved here", "late at pbx01"]
    assert messages(other) == []


def test_without_a_record_a_message_that_is_somewhere_in_the_mailbox_is_known(
    tmp_path: Path,
) -> None:
    it = story(tmp_path, merge="voicemail")
    mailbox = Path("default/6001")
    bundle = it.told(
        base=lambda spool: leave(spool / mailbox / "INBOX", 0, "a"),
        pbx01=lambda spool: leave(spool / mailbox / "INBOX", 1, "b"),
    )
    it.merge(bundle)
    move(it.spool / mailbox / "INBOX", 1, it.spool / mailbox / "Work", 0)
    (tmp_path / "store-pbx02" / "merged.jsonl").unlink()
    assert it.merge(bundle) == Merged(known=1)
    assert messages(it.spool / mailbox / "Work") == ["b"]


def test_a_gap_is_filled_as_asterisk_does(tmp_path: Path) -> None:
    it = story(tmp_path, merge="voicemail")

    def pbx02(spool: Path) -> None:
        leave(spool / "6001/INBOX", 2, "behind a gap")
        (spool / "6001/INBOX/msg0001.gsm").write_text("half a message")

    bundle = it.told(
        base=lambda spool: leave(spool / "6001/INBOX", 0, "a"),
        pbx01=lambda spool: leave(spool / "6001/INBOX", 2, "b"),
        pbx02=pbx02,
    )
    assert it.merge(bundle).taken == (f"{it.spool}/6001/INBOX/msg0003 (was msg0002)",)


def test_parts_of_messages_are_left_and_other_files_are_files(tmp_path: Path) -> None:
    it = story(tmp_path, merge="voicemail")

    def pbx01(spool: Path) -> None:
        inbox = spool / "6001/INBOX"
        leave(inbox, 1, "without its text")
        (inbox / "msg0001.txt").unlink()
        (inbox / "msg0000.txt").write_text("only its text has changed")
        leave(inbox, 2, "passed on")
        (inbox / "msg0002intro.wav").write_text("listen")
        write(tmp__Ab3d_wav="half")(spool / "6001")
        write(unavail_wav="hello", busy_wav="mine")(spool / "6001")
        (inbox / ".lock").touch()

    bundle = it.told(
        base=lambda spool: leave(spool / "6001/INBOX", 0, "a"),
        pbx01=pbx01,
        pbx02=lambda spool: write(busy_wav="here")(spool / "6001"),
    )
    mailbox = it.spool / "6001"
    merged = it.merge(bundle)
    assert merged.taken == (f"{mailbox}/unavail.wav", f"{mailbox}/INBOX/msg0001 (was msg0002)")
    assert (mailbox / "INBOX/msg0001intro.wav").read_text() == "listen"
    assert merged.left == (
        f"{mailbox}/busy.wav: another file of that name is here",
        f"{mailbox / 'tmp'}/Ab3d.wav: it was still being recorded",
        f"{mailbox}/INBOX/msg0000: its sound is not among what was kept aside: only its .txt differs",
        f"{mailbox}/INBOX/msg0001: its .txt is not among what was kept aside",
    )


def test_a_path_may_be_one_folder_of_a_mailbox(tmp_path: Path) -> None:
    """Then nothing is looked at that is beside it."""
    it = story(tmp_path, merge="voicemail")
    leave(it.spool.parent / "Old", 0, "b")
    bundle = it.told(
        base=lambda spool: leave(spool, 0, "a"), pbx01=lambda spool: leave(spool, 1, "b")
    )
    assert it.merge(bundle).taken == (f"{it.spool}/msg0001",)
    assert it.merge(bundle) == Merged(known=1)
    assert messages(it.spool) == ["a", "b"]


def one_message(tmp_path: Path) -> tuple[Story, Path, Path]:
    it = story(tmp_path, merge="voicemail")
    bundle = it.told(
        base=lambda spool: leave(spool / "6001/INBOX", 0, "a"),
        pbx01=lambda spool: leave(spool / "6001/INBOX", 1, "b"),
    )
    assert bundle is not None
    return it, bundle, it.spool / "6001/INBOX"


def test_a_message_that_was_moved_before_it_was_recorded_is_not_taken_twice(tmp_path: Path) -> None:
    """We died when it was whole; its owner heard it, and moved it."""
    it, bundle, inbox = one_message(tmp_path)
    it.merge(bundle)
    (entry,) = it.recorded()
    old = inbox.parent / "Old"
    old.mkdir()
    for each in inbox.glob("msg0001*"):
        os.link(each, inbox / f".understudy-{entry['key'][:32]}{each.suffix}")
        each.rename(old / each.name.replace("0001", "0000"))
    (tmp_path / "store-pbx02" / "merged.jsonl").unlink()
    assert it.merge(bundle) == Merged(taken=(f"{inbox}/msg???? (was msg0001)",))
    assert (messages(inbox), messages(old)) == (["a"], ["b"])
    assert it.merge(bundle) == Merged(known=1)


def test_a_folder_that_asterisk_has_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voicemail, "LOCK_WITHIN", 0.2)
    it, bundle, inbox = one_message(tmp_path)
    (inbox / ".lock").touch()
    assert it.merge(bundle).left == (
        f"{inbox}/msg0001: its folder was locked by Asterisk for 0.2 s",
    )
    os.utime(inbox / ".lock", (1, time.time() - 600))
    (line,) = it.merge(bundle).left
    assert line.startswith(f"{inbox}/msg0001: its folder has been locked for 10 min: ")
    assert [each.name for each in inbox.iterdir() if each.name.startswith(".")] == [".lock"]
    (inbox / ".lock").unlink()
    assert len(it.merge(bundle).taken) == 1
    assert messages(inbox) == ["a", "b"]


def test_a_lock_of_ours_is_taken_away(tmp_path: Path) -> None:
    it, bundle, inbox = one_message(tmp_path)
    (inbox / ".lock-understudy").touch()
    os.link(inbox / ".lock-understudy", inbox / ".lock")
    assert len(it.merge(bundle).taken) == 1
    assert messages(inbox) == ["a", "b"]


ASTERISK = """
import os, sys, time
from pathlib import Path
folder, count = Path(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    mine = folder / f".lock-{number:08x}"
    mine.touch()
    while True:
        try:
            os.link(mine, folder / ".lock")
            break
        except FileExistsError:
            time.sleep(0)
    mine.unlink()
    used = {int(each.name[3:7]) for each in folder.glob("msg*")}
    free = next(n for n in range(10000) if n not in used)
    words = f"asterisk {number}"
    (folder / f"msg{free:04}.wav").write_text(f"sound of {words}")
    time.sleep(0.001)
    (folder / f"msg{free:04}.WAV").write_text(f"SOUND of {words}")
    (folder / f"msg{free:04}.txt").write_text(f"[message]\\nmsg_id={words}\\n")
    (folder / ".lock").unlink()
    print(number, flush=True)
"""


def test_asterisk_may_leave_messages_meanwhile(tmp_path: Path) -> None:
    it = story(tmp_path, merge="voicemail")

    def pbx01(spool: Path) -> None:
        for number in range(1, 31):
            leave(spool / "6001/INBOX", number, f"pbx01 {number}")

    bundle = it.told(base=lambda spool: leave(spool / "6001/INBOX", 0, "first"), pbx01=pbx01)
    inbox = it.spool / "6001/INBOX"
    argv = [sys.executable, "-c", ASTERISK, str(inbox), "60"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as asterisk:
        assert asterisk.stdout is not None
        asterisk.stdout.readline()
        merged = it.merge(bundle)
        asterisk.communicate(timeout=120)
    assert (len(merged.taken), merged.left) == (30, ())
    wanted = {"first", *(f"pbx01 {n}" for n in range(1, 31)), *(f"asterisk {n}" for n in range(60))}
    found = messages(inbox)
    assert (set(found), len(found)) == (wanted, 91)


def test_what_comes_and_goes_is_not_copied_and_goes_with_a_put(tmp_path: Path) -> None:
    it = story(tmp_path, merge="voicemail")
    it.spool.mkdir(parents=True)
    leave(it.spool, 0, "a")
    before = texts(it.spool)
    for name in (".lock", ".lock-0123abcd", ".lock-understudy", ".understudy-0123.txt"):
        (it.spool / name).touch()
    it.pull("pbx02")
    copy = it.node("pbx02")
    (snapshot,) = copy.store.all()
    assert texts(snapshot.path / "root" / it.spool.relative_to("/")) == before
    assert asyncio.run(copy.keep()) == ""
    asyncio.run(copy.put())
    assert texts(it.spool) == before


# Dying

KILLS = """
import asyncio, json, os, shutil, sys, threading
from pathlib import Path
from understudy.adapters.copies import rsync
from understudy.adapters.copies.rsync import Rsync, Settings
from understudy.adapters.copies.rsync.settings import Merge

spool, store, bundle, saved = map(Path, sys.argv[1:5])
part, parts = int(sys.argv[5]), int(sys.argv[6])
ours = str(Path(rsync.__file__).parent)
OFTEN = 2  # How often a line may have been reached before.

def merge():
    settings = Settings(paths=(spool,), merge=Merge.VOICEMAIL)
    return asyncio.run(Rsync("data", settings, node="pbx02", folder=store).merge(bundle))

def before_lines(do):
    seen = {}
    def trace(frame, event, arg):
        if not frame.f_code.co_filename.startswith(ours):
            return None
        if event == "line":
            line = (Path(frame.f_code.co_filename).name, frame.f_lineno)
            seen[line] = seen.get(line, 0) + 1
            do(line, seen[line])
        return trace
    threading.settrace(trace)
    sys.settrace(trace)

def in_child(work):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        out = work()
        os.write(write, json.dumps(out).encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    return os.waitpid(child, 0)[1], json.loads(text) if text else None

def reset():
    for place, source in ((spool, saved / "spool"), (store, saved / "store")):
        shutil.rmtree(place)
        shutil.copytree(source, place, symlinks=True)

def rehearsal():
    found = []
    before_lines(lambda line, times: found.append((line, times)))
    merge()
    sys.settrace(None)
    return found

def dying(at):
    def work():
        before_lines(lambda line, times: (line, times) == at and os.kill(os.getpid(), 9))
        merge()
        return "alive"
    return work

def whole():
    merged = merge()
    places = {str(each.relative_to(spool)): each.read_text() for each in spool.rglob("*") if each.is_file()}
    return [merged.taken, merged.known, merged.left, places]

reset()
status, points = in_child(rehearsal)
assert status == 0, status
points = [(tuple(line), times) for line, times in points if times <= OFTEN]
for at in points[part::parts]:
    reset()
    died, said = in_child(dying(at))
    ends = [in_child(whole)[1] for _ in range(2)]
    print(json.dumps([at, died, said, ends]), flush=True)
"""


@pytest.mark.parametrize("part", range(4))
def test_whoever_merges_may_die_between_any_two_lines(tmp_path: Path, part: int) -> None:
    """Killed there, and run again: nothing lost, nothing twice, nothing of ours left, and no lock."""
    it = story(tmp_path, merge="voicemail")

    def base(spool: Path) -> None:
        leave(spool / "6001/INBOX", 0, "kept")
        leave(spool / "6001/INBOX", 1, "deleted here")

    def pbx01(spool: Path) -> None:
        leave(spool / "6001/INBOX", 2, "b")
        leave(spool / "6001/Work", 0, "c")
        write(greet_wav="hello")(spool / "6001")

    def pbx02(spool: Path) -> None:
        delete(spool / "6001/INBOX", 1)
        leave(spool / "6001/INBOX", 1, "new")

    bundle = it.told(base=base, pbx01=pbx01, pbx02=pbx02)
    store, saved = tmp_path / "store-pbx02", tmp_path / "saved"
    saved.mkdir()
    shutil.copytree(it.spool, saved / "spool")
    shutil.copytree(store, saved / "store")
    argv = [sys.executable, "-c", KILLS, *map(str, (it.spool, store, bundle, saved, part, 4))]
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert it.merge(bundle).taken == ()  # The last one is in place.
    wanted = texts(it.spool)
    assert messages(it.spool / "6001/INBOX") == ["kept", "new", "b"]
    assert messages(it.spool / "6001/Work") == ["c"]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) > 50
    for at, died, said, (first, second) in outcomes:
        assert (died, said) == (9, None), at
        assert len(first[0]) + first[1] == 4, at  # Three are taken, one was deleted here.
        assert first[2:] == [[], wanted], at
        assert second == [[], 4, [], wanted], at
