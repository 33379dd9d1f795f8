"""Two nodes on one machine, and what each of them had: for tests of merging."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.adapters.copies.rsync import Rsync, Settings
from understudy.ports import Merged, Source

SRC = Path(__file__).parents[2] / "src"
FAR_SIDE = """
import sys
from pathlib import Path
from understudy.adapters.copies.rsync import Rsync, Settings

path, _copy, name, _epoch, *words = sys.argv[1:]
Rsync(name, Settings(paths=(Path(path),)), node="other", folder=Path("/nowhere")).serve(words)
"""
Change = Callable[[Path], object]


def nothing(spool: Path) -> None:
    pass


@dataclass(frozen=True)
class Story:
    """What is at `spool` is in turn that of pbx01 and that of pbx02, as the path is the same on both."""

    folder: Path
    settings: Settings

    @property
    def spool(self) -> Path:
        (path,) = self.settings.paths
        return path

    def node(self, name: str) -> Rsync:
        return Rsync("data", self.settings, node=name, folder=self.folder / f"store-{name}")

    def told(
        self, *, base: Change, pbx01: Change = nothing, pbx02: Change = nothing
    ) -> Path | None:
        """`base` was copied to pbx02; then pbx01 changed it, and died; pbx02 took over, and changed it.

        pbx01 is back, has pbx02's state and kept its own aside: the bundle, if there is any.  In place is pbx02's.
        """
        self.spool.mkdir(parents=True, exist_ok=True)
        base(self.spool)
        self.pull("pbx02")
        of_pbx01 = self.folder / "of-pbx01"
        shutil.copytree(self.spool, of_pbx01, symlinks=True)
        pbx01(of_pbx01)
        pbx02(self.spool)
        self.pull("pbx01")
        of_pbx02 = self.folder / "of-pbx02"
        self.spool.rename(of_pbx02)
        of_pbx01.rename(self.spool)
        aside = asyncio.run(self.node("pbx01").keep())
        shutil.rmtree(self.spool)
        of_pbx02.rename(self.spool)
        target = self.folder / "a.bundle"
        is_some = aside != "" and self.node("pbx01").bundle(Path(aside), target)
        assert is_some == target.exists()
        return target if is_some else None

    def pull(self, node: str) -> None:
        script = self.folder / "far.py"
        script.write_text(FAR_SIDE)
        reach = ("env", f"PYTHONPATH={SRC}", sys.executable, str(script), str(self.spool))
        copy = self.node(node)
        copy.accept()
        asyncio.run(copy.pull(Source(node="other", epoch=7, reach=reach)))

    def merge(self, bundle: Path | None) -> Merged:
        assert bundle is not None
        return asyncio.run(self.node("pbx02").merge(bundle))

    def recorded(self) -> list[dict[str, Any]]:
        text = (self.folder / "store-pbx02" / "merged.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


def texts(folder: Path) -> dict[str, str]:
    """All files below it."""
    return {
        str(each.relative_to(folder)): each.read_text()
        for each in sorted(folder.rglob("*"))
        if each.is_file() and not each.is_symlink()
    }


def leave(folder: Path, number: int, words: str) -> None:
    """A message, as app_voicemail leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"msg{number:04}.wav").write_text(f"sound of {words}")
    (folder / f"msg{number:04}.WAV").write_text(f"SOUND of {words}")
    (folder / f"msg{number:04}.txt").write_text(f"[message]\nmsg_id={words}\n")


def delete(folder: Path, number: int) -> None:
    """The later ones move up."""
    for each in folder.glob(f"msg{number:04}*"):
        each.unlink()
    while later := sorted(folder.glob(f"msg{number + 1:04}*")):
        for each in later:
            each.rename(folder / each.name.replace(f"msg{number + 1:04}", f"msg{number:04}"))
        number += 1


def move(folder: Path, number: int, to: Path, as_number: int) -> None:
    to.mkdir(exist_ok=True)
    for each in folder.glob(f"msg{number:04}*"):
        shutil.copy(each, to / each.name.replace(f"msg{number:04}", f"msg{as_number:04}"))
    delete(folder, number)


def messages(folder: Path) -> list[str]:
    """What is in it, by number; whatever is half there, or not in sequence, fails."""
    found = [
        (folder / f"msg{number:04}.txt").read_text().splitlines()[1].removeprefix("msg_id=")
        for number in range(len(list(folder.glob("*.txt"))))
    ]
    wanted: dict[str, str] = {}
    for number, words in enumerate(found):
        wanted[f"msg{number:04}.wav"] = f"sound of {words}"
        wanted[f"msg{number:04}.WAV"] = f"SOUND of {words}"
        wanted[f"msg{number:04}.txt"] = f"[message]\nmsg_id={words}\n"
    assert texts(folder) == wanted
    return found
