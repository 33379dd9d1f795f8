"""Ways to start, stop and watch the PBX of this machine.

`build` takes the settings and, as a keyword, `report`: it is called with a sentence for the
operator about what went wrong beside the PBX and did not stand in its way.
"""

from understudy.adapters.kind import Catalogue, Kind
from understudy.ports import Service

from . import command, systemd

SERVICES: Catalogue[Service] = {
    "systemd": Kind(
        systemd.Settings, systemd.Systemd, "The PBX is a unit of systemd (Asterisk, FreeSWITCH)."
    ),
    "command": Kind(
        command.Settings,
        command.CommandService,
        "The PBX is started, stopped and asked by commands that you name.",
    ),
}
