"""Class by class: accuracy before and after, and what the forgotten examples are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures.by_class import by_class, most_changed
from expunge.report.gallery.section import MOST_ROWS, Legend, Section, class_means, forgotten, matrix
from expunge.report.tables import REFERENCES, Row, entries_of, mean_lists, methods_of

MOST_PANELS = 6  # with more methods, one matrix takes the place of the panels
TITLE = "Accuracy by class, before and after"
Values = list[float | None]


def accuracy(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Accuracy of each class before and after each method; None where it was not measured."""
    part = "unseen" if class_means(results, "original", "unseen") else "seen"
    before, ideal = (class_means(results, method, part) for method in ("original", "retrain"))
    shown = [method for method in methods_of(results) if method not in REFERENCES]
    after = {method: values for method in shown if (values := class_means(results, method, part))}
    if not before or not after:
        return None
    gone = forgotten(results)
    which = most_changed(before, list(after.values()), gone)
    where = "unseen rows." if part == "unseen" else "training rows."
    if len(which) < len(before):
        where += f" Shown: the {len(which)} of {len(before)} classes that changed most."
    if len(after) > MOST_PANELS:
        columns = {"original": before, **({"retrain": ideal} if ideal else {}), **after}
        return _matrix(results, columns, which, where)
    classes = [wording.class_name(results, i) for i in range(len(before))]
    panels = tuple(
        (method, by_class(f"class-{i}", method, classes, which, gone, before, values, ideal or None))
        for i, (method, values) in enumerate(after.items())
    )
    legend: Legend = (("ring", "before (original)"), ("dot", "after"))
    legend += (("bar", "retraining"),) if ideal else ()
    legend += (("forgotten", "forgotten class"),) if gone else ()
    mark, also = "retraining's bar" if ideal else "the ring", ", the forgotten class included" if gone else ""
    if not ideal:
        also = " but the forgotten class's" if gone else ""
    caption = f"The dot should sit on {mark} in every line{also}; a dot far left of it is damage"
    caption += f"{' in a class that stays' if gone else ''}. Accuracy on {where}"
    return Section(TITLE, caption, panels, "panels", legend)


def predictions(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """What each model takes the forgotten examples for; None where that was not saved."""
    saved = {m: mean_lists([e.get("predicted") for e in entries_of(results, m)]) for m in methods_of(results)}
    columns = {method: values for method, values in saved.items() if any(values) and method != "retrain_again"}
    if not columns:
        return None
    gone, count = forgotten(results), max(map(len, columns.values()))
    share = [max(_at(values, i) or 0.0 for values in columns.values()) for i in range(count)]
    order = sorted(range(count), key=lambda i: (i not in gone, -share[i], i))
    which = sorted(order[:MOST_ROWS])
    cut = f" Shown: the {len(which)} of {count} classes predicted most." if len(which) < count else ""
    aim = (
        "A column should look like retraining's: one that piles up on a single wrong class was steered "
        "there, not forgotten."
        if "retrain" in columns
        else "A column that piles up on a single wrong class was steered there, not forgotten."
    )
    return matrix(
        "What the forgotten examples are taken for",
        "predictions",
        f"Of 100 forgotten examples, how many each model takes for each class. {aim}{cut}",
        [wording.class_name(results, i) for i in which],
        list(columns),
        [[_at(values, i) for values in columns.values()] for i in which],
        strong=[place for place, i in enumerate(which) if i in gone],
    )


def _matrix(results: dict[str, Any], columns: Mapping[str, Values], which: list[int], where: str) -> Section:
    target = "retrain" if "retrain" in columns else "original"
    gone = forgotten(results)
    grid = [[_at(values, i) for values in columns.values()] for i in which]
    goals = [_at(columns[target], i) for i in which]
    caption = (
        f"Percent right on {where} The darker a cell, the farther from {target}; "
        f"dark cells{' outside the forgotten class' if gone else ''} are damage."
    )
    return matrix(
        TITLE,
        "classes",
        caption,
        [wording.class_name(results, i) for i in which],
        list(columns),
        grid,
        strong=[place for place, i in enumerate(which) if i in gone],
        tint=[[_apart(v, goal) for v in row] for row, goal in zip(grid, goals)],
        text=[["" if v is None else f"{v:.0f}" for v in row] for row in grid],
    )


def _apart(value: float | None, goal: float | None) -> float:
    """How dark: 1 from 50 points upwards."""
    return 0.0 if value is None or goal is None else min(abs(value - goal) / 50, 1.0)


def _at(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None
