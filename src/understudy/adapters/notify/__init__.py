"""Ways to tell people.

`build` takes the table's name and its settings, and as the keyword `host` what this node is called.  It returns one
notifier per reader, because each of them may have to wait for another reason.
"""

from collections.abc import Sequence

from understudy.adapters.kind import Catalogue, Kind
from understudy.ports import Notifier

from . import command, mail, webhook

NOTIFIERS: Catalogue[Sequence[Notifier]] = {
    "mail": Kind(mail.Settings, mail.build, "Sends a mail to each address, by SMTP."),
    "webhook": Kind(
        webhook.Settings, webhook.build, "Posts to a chat room or a service, by HTTP(S)."
    ),
    "command": Kind(
        command.Settings,
        command.build,
        "Runs a program of yours, with the message on its standard input.",
    ),
}
