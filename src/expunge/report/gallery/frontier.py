"""What a search tried: forgetting against retaining for each pair of scales, with the one that was taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report.figures.frontier import Point, frontier
from expunge.report.gallery.section import Legend, Section, facts_of, items, mapping
from expunge.report.tables import Row, methods_of, number

LEGEND: Legend = (("ring", "before"), ("dot", "tried"), ("bar", "taken"))
SCALES = ("scale_retain", "scale_forget")


def pairs(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """The frontier of each method that searched for scales; None where none was saved."""
    panels = []
    for i, method in enumerate(methods_of(results)):
        facts = (facts_of(results, method) or [{}])[0]
        lines: dict[float, list[Point]] = {}
        chosen, taken = mapping(facts.get("chosen")), None
        for tried in map(mapping, items(facts.get("frontier"))):
            scale, point = number(tried.get("scale_retain")), _point(tried)
            if scale is None or point is None:
                continue
            lines.setdefault(scale, []).append(point)
            if all(tried.get(name) == chosen.get(name) for name in SCALES):
                taken = point
        if lines:
            note = ", ".join(f"{value:g}" for name in SCALES if (value := number(chosen.get(name))) is not None)
            about = f"Accuracy on forgotten and retained rows under the scales that {method} tried"
            before = _point(mapping(facts.get("before")))
            panels.append((method, frontier(f"frontier-{i}", about, list(lines.values()), before, taken, note)))
    if not panels:
        return None
    caption = (
        "First seed, on training rows that were held out. A dot is a pair of scales; a line joins those with the same "
        "scale for the retained classes. Best is the upper left. Taken is the pair with the largest retained × "
        "(1 − forgotten) accuracy; its scales, retain and forget, stand beside it. Test rows had no part in the choice."
    )
    return Section("What forgetting costs", caption, tuple(panels), "panels", LEGEND)


def _point(saved: Any) -> Point | None:
    forget, retain = number(saved.get("forget")), number(saved.get("retain"))
    good = forget is not None and retain is not None and 0 <= forget <= 100 and 0 <= retain <= 100
    return (forget, retain) if good else None  # type: ignore[return-value]
