"""The way to the other node: bounded, strict, and clear about what was and was not asked."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adapters.bind import free_port
from adapters.sshd import Sshd, daemon
from understudy.adapters.peers.door import Door, Timeouts
from understudy.adapters.peers.requests import (
    Ask,
    AskMerged,
    Bundle,
    Calls,
    Compare,
    Fence,
    Fetch,
    PlaceOrder,
    Request,
    Status,
    Stream,
    Wake,
    parse_request,
    render_answer,
    render_request,
)
from understudy.adapters.peers.ssh import over_ssh
from understudy.core.observations import Order, PeerAnswer, Ready, Verb
from understudy.errors import AdapterError, Denied, Refused, Unanswered, Unreachable

SOURCE = Path(__file__).parents[2] / "src"
ORDER = Order(id=7, verb=Verb.SWITCHOVER, epoch=3, accept_loss=True)
REQUESTS = (
    Ask(epoch=7),
    Fence(node="pbx02", epoch=0),
    PlaceOrder(order=ORDER),
    Wake(),
    Status(),
    Calls(),
    Fetch(epoch=7),
    Compare(epoch=7),
    Stream(copy="etc", epoch=7, words=("read", "0f")),
    Bundle(copy="etc", epoch=7, mark="pbx01-2026-11-23T04-15-00.123Z", size=0, sha256=64 * "0"),
    AskMerged(copy="etc", epoch=7, mark="pbx01-2026-11-23T04-15-00.123Z"),
)


# What may be asked


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert parse_request(render_request(request_)) == request_


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ask",
        "ask 7 8",
        "ask  7",
        "ask -1",
        "ask 07",
        "ask 7.0",
        "ask ٧",
        "ask 9999999999999999999",
        "ask 7\n",
        "fence pbx02",
        "fence 7",
        "fence pbx02 7 8",
        "fence -n 7",
        "fence pbx/02 7",
        "fence " + 64 * "x" + " 7",
        "fetch",
        "compare x",
        "copy etc 7",
        "copy ../etc 7 read",
        "bundle etc 7 m 5",
        "bundle etc 7 m -5 0f",
        "bundle etc 7 ../m 5 0f",
        "merged etc 7",
        "merged etc 7 a/b",
        "wake up",
        " wake",
        "status; reboot",
        "WAKE",
        "order",
        "order {}",
        "order []",
        "order " + 5000 * "[",
        "order 1",
    ],
)
def test_whatever_is_not_exactly_a_request_is_refused(line: str) -> None:
    with pytest.raises(Refused):
        parse_request(line)


@pytest.mark.parametrize(
    "change",
    [
        {"verb": "reboot"},
        {"verb": "fence"},
        {"id": "7"},
        {"id": True},
        {"epoch": 1.0},
        {"accept_loss": 1},
        {"accept_everything": True},
    ],
    ids=str,
)
def test_an_order_has_its_fields_and_types_and_no_others(change: dict[str, object]) -> None:
    order = json.loads(render_request(PlaceOrder(order=ORDER)).removeprefix("order "))
    parse_request(f"order {json.dumps(order)}")
    with pytest.raises(Refused):
        parse_request(f"order {json.dumps({**order, **change})}")


def test_an_order_with_a_field_missing_is_refused() -> None:
    with pytest.raises(Refused, match="an order has exactly these: id, verb, epoch"):
        parse_request('order {"id": 7, "verb": "failover"}')


# Both ends


FAR_SIDE = """
import os, sys
from understudy.adapters.peers.requests import *
from understudy.core.observations import PeerAnswer, Ready
from understudy.errors import Refused

line = os.environ.get("SSH_ORIGINAL_COMMAND") or " ".join(sys.argv[1:])
print("Welcome to pbx02!", file=sys.stderr)
try:
    match parse_request(line):
        case Ask(epoch=epoch):
            answer = PeerAnswer(asked_at=0, ready=Ready.NO, epoch=epoch, why="the copy is old")
        case Fence(node="pbx02"):
            answer = {"stopped": True}
        case Fence(node="pbx03"):
            answer = {"stopped": False}
        case Fence():
            answer = Refused("I am pbx02")
        case PlaceOrder(order=order):
            answer = {"said": f"placed: {order}"}
        case Status():
            answer = {"phase": "standby"}
        case Wake():
            answer = {}
except Refused as error:
    answer = error
