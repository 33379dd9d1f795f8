"""S5, last resort: when a PBX cannot be proved stopped, a packet filter rule takes SIP from it.

One nftables table of our own, made and removed in one transaction (nft(8)): no packet ever meets
half of it, and no rule of the machine's own firewall is touched.  A drop is final whatever other
tables accept.  It includes loopback, so that a PBX that is shut off cannot be proved to serve.  It
does not outlive a reboot, and `nft flush ruleset` (which the start of nftables.service runs)
removes it too.
"""

from collections.abc import Sequence

from understudy.adapters.processes import Finished, run
from understudy.errors import AdapterError, NotStopped, Unreachable

TABLE = "inet understudy_shutoff"
PORTS = (5060, 5061)  # SIP, and SIP over TLS (RFC 3261, section 19.1.2).
WITHIN = 5.0  # Seconds for each run of nft.


class ShutOff:
    """For UDP and TCP, in both directions.  `prefix` runs nft as root."""

    def __init__(self, ports: Sequence[int] = PORTS, *, prefix: Sequence[str] = ()) -> None:
        self._ports = sorted(set(ports))
        self._prefix = tuple(prefix)

    async def shut(self) -> None:
        """No SIP enters or leaves.  Safe to repeat.  Raises NotStopped."""
        hint = "Stop the PBX by hand, or unplug the machine: nothing keeps it from serving."
        try:
            done = await self._nft("-f", "-", stdin=script(self._ports))
            shut = await self.is_shut()
        except AdapterError as error:
            raise NotStopped(f"SIP could not be shut off: {error}", hint=hint) from error
        if done.code != 0 or not shut:
            raise NotStopped(f"SIP could not be shut off: nft: {done.said}", hint=hint)

    async def open(self) -> None:
        """Take the rule away, if it is there.  Safe to repeat.  Raises Unreachable, Unanswered."""
        try:
            done = await self._nft("-f", "-", stdin=_REMOVE)
        except Unreachable:
            return  # There is no nft, so there is no rule.
        if done.code != 0:
            raise Unreachable(
                f"SIP may still be shut off: nft: {done.said}",
                hint=f"As root: nft delete table {TABLE}",
            )

    async def is_shut(self) -> bool:
        """Raises Unreachable when it cannot be told."""
        done = await self._nft("list", "table", *TABLE.split())
        if done.code == 0:
            return True
        if "No such file or directory" in done.err:
            return False
        raise Unreachable(f"cannot tell whether SIP is shut off: nft: {done.said}")

    async def _nft(self, *words: str, stdin: str = "") -> Finished:
        return await run((*self._prefix, "nft", *words), within=WITHIN, stdin=stdin.encode())


def script(ports: Sequence[int]) -> str:
    """The same for `nft -f -`, where nothing of ours may be in the way."""
    return _REMOVE + _rules(sorted(set(ports)))


# Adding what is there already is no error, deleting what is not there is one: so both, in one
# transaction.
_REMOVE = f"add table {TABLE}\ndelete table {TABLE}\n"


def _rules(ports: Sequence[int]) -> str:
    numbers = ", ".join(str(port) for port in ports)
    ours = f"meta l4proto {{ tcp, udp }} th dport {{ {numbers} }} drop"
    theirs = f"meta l4proto {{ tcp, udp }} th sport {{ {numbers} }} drop"
    local = 'oifname "lo" accept'
    chain = "chain {0} {{ type filter hook {0} priority filter; policy accept; {1}; {2}; }}"
    # What goes from us to us is dropped as it comes in: going out, a drop would be EPERM to who
    # asks, and a question that cannot be put is no deaf PBX.
    return (
        f"table {TABLE} {{\n"
        f"{chain.format('input', ours, theirs)}\n"
        f"{chain.format('output', f'{local}; {ours}', theirs)}\n"
        "}\n"
    )
