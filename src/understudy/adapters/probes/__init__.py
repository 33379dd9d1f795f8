"""Ways to ask a check point about a node.

`build` takes the check point's name and its settings; the kind `sip` takes a mapping of node to address as well.
"""

from typing import Any

from understudy.adapters.kind import Kind
from understudy.ports import Probe

from . import command, nrpe, sip

PROBES: dict[str, Kind[Any, Probe]] = {
    "nrpe": Kind(
        nrpe.Settings,
        nrpe.NrpeProbe,
        "Asks an NRPE daemon on a check point to run its check of a node.",
    ),
    "sip": Kind(sip.Settings, sip.SipProbe, "Asks the node itself over SIP, from this machine."),
    "command": Kind(
        command.Settings, command.CommandProbe, "Runs a monitoring plugin on this machine."
    ),
}
