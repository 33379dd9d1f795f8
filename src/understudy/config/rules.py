"""What must hold between settings, with the numbers; and what is allowed but worth knowing.

Each check is a row of CHECKS with the sections that it looks at: it runs when nothing is wrong
inside those.
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from understudy.config import durations, values
from understudy.config.findings import Finding, did_you_mean
from understudy.config.locate import Path
from understudy.config.schema import Chosen, Config, claim_reading, question, stop_within
from understudy.config.settings import Seconds
from understudy.core.policy import Agreement, Isolation

JITTER = 0.1  # V4: a round comes up to this share of an interval later than the interval says.
LONG_TTL = 300.0  # Seconds.
MAY_BE_ZERO = {("detection", "settle_down"), ("detection", "restart_grace"), ("claim", "ttl")}
ANY_RECORD_BUT_ADDRESS = {"CNAME", "SRV"}


@dataclass(frozen=True, slots=True)
class Term:
    """One summand, in seconds; `setting` is what a person would change to make it smaller."""

    name: str
    seconds: float
    setting: str


@dataclass(frozen=True, slots=True)
class Sum:
    """`path` must be no less than the terms together, or two nodes may serve at once."""

    path: Path
    seconds: float
    terms: tuple[Term, ...]

    @property
    def least(self) -> float:
        return sum(term.seconds for term in self.terms)

    @property
    def holds(self) -> bool:
        return self.seconds >= self.least - 0.0005  # Durations are whole milliseconds.


def sums(config: Config) -> tuple[Sum, ...]:
    """PROTOCOL.md T2, and the sums of our own, as rows."""
    d = config.detection
    interval = Term("interval", d.interval, "detection.interval")
    two_rounds = Term("2 rounds", 2 * d.interval, "detection.interval")
    jitter = Term("a tenth for jitter", JITTER * d.interval, "detection.interval")
    announce = Term("announce", d.announce, "detection.announce")
    claim_stale = Term("claim_stale", d.claim_stale, "detection.claim_stale")
    stale = Term("checkpoints_stale", d.checkpoints_stale, "detection.checkpoints_stale")
    stop = Term("stop_within", stop_within(config), "service.stop_within")
    ask = Term("one question", question(config), "the check points' timeout")
    reading = Term("one claim reading", claim_reading(config), "claim.timeout")
    three_readings = Term("3 claim readings", 3 * claim_reading(config), "claim.timeout")

    def at_least(name: str, value: float, *terms: Term) -> Sum:
        return Sum(("detection", name), value, terms)

    return (
        # T2: the active node has given up its first proof, and stopped, before the claim is taken.
        at_least("announce", d.announce, claim_stale, stop, reading),
        # T2: the same for its second proof.
        at_least("patience", d.patience, stale, stop, two_rounds, ask),
        # T1, T2: announcing is the last part of patience, and the last question follows it.
        at_least("patience", d.patience, announce, ask),
        # Their word must last from round to round, or an active node is always in doubt.
        at_least("checkpoints_stale", d.checkpoints_stale, interval, jitter, ask),
        # One lost reading must not put an active node in doubt.
        at_least("claim_stale", d.claim_stale, three_readings),
        # A round has ended before the next begins.
        at_least("interval", d.interval, ask),
    )


def errors(config: Config, broken: Collection[str] = ()) -> Iterator[Finding]:
    """Every rule that does not hold.  Sections in `broken` have findings, and nothing useful."""
    for sections, check in CHECKS:
        if not set(sections) & set(broken):
            yield from check(config)


def notes(config: Config) -> Iterator[Finding]:
    """What an operator may want, and should know about."""
    for check in NOTES:
        yield from check(config)


def _pair_is_named(config: Config) -> Iterator[Finding]:
    if not config.pair.name.strip():
        yield Finding(("pair", "name"), 'is empty.  Write e.g. name = "acme".')


def _two_nodes(config: Config) -> Iterator[Finding]:
    count = len(config.nodes)
    if count != 2:
        yield Finding(
            ("nodes",),
            f"names {count} {'node' if count == 1 else 'nodes'}.  Write two [nodes.NAME] tables: "
            "this version keeps pairs.",
        )


def _preferred_is_a_node(config: Config) -> Iterator[Finding]:
    preferred = config.pair.preferred
    if preferred not in config.nodes:
        names = " or ".join(values.text(name) for name in config.nodes)
        yield Finding(
            ("pair", "preferred"),
            f"is {values.text(preferred)}, which is no node.  Write {names}."
            + did_you_mean(preferred, config.nodes),
        )


def _nodes_differ(config: Config) -> Iterator[Finding]:
    for key, own in (("host", "a host"), ("address", "an address")):
        seen: dict[str, str] = {}
        for name, node in config.nodes.items():
            written = getattr(node, key)
            other = seen.setdefault(_same(written), name)
            if other != name:
                yield Finding(
                    ("nodes", name, key),
                    f"is {values.text(written)}, and so is that of {other}.  "
                    f"Give each node {own} of its own.",
                )


def _service_is_no_host(config: Config) -> Iterator[Finding]:
    for name, node in config.nodes.items():
        if _same(node.host) == config.pair.service:
            yield Finding(
                ("nodes", name, "host"),
                f"is the service name ({config.pair.service}), which moves from node to node.  "
                "Write a host name that always means this node.",
            )


def _one_way_in(config: Config) -> Iterator[Finding]:
    for name, node in config.nodes.items():
        if node.ssh is not None and node.door is not None:
            yield Finding(
                ("nodes", name, "door"), "is written beside ssh.  Keep one of the two ways in."
            )
        user, at, host = (node.ssh or "root@localhost").rpartition("@")
        # What begins with a hyphen would be an option of ssh.
        if not values.is_host(host) or (at and not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", user)):
            yield Finding(
                ("nodes", name, "ssh"),
                f"is {values.text(node.ssh)}: not a user and a host.  "
                f"Write e.g. ssh = {values.text(f'understudy@{node.address}')}.",
            )


def _enough_check_points(config: Config) -> Iterator[Finding]:
    count = len(config.checkpoints)
    if count < 3:
        yield Finding(
            ("checkpoints",),
            f"names {count}, and with fewer than 3 one dead check point decides.  "
            "Write at least 3 [checkpoints.NAME] tables, each in a network of its own.",
        )


def _check_points_differ(config: Config) -> Iterator[Finding]:
    nodes = {
        _same(a): name for name, node in config.nodes.items() for a in (node.address, node.host)
    }
    seen: dict[str, str] = {}
    for name, chosen in config.checkpoints.items():
        written = getattr(chosen.settings, "address", None)
        if written is None or _is_loopback(_host_of(written)):
            continue  # On loopback all is one machine: a demo or a test.
        path, address = ("checkpoints", name, "address"), _same(_host_of(written))
        if address in nodes:
            yield Finding(
                path,
                f"is {values.text(written)}, which is {nodes[address]}: a node cannot be its own "
                "check point.  Write the address of a host in another network.",
            )
        other = seen.setdefault(address, name)
        if other != name:
            yield Finding(
                path,
                f"is {values.text(written)}, and so is that of {other}: one host has one "
                "vote.  Write the address of another host.",
            )


def _times_are_not_zero(config: Config) -> Iterator[Finding]:
    for path, settings in _tables(config):
        hints = get_type_hints(type(settings))
        for field in fields(settings):
            is_time = Seconds in (hints[field.name], *getattr(hints[field.name], "__args__", ()))
            place = (*path, field.name)
            if is_time and place not in MAY_BE_ZERO and getattr(settings, field.name) == 0:
                yield Finding(place, 'is "0s".  Write more than that, e.g. "5s".')


def _interval_is_a_second(config: Config) -> Iterator[Finding]:
    interval = config.detection.interval
    if 0 < interval < 1:
        yield Finding(
            ("detection", "interval"), f'is {durations.show(interval)}.  Write "1s" or more.'
        )


def _sums_hold(config: Config) -> Iterator[Finding]:
    least: dict[Path, float] = {}
    for row in sums(config):
        least[row.path] = max(least.get(row.path, 0.0), row.least)
    for row in sums(config):
        if row.holds:
            continue
        terms = " + ".join(f"{term.name} {durations.show(term.seconds)}" for term in row.terms)
        total = f" = {durations.show(row.least)}" if len(row.terms) > 1 else ""
        right = (
            f'Set {".".join(map(str, row.path))} to at least "{durations.show(least[row.path])}"'
        )
        yield Finding(
            row.path,
            f"is {durations.show(row.seconds)}, but {terms}{total}.  "
            f"{right}, or shorten {_either([term.setting for term in row.terms])}.",
        )


def _zone_holds_the_service_name(config: Config) -> Iterator[Finding]:
    service = config.pair.service
    for path, chosen in _names(config):
        zone = getattr(chosen.settings, "zone", None)
        if zone and service != zone and not service.endswith("." + zone):
            yield Finding(
                (*path, "zone"),
                f"is {zone}, which does not hold {service}.  "
                f"Write the zone that pair.service is in, e.g. "
                f"{values.text(service.partition('.')[2] or service)}.",
            )
        if service == zone and _record(chosen) == "CNAME":
            yield Finding(
                (*path, "record"),
                f"is CNAME, which cannot stand at the head of a zone ({zone}; RFC 2181, section "
                f'10.1).  Write record = "A", or a service name below {zone}.',
            )


def _values_name_nodes(config: Config) -> Iterator[Finding]:
    for name, chosen in config.copies.items():
        for value in getattr(chosen.settings, "values", ()):
            if value.node not in config.nodes:
                right = f"Write {_either([values.text(node) for node in config.nodes])}"
                yield Finding(
                    ("copies", name, "node_values"),
                    f"has a value for {values.text(value.node)}, which is no node.  {right}."
                    + did_you_mean(value.node, config.nodes),
                )


def _claim_has_a_server(config: Config) -> Iterator[Finding]:
    """A claim in DNS takes from [name] what it does not say itself."""
    if config.claim.kind != "dns":
        return
    givers = [one.settings for one in config.names if getattr(one.settings, "server", None)]
    for key in ("server", "zone", "key_file"):
        if getattr(config.claim.settings, key) is not None or len(givers) == 1:
            continue
        why = "several [[name]] tables have one" if givers else "no [name] table has one to share"
        yield Finding(("claim", key), f"is missing, and {why}.  Write {key} in [claim].")


def _record_fits_the_nodes(config: Config) -> Iterator[Finding]:
    for chosen in config.names:
        record = _record(chosen)
        for name, node in config.nodes.items():
            if record in ANY_RECORD_BUT_ADDRESS and values.is_ip(node.host):
                yield Finding(
                    ("nodes", name, "host"),
                    f"is an IP address, which a {record} record cannot hold.  "
                    f'Write a host name, or name.record = "A".',
                )
            elif record and record not in ANY_RECORD_BUT_ADDRESS and not values.is_ip(node.address):
                yield Finding(
                    ("nodes", name, "address"),
                    f"is {values.text(node.address)}, and name.record = {values.text(record)} "
                    "needs an IP address.  Write e.g. "
                    f'"192.0.2.11", or name.record = "CNAME".',
                )


def _keeps(config: Config) -> Iterator[Finding]:
    for name, node in config.nodes.items():
        if node.isolation is Isolation.KEEP:
            yield _note(
                ("nodes", name, "isolation"),
                f'isolation = "keep" on {name}: cut off from the claim and the check points it '
                "goes on serving its own site, and two may be active.",
            )


def _no_way_in(config: Config) -> Iterator[Finding]:
    for name, node in config.nodes.items():
        if node.ssh is None and node.door is None:
            yield _note(
                ("nodes", name),
                f"{name} has no ssh: the other node can neither fence it nor ask whether it is "
                "ready, so nothing is handed over to it.",
            )


def _even_check_points(config: Config) -> Iterator[Finding]:
    count = len(config.checkpoints)
    if count % 2 == 0:
        yield _note(
            ("checkpoints",),
            f"{count} check points bear no more failures than {count - 1} would: a majority of "
            f"{count} is {count // 2 + 1}.  Take one away, or add one.",
        )


def _all_must_agree(config: Config) -> Iterator[Finding]:
    if config.detection.agreement is Agreement.ALL:
        yield _note(
            ("detection", "agreement"),
            'agreement = "all": while one check point is itself dead there is no failover.',
        )


def _callers_follow_slowly(config: Config) -> Iterator[Finding]:
    for path, chosen in _names(config):
        ttl = getattr(chosen.settings, "ttl", 0.0) or 0.0
        if ttl > LONG_TTL:
            yield _note(
                (*path, "ttl"),
                f"ttl = {values.text(durations.show(ttl))}: that long after a failover some "
                "callers still go to the old node.",
            )


def _server_beside_a_node(config: Config) -> Iterator[Finding]:
    tables = [(("claim",), config.claim), *_names(config)]
    nodes = {
        _same(a): name for name, node in config.nodes.items() for a in (node.address, node.host)
    }
    for path, chosen in tables:
        server = _same(_host_of(str(getattr(chosen.settings, "server", None) or "")))
        if server in nodes:
            yield _note(
                (*path, "server"),
                f"the server is {nodes[server]} itself: when that dies, the claim cannot be taken "
                "and the name cannot be moved.",
            )


def _claim_on_one_machine(config: Config) -> Iterator[Finding]:
    if config.claim.kind == "file":
        yield _note(
            ("claim", "kind"), "a claim in a file is for a pair on one machine: a demo or a test."
        )


def _names(config: Config) -> Iterator[tuple[Path, Chosen]]:
    """The locator leaves the number out where `name` is one table."""
    for number, chosen in enumerate(config.names):
        yield ("name", number), chosen


def _tables(config: Config) -> Iterator[tuple[Path, Any]]:
    yield ("detection",), config.detection
    yield ("journal",), config.journal
    yield ("claim",), config.claim.settings
    yield ("service",), config.service.settings
    for name, chosen in config.checkpoints.items():
        yield ("checkpoints", name), chosen.settings
    for name, chosen in config.copies.items():
        yield ("copies", name), chosen.settings
    for name, chosen in config.notify.items():
        yield ("notify", name), chosen.settings
    for path, chosen in _names(config):
        yield path, chosen.settings


def _record(chosen: Chosen) -> str:
    return str(getattr(chosen.settings, "record", None) or "").upper()


def _same(host: str) -> str:
    """Equal for two spellings of one host."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def _host_of(address: str) -> str:
    """Without the port, if there is one."""
    if values.is_ip(address) or ":" not in address:
        return address
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (values.is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _either(words: list[str]) -> str:
    unique = list(dict.fromkeys(words))
    return " or ".join([", ".join(unique[:-1]), unique[-1]] if len(unique) > 1 else unique)


def _note(path: Path, sentence: str) -> Finding:
    return Finding(path, sentence, whole=True)


Check = Callable[[Config], Iterator[Finding]]

CHECKS: tuple[tuple[tuple[str, ...], Check], ...] = (
    (("pair",), _pair_is_named),
    (("nodes",), _two_nodes),
    (("pair", "nodes"), _preferred_is_a_node),
    (("nodes",), _nodes_differ),
    (("pair", "nodes"), _service_is_no_host),
    (("nodes",), _one_way_in),
    (("checkpoints",), _enough_check_points),
    (("nodes", "checkpoints"), _check_points_differ),
    (
        ("detection", "journal", "claim", "service", "checkpoints", "name", "copies", "notify"),
        _times_are_not_zero,
    ),
    (("detection",), _interval_is_a_second),
    (("detection", "checkpoints", "claim", "service"), _sums_hold),
    (("pair", "name"), _zone_holds_the_service_name),
    (("claim", "name"), _claim_has_a_server),
    (("nodes", "copies"), _values_name_nodes),
    (("nodes", "name"), _record_fits_the_nodes),
)


def _announced_before_a_hand_over(config: Config) -> Iterator[Finding]:
    d = config.detection
    suspects = d.patience - d.announce - question(config)
    if 0 < suspects <= d.restart_grace:
        yield Finding(
            ("detection", "restart_grace"),
            f"is {durations.show(d.restart_grace)}, but a standby announces after {durations.show(suspects)} "
            "(patience less announce and one question): a PBX that dies alone is then followed by a failover at the "
            "end of patience, not by a hand-over.  For that write less here, or a longer patience",
        )


NOTES: tuple[Check, ...] = (
    _keeps,
    _announced_before_a_hand_over,
    _no_way_in,
    _even_check_points,
    _all_must_agree,
    _callers_follow_slowly,
    _server_beside_a_node,
    _claim_on_one_machine,
)
