"""What a package ships besides the program, made from the code: manual pages, shell completion, a sample configuration.

python -m understudy.cli.shipped DIR    writes them below DIR, which stands for /usr/share
"""

import os
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from click.shell_completion import get_completion_class

from understudy import wiring
from understudy.config import describe
from understudy.core import explain

from . import manual, roff
from .main import cli

SHELLS = {
    "bash": "bash-completion/completions/understudy",
    "zsh": "zsh/vendor-completions/_understudy",
    "fish": "fish/vendor_completions.d/understudy.fish",
}
FILES = """
## FILES

| file | |
|---|---|
| `/etc/understudy/understudy.toml` | The configuration, the same on both nodes: understudy.toml(5). |
| `/etc/understudy/node` | The name of this node, if the host name is not it. |
| `/etc/understudy/break-glass` | While it exists a person runs the PBX here, whatever the claim says. |
| `/var/lib/understudy/journal.sqlite3` | What this node saw, decided and did: `understudy events`, `understudy why`. |
| `/usr/share/doc/understudy/examples/understudy.toml` | A configuration with every setting explained. |
""".splitlines()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    top = Path(arguments[0])
    sample = {"doc/understudy/examples/understudy.toml": describe.sample(wiring.FAMILIES)}
    for place, text in {**manual_pages(), **completions(), **sample}.items():
        path = top / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def manual_pages() -> Mapping[str, str]:
    """By place below /usr/share.  They bear the date of SOURCE_DATE_EPOCH, or none."""
    version = metadata.version("understudy")
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    date = time.strftime("%Y-%m-%d", time.gmtime(int(epoch))) if epoch else ""

    def title(name: str, section: int, about: str, synopsis: str = "") -> roff.Title:
        return roff.Title(
            name=name, section=section, about=about, synopsis=synopsis, date=date, version=version
        )

    program = title(
        "understudy",
        1,
        "keeps a company's phones working when its PBX dies",
        "**understudy** [`--config` FILE] [`--node` NAME] COMMAND [OPTIONS]",
    )
    reference = describe.reference(wiring.FAMILIES).splitlines()
    return {
        "man/man1/understudy.1": roff.render(
            program, "commands", manual.page(), [*FILES, *_see_also(1)]
        ),
        "man/man5/understudy.toml.5": roff.render(
            title("understudy.toml", 5, "configuration of Understudy"),
            "tables",
            reference,
            [*FILES, *_see_also(5)],
        ),
        "man/man7/understudy-phases.7": roff.render(
            title("understudy-phases", 7, "what a node of Understudy does, and why"),
            "phases",
            explain.page(),
            _see_also(7),
        ),
    }


def completions() -> Mapping[str, str]:
    """By place below /usr/share."""
    scripts = {}
    for shell, place in SHELLS.items():
        kind = get_completion_class(shell)
        assert kind is not None
        completion = kind(cli, {}, "understudy", "_UNDERSTUDY_COMPLETE")
        # Not source(): that one asks the shell on this machine for its version first.
        scripts[place] = completion.source_template % completion.source_vars()
    return scripts


def _see_also(section: int) -> list[str]:
    others = [
        page
        for page in ("understudy(1)", "understudy.toml(5)", "understudy-phases(7)")
        if not page.endswith(f"({section})")
    ]
    return ["## SEE ALSO", ", ".join([*others, "systemctl(1)", "journalctl(1)"])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
