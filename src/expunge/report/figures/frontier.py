"""Forgetting against retaining for everything that a search tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report.figures import canvas, labels

WIDTH, HEIGHT = 290, 210
Point = tuple[float, float]


def frontier(
    name: str,
    about: str,
    lines: Sequence[Sequence[Point]],
    before: Point | None,
    taken: Point | None,
    note: str,
) -> str:
    """One panel as SVG: accuracy in percent on rows that must go, and on rows that stay.

    Args:
        name: unique on the page.
        about: what it shows, for those who cannot see it.
        lines: the points (forget, retain) that belong together, in order.
        before: the model that the search began with; None where it is not known.
        taken: the point that was chosen; None where none was.
        note: is written beside it.
    """
    points = [point for line in lines for point in line] + ([before] if before else [])
    lowest = min(y for _, y in points)
    pad = max(0.06 * (100 - lowest), 1.0)
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, HEIGHT, (44, 10, 38, 8))
        ink = canvas.color
        ax.set_xlim(-4, 104)
        ax.set_ylim(lowest - pad, 100 + pad)
        ax.set_xticks([0, 50, 100])
        ax.locator_params(axis="y", nbins=5)
        ax.grid(color=ink("line"), linewidth=0.6)
        ax.set_xlabel("forgotten class, % right", color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        ax.set_ylabel("others, % right", color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        for line in lines:
            look: dict[str, Any] = {"color": ink("accent"), "linewidth": 0.8, "alpha": 0.8, "marker": "o"}
            ax.plot([x for x, _ in line], [y for _, y in line], markersize=4, **look)
        if before:
            ring: dict[str, Any] = {"markerfacecolor": ink("surface"), "markeredgecolor": ink("ink")}
            ax.plot(*before, "o", markersize=7, markeredgewidth=1.3, **ring)
        if taken:
            ax.plot(*taken, "|", color=ink("v-within"), markersize=15, markeredgewidth=2.6)
            _write(ax, taken, note, points)
        return canvas.svg(figure, name, about)


def _write(ax: Any, taken: Point, note: str, points: Sequence[Point]) -> None:
    spots = [(float(x), float(y)) for x, y in ax.transData.transform([taken, *points])]
    box = ax.get_window_extent()
    taken_boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots[1:]]
    within = (box.x0, box.y0, box.x1, box.y1)
    ((x, y),) = labels.place(spots[:1], [note], canvas.SMALL, within, taken_boxes)
    place = ax.transData.inverted().transform((x + labels.text_width(note, canvas.SMALL) / 2, y + 2))
    ax.text(*place, note, fontsize=canvas.SMALL, color=canvas.color("ink"), ha="center")
