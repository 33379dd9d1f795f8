"""The demo on a terminal: one picture of 80 columns and 24 rows, drawn again four times a second.

Imported only where there is a terminal, as rich takes its time.
"""

from itertools import groupby
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .screen import Scene, Story, bar, letter, votes_in_words

ROWS, COLUMNS = 24, 80
LABEL = 10
COLOURS = {"pbx01": "cyan", "pbx02": "magenta"}
WELL = {"active": "bold green", "standby": "green", "suspecting": "yellow", "outdated": "yellow"}


class Picture:
    """A Screen.  It draws on the terminal's other page, and at the end leaves the story on this one."""

    def __init__(self, story: Story, out: TextIO) -> None:
        self._story, self._out = story, out
        self._console = Console(file=out, highlight=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._scene: Scene | None = None
        self._live.start()

    def say(self, text: str) -> None:
        line = self._story.tell(text)
        if self._live.is_started:
            self._draw()
        else:
            self._out.write(line + "\n")

    def show(self, scene: Scene) -> None:
        self._scene = scene
        if self._live.is_started:
            self._draw()

    def close(self) -> None:
        if self._live.is_started:
            self._live.stop()
            self._out.write("\n".join(self._story.lines) + "\n")
            self._out.flush()

    def _draw(self) -> None:
        if self._scene is None:
            return
        size = self._console.size
        rows = min(size.height, 2 * ROWS)
        self._live.update(draw(self._scene, self._story.lines, size.width, rows), refresh=True)


def draw(scene: Scene, lines: list[str], width: int = COLUMNS, rows: int = ROWS) -> RenderableType:
    """No line is longer than `width`; no more lines than `rows`."""
    parts: list[RenderableType] = [
        _row(
            Text("Understudy, a demo", style="bold"),
            Text(f"{scene.seconds:.0f} s   Ctrl-C ends it"),
        ),
        Text(scene.act, style="bold yellow"),
        Text(),
        _nodes(scene),
        Text(),
        _fact("claim", Text(scene.claim or "not read yet")),
        _fact("name", _leads(scene)),
        _fact("patience", _patience(scene, width)),
        _fact("why", Text("; ".join(scene.reasons), style="yellow")),
        _fact(
            "calls", Text(f"{scene.answered} answered, {scene.lost} lost, five a second, by name")
        ),
        _fact("", _strip(scene, width)),
        Text(),
    ]
    room = max(rows - (len(parts) + len(scene.nodes) + 2), 1)  # The table is a header and its rows.
    parts += [Text(each, no_wrap=True, overflow="ellipsis") for each in lines[-room:]]
    return Group(*parts)


def _row(left: Text, right: Text) -> Table:
    table = Table.grid(expand=True)
    table.add_column()
    table.add_column(justify="right")
    table.add_row(left, right)
    return table


def _nodes(scene: Scene) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("node", "power", "phase", "PBX", "check points", "calls", "data"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    for node in scene.nodes:
        status = node.status if node.is_on else None
        phase = str(status.phase) if status else "-"
        table.add_row(
            Text(node.name, style=COLOURS.get(node.name, "")),
            Text("on") if node.is_on else Text("off", style="bold red"),
            Text(phase, style=WELL.get(phase, "")),
            str(status.pbx) if status else "-",
            votes_in_words(node.votes),
            str(node.calls),
            node.data,
        )
    return table


def _fact(label: str, text: Text) -> Table:
    text.no_wrap, text.overflow = label != "why", "ellipsis"
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=LABEL)
    table.add_column()
    table.add_row(Text(label, style="dim"), text)
    return table


def _leads(scene: Scene) -> Text:
    if not scene.leads_to:
        return Text("")
    return Text.assemble(
        f"{scene.service} leads to ", (scene.leads_to, COLOURS.get(scene.leads_to, ""))
    )


def _patience(scene: Scene, width: int) -> Text:
    patience = scene.patience
    if patience is None:
        return Text("whole: nobody is suspected", style="dim")
    return Text.assemble(
        (bar(patience.spent / patience.total, max(width // 4, 8)), "yellow"),
        f"  {scene.patience_text}",
    )


def _strip(scene: Scene, width: int) -> Text:
    text = Text()
    for node, calls in groupby(scene.calls[-(width - LABEL - 2) :]):
        letters = letter(node) * len(list(calls))
        text.append(letters, style=COLOURS.get(node, "") if node else "bold red")
    return text
