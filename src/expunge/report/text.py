"""The summary for a terminal: the verdicts in words, then a compact table."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, Group, RenderableType
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


def plain(results: dict[str, Any], width: int) -> str:
    """The summary, `width` characters wide.

    Raises:
        ExpungeError: `results` lacks parts.
    """
    raise_if(problems_of(results))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(
        _lay_out(labelled(results), spreads=width >= ROOMY), soft_wrap=False
    )
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def _lay_out(results: dict[str, Any], spreads: bool) -> Group:
    lines: list[RenderableType] = [Text(str(results["question"]["text"])), Text()]
    for verdict in results["verdicts"]:
        mark = verdicts.MARKS[verdicts.key_of(verdict["word"])]
        lines.append(Text(f"{mark} {verdict['method']}: {verdict['word']}. {verdict['sentence']}"))
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
        table.add_row(Text(row.method), *map(Text, texts), cost, Text(_word(row)))
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


def _word(row: tables.Row) -> str:
    if row.method == "retrain":
        return "= reference"
    if row.verdict is None:
        return ""
    key = verdicts.key_of(row.verdict["word"])
    return f"{verdicts.MARKS[key]} {SHORT.get(key, row.verdict['word'])}"
