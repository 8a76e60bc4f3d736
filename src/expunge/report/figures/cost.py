"""What each model cost to make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures import canvas, labels

WIDTH, ROW = 400, 24


def cost(name: str, about: str, bars: Sequence[tuple[str, float, str]]) -> str:
    """The figure as SVG: a bar for each method.

    Args:
        name: unique on the page.
        about: what the length of a bar is.
        bars: method, length of its bar (0 or more), and what is written beside it.
    """
    names = [wording.label(method, 22) for method, _, _ in bars]
    left = max(labels.text_width(name, canvas.SMALL) for name in names) + 14
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, ROW * len(bars) + 12, (left, 6, 6, 6))
        ink = canvas.color
        room = WIDTH - left - 6
        longest = max(room - max(labels.text_width(note, canvas.SMALL) for _, _, note in bars) - 6, 60)
        scale = longest / (max(length for _, length, _ in bars) or 1.0)  # pixels for one unit
        ax.set_xlim(0, room / scale)
        ax.set_ylim(len(bars) - 0.5, -0.5)
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.set_yticks(range(len(bars)), names)
        for place, (method, length, note) in enumerate(bars):
            tint = {"retrain": "v-within", "original": "muted"}.get(method, "accent")
            ax.barh(place, length, height=0.62, color=ink(tint), alpha=0.75)
            look: dict[str, Any] = {"va": "center_baseline", "fontsize": canvas.SMALL, "color": ink("muted")}
            ax.text(length + 6 / scale, place, note, **look)
        for tick in ax.get_yticklabels():
            tick.set_color(ink("ink"))
        said = "; ".join(f"{method} {note}" for method, _, note in bars)
        return canvas.svg(figure, name, f"{about}: {said}")
