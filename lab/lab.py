#!/usr/bin/env python3
"""The laboratory's command line.  `lab/lab.py -h`, and docs/how-to/lab.md."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # `import lab` means the folder.

from lab import image, machines, network, pair
from lab.hosts import HOSTS, MACHINES, LabError
from lab.profile import PROFILES

Arguments = argparse.Namespace


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    if os.geteuid() != 0:
        return _failed("the laboratory needs root: it makes containers and network namespaces")
    try:
        return int(arguments.run(arguments) or 0)
    except LabError as error:
        return _failed(str(error))


def _failed(why: str) -> int:
    print(f"lab: {why}", file=sys.stderr)
    return 1


def _image(arguments: Arguments) -> None:
    image.build(anew=arguments.anew)


def _up(arguments: Arguments) -> None:
    pair.up(arguments.understudy, arguments.isolation, arguments.host or MACHINES)


def _exec(arguments: Arguments) -> None:
    argv = machines.entering(arguments.host, *(arguments.command or ["bash"]))
    os.execvp(argv[0], argv)


def _cut(arguments: Arguments) -> None:
    network.cut(arguments.a, arguments.b, oneway=arguments.oneway, refuse=arguments.refuse)


def _state(arguments: Arguments) -> None:
    del arguments
    for name in MACHINES:
        host = HOSTS[name]
        said = "off"
        if machines.is_on(name):
            words = "systemctl list-units --type=service --state=running,failed --plain --no-legend"
            lines = machines.execute(name, *words.split()).stdout.splitlines()
            units = [
                f"{f[0].removesuffix('.service')}{'!' * (f[2] == 'failed')}"
                for f in map(str.split, lines)
            ]
            said = " ".join(u for u in units if not u.startswith(("systemd-", "dbus", "user@")))
        print(f"{name:7} {host.address:15} {host.site:6} {said}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab/lab.py", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[[Arguments], int | None], doc: str
    ) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=doc, description=doc)
        made.set_defaults(run=run)
        return made

    def hosts(name: str, run: Callable[[list[str]], None], doc: str) -> None:
        made = verb(name, lambda a: run(a.host), doc)
        made.add_argument("host", nargs="+", choices=MACHINES, metavar="HOST")

    def link(name: str, run: Callable[[Arguments], None], doc: str) -> argparse.ArgumentParser:
        made = verb(name, run, doc)
        made.add_argument("a", metavar="A", help="a host, siteA, siteB, inet or all")
        made.add_argument("b", metavar="B")
        made.add_argument("--oneway", action="store_true", help="only from A to B")
        return made

    verb("image", _image, "build the hosts' file system, about 80 s").add_argument(
        "--anew", action="store_true", help="even if there is one"
    )
    up = verb("up", _up, "boot all hosts (or these) from a clean state")
    up.add_argument("--understudy", default="", choices=["", *PROFILES], metavar="PROFILE",
                    help=f"with a protected pair: {', '.join(PROFILES)}")  # fmt: skip
    up.add_argument("--isolation", default="stop", help="stop, keep, or pbx01=keep,pbx02=stop")
    up.add_argument("host", nargs="*", metavar="HOST")
    verb("down", lambda a: pair.down(), "end everything, and remove it")
    verb("state", _state, "which hosts are on, and what runs there")
    run = verb("exec", _exec, "run a command in a host; without one a shell")
    run.add_argument("host", choices=MACHINES, metavar="HOST")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    hosts("start", machines.start, "switch on")
    hosts("stop", machines.power_off, "shut down in order")
    hosts("kill", machines.power_cut, "pull the plug")
    hosts("freeze", machines.freeze, "the host hangs; it still answers pings")
    hosts("thaw", machines.thaw, "it goes on")
    hosts("reset", pair.reset, "pull the plug, forget all that it wrote, boot")
    verb(
        "reset-pair",
        lambda a: pair.reset_pair(),
        "both nodes, the claim and the name as at the beginning",
    )
    link("cut", _cut, "nothing gets through").add_argument(
        "--refuse", action="store_true", help="and a router says so (ICMP)"
    )
    port = verb(
        "cut-port",
        lambda a: network.cut_port(a.a, a.b, a.protocol, a.port),
        "from A to a port of B",
    )
    for word in ("a", "b", "protocol"):
        port.add_argument(word, metavar=word.upper())
    port.add_argument("port", type=int, metavar="PORT")
    loss = link(
        "loss", lambda a: network.lose(a.a, a.b, a.percent, oneway=a.oneway), "lose packets"
    )
    loss.add_argument("percent", type=float, metavar="PERCENT")
    slow = link(
        "delay",
        lambda a: network.delay(a.a, a.b, a.ms, a.jitter, oneway=a.oneway),
        "packets come later",
    )
    slow.add_argument("ms", type=float, metavar="MS")
    slow.add_argument("jitter", type=float, nargs="?", default=0.0, metavar="JITTER")
    heal = verb(
        "heal",
        lambda a: network.heal(a.a, a.b) if a.b else network.heal_all(),
        "undo it: of A and B, or all",
    )
    heal.add_argument("a", nargs="?", metavar="A")
    heal.add_argument("b", nargs="?", metavar="B")
    nat = verb(
        "nat", lambda a: network.nat(a.host, on=a.on == "on"), "put a host behind a home router"
    )
    nat.add_argument("host", metavar="HOST")
    nat.add_argument("on", choices=["on", "off"])
    verb("rules", lambda a: print(network.rules(), end=""), "the router's rules and delays")
    return parser


if __name__ == "__main__":
    sys.exit(main())
