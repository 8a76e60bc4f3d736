"""Forgetting against usefulness, with the region that retraining occupies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matplotlib.patches import Rectangle

from expunge.report import wording
from expunge.report.figures import canvas, labels
from expunge.report.tables import Row
from expunge.report.verdicts import key_of

SHAPES = {"within": "o", "partly": "s", "none": "D", "over": ">", "damaged": "X", "unknown": "P"}
WIDTH, HEIGHT = 400, 310
X, Y = "ua", "ta"
Box = tuple[float, float, float, float]
Limits = tuple[tuple[float, float], tuple[float, float]]


def scatter(rows: Sequence[Row], metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The panels as ``(heading, svg)``; none where fewer than two methods have both numbers.

    A second panel looks closely at the region of retraining where that is small on the scale of all methods.

    Args:
        rows: one for each method.
        metrics: titles and units of the metrics.
    """
    shown = [row for row in rows if X in metrics and Y in metrics and _spot(row) is not None]
    shown = [row for row in shown if row.method != "retrain_again"]
    if len(shown) < 2:
        return []
    limits = _limits(shown, X), _limits(shown, Y)
    region = next((box for row in shown if row.method == "retrain" and (box := _region(row))), None)
    close = _close_up(region, limits) if region else None
    near = [row for row in shown if close and (spot := _spot(row)) and _inside(spot, close)]
    if not close or len(near) < 2:
        return [("", _panel("scatter", shown, limits, metrics, region))]
    whole = _panel("scatter", shown, limits, metrics, region, {row.method for row in near})
    return [
        ("All methods", whole),
        ("Close to retraining", _panel("scatter-close", near, close, metrics, region)),
    ]


def _panel(
    name: str,
    shown: Sequence[Row],
    limits: Limits,
    metrics: dict[str, Any],
    region: Box | None,
    unnamed: Collection[str] = (),
) -> str:
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, HEIGHT, (50, 12, 44, 10))
        spots = [spot for row in shown if (spot := _spot(row))]
        for axis, metric, (low, high) in (("x", X, limits[0]), ("y", Y, limits[1])):
            getattr(ax, f"set_{axis}lim")(low, high)
            unit = metrics[metric].get("unit") or ""
            title = f"{metrics[metric].get('title') or metric}{', ' + unit if unit else ''}"
            getattr(ax, f"set_{axis}label")(title, color=canvas.color("ink"), fontsize=canvas.FONT)
        ax.locator_params(nbins=6)
        ax.grid(color=canvas.color("line"), linewidth=0.6)
        if region:
            _draw_region(ax, region)
        for row, (x, y) in zip(shown, spots):
            _draw(ax, row, x, y)
        named = [(row, spot) for row, spot in zip(shown, spots) if row.method not in unnamed]
        labels_of = [(wording.label(row.method, 22), spot) for row, spot in named]
        if unnamed and region:
            labels_of.append(("see close-up", ((region[0] + region[2]) / 2, (region[1] + region[3]) / 2)))
        _names(ax, labels_of)
        alt = "; ".join(f"{row.method} {x:.1f} and {y:.1f}" for row, (x, y) in zip(shown, spots))
        return canvas.svg(figure, name, f"Forgetting against usefulness: {alt}")


def _spot(row: Row) -> tuple[float, float] | None:
    x, y = row.cells[X].value, row.cells[Y].value
    return None if x is None or y is None else (x, y)


def _ends(row: Row, metric: str) -> tuple[float, float]:
    """From the lowest to the highest end of the intervals of all seeds."""
    cell = row.cells[metric]
    ends = [v for _, value, low, high in cell.each for v in (value, low, high) if v is not None]
    return min(ends), max(ends)


def _region(row: Row) -> Box:
    (left, right), (low, high) = _ends(row, X), _ends(row, Y)
    return left, low, right, high


def _limits(shown: Sequence[Row], metric: str) -> tuple[float, float]:
    ends = [end for row in shown for end in _ends(row, metric)]
    pad = max(0.07 * (max(ends) - min(ends)), 0.5)
    return min(ends) - pad, max(ends) + pad


def _close_up(region: Box, limits: Limits) -> Limits | None:
    """Limits twice as wide as the region, or None where the region is large enough to be seen."""
    left, low, right, high = region
    (x0, x1), (y0, y1) = limits
    if (right - left) * (high - low) > 0.04 * (x1 - x0) * (y1 - y0):
        return None
    x, y = max(right - left, 1.0) / 2, max(high - low, 1.0) / 2
    return (left - x, right + x), (low - y, high + y)


def _inside(spot: tuple[float, float], limits: Limits) -> bool:
    return all(low <= value <= high for value, (low, high) in zip(spot, limits))


def _draw_region(ax: Any, region: Box) -> None:
    left, low, right, high = region
    tint, size = canvas.color("v-within"), (right - left, high - low)
    ax.add_patch(Rectangle((left, low), *size, color=tint, alpha=0.18, linewidth=0, zorder=1))
    edge: dict[str, Any] = {"fill": False, "edgecolor": tint, "linewidth": 1.2, "linestyle": (0, (4, 3))}
    ax.add_patch(Rectangle((left, low), *size, zorder=2, **edge))


def _draw(ax: Any, row: Row, x: float, y: float) -> None:
    ink, across, up = canvas.color, row.cells[X], row.cells[Y]
    x0, x1, y0, y1 = across.low, across.high, up.low, up.high
    if row.method == "retrain":
        ax.plot(x, y, "+", color=ink("v-within"), markersize=10, markeredgewidth=2, zorder=3)
        return
    key = "none" if row.method == "original" else key_of(row.verdict["word"] if row.verdict else None)
    tint = ink("ink") if row.method == "original" else ink(f"v-{key}")
    if x0 is not None and x1 is not None:
        ax.plot([x0, x1], [y, y], color=tint, linewidth=1, alpha=0.5, zorder=2)
    if y0 is not None and y1 is not None:
        ax.plot([x, x], [y0, y1], color=tint, linewidth=1, alpha=0.5, zorder=2)
    first = row.method == "original"
    face, edge = (ink("surface"), tint) if first else (tint, ink("surface"))
    shape = "o" if first else SHAPES[key]
    ax.plot(x, y, shape, mfc=face, mec=edge, mew=1.3, markersize=10 if shape == "X" else 8.5, zorder=4)


def _names(ax: Any, named: Sequence[tuple[str, tuple[float, float]]]) -> None:
    pixels = [(float(x), float(y)) for x, y in (ax.transData.transform(spot) for _, spot in named)]
    box = ax.get_window_extent()
    corners = labels.place(pixels, [n for n, _ in named], canvas.SMALL, (box.x0, box.y0, box.x1, box.y1))
    for (px, py), (x, y), (name, _) in zip(pixels, corners, named):
        width, height = labels.text_width(name, canvas.SMALL), canvas.SMALL
        nearest = (min(max(px, x), x + width), min(max(py, y), y + height))
        if max(abs(nearest[0] - px), abs(nearest[1] - py)) > 14:  # far enough to need a thread
            line = ax.transData.inverted().transform([(px, py), nearest])
            ax.plot(line[:, 0], line[:, 1], color=canvas.color("muted"), linewidth=0.6, zorder=1)
        place = ax.transData.inverted().transform((x + width / 2, y + 2))
        # Centred: the page's font is narrower than the one that the width was reckoned with.
        ax.text(*place, name, fontsize=canvas.SMALL, color=canvas.color("ink"), ha="center", zorder=5)
