"""A table of cells whose tint is their size: predictions for the forgotten examples, change of each layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.patches import Rectangle

from expunge.report import wording
from expunge.report.figures import canvas, labels

Grid = Sequence[Sequence[float | None]]
ROW = 22
FAINT = ("·", "<1", "<.1")
SMALLEST = 1e-4  # looks like 0 on a logarithmic scale


def heat(
    name: str,
    about: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Grid,
    strong: Collection[int] = (),
    tint: Grid | None = None,
    text: Sequence[Sequence[str]] | None = None,
) -> str:
    """The figure as SVG.

    Args:
        name: unique on the page.
        about: what it shows, for those who cannot see it.
        rows: names of the rows, downwards.
        columns: names of the columns.
        values: ``values[row][column]``; None is left out.
        strong: indices of rows to mark.
        tint: how dark each cell is, 0 to 1; default: `values`.
        text: what is written in each cell; default: `values` as whole percent.
    """
    row_texts, column_texts = [wording.label(r, 26) for r in rows], [wording.label(c, 22) for c in columns]
    widths = [labels.text_width(text, canvas.SMALL, i in strong) for i, text in enumerate(row_texts)]
    left = max(widths) + 10
    cell = 54.0 if len(columns) <= 6 else 46.0
    head = max(labels.text_width(text, canvas.SMALL) for text in column_texts) * 0.71 + 16
    slant = head * 0.9 if len(columns) else 0.0
    size = (left + cell * len(columns) + slant, ROW * len(rows) + head + 4)
    with canvas.drawing():
        figure, ax = canvas.axes(*size, (left, slant, 2, head))
        ink = canvas.color
        ax.set_xlim(0, len(columns))
        ax.set_ylim(len(rows), 0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_yticks([i + 0.5 for i in range(len(rows))], row_texts)
        ax.set_xticks([])
        for index, tick in enumerate(ax.get_yticklabels()):
            tick.set_color(ink("forget" if index in strong else "ink"))
            tick.set_fontweight("bold" if index in strong else "normal")
        for index, column in enumerate(column_texts):
            spot: dict[str, Any] = {"rotation": 45, "ha": "left", "va": "bottom", "rotation_mode": "anchor"}
            ax.text(index + 0.42, -6 / ROW, column, fontsize=canvas.SMALL, color=ink("ink"), **spot)
        for i in range(len(rows)):
            for j in range(len(columns)):
                shade = (tint or values)[i][j]
                if shade is None or values[i][j] is None:
                    continue
                shade = min(max(shade, 0.0), 1.0)
                box = Rectangle((j + 0.02, i + 0.04), 0.96, 0.92, linewidth=0)
                box.set_facecolor(ink("heat"))
                box.set_alpha(round(0.04 + 0.48 * shade, 3))  # pale enough for the text to stay legible
                ax.add_patch(box)
                written = text[i][j] if text else percent(values[i][j] or 0.0)
                tone = ink("muted" if written in FAINT else "ink")
                look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": canvas.SMALL}
                ax.text(j + 0.5, i + 0.52, written, color=tone, **look)
        return canvas.svg(figure, name, about, fixed=True)


def log_tint(values: Grid) -> list[list[float | None]]:
    """A tint that grows with the logarithm of each value: 0 for 0, 1 for the largest.

    Args:
        values: not negative; those of `SMALLEST` and below look like 0.
    """
    largest = max((v for row in values for v in row if v), default=1.0)
    span = math.log(max(largest, SMALLEST * 10) / SMALLEST)
    return [
        [None if v is None else max(0.0, math.log(v / SMALLEST) / span) if v > 0 else 0.0 for v in row]
        for row in values
    ]


def percent(share: float) -> str:
    """`share` as whole percent, with a dot for nothing."""
    hundredths = 100 * share
    return "·" if hundredths < 0.05 else f"{hundredths:.0f}" if hundredths >= 0.95 else "<1"
