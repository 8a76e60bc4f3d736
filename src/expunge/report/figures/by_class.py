"""Accuracy of each class before and after, one panel for each method."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures import canvas, labels

WIDTH, ROW = 360, 20
Values = Sequence[float | None]


def most_changed(before: Values, after: Sequence[Values], forgotten: Collection[int], at_most: int = 24) -> list[int]:
    """Which classes to show, in label order: all, or the forgotten ones and those that changed most.

    Args:
        before: accuracy of each class in the original model, percent.
        after: the same for each method.
        forgotten: labels of the forgotten classes, always shown.
        at_most: how many.
    """

    def change(index: int) -> float:
        old = before[index]
        new = [values[index] for values in after if index < len(values)]
        return max((abs(v - old) for v in new if v is not None and old is not None), default=0.0)

    order = sorted(range(len(before)), key=lambda i: (i not in forgotten, -change(i), i))
    return sorted(order[:at_most])


def by_class(
    name: str,
    method: str,
    classes: Sequence[str],
    rows: Sequence[int],
    forgotten: Collection[int],
    before: Values,
    after: Values,
    retrain: Values | None,
) -> str:
    """One panel as SVG: a line for each class from the original's accuracy to the method's.

    Args:
        name: unique on the page.
        method: whose panel it is.
        classes: names of all classes.
        rows: labels of the classes to show.
        forgotten: labels of the forgotten classes.
        before: accuracy of each class in the original model, percent.
        after: the same in the method's model.
        retrain: the same for retraining; None where there is none.
    """
    texts = [wording.label(classes[i] if i < len(classes) else i, 22) for i in rows]
    widths = [labels.text_width(text, canvas.SMALL, i in forgotten) for i, text in zip(rows, texts)]
    left = max(widths) + 12
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, ROW * len(rows) + 44, (left, 12, 40, 4))
        ink = canvas.color
        ax.set_xlim(-3, 103)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=ink("line"), linewidth=0.6)
        ax.set_xticks([0, 25, 50, 75, 100])
        ax.set_yticks(range(len(rows)), texts)
        ax.set_xlabel("accuracy, %", color=ink("muted"), fontsize=canvas.SMALL)
        for place, (index, tick) in enumerate(zip(rows, ax.get_yticklabels())):
            tick.set_color(ink("ink"))
            if index in forgotten:
                tick.set_color(ink("forget"))
                tick.set_fontweight("bold")
                ax.axhspan(place - 0.5, place + 0.5, color=ink("forget"), alpha=0.12, linewidth=0)
            old, new, ideal = (_at(values, index) for values in (before, after, retrain))
            if ideal is not None:
                ax.plot(ideal, place, "|", color=ink("v-within"), markersize=13, markeredgewidth=2.6)
            if old is not None and new is not None:
                ax.plot([old, new], [place, place], color=ink("accent"), linewidth=2, alpha=0.5)
            if old is not None:
                look: dict[str, Any] = {"markerfacecolor": ink("surface"), "markeredgecolor": ink("ink")}
                ax.plot(old, place, "o", markersize=7, markeredgewidth=1.3, **look)
            if new is not None:
                ax.plot(new, place, "o", color=ink("accent"), markersize=6)
        return canvas.svg(figure, name, f"Accuracy by class before and after {method}")


def _at(values: Values | None, index: int) -> float | None:
    return values[index] if values is not None and index < len(values) else None