print(render_answer(answer))
"""


@dataclass(frozen=True)
class Far:
    """The far side's door, and a way to make it something else."""

    folder: Path

    def agent(self) -> Door:
        script = self.folder / "answer.py"
        script.write_text(FAR_SIDE)
        return self.command("env", f"PYTHONPATH={SOURCE}", sys.executable, str(script))

    def says(self, shell: str) -> Door:
        return self.command("sh", "-c", shell)

    def command(self, *prefix: str) -> Door:
        patience = Timeouts(ask=2, fence=2, order=2, wake=0.5, status=2)
        return Door("pbx02", prefix, patience, clock=lambda: 100.0)


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path)


def test_every_request_reaches_the_agent_and_comes_back(far: Far) -> None:
    door = far.agent()

    async def story() -> None:
        assert await door.ask(7) == PeerAnswer(
            asked_at=100.0, ready=Ready.NO, epoch=7, why="the copy is old"
        )
        await door.fence("pbx02", 7, hurry=False)
        assert await door.order(ORDER) == f"placed: {ORDER}"
        assert await door.status() == {"ok": True, "phase": "standby"}
        await door.wake()

    asyncio.run(story())


def test_a_refused_fence_is_no_fence(far: Far) -> None:
    with pytest.raises(Denied, match="pbx02 refuses: I am pbx02"):
        asyncio.run(far.agent().fence("pbx01", 7, hurry=False))


def test_a_fence_counts_only_with_stopped_said(far: Far) -> None:
    with pytest.raises(Denied, match="did not confirm"):
        asyncio.run(far.agent().fence("pbx03", 7, hurry=False))


def test_the_answer_is_as_old_as_the_question(far: Far) -> None:
    times = iter([1.0, 2.0])
    door = Door("pbx02", ("sh", "-c", YES), clock=lambda: next(times))
    assert asyncio.run(door.ask(7)).asked_at == 1.0
    assert next(times) == 2.0


YES = """echo '{"ok": true, "ready": "yes", "epoch": 7}'"""


# What goes wrong


def test_a_dead_host_does_not_hang_us(far: Far) -> None:
    door = replace_timeouts(far.says("sleep 60 & sleep 60"), 0.3)
    started = time.monotonic()
    # A question changed nothing; whether a fence came through nobody knows.
    with pytest.raises(Unreachable, match=r"pbx02 gave no answer within 0\.3 s"):
        asyncio.run(door.ask(7))
    with pytest.raises(Unanswered, match=r"pbx02 gave no answer within 0\.3 s"):
        asyncio.run(door.fence("pbx02", 7, hurry=False))
    with pytest.raises(Unanswered):
        asyncio.run(door.order(ORDER))
    asyncio.run(door.wake())
    assert time.monotonic() - started < 4


def test_a_program_that_is_not_there_asked_nothing(far: Far) -> None:
    with pytest.raises(Unreachable, match="cannot run /no/such: No such file"):
        asyncio.run(far.command("/no/such").fence("pbx02", 7, hurry=False))


@pytest.mark.parametrize(
    ("complaint", "error"),
    [
        ("ssh: connect to host 192.0.2.11 port 22: Connection refused", Unreachable),
        ("understudy@192.0.2.11: Permission denied (publickey).", Unreachable),
        ("Host key verification failed.", Unreachable),
        ("client_loop: send disconnect: Broken pipe", Unanswered),
    ],
)
def test_a_fence_that_never_left_is_told_from_one_that_may_have_come_through(
    far: Far, complaint: str, error: type[AdapterError]
) -> None:
    with pytest.raises(error) as caught:
        asyncio.run(far.says(f"echo '{complaint}' >&2; exit 255").fence("pbx02", 7, hurry=False))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "output",
    [
        "Welcome to pbx02!",
        'Welcome!\n{"ok": true, "stopped": true}',
        '{"ok": true, "stopped": true}\n{"ok": true}',
        "[]",
        "{}",
        '{"ok": 1, "stopped": true}',
        '{"ok": "yes"}',
        '{"ok": true, "stopped"',
        "",
        5000 * "[",
        "\\033[31mred",
    ],
    ids=range(11),
)
def test_junk_is_no_answer(far: Far, output: str) -> None:
    file = far.folder / "out"
    file.write_text(output)
    with pytest.raises(Unanswered, match="answered no JSON object but") as caught:
        asyncio.run(far.command("sh", "-c", f"cat {file}").fence("pbx02", 7, hurry=False))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_banner_on_standard_error_does_no_harm(far: Far) -> None:
    door = far.says(f"echo '*** authorised use only ***' >&2; {YES}")
    assert asyncio.run(door.ask(7)).ready is Ready.YES


