"""The network between the hosts: one router, a link for each host, and whatever goes wrong in between.

Each host has a /32 address and sends everything to the router, the neighbours of its own site too.  So the router's one
forward chain, with sets of (source . destination), breaks whatever pair one likes, in one direction or both.
Nothing leaves the machine: the router has no way out.
"""

import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .hosts import HERE, HOME, HOSTS, NAT_ADDRESS, Host, LabError, find, pairs

ROUTER = "lab-rt"
GATEWAY = "169.254.1.1"
SETS = ("cut", "refused", "slow")
DELAYS = HOME / "delay.table"
DELAY_PID = HOME / "delayd.pid"
_CLONE_NEWNET = 0x40000000
_RULES = """
table inet lab {
  set cut      { type ipv4_addr . ipv4_addr; }
  set refused  { type ipv4_addr . ipv4_addr; }
  set ports    { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
  set slow     { type ipv4_addr . ipv4_addr; }
  map loss     { type ipv4_addr . ipv4_addr : verdict; }
  # Hosts without power.  Else the kernel, which holds their addresses, would refuse in their name.
  set dead     { type ipv4_addr; }
  # What comes back from the delay has been judged before, and must not be tracked twice.
  chain raw  { type filter hook prerouting priority raw; iifname "delay0" notrack; }
  chain pre  {
    type filter hook prerouting priority -50;
    iifname != "delay0" ip saddr . ip daddr @slow meta mark set 1;
  }
  chain forw {
    type filter hook forward priority 0; policy accept;
    iifname "delay0" accept
    ip saddr @dead drop
    ip daddr @dead drop
    ip saddr . ip daddr @cut counter drop
    ip saddr . ip daddr @refused counter reject with icmp type admin-prohibited
    ip saddr . ip daddr . meta l4proto . th dport @ports counter drop
    ip saddr . ip daddr vmap @loss
  }
  chain post { type nat hook postrouting priority srcnat; }
}
"""


def up() -> None:
    """The router and a link for each host; what is there already stays."""
    there = namespaces()
    if ROUTER not in there:
        _sh("ip", "netns", "add", ROUTER)
        _in_router(
            "sh", "-c",
            "ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; cd /proc/sys/net/ipv4/conf;"
            "for f in all default; do echo 0 >$f/rp_filter; echo 0 >$f/send_redirects; done",
        )  # fmt: skip
        _nft(_RULES)
        _start_delay()
    for host in HOSTS.values():
        if host.namespace not in there:
            _link(host)


def down() -> None:
    with suppress(OSError, ValueError):
        os.kill(int(DELAY_PID.read_text()), 15)
    DELAY_PID.unlink(missing_ok=True)
    there = namespaces()
    for name in (*(host.namespace for host in HOSTS.values()), ROUTER):
        if name in there:
            _sh("ip", "netns", "del", name)


def is_up() -> bool:
    return ROUTER in namespaces()


def namespaces() -> set[str]:
    said = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in said.stdout.splitlines() if line.strip()}


def cut(first: str, second: str, *, oneway: bool = False, refuse: bool = False) -> None:
    """Nothing gets through any more, or a router on the way says so."""
    _nft(_add("refused" if refuse else "cut", _joined(pairs(first, second, oneway=oneway))))


def cut_port(first: str, second: str, protocol: str, port: int) -> None:
    """What goes from the one to that port of the other is lost."""
    _nft(_add("ports", (f"{a} . {b} . {protocol} . {port}" for a, b in _to(first, second))))


def lose(first: str, second: str, percent: float, *, oneway: bool = False) -> None:
    """Lose that share of packets, at random; 0 ends it."""
    chosen = pairs(first, second, oneway=oneway)
    _forget("loss", chosen)
    share = round(percent * 100)
    if share:
        chain = f"loss_{share}"
        rules = f"add chain inet lab {chain}\nflush chain inet lab {chain}\n"
        rules += f"add rule inet lab {chain} numgen random mod 10000 < {share} counter drop\n"
        _nft(rules + _add("loss", (f"{a} . {b} : jump {chain}" for a, b in chosen)))


def delay(first: str, second: str, ms: float, jitter: float = 0.0, *, oneway: bool = False) -> None:
    """Each packet comes that much later, and up to `jitter` more; 0 ends it."""
    chosen = pairs(first, second, oneway=oneway)
    _forget("slow", chosen)
    table = {key: text for key, text in _delays() if key not in chosen}
    if ms:
        table.update(dict.fromkeys(chosen, f"{ms:g} {jitter:g}"))
    _write_delays(table)
    if ms:
        time.sleep(0.3)  # The forwarder reads its table five times a second.
        _nft(_add("slow", _joined(chosen)))


def heal(first: str, second: str, *, oneway: bool = False) -> None:
    """Whatever was done to the links between the two."""
    chosen = pairs(first, second, oneway=oneway)
    for each in (*SETS, "loss"):
        _forget(each, chosen)
    _write_delays({key: text for key, text in _delays() if key not in chosen})


def heal_all() -> None:
    flushes = "".join(f"flush set inet lab {each}\n" for each in (*SETS, "ports"))
    _nft(f"{flushes}flush map inet lab loss\nflush chain inet lab post\n")
    _write_delays({})
    forget_flows()


