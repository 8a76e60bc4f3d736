"""Accuracy along something: a training, a subtraction, a share of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.report.figures import canvas

WIDTH, HEIGHT = 230, 170
PARTS = (("targeted", "forget", (0, ())), ("retained", "retain", (0, (4, 2))))
Points = Sequence[tuple[float, float]]


def lines(name: str, about: str, below: str, curves: Mapping[str, Points], percent: bool = False) -> str:
    """One panel as SVG: accuracy on targeted and on retained rows.

    Args:
        name: unique on the page.
        about: what it shows, for those who cannot see it.
        below: what runs along the bottom.
        curves: for ``targeted`` and ``retained`` the points (x, accuracy in percent), by rising x.
        percent: whether x is a share, from 0 to 1, written in percent.
    """
    xs = [x for points in curves.values() for x, _ in points]
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, HEIGHT, (36, 10, 34, 6))
        ink = canvas.color
        ax.set_ylim(-2, 102)
        ax.set_xlim(0, max(xs, default=1) or 1)
        ax.set_yticks([0, 50, 100], ["0", "50", "100"])
        ax.locator_params(axis="x", nbins=4)
        if percent:
            ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f}")
        ax.grid(color=ink("line"), linewidth=0.6)
        ax.set_xlabel(below, color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        ax.set_ylabel("% right", color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        for part, tint, dashes in PARTS:
            points = curves.get(part) or []
            look: dict[str, Any] = {"color": ink(tint), "linewidth": 1.6, "linestyle": dashes, "marker": "o"}
            look |= {"markersize": 2.5, "clip_on": False}  # whole markers at the edge
            ax.plot([x for x, _ in points], [y for _, y in points], **look)
        return canvas.svg(figure, name, about)