def test_a_huge_answer_is_no_answer(far: Far) -> None:
    with pytest.raises(Unreachable, match="answered more than 64 KiB"):
        asyncio.run(far.says("head -c 9000000 /dev/zero").status())


def test_an_agent_that_fails_after_its_answer_is_not_believed(far: Far) -> None:
    shell = """echo '{"ok": true, "stopped": true}'; echo disk full >&2; exit 1"""
    with pytest.raises(Unanswered, match="answered, then failed: disk full"):
        asyncio.run(far.says(shell).fence("pbx02", 7, hurry=False))


def test_a_refusal_counts_whatever_the_exit_status(far: Far) -> None:
    shell = """echo '{"ok": false, "why": "epoch 9 is known here"}'; exit 1"""
    with pytest.raises(Denied, match="epoch 9 is known here"):
        asyncio.run(far.says(shell).fence("pbx02", 7, hurry=False))


@pytest.mark.parametrize(
    "answer",
    [
        {"ready": "yes"},
        {"epoch": 7},
        {"ready": "perhaps", "epoch": 7},
        {"ready": True, "epoch": 7},
        {"ready": "yes", "epoch": "7"},
        {"ready": "yes", "epoch": True},
    ],
    ids=str,
)
def test_half_an_answer_about_readiness_is_none(far: Far, answer: dict[str, object]) -> None:
    with pytest.raises(Unreachable, match="did not say whether it is ready"):
        asyncio.run(far.says(f"echo '{render_answer(answer)}'").ask(7))


def replace_timeouts(door: Door, seconds: float) -> Door:
    short = Timeouts(ask=seconds, fence=seconds, order=seconds, wake=seconds, status=seconds)
    return Door(door.node, door._prefix, short, clock=door._clock)


# Over SSH


def test_ssh_asks_nobody_anything_and_takes_the_target_for_no_option() -> None:
    argv = over_ssh("-oProxyCommand=reboot")
    assert argv[-2:] == ("--", "-oProxyCommand=reboot")
    assert "BatchMode=yes" in argv


class Way(Sshd):
    def door(self, far: Far) -> Door:
        argv = list(over_ssh(f"ssh://root@127.0.0.1:{self.port}"))
        files = (
            f"UserKnownHostsFile={self.folder / 'known_hosts'}",
            f"IdentityFile={self.folder / 'user'}",
            "IdentitiesOnly=yes",
        )
        argv[1:1] = [word for each in files for word in ("-o", each)]
        return Door("pbx02", tuple(argv), Timeouts(), clock=lambda: 100.0)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Way]:
    (tmp_path / "answer.py").write_text(FAR_SIDE)
    forced = f"env PYTHONPATH={SOURCE} {sys.executable} {tmp_path / 'answer.py'}"
    with daemon(tmp_path / "ssh", root_login="forced-commands-only") as made:
        made.authorize(f'restrict,command="{forced}"')
        yield Way(made.folder, made.port)


@pytest.mark.real
def test_over_ssh_the_forced_command_answers(sshd: Way, far: Far) -> None:
    async def story() -> None:
        door = sshd.door(far)
        assert (await door.ask(7)).epoch == 7
        # No shell reads the line: the quotes, braces and commas of the order come through.
        assert await door.order(ORDER) == f"placed: {ORDER}"
        with pytest.raises(Denied, match="I am pbx02"):
            await door.fence("pbx01", 7, hurry=False)

    asyncio.run(story())


@pytest.mark.real
def test_over_ssh_an_unknown_host_is_not_asked(sshd: Way, far: Far) -> None:
    (sshd.folder / "known_hosts").write_text("")
    with pytest.raises(Unreachable, match=r"pbx02 cannot be reached: .*[Hh]ost key"):
        asyncio.run(sshd.door(far).fence("pbx02", 7, hurry=False))


@pytest.mark.real
def test_over_ssh_a_key_that_is_not_known_there_is_not_let_in(sshd: Way, far: Far) -> None:
    (sshd.folder / "authorized_keys").write_text("")
    with pytest.raises(Unreachable, match="Permission denied"):
        asyncio.run(sshd.door(far).fence("pbx02", 7, hurry=False))


@pytest.mark.real
def test_over_ssh_a_closed_port_is_unreachable(sshd: Way, far: Far) -> None:
    with pytest.raises(Unreachable, match="Connection refused"):
        asyncio.run(replace(sshd, port=free_port()).door(far).fence("pbx02", 7, hurry=False))
