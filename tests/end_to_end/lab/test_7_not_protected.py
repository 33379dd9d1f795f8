"""The standby broke in March: NOT PROTECTED within two minutes, with the reason; healed: PROTECTED."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from end_to_end.lab.stage import Stage, until

NOTICED_WITHIN = 120.0  # Seconds.
DROP_IN = "/run/systemd/system/understudy.service.d"


@dataclass(frozen=True, slots=True)
class Decay:
    begin: Callable[[Stage], None]
    heal: Callable[[Stage], None]
    words: tuple[str, ...]  # Of the reason.


def script(stage: Stage, text: str) -> None:
    stage.run("pbx02", "sh", "-ec", text)


def stop_agent(stage: Stage) -> None:
    script(stage, "systemctl stop understudy")


def start_agent(stage: Stage) -> None:
    script(stage, "systemctl start understudy")


def fill_disk(stage: Stage) -> None:
    """A file system of its own for the journal, so that nobody else's is filled."""
    script(
        stage,
        "systemctl stop understudy; d=/var/lib/understudy; cp -a $d /root/kept; "
        "mount -t tmpfs -o size=24m,mode=0750,uid=$(id -u understudy),gid=$(id -g understudy) tmpfs $d; "
        "cp -a /root/kept/. $d/; systemctl start understudy; sleep 2; "
        "dd if=/dev/zero of=$d/filler bs=64k 2>/dev/null || true",
    )


def empty_disk(stage: Stage) -> None:
    script(stage, "rm -f /var/lib/understudy/filler")


def edit_configuration(stage: Stage) -> None:
    script(
        stage,
        "cp -a /etc/understudy/understudy.toml /root/before.toml; "
        "sed -i 's/^patience = .*/patience = \"59s\"/' /etc/understudy/understudy.toml; "
        "systemctl restart understudy",
    )


def restore_configuration(stage: Stage) -> None:
    script(
        stage,
        "cp -a /root/before.toml /etc/understudy/understudy.toml; systemctl restart understudy",
    )


def set_clock_wrong(stage: Stage) -> None:
    """All hosts share this machine's clock: the agent alone is made to believe in another one."""
    script(
        stage,
        f'mkdir -p {DROP_IN}; lib=$(find /usr/lib -name libfaketime.so.1 | head -1); test -n "$lib"; '
        "printf '[Service]\\nMemoryDenyWriteExecute=no\\n"
        "Environment=LD_PRELOAD=%s FAKETIME=+90s DONT_FAKE_MONOTONIC=1\\n' "
        f"$lib >{DROP_IN}/clock.conf; "
        # What answers the other node is a process of sshd's: the same clock for it, and no doorkeeper with another.
        "printf 'LD_PRELOAD=%s\\nFAKETIME=+90s\\nDONT_FAKE_MONOTONIC=1\\n' $lib >>/etc/environment; "
        "systemctl stop understudy-door; systemctl daemon-reload; systemctl restart understudy",
    )


def set_clock_right(stage: Stage) -> None:
    script(
        stage,
        f"rm -f {DROP_IN}/clock.conf; sed -i '/FAKETIME\\|LD_PRELOAD\\|DONT_FAKE/d' /etc/environment; "
        "systemctl daemon-reload; systemctl restart understudy; systemctl start understudy-door",
    )


DECAYS = {
    "agent-stopped": Decay(stop_agent, start_agent, ("agent",)),
    "disk-full": Decay(fill_disk, empty_disk, ("disk", "full", "space", "journal")),
    "configuration-edited": Decay(edit_configuration, restore_configuration, ("configuration",)),
    "clock-wrong": Decay(set_clock_wrong, set_clock_right, ("clock",)),
}


@pytest.mark.parametrize("name", DECAYS)
def test_not_protected(stage: Stage, name: str) -> None:
    decay = DECAYS[name]
    until(
        lambda: protected(stage), within=60, what=lambda: f"PROTECTED: {shown(stage)}{stage.said()}"
    )
    decay.begin(stage)
    until(
        lambda: not protected(stage),
        within=NOTICED_WITHIN,
        what=lambda: f"NOT PROTECTED: {shown(stage)}{stage.said()}",
    )
    said = shown(stage).lower()
    assert any(word in said for word in decay.words), said
    stage.wait_for_mail("not protected", within=60)
    decay.heal(stage)
    until(
        lambda: protected(stage),
        within=NOTICED_WITHIN,
        what=lambda: f"PROTECTED: {shown(stage)}{stage.said()}",
    )
    assert stage.watch.serving() == ("pbx01",), stage.said()
    # Not left whole: the same news again within ten minutes would wait, and go out as one mail.


def protected(stage: Stage) -> bool:
    return stage.status("pbx01").get("protected") is True


def shown(stage: Stage) -> str:
    return stage.run("pbx01", "understudy", "status", check=False)
