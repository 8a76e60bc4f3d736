"""Which layers a method changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from expunge.report.figures.heat import log_tint
from expunge.report.gallery.section import MOST_ROWS, Section, matrix
from expunge.report.tables import Row, entries_of, mean_lists, methods_of


def layers(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """How far each tensor moved under each method; None where that was not saved."""
    saved = {m: [e.get("layers") or {} for e in entries_of(results, m)] for m in methods_of(results)}
    saved = {m: seeds for m, seeds in saved.items() if m not in ("original", "retrain_again") and any(seeds)}
    names = list(dict.fromkeys(name for seeds in saved.values() for seed in seeds for name in seed))
    if not names:
        return None
    means = [[mean_lists([[seed.get(name)] for seed in seeds])[0] for seeds in saved.values()] for name in names]
    largest = [max((v for v in row if v is not None), default=0.0) for row in means]
    which = sorted(sorted(range(len(names)), key=lambda i: -largest[i])[:MOST_ROWS])
    grid = [[None if v is None else abs(v) for v in means[i]] for i in which]
    texts = [[_relative(v) for v in row] for row in grid]
    title = "Which layers changed"
    shown = [names[i] for i in which]
    cut = f" Shown: the {len(which)} of {len(names)} tensors that changed most." if len(which) < len(names) else ""
    caption = (
        "Length of the change of each tensor, in percent of its length in the original; "
        f"darker on a logarithmic scale, a dot where nothing moved.{cut}"
    )
    return matrix(title, "layers", caption, shown, list(saved), grid, tint=log_tint(grid), text=texts)


def _relative(change: float | None) -> str:
    if change is None:
        return ""
    percent = 100 * change
    if percent == 0 or not math.isfinite(percent):
        return "·"
    return f"{percent:.0f}" if percent >= 9.95 else f"{percent:.1f}" if percent >= 0.05 else "<.1"
