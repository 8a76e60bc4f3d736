"""A figure on the page with its caption, and what the makers of figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.report.figures.heat import heat
from expunge.report.tables import entries_of, mean_lists

Legend = tuple[tuple[str, str], ...]
Grid = Sequence[Sequence[float | None]]
MOST_ROWS = 40  # of a matrix
MOST_COLUMNS = 8  # of a matrix that fits half the page


@dataclass(frozen=True)
class Section:
    """One figure on the page.

    Args:
        title: its heading.
        caption: how to read it.
        panels: ``(heading, svg)``; the heading is empty where there is one panel.
        kind: how the panels are laid out: ``half``, ``pair``, ``panels``, ``small`` or ``wide``.
        legend: ``(style, meaning)``; the style names a swatch of the page's style sheet.
    """

    title: str
    caption: str
    panels: tuple[tuple[str, str], ...]
    kind: str
    legend: Legend = ()


def matrix(
    title: str, name: str, caption: str, rows: Sequence[str], columns: Sequence[str], grid: Grid, **look: Any
) -> Section:
    """A section with one matrix: half the page wide where it fits, else in a box of its own that scrolls.

    Args:
        title: its heading.
        name: unique on the page.
        caption: how to read it.
        rows: names of the rows.
        columns: names of the columns.
        grid: ``grid[row][column]``.
        look: the rest of what `heat` takes.
    """
    wide = len(columns) > MOST_COLUMNS
    drawn = heat(name, title, rows, columns, grid, **look)
    return Section(title, caption, (("", drawn),), "wide" if wide else "half")


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one for anything else: a saved file may be damaged."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def facts_of(results: dict[str, Any], method: str) -> list[Mapping[str, Any]]:
    """What each seed of `method` measured on its way, the first seed first."""
    return [mapping(entry.get("facts")) for entry in entries_of(results, method)]


def class_means(results: dict[str, Any], method: str, part: str) -> list[float | None]:
    """Accuracy of each class, percent, over the seeds of `method`; empty where none was measured.

    Args:
        results: what ``results.json`` holds.
        method: its name.
        part: ``seen`` or ``unseen``.
    """
    values = mean_lists([(e.get("by_class") or {}).get(part) for e in entries_of(results, method)])
    return values if any(value is not None for value in values) else []


def forgotten(results: dict[str, Any]) -> set[int]:
    """The labels of the forgotten classes; empty for a request of samples."""
    return {label for label in results["question"].get("forgotten") or [] if isinstance(label, int)}
