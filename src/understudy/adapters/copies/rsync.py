"""Files and folders by rsync(1): configuration, voicemail, prompts.

The standby's rsync receives and the active node's sends, through the same door as every other request: rsync is told
that the door is its remote shell.  What comes is a whole new snapshot, in which files that did not change are hard
links to those of the snapshot before (--link-dest); what is put in place is a copy of its own, since the PBX writes
into its files and must never reach the store.

    STORE/2026-11-23T04-15-00.123Z/root/etc/asterisk/extensions.conf   of /etc/asterisk/extensions.conf
    STORE/accept                                                       a person allows the next pull to lose files
"""

import filecmp
import os
import re
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from understudy.adapters.copies import node_values
from understudy.adapters.copies.node_values import NodeValue
from understudy.adapters.copies.settings import CopySettings
from understudy.adapters.copies.store import Store, tree
from understudy.adapters.copies.threads import in_thread
from understudy.adapters.processes import Finished, run
from understudy.config.settings import setting
from understudy.config.values import SYSTEM_FOLDERS
from understudy.errors import AdapterError, ConfigError, Denied, Refused, Unanswered, Unreachable
from understudy.ports import Pulled, Source

ROOT = "root"  # In a snapshot: what / is on the nodes.
MANY = 20  # Files in a path: to lose more than half of so many is believed to be an accident.
SILENCE = 60  # Seconds without a byte after which either rsync gives up (--timeout).
STAGED = ".~tmp~"  # Where rsync keeps what --delay-updates delays.
SELINUX = Path("/sys/fs/selinux/enforce")

# Other programs need these, or what is beside the PBX's in them: nothing is made "exactly the same" there.
_NOT_OURS = re.compile(
    r"/(bin|boot|dev|etc|home|lib(32|64)?|opt|proc|root|run|sbin|srv|sys|tmp|usr(/[^/]+)?|var(/(lib|log|spool))?)"
)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CopySettings):
    paths: tuple[Path, ...] = setting(
        "Folders (with all that is in them) and files to copy, each to the same path on the other node.  "
        "There it is made exactly the same: what is not on the active node is deleted.",
        example=["/etc/asterisk/", "/var/spool/asterisk/voicemail/"],
    )
    exclude: tuple[str, ...] = setting(
        "What to leave alone on both nodes: patterns as in rsync's --exclude, relative to each path.",
        default=(),
        example=["asterisk.pid", "*.lock"],
    )
    node_values: tuple[str, ...] = setting(
        "What differs between the nodes in files that are copied: `NODE FILE [SECTION] KEY = VALUE`, for each "
        "node.  Without `[SECTION]` every line with that key is meant.",
        default=(),
        example=[
            "pbx01 /etc/asterisk/a.conf bind = 192.0.2.1",
            "pbx02 /etc/asterisk/a.conf bind = 192.0.2.2",
        ],
    )

    def __post_init__(self) -> None:
        # Not super(): with slots this is another class than the one that it knows.
        CopySettings.__post_init__(self)
        _check_paths(self.paths)
        _check_patterns(self.exclude)
        _check_values(self.values, self.paths)

    @property
    def places(self) -> tuple[Path, ...]:
        """What is copied."""
        return self.paths

    @property
    def values(self) -> tuple[NodeValue, ...]:
        return tuple(node_values.parse(text) for text in self.node_values)


