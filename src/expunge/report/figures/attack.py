"""What an attacker sees: the ROC of each attack, and the scores it goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.report.figures import canvas

WIDTH = 180
DASHES = ((0, ()), (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)), (0, (4, 1, 1, 1, 1, 1)))
GRID: NDArray[np.float64] = np.linspace(0, 1, 101)
Curve = NDArray[np.float64]


def mean_curve(curves: Sequence[Mapping[str, Sequence[float]]]) -> Curve | None:
    """True positive rate at each point of `GRID`, averaged over seeds; None without a usable curve.

    Args:
        curves: ``fpr`` and ``tpr`` of each seed.
    """
    found = []
    for curve in curves:
        fpr, tpr = np.asarray(curve.get("fpr") or [], float), np.asarray(curve.get("tpr") or [], float)
        if fpr.size and fpr.shape == tpr.shape and np.isfinite(fpr).all() and np.isfinite(tpr).all():
            # Sorted by both, so that a step straight up is read at its upper end.
            order = np.lexsort((tpr, fpr))
            fpr, tpr = np.r_[0, fpr[order], 1], np.r_[0, tpr[order], 1]
            found.append(np.interp(GRID, fpr, tpr))
    return np.mean(found, axis=0) if found else None


def strongest(curves: Mapping[str, Curve]) -> Curve | None:
    """The curve farthest from chance in area, or None."""
    if not curves:
        return None
    return max(curves.values(), key=lambda tpr: abs(float(np.mean((tpr[1:] + tpr[:-1]) / 2)) - 0.5))


def roc(name: str, method: str, curves: Mapping[str, Curve], attacks: Sequence[str], retrain: Curve | None) -> str:
    """One panel as SVG: a line for each attack on one method.

    Args:
        name: unique on the page.
        method: whose panel it is.
        curves: attack to the true positive rates at `GRID`.
        attacks: all attacks, so that one attack looks alike in every panel.
        retrain: the strongest attack on retraining, drawn for comparison.
    """
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, WIDTH, (32, 6, 34, 6))
        ink = canvas.color
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.01)
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        ax.set_yticks([0, 0.5, 1], ["0", "½", "1"])
        ax.grid(color=ink("line"), linewidth=0.6)
        ax.set_xlabel("false alarms", color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        ax.set_ylabel("found", color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        ax.plot([0, 1], [0, 1], color=ink("muted"), linewidth=0.8, linestyle=(0, (2, 3)))
        if retrain is not None:
            ax.plot(GRID, retrain, color=ink("v-within"), linewidth=5, alpha=0.35, solid_capstyle="round")
        for index, attack in enumerate(attacks):
            if attack in curves:
                look: dict[str, Any] = {
                    "linestyle": DASHES[index % 5],
                    "color": ink(f"a{index % 5 + 1}"),
                    "linewidth": 1.5,
                }
                ax.plot(GRID, curves[attack], **look)
        return canvas.svg(figure, name, f"ROC of the attacks on {method}")


def histogram(
    name: str,
    method: str,
    edges: Sequence[float],
    shares: Mapping[str, Sequence[float | None]],
    limits: tuple[float, float],
    top: float,
) -> str:
    """One panel as SVG: the scores of forgotten, unseen and kept examples under one method.

    Args:
        name: unique on the page.
        method: whose panel it is.
        edges: of the bins, one more than there are bins; log-odds of the true class.
        shares: ``forget``, ``unseen`` and ``retain``: share of the examples in each bin.
        limits: of the horizontal axis, the same in every panel.
        top: of the vertical axis, the same in every panel.
    """
    with canvas.drawing():
        figure, ax = canvas.axes(WIDTH, 130, (6, 6, 34, 4))
        ink = canvas.color
        ax.set_xlim(*limits)
        ax.set_ylim(0, top * 1.04 or 1)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.locator_params(axis="x", nbins=4)
        ax.set_xlabel("log-odds of the true class", color=ink("muted"), fontsize=canvas.SMALL, labelpad=1)
        for part in ("unseen", "retain", "forget"):
            values = np.asarray([v or 0.0 for v in shares.get(part) or []], float)
            if values.size != len(edges) - 1:
                continue
            if part == "retain":
                ax.stairs(values, edges, color=ink("retain"), linewidth=1.1, linestyle=(0, (3, 2)))
            else:
                ax.stairs(values, edges, fill=True, color=ink(part), alpha=0.35)
                ax.stairs(values, edges, color=ink(part), linewidth=1.4)
        return canvas.svg(figure, name, f"Scores of forgotten, unseen and kept examples under {method}")
