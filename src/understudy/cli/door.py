"""`door`: the doorkeeper.  It has the program loaded, and answers each request of the other node in a fork of itself.

`understudy answer` gives it the streams that it was called with (knock.py), so nothing is different for either side but
the third of a second that loading takes.  It knows nothing: a child reads the configuration, the journal and the claim
anew, as `answer` does.  If it is not there, hangs, or has too much to do, `answer` answers by itself.
"""

import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from understudy import knock
from understudy.errors import Refused

from .session import Session, pass_session

MOST = 32  # Requests at a time; whoever comes then answers for himself.


@click.command()
@pass_session
def door(session: Session) -> int:
    """Answer the other node's requests at once: the doorkeeper, for systemd.  Beside the agent."""
    from . import answer, main  # What every request needs, loaded once.

    _ = session.node, answer  # Adapters, and whatever they import.
    Doorkeeper(knock.place(sys.argv[1:]), main.main).keep()
    return 0


class Doorkeeper:
    def __init__(self, place: str, answer: Callable[[list[str]], int]) -> None:
        """`answer` is given the words of a command line, and returns the exit status."""
        self._place, self._answer = place, answer
        self._asked: dict[int, socket.socket] = {}  # By process: who waits for its end.
        self._ends = False

    def keep(self) -> None:
        """Until SIGTERM or SIGINT.  Raises Refused where it cannot listen.  For the main thread of a process."""
        listening = self._listen()
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._end)
        gc.collect()
        gc.freeze()  # Pages that no collection touches stay shared with the children.
        poll = select.poll()
        for handle in (listening.fileno(), woken):
            poll.register(handle, select.POLLIN)
        while not self._ends:
            for handle, _ in poll.poll():
                if handle == woken:
                    os.read(woken, 512)
                else:
                    self._admit(listening)
            self._see_off()
        listening.close()
        with suppress(OSError):
            Path(self._place).unlink()

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.setblocking(False)
        before = os.umask(0o177)  # Nobody but us and root may knock.
        try:
            Path(self._place).unlink(missing_ok=True)
            knock.bind(listening, self._place)
            listening.listen(MOST)
        except OSError as error:
            raise Refused(f"cannot listen at {self._place}: {error.strerror}") from error
        finally:
            os.umask(before)
        return listening

    def _admit(self, listening: socket.socket) -> None:
        """Whoever asks; a stranger, or somebody who says nothing, is sent away."""
        streams: list[int] = []
        try:
            asker, _ = listening.accept()
        except OSError:
            return
        try:
            asker.settimeout(knock.TAKEN_WITHIN)
            if asker.recv(1) == knock.KNOCK and len(self._asked) < MOST:
                asker.sendall(knock.TAKEN)
                words, streams, _, _ = socket.recv_fds(asker, knock.LIMIT, 3)
                if len(streams) == 3:
                    self._hand_on(asker, words, streams)
        except OSError:
            pass  # It has gone, or there are too many processes.
        finally:
            if asker not in self._asked.values():
                asker.close()
            for each in streams:
                os.close(each)

    def _hand_on(self, asker: socket.socket, words: bytes, streams: list[int]) -> None:
        process = os.fork()
        if process == 0:
            self._answer_and_end(words, streams)
        self._asked[process] = asker

    def _answer_and_end(self, words: bytes, streams: list[int]) -> NoReturn:
        """In the child: as if `understudy answer` had been called here."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
            os.setsid()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            # Everything else is the doorkeeper's: its door, its other askers.
            os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 1024)
            line, *arguments = words.decode(errors="surrogateescape").split("\0")
            os.environ.pop("SSH_ORIGINAL_COMMAND", None)
            if line:
                os.environ["SSH_ORIGINAL_COMMAND"] = line
            status = self._answer(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _see_off(self) -> None:
        """Tell those whose answer has been given how it ended."""
        for process in tuple(self._asked):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended == 0:
                continue
            asker = self._asked.pop(process)
            code = os.waitstatus_to_exitcode(status)
            with asker, suppress(OSError):
                asker.sendall(bytes([code if 0 <= code < 256 else 1]))

    def _end(self, *_: object) -> None:
        self._ends = True
