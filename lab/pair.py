"""The pair as it should be at the beginning: pbx01 serves, pbx02 stands by, the name leads to pbx01."""

import json
import time
from collections.abc import Iterable
from typing import Any

from . import image, install, machines, network
from .hosts import HERE, HOME, HOSTS, MACHINES, NODES, LabError
from .profile import SERVICE, find, isolations

CHOICE = HOME / "profile.json"  # With what the hosts that are up were made.
BEGIN_WITHIN = 30.0  # Seconds until both agents are where they should be.
SETTLE_WITHIN = 60.0
PHONES = ("6001", "6002")


def up(profile: str = "", isolation: str = "stop", names: Iterable[str] = MACHINES) -> None:
    """All hosts anew; with a profile, Understudy on them and the pair at work."""
    image.need()
    _choose(profile, isolation)
    isolations(isolation)
    if profile:
        install.build(find(profile))
    network.up()
    _make(names)
    machines.start(names)
    if profile:
        begin()


def down() -> None:
    """Everything, also what a crash has left."""
    machines.remove_all()
    network.down()
    CHOICE.unlink(missing_ok=True)


def reset(names: Iterable[str]) -> None:
    """Power cut, forget all that these hosts wrote, boot.  Nothing is done to the claim and the name."""
    names = tuple(names)
    on = [name for name in names if machines.is_on(name)]
    machines.power_cut(on)
    _make(names)
    machines.start(names)


def reset_pair(*more: str, profile: str | None = None, isolation: str | None = None) -> None:
    """Both nodes and `more` as from the factory, the network whole, the claim and the name as at the beginning."""
    chosen = choice()
    _choose(profile or chosen["profile"], isolation or chosen["isolation"])
    network.heal_all()
    if profile not in (None, chosen["profile"]):
        raise LabError(f"the hosts were installed for {chosen['profile']}: down, and up again")
    others = set(more)
    for name in MACHINES:
        machines.thaw([name])
        if not machines.is_on(name):
            others.add(name)
    others -= set(NODES)
    if others & {"dns1", "dns2"}:
        # A secondary keeps its zone where a new primary begins again with a lower serial.
        others |= {"dns1", "dns2"}
    # Nothing of before may write the claim once it has been taken away.
    machines.power_cut(name for name in NODES if machines.is_on(name))
    reset(sorted(others))
    _name_to_pbx01()
    reset(NODES)
    begin()


def begin() -> None:
    """The first claim, and both agents at work.  Raises LabError.

    As the tutorial has it: first the node that is to serve.  With both at once and the least patience the other one
    announces before the first PBX has started.
    """
    machines.execute("pbx02", "systemctl", "stop", "understudy", check=True)
    until_claimed = time.monotonic() + BEGIN_WITHIN
    while True:
        said = machines.execute(
            "pbx01", "understudy", "set-active", "pbx01", "--accept-two-active", "--yes"
        )
        if said.returncode == 0:
            break
        if time.monotonic() > until_claimed:
            raise LabError(f"pbx01 could not write the first claim: {said.stdout}{said.stderr}")
        time.sleep(0.5)
    for node, wanted in zip(NODES, ("active", "standby"), strict=True):
        machines.execute(node, "systemctl", "start", "understudy", check=True)
        machines.until(
            lambda node=node, wanted=wanted: phase(node) == wanted,  # type: ignore[misc]
            within=BEGIN_WITHIN,
            what=f"{node} is {wanted}",
        )


def settle(*, phones: bool = True) -> None:
    """Phones and trunk are registered at pbx01, and the check points see it: callers of every kind reach it."""
    if phones:
        _settle_phones()
    machines.until(
        lambda: HOSTS["pbx01"].address in machines.execute("prov", "kamcmd", "ul.dump").stdout,
        within=SETTLE_WITHIN, what="pbx01 is registered at the provider",
    )  # fmt: skip
    machines.until(
        lambda: {n["node"]: n["verdict"] for n in status("pbx02").get("nodes", [])}.get("pbx01") == "up",
        within=SETTLE_WITHIN, what="the check points see pbx01",
    )  # fmt: skip


def _settle_phones() -> None:
    if not _phones_are_registered():
        machines.execute(
            "phones", "systemctl", "restart", "baresip@6001", "baresip@6002", check=True
        )
    machines.until(
        _phones_are_registered,
        within=SETTLE_WITHIN, what="two phones are registered at pbx01",
    )  # fmt: skip


def _phones_are_registered() -> bool:
    said = machines.execute("pbx01", "asterisk", "-rx", "pjsip show contacts").stdout
    return all(f" {number}/sip:" in said for number in PHONES)


def phase(node: str) -> str:
    return str(status(node).get("phase", ""))


def status(node: str) -> dict[str, Any]:
    """`understudy status --json` there; empty when it cannot be had."""
    try:
        said = machines.execute(node, "understudy", "status", "--json", timeout=20)
        answer = json.loads(said.stdout)
    except (LabError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def is_up(profile: str) -> bool:
    """Hosts that tests have switched off count: a reset brings them back."""
    try:
        return choice()["profile"] == profile and network.is_up()
    except LabError:
        return False


def choice() -> dict[str, str]:
    try:
        chosen: dict[str, str] = json.loads(CHOICE.read_text())
    except OSError:
        raise LabError("the laboratory is not up.  See: lab/lab.py up --understudy fast") from None
    return chosen


def nsupdate(*lines: str) -> None:
    """Change the zone with Understudy's own key.  Raises LabError."""
    key = (HERE / "conf/dns1/etc/bind/understudy.key").read_text(encoding="utf-8")
    text = "\n".join((f"server {HOSTS['dns1'].address}", "zone example.test", *lines, "send", ""))
    machines.put(HOSTS["dns1"].folder / "root", "root/understudy.key", key, mode=0o600)
    machines.execute("dns1", "nsupdate", "-k", "/root/understudy.key", stdin=text, check=True)


def _name_to_pbx01() -> None:
    nsupdate(
        f"update delete _understudy.{SERVICE} TXT",
        f"update delete {SERVICE} CNAME",
        f"update add {SERVICE} 30 CNAME pbx01.example.test.",
    )
    machines.execute("prov", "rndc", "flush")


def _make(names: Iterable[str]) -> None:
    chosen = choice()
    profile = chosen["profile"]
    for name in names:
        root = machines.make(name, layers=install.layers(name) if profile else ())
        if profile:
            install.isolate(name, root, isolations(chosen["isolation"]))


def _choose(profile: str, isolation: str) -> None:
    CHOICE.parent.mkdir(parents=True, exist_ok=True)
    CHOICE.write_text(json.dumps({"profile": profile, "isolation": isolation}))