def _check_paths(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("paths is empty.  Write the folders to copy.")
    for path in paths:
        if not node_values.SAFE_PATH.fullmatch(str(path)) or ".." in path.parts:
            right = "Write an absolute path of letters, digits and . _ - + @ : , alone"
            raise ValueError(f"paths has {str(path)!r}.  {right}.")
        if _NOT_OURS.fullmatch(str(path)):
            raise ValueError(
                f"paths has {path}, which is not the PBX's alone.  Write its own folders."
            )
        if any(path != other and other in path.parents for other in paths) or paths.count(path) > 1:
            raise ValueError(f"paths has {path} twice, or in another path.  Write it once.")


def _check_patterns(patterns: Sequence[str]) -> None:
    for pattern in patterns:
        # rsync(1), FILTER RULES: in front of a pattern these make another kind of rule of it.
        is_rule = pattern.startswith(("+ ", "- ", "!"))
        if is_rule or not pattern.strip() or not pattern.isprintable():
            raise ValueError(f'exclude has {pattern!r}.  Write a pattern alone, e.g. "*.lock".')


def _check_values(values: Sequence[NodeValue], paths: Sequence[Path]) -> None:
    nodes: dict[str, list[str]] = {}
    for value in values:
        if not any(value.file.is_relative_to(path) for path in paths):
            raise ValueError(f"node_values names {value.file}, which is in none of the paths.")
        nodes.setdefault(value.place, []).append(value.node)
    for place, each in nodes.items():
        if len(set(each)) < len(each):
            raise ValueError(f"node_values has two values for {place} on one node.  Write one.")
        if len(each) == 1:
            raise ValueError(
                f"node_values has a value for {place} on {each[0]} alone.  Write the other node's as well: "
                "once they have changed roles, the file is copied the other way."
            )


class Rsync:
    """A ports.Copy.  What goes wrong on our own disk is an OSError."""

    def __init__(self, name: str, settings: Settings, *, node: str, folder: Path) -> None:
        """`node` is this one; `folder` is for this class of data alone.  Raises ConfigError."""
        self.name = name
        self._settings = settings
        self._node = node
        folder = folder.absolute()
        if any(folder.is_relative_to(path) for path in settings.paths):
            raise ConfigError(
                [
                    f"[copies.{name}]: the copies themselves are kept in {folder}, in one of the paths."
                ]
            )
        self.store = Store(folder, keep=settings.keep, keep_bytes=settings.keep_bytes)

    def accept(self) -> None:
        """Let the next pull that succeeds lose as many files as it may."""
        self.store.accept()

    # At the standby

    async def pull(self, source: Source) -> Pulled:
        """Raises Unreachable, Denied, OSError; then there is no new snapshot."""
        taken, give_up = time.time(), time.monotonic() + self._settings.within
        new = await _in_thread(self.store.begin) / ROOT
        newest = self.store.newest()
        old = newest.path / ROOT if newest else None
        received = 0
        try:
            for path in self._settings.paths:
                received += await self._receive(source, path, new, old, give_up)
            return await _in_thread(self._keep, source.node, new, old, taken, received)
        except AdapterError:
            await _in_thread(self.store.discard)
            raise

    async def _receive(
        self, source: Source, path: Path, new: Path, old: Path | None, give_up: float
    ) -> int:
        """Returns the bytes that travelled."""
        words = await _in_thread(self._receiving, path, new, old)
        # rsync asks its shell to run "rsync" there; ours knows better.
        request = shlex.join((*source.reach, "copy", self.name, str(source.epoch)))
        try:
            done = await _rsync(words, give_up, {"UNDERSTUDY_REACH": request})
        except Unanswered as error:
            within = self._settings.within
            raise Unreachable(f"{source.node} did not send {path} within {within:g} s") from error
        if done.code not in (0, 24):  # 24: a file vanished while it was read, as files do.
            raise await _in_thread(self._failure, source.node, path, old, done)
        return _received(done.out)

    def _receiving(self, path: Path, new: Path, old: Path | None) -> list[str]:
        """rsync's arguments."""
        into = _below(new, path).parent
        into.mkdir(parents=True, exist_ok=True)
        words = ["--stats", f"--timeout={SILENCE}", f"--rsh={_SHELL}"]
        if old is not None and _below(old, path).parent.is_dir():
            words.append(f"--link-dest={_below(old, path).parent}")
        # Which of the paths, with the name under which it will come: rsync insists on that.
        number = self._settings.paths.index(path)
        return [*words, *self._filters(path), f"other:@{number}/{path.name}", f"{into}/"]

    def _filters(self, path: Path) -> list[str]:
        """For a transfer of `path` itself: patterns that begin with a slash are meant to begin in it."""
        anchored = (
            f"/{path.name}{each}" if each.startswith("/") else each
            for each in self._settings.exclude
        )
        # First the path itself, which an unlucky pattern would match; last, what `put` may have left there.
        return [
            f"--include=/{path.name}",
            *(f"--exclude={each}" for each in anchored),
            f"--exclude={STAGED}/",
        ]

    def _failure(self, node: str, path: Path, old: Path | None, done: Finished) -> AdapterError:
        refusal = re.search(r"^understudy: (.+)$", done.err, re.MULTILINE)
        if refusal:
            return Denied(f"{node} refuses: {_printable(refusal[1])}")
        gone = rf'link_stat "[^"]*/{re.escape(path.name)}" failed: .*\(2\)$'
        if re.search(gone, done.err, re.MULTILINE):
            had = _files(_below(old, path)) if old is not None else 0
            return Denied(
                f"{node} has no {path}"
                + (f"; the newest copy has {had} files there" if had else ""),
                hint="Make it there, or take it out of `paths`.",
            )
        if done.code == 23:
            return Denied(
                f"not all of {path} could be copied from {node}: {_unread(done.err)}",
                hint="Let it be read there, or exclude it.",
            )
        if done.code == 11:
            return Denied(f"{path} could not be kept here: {_complaint(done)}")
        return Unreachable(f"{node} did not send {path}: {_complaint(done)}")

    def _keep(self, node: str, new: Path, old: Path | None, taken: float, received: int) -> Pulled:
        """What has come whole."""
        found = {
            path: _difference(_below(new, path), old and _below(old, path))
            for path in self._settings.paths
        }
        if not self.store.accepted.exists():
            for path, difference in found.items():
                self._guard(node, path, difference)
        changed = any(each.changed for each in found.values())
        if changed:
            self.store.commit(taken)
        else:
            self.store.discard()
        self.store.use_up_acceptance()
        return Pulled(
            changed=changed,
            files=sum(each.new for each in found.values()),
            bytes=received if changed else 0,
        )

    def _guard(self, node: str, path: Path, found: "_Difference") -> None:
        """A source that was wiped does not empty the standby."""
        had, where = found.before, "the newest copy has"
        if not found.known:
            # The first pull: then all that counts is that `put` would leave nothing.
            had, where = (
                (_files(path.resolve()), f"{self._node} has") if found.after == 0 else (0, "")
            )
        if (found.after == 0 and had > 0) or (had >= MANY and 2 * found.after < had):
            raise Denied(
                f"{node} has {found.after} files in {path}, and {where} {had}",
                hint=f"If that is right: understudy copies accept {self.name}.",
            )

    async def keep(self) -> str:
        """Files alone, below their paths.  Raises Denied, Unanswered, OSError."""
        give_up = time.monotonic() + self._settings.within
        root, paths = await _in_thread(self._copied)
        ours = await _in_thread(self._with_values, root, paths)
        aside = await _in_thread(self.store.begin_aside) / ROOT
        for path in paths:
            if path not in ours:
                await self._put_aside(root, path, aside, ours, give_up)
        for file, content in ours.items():
            await _in_thread(_copy_other, _in_place(file, paths), _below(aside, file), content)
        return str(await _in_thread(self.store.keep_aside, time.time()) or "")

    async def _put_aside(
        self, root: Path, path: Path, aside: Path, ours: Iterable[Path], give_up: float
    ) -> None:
        """What is in `path` here and not the same in the snapshot."""
        words = await _in_thread(self._aside, root, path, aside, ours)
        done = await _rsync(words, give_up, {}) if words else None
        if done is not None and done.code not in (0, 24):
            raise Denied(f"what is in {path} here could not be kept aside: {_complaint(done)}")

    def _aside(self, root: Path, path: Path, aside: Path, ours: Iterable[Path]) -> list[str]:
        """rsync's arguments; none where there is nothing."""
        copied, kept, here = _below(root, path), _below(aside, path), path.resolve()
        words = ["--prune-empty-dirs", f"--exclude={STAGED}/"]
        if here.is_dir():
            kept.mkdir(parents=True)
            mine = (file.relative_to(path) for file in ours if file.is_relative_to(path))
            words += [f"--exclude=/{file}" for file in mine]
            words += [f"--exclude={pattern}" for pattern in self._settings.exclude]
            # Everything that is the same there is left out (rsync(1), --compare-dest).
            return [*words, f"--compare-dest={copied}", f"{here}/", f"{kept}/"]
        if not here.exists():
            return []
        kept.parent.mkdir(parents=True)
        return [*words, f"--compare-dest={copied.parent}", str(here), str(kept)]

    async def put(self) -> bool:
        """Raises Denied, Unanswered, OSError.  Cancelled, it has ended when the cancellation is seen.

        A path that came into `paths` after the newest snapshot is left alone.
        """
        give_up = time.monotonic() + self._settings.within
        root, paths = await _in_thread(self._copied)
        ours = await _in_thread(self._with_values, root, paths)
        changed = False
        for path in paths:
            if path not in ours:
                changed |= await self._place(root, path, ours, give_up)
        for file, content in ours.items():
            changed |= await _in_thread(_write, _below(root, file), _in_place(file, paths), content)
        await self._relabel(paths, give_up)
        return changed

    def _copied(self) -> tuple[Path, tuple[Path, ...]]:
        """Where the newest snapshot is, and which of the paths are in it.  Raises Denied."""
        newest = self.store.newest()
        if newest is not None:
            root = newest.path / ROOT
            paths = tuple(
                path for path in self._settings.paths if os.path.lexists(_below(root, path))
            )
            if paths:
                return root, paths
        raise Denied(
            f"nothing has been copied yet for {self.name}",
            hint="Let the standby pull it from the active node first.",
        )

    def _with_values(self, root: Path, paths: Sequence[Path]) -> dict[Path, bytes]:
        """The contents of the files that differ on this node.  Raises Denied before anything is changed."""
        values: dict[Path, list[NodeValue]] = {}
        for value in self._settings.values:
            if value.node == self._node and any(value.file.is_relative_to(path) for path in paths):
                values.setdefault(value.file, []).append(value)
        contents, wrong = {}, []
        for file, those in values.items():
            copied = _below(root, file)
            if not copied.is_file() or copied.resolve() != _below(root.resolve(), file):
                wrong.append(f"{file} is not a file there")
                continue
            # Whatever the encoding is, it goes back as it came.
            text = copied.read_bytes().decode(errors="surrogateescape")
            wrong += [f"there is no {value.place}" for value in node_values.missing(text, those)]
            contents[file] = node_values.apply(text, those).encode(errors="surrogateescape")
        if wrong:
            raise Denied(
                f"node_values does not fit the newest copy of {self.name}, and nothing was put in place: "
                + "; ".join(wrong),
                hint="Write it into the file on the active node, or correct `node_values`.",
            )
        return contents

    async def _place(self, root: Path, path: Path, ours: Iterable[Path], give_up: float) -> bool:
        """All of `path` but the files in `ours`.  Did anything differ?"""
        words = await _in_thread(self._placing, root, path, ours)
        done = await _rsync(words, give_up, {})
        if done.code != 0:
            why = _unread(done.err) if done.code == 23 else _complaint(done)
            raise Denied(f"{path} could not be put in place: {why}")
        return any(line.startswith(_CHANGE) for line in done.out.splitlines())

    def _placing(self, root: Path, path: Path, ours: Iterable[Path]) -> list[str]:
        """rsync's arguments.  Raises Denied."""
        copied, target = _below(root, path), path.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        _unstage(target)
        # Nothing in place changes before all of it is on this disk: then renames, then deletions.
        words = [
            "--delay-updates",
            "--delete-delay",
            "--omit-dir-times",
            f"--out-format={_CHANGE}%i",
        ]
        if copied.is_dir() and not copied.is_symlink():
            mine = (file.relative_to(path) for file in ours if file.is_relative_to(path))
            words += [f"--exclude=/{file}" for file in mine]
            words += [f"--exclude={pattern}" for pattern in self._settings.exclude]
            return [*words, f"{copied}/", f"{target}/"]
        if target.is_dir():
            raise Denied(
                f"{path} is a folder here and a file on the active node", hint="Remove it here."
            )
        return [*words, str(copied), str(target)]

    async def _relabel(self, paths: Sequence[Path], give_up: float) -> None:
        """SELinux: what came from the store has its label (restorecon(8))."""
        program = shutil.which("restorecon", path=":".join(SYSTEM_FOLDERS))
        if program is None or not await _in_thread(SELINUX.exists):
            return
        there = [str(path.resolve()) for path in paths]
        done = await run((program, "-R", *there), within=max(0.0, give_up - time.monotonic()))
        if done.code != 0:
            raise Denied(f"all is in place, but without its SELinux labels: {done.said}")

    # At the source

    def serve(self, words: Sequence[str]) -> int:
        """rsync's sender for one of the paths, in our place: it does not return."""
        if len(words) == len(_ASKED) and all(map(re.fullmatch, _ASKED, words)):
            self._send(words)
        raise Refused(
            f"not what a pull of {self.name} asks for: {_printable(' '.join(words))[:200]!r}",
            hint="Do both nodes run the same version?",
        )

    def _send(self, words: Sequence[str]) -> NoReturn:
        number, _, name = words[-1].removeprefix("@").partition("/")
        here = dict(enumerate(self._settings.paths))
        path = here.get(int(number))
        if path is None or path.name != name:
            raise Refused(
                f"path {number} of {self.name} is {path or 'none'} here, and {_printable(name)!r} there",
                hint="Give both nodes the same configuration.",
            )
        if path.is_symlink():
            raise Refused(
                f"{path} is a symbolic link here", hint="Write in `paths` where it leads."
            )
        try:
            os.execvp("rsync", ["rsync", *words[:-1], str(path)])
        except OSError as error:
            raise Unreachable(f"cannot run rsync here: {error.strerror}", hint=_INSTALL) from error


# rsync calls SHELL HOST PROGRAM WORD...; the request is a line for a shell, since it may hold any signs.
_SHELL = """sh -c 'shift 2; eval "exec $UNDERSTUDY_REACH \\"\\$@\\""' sh"""
# Word by word what it asks for; behind `e.` it tells what it is able to do (compat.c, client_info).
_ASKED = (
    *("--server", "--sender", r"-[logDtpr]{7}e[0-9]{0,3}\.[0-9]{0,3}[A-Za-z]{0,20}"),
    *(r"--timeout=[0-9]{1,6}", r"\.", r"@[0-9]{1,3}/[^/]+"),
)
_CHANGE = "changed: "  # In front of what --out-format tells: rsync has other news, too.
_INSTALL = "apt install rsync"


async def _rsync(words: Sequence[str], give_up: float, env: Mapping[str, str]) -> Finished:
    # Times are compared to the nanosecond: a file may change twice in a second, and keep its size.
    argv = ("rsync", "--archive", "--modify-window=-1", *words)
    # Two variables that would change what rsync sends.
    env = {**env, "RSYNC_PROTECT_ARGS": "0", "RSYNC_ICONV": ""}
    try:
        return await run(argv, within=max(0.0, give_up - time.monotonic()), env=env)
    except Unreachable as error:
        raise Unreachable(f"{error} here", hint=_INSTALL) from error


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await in_thread(partial(function, *args, **kwargs))


def _below(root: Path, path: Path) -> Path:
    """Where `path`, absolute, is when `root` is /."""
    return root / path.relative_to("/")


def _in_place(file: Path, paths: Iterable[Path]) -> Path:
    """A path may be a symbolic link here; what is in it is as it was copied."""
    (path,) = (path for path in paths if file.is_relative_to(path))
    return path.resolve() / file.relative_to(path)


@dataclass(frozen=True, slots=True)
class _Difference:
    """Between two states of a path.  Files are all but folders."""

    known: bool  # Was it there before?
    before: int
    after: int
    new: int  # Files that are new or different.
    changed: bool


def _difference(new: Path, old: Path | None) -> _Difference:
    entries = after = fresh = had = before = 0
    for _, found in _all(old) if old is not None else ():
        had += 1
        before += _is_file(found)
    changed = False
    for rest, found in _all(new):
        entries += 1
        after += _is_file(found)
        if old is None or not _same(f"{new}{rest}", found, f"{old}{rest}"):
            changed = True
            fresh += _is_file(found)
    return _Difference(
        known=had > 0,
        before=before,
        after=after,
        new=fresh,
        changed=changed or entries != had,
    )


def _same(new: str, found: os.stat_result, old: str) -> bool:
    """A folder's time is no change: a lock file that comes and goes alters it."""
    try:
        was = os.lstat(old)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if (found.st_mode, found.st_uid, found.st_gid) != (was.st_mode, was.st_uid, was.st_gid):
        return False
    if stat.S_ISDIR(found.st_mode):
        return True
    if stat.S_ISLNK(found.st_mode):
        return Path(new).readlink() == Path(old).readlink()
    if not stat.S_ISREG(found.st_mode):
        return found.st_rdev == was.st_rdev
    if found.st_ino == was.st_ino:
        return True
    # Not linked, yet of one age and size: where the disk here keeps whole seconds, and otherwise hardly ever.
    filecmp.clear_cache()
    alike = (found.st_size, found.st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    return alike and filecmp.cmp(new, old, shallow=False)


def _files(path: Path) -> int:
    return sum(_is_file(found) for _, found in _all(path))


def _is_file(found: os.stat_result) -> bool:
    return not stat.S_ISDIR(found.st_mode)


def _all(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """`top` and what is below it, by the rest of its path; nothing where it is not."""
    try:
        found = top.lstat()
    except FileNotFoundError:
        return
    yield "", found
    if stat.S_ISDIR(found.st_mode):
        for entry in tree(top):
            yield entry.path[len(str(top)) :], entry.stat(follow_symlinks=False)


def _unstage(target: Path) -> None:
    """Take away what a `put` that was killed has left: rsync itself never would."""
    if target.is_dir():
        staged = [each.path for each in tree(target) if each.name == STAGED]
        for path in staged:
            shutil.rmtree(path, ignore_errors=True)


def _write(copied: Path, target: Path, content: bytes) -> bool:
    """`content` at `target` in one step, with owner and mode of `copied`.  Did anything differ?"""
    like = copied.stat()
    if _is_there(target, like, content):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return True


def _copy_other(here: Path, kept: Path, content: bytes) -> None:
    """Keep the file that is here, unless it is just this."""
    if here.is_file() and here.read_bytes() != content:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here, kept)


def _is_there(target: Path, like: os.stat_result, content: bytes) -> bool:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return False
    ours = os.geteuid() != 0 or (found.st_uid, found.st_gid) == (like.st_uid, like.st_gid)
    return found.st_mode == like.st_mode and ours and target.read_bytes() == content


def _received(out: str) -> int:
    found = re.search(r"^Total bytes received: ([0-9,.]+)$", out, re.MULTILINE)
    return int(re.sub(r"\D", "", found[1])) if found else 0


def _unread(err: str) -> str:
    """The first files of which rsync complains, and why."""
    found = re.findall(r'^rsync: [^"\n]*"([^"\n]+)"[^\n]*?: ([^:\n]+?) \(\d+\)$', err, re.MULTILINE)
    if not found:
        return _printable(err.strip().partition("\n")[0])
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    return _printable(", ".join(f"{path} ({why})" for path, why in found[:3])) + more


def _complaint(done: Finished) -> str:
    """What ssh or the far side has said, else what rsync says first: what follows are consequences."""
    lines = [line.strip() for line in done.err.splitlines() if line.strip()]
    others = [line for line in lines if not line.startswith(("rsync", "("))]
    told = others[-1] if others else lines[0] if lines else ""
    return f"{_printable(told)} (rsync: exit status {done.code})".strip()


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:300]
