"""The outcome at a glance: forgetting against usefulness, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures import cost as bars
from expunge.report.figures import scatter as points
from expunge.report.gallery.section import Legend, Section
from expunge.report.tables import Row


def scatter(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Forgetting against usefulness; None where fewer than two methods have both numbers."""
    panels = points.scatter(rows, results["metrics"])
    if not panels:
        return None
    region = any(row.method == "retrain" for row in rows)
    where = (
        "The dashed box is where retraining lands, its intervals included. Inside it, these two numbers do "
        "not tell a method from retraining; left of it less was forgotten, right of it more; "
        "below it usefulness was lost."
        if region
        else "There is no retraining to compare with: further right forgets more, higher is more useful."
    )
    legend: Legend = (("box", "retraining"),) if region else ()
    return Section("Forgetting and usefulness", where, tuple(panels), "pair", legend)


def cost(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Time and work of each method; None where neither was saved."""
    shown = [row for row in rows if row.method != "retrain_again"]
    times, work = [], []
    for row in shown:
        if row.seconds is not None:
            beside = "" if row.method in ("original", "retrain") else wording.ratio(row.ratio)
            notes = [wording.seconds(row.seconds), beside, "cached" if row.cached else ""]
            times.append((row.method, max(row.seconds, 0.0), ", ".join(filter(None, notes))))
        if row.examples is not None:
            work.append((row.method, max(row.examples, 0.0), wording.figure(float(round(row.examples)))))
    panels = [("Time", bars.cost("cost-time", "Time to make each model", times))] if times else []
    panels += [("Examples processed", bars.cost("cost-examples", "Examples processed", work))] if work else []
    caption = (
        "Mean over seeds. A method is worth its risk only where its bar is much shorter than retraining's; "
        "a cached model shows the cost of its first making."
    )
    return Section("Cost", caption, tuple(panels), "pair") if panels else None
