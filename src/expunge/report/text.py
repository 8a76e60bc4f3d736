"""The summary for a terminal: the verdicts in words, then a compact table."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from expunge.errors import raise_if
from expunge.report import tables, verdicts, wording
from expunge.report.saved import problems_of
from expunge.report.tuned import labelled

COLUMNS = ("recognised", "others", "fid", "ua", "ra", "ta", "tfa", "mia", "avg_gap", "tow")
NARROW = ("recognised", "others", "ua", "ra", "ta", "mia", "avg_gap")
SHORT = {"within": "within spread", "damaged": "damaged"}
ROOMY = 110  # narrower than this, the table leaves out the spreads and two columns
STYLES = {
    "within": "green",
    "partly": "yellow",
    "none": "bright_black",
    "over": "magenta",
    "damaged": "red",
    "unknown": "bright_black",
}


@dataclass(frozen=True)
class Summary:
    """The verdicts and the table, laid out for the width that there is.

    Args:
        results: what ``results.json`` holds.
    """

    results: dict[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _lay_out(self.results, spreads=options.max_width >= ROOMY)


def renderable(results: dict[str, Any]) -> RenderableType:
    """The summary, for a rich console to print.

    Args:
        results: what ``results.json`` holds.

    Raises:
        ExpungeError: `results` lacks parts.
    """
    raise_if(problems_of(results))
    return Summary(labelled(results))


def plain(results: dict[str, Any], width: int) -> str:
    """The summary without colour, `width` characters wide.

    Raises:
        ExpungeError: `results` lacks parts.
    """
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(
        renderable(results), soft_wrap=False
    )
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _lay_out(results: dict[str, Any], spreads: bool) -> Group:
    lines: list[RenderableType] = [Text(str(results["question"]["text"]), style="bold"), Text()]
    for verdict in results["verdicts"]:
        key = verdicts.key_of(verdict["word"])
        line = Text(f"{verdicts.MARKS[key]} ", style=STYLES[key])
        line.append(str(verdict["method"]), style="bold")
        line.append(f": {verdict['word']}. ").append(str(verdict["sentence"]))
        lines.append(line)
    lines += [Text(), _table(results, spreads)]
    lines += [Text(f"Note: {note}") for note in results.get("notes") or []]
    return Group(*lines)


def _table(results: dict[str, Any], spreads: bool) -> Table:
    metrics = results["metrics"]
    shown = [name for name in (COLUMNS if spreads else NARROW) if name in metrics]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    table.add_column("method")  # the only one that is broken into lines where there is no room
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("× retrain", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    seeds = 0
    for row in tables.rows(results):
        seeds = max([seeds, *(len(cell.each) for cell in row.cells.values())])
        texts = [_number(row.cells[name], metrics[name].get("unit") or "", spreads) for name in shown]
        cost = "–" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio >= 0.005 else f"{row.ratio:.1g}"
        word, style = _word(row)
        table.add_row(Text(row.method, style="bold"), *map(Text, texts), cost, Text(word, style=style))
    if seeds > 1:
        plain = " and ".join(name for name in shown if metrics[name].get("unit") != "%")
        kept = f"{' ± standard deviation' if spreads else ''}; percent{f' but for {plain}' if plain else ''}"
        table.caption = f"mean over {seeds} seeds{kept}"
    return table


def _number(cell: tables.Cell, unit: str, spreads: bool) -> str:
    if cell.value is None:
        return "failed" if cell.failures else "–"
    places = 1 if unit == "%" else 2
    spread = f"±{cell.spread:.{places}f}" if spreads and cell.spread is not None else ""
    return f"{cell.value:.{places}f}".replace("-", wording.MINUS) + spread


def _word(row: tables.Row) -> tuple[str, str]:
    if row.method == "retrain":
        return "= reference", "bold"
    if row.verdict is None:
        return "", ""
    key = verdicts.key_of(row.verdict["word"])
    return f"{verdicts.MARKS[key]} {SHORT.get(key, row.verdict['word'])}", STYLES[key]