def nat(name: str, *, on: bool) -> None:
    """The host sits behind a home router: its source address is another, its ports are restricted."""
    _nft("flush chain inet lab post\n")
    if on:
        _nft(f"add rule inet lab post ip saddr {find(name).address} snat ip to {NAT_ADDRESS}\n")
    forget_flows()


def forget_flows() -> None:
    """Flows that the router knows keep their translation for two minutes, and would fool a test."""
    _in_router("conntrack", "-F", fail=False)


def darken(host: Host) -> None:
    _nft(_add("dead", [host.address]))


def light(host: Host) -> None:
    """It has power again.  Its packet filter is that of a kernel which has just booted."""
    element = f"element inet lab dead {{ {host.address} }}\n"
    _nft(f"add {element}delete {element}")  # To delete what is not there would be an error.
    _sh("ip", "netns", "exec", host.namespace, "nft", "flush", "ruleset")


def rules() -> str:
    said = subprocess.run(
        ["ip", "netns", "exec", ROUTER, "nft", "list", "table", "inet", "lab"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return said.stdout + "".join(f"{a} {b} {text}\n" for (a, b), text in _delays())


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Sockets that this thread makes in here belong to that host, and go on doing so after."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{find(name).namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {name}")
        try:
            yield
        finally:
            if libc.setns(home, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")
    finally:
        os.close(there)
        os.close(home)


def udp_socket(name: str, port: int = 0) -> socket.socket:
    """Bound to the host's address."""
    with inside(name):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((find(name).address, port))
    return sock


def received(sock: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
    """All datagrams that wait, each with its origin."""
    while True:
        try:
            data, origin = sock.recvfrom(65536)
        except BlockingIOError:
            return
        except OSError:
            continue  # ICMP about one of our packets: that one was not answered.
        yield data, origin


def _link(host: Host) -> None:
    space, veth = host.namespace, f"v-{host.name}"
    _sh("ip", "netns", "add", space)
    _sh(
        "ip",
        "link",
        "add",
        veth,
        "netns",
        ROUTER,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        space,
    )
    _sh(
        "ip", "netns", "exec", space, "sh", "-ec",
        f"ip link set lo up; ip addr add {host.address}/32 dev eth0; ip link set eth0 up;"
        f"ip route add default via {GATEWAY} dev eth0 onlink",
    )  # fmt: skip
    _in_router(
        "sh", "-ec",
        f"ip addr add {GATEWAY}/32 dev {veth}; ip link set {veth} up;"
        f"ip route add {host.address}/32 dev {veth}",
    )  # fmt: skip


def _start_delay() -> None:
    DELAYS.parent.mkdir(parents=True, exist_ok=True)
    DELAYS.write_text("")
    log = HOME / "delayd.log"
    words = f"ip netns exec {ROUTER} {sys.executable} {HERE / 'delayd.py'} {DELAYS} delay0"
    script = f"setsid {words} >{log} 2>&1 </dev/null & echo $!"
    started = subprocess.run(["sh", "-c", script], text=True, stdout=subprocess.PIPE, check=True)
    DELAY_PID.write_text(started.stdout)
    for _ in range(50):
        if _in_router("ip", "link", "show", "delay0", fail=False) == 0:
            return
        time.sleep(0.05)
    raise LabError(f"the delay forwarder did not come up: see {HOME / 'delayd.log'}")


def _to(first: str, second: str) -> Iterable[tuple[str, str]]:
    return pairs(first, second, oneway=True)


def _joined(chosen: Iterable[tuple[str, str]]) -> Iterator[str]:
    return (f"{a} . {b}" for a, b in chosen)


def _add(name: str, elements: Iterable[str]) -> str:
    return f"add element inet lab {name} {{ {', '.join(elements)} }}\n"


def _forget(name: str, chosen: Iterable[tuple[str, str]]) -> None:
    for each in _joined(chosen):
        _nft(f"delete element inet lab {name} {{ {each} }}\n", fail=False)  # It may not be there.


def _delays() -> list[tuple[tuple[str, str], str]]:
    try:
        lines = DELAYS.read_text().splitlines()
    except OSError:
        return []
    words = [line.split(maxsplit=2) for line in lines]
    return [((a, b), rest) for a, b, rest in words]


def _write_delays(table: dict[tuple[str, str], str]) -> None:
    part = DELAYS.with_suffix(".part")
    part.write_text("".join(f"{a} {b} {text}\n" for (a, b), text in table.items()))
    part.rename(DELAYS)


def _nft(text: str, *, fail: bool = True) -> int:
    return _in_router("nft", "-f", "-", stdin=text, fail=fail)


def _in_router(*argv: str, stdin: str = "", fail: bool = True) -> int:
    return _sh("ip", "netns", "exec", ROUTER, *argv, stdin=stdin, fail=fail)


def _sh(*argv: str, stdin: str = "", fail: bool = True) -> int:
    done = subprocess.run(
        [str(word) for word in argv],
        input=stdin,
        text=True,
        capture_output=True,
        check=False,
        timeout=30,
    )
    if fail and done.returncode:
        raise LabError(f"{' '.join(argv[:6])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.returncode


def file_of_namespace(host: Host) -> Path:
    return Path("/run/netns") / host.namespace
