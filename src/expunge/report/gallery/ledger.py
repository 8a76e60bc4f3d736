"""What a ledger tells: accuracy along training and subtraction, over touched shares, controls, and where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures.lines import lines
from expunge.report.figures.maps import maps
from expunge.report.gallery.section import Legend, Section, facts_of, mapping, matrix
from expunge.report.tables import Row, mean, methods_of, number

LEGEND: Legend = (("line forget", "targeted"), ("dashes", "retained"))


def along(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Accuracy along the training and along each subtraction; None where neither was saved."""
    told = mapping(results.get("ledger"))
    panels = []
    if curves := _curves(told.get("training"), "step"):
        panels.append(("Training", lines("ledger-training", "Accuracy along the training", "step", curves)))
    for i, (row, curves) in enumerate(_by_row(told.get("unlearning"))):
        about = f"Accuracy while {row} takes back the touched steps"
        panels.append((row, lines(f"ledger-undo-{i}", about, "% of the touched steps", curves, percent=True)))
    if not panels:
        return None
    targeted = told["rows"] if isinstance(told.get("rows"), str) else "the targeted rows"
    caption = (
        f"First seed. Accuracy on {targeted}, and on unseen rows of what is retained: while the model learns, replayed "
        "from the ledger, and while each method takes the touched steps back, first to last."
    )
    return Section("Along training and unlearning", caption, tuple(panels), "panels", LEGEND)


def affected(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Accuracy after a random share of all steps is taken back; None where that was not saved."""
    told = mapping(results.get("ledger"))
    panels = tuple(
        (row, lines(f"ledger-share-{i}", f"Accuracy over the share that {row} takes", "% of all steps", curves, True))
        for i, (row, curves) in enumerate(_by_row(told.get("affected")))
    )
    if not panels:
        return None
    caption = "First seed. Accuracy after random steps are taken back, whoever took part in them."
    steps, touched = number(told.get("steps")), number(told.get("touched"))
    if steps and touched is not None:
        caption += f" This request touches {touched:,.0f} of {steps:,.0f} steps ({100 * touched / steps:.1f} %)."
    return Section("How many steps a model can lose", caption, panels, "panels", LEGEND)


def control(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Each subtraction beside its control: as many other steps; None where there was no control."""
    parts = ("forget", "retain")
    columns = [f"{part}, {when}" for part in ("forgotten", "retained") for when in ("before", "after", "control")]
    names, grid, fewer = [], [], []
    for method in methods_of(results):
        found = [mapping(facts.get("control")) for facts in facts_of(results, method)]
        values = [mean([mapping(c.get(when)).get(part) for c in found]) for part in parts for when in _WHEN]
        if any(value is not None for value in values):
            names.append(method)
            fewer += [method] if any(_fewer(c) for c in found) else []
            grid.append([None if value is None else value / 100 for value in values])
    if not names:
        return None
    caption = (
        "Percent of training rows answered right, mean over seeds. The control takes back as many other steps: where "
        "it loses as much of the forgotten rows as the method does, that is damage and not forgetting."
    )
    if fewer:
        caption += (
            f" Too few others were left for {', '.join(fewer)}: its control takes back less, and compares nothing."
        )
    text = [["" if value is None else wording.figure(100 * value, "%") for value in values] for values in grid]
    return matrix("Is it the right steps?", "ledger-control", caption, names, columns, grid, text=text)


def _fewer(told: Mapping[str, Any]) -> bool:
    """Whether a control took back fewer steps, or rows' shares, than the method did."""
    taken, asked = number(told.get("steps", told.get("rows"))), number(told.get("of"))
    return taken is not None and asked is not None and taken < asked


def attention(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Class activation maps of the targeted class before and after; None where there are none."""
    saved = mapping(results.get("ledger")).get("maps")
    saved = [one for one in saved if isinstance(one, Mapping)] if isinstance(saved, list) else []
    found = [mapping(one.get("maps")) for one in saved]
    columns = list(dict.fromkeys(name for some in found for name in some))
    if not columns:
        return None
    heats = [[some.get(name) for name in columns] for some in found]
    names, images = [f"image {i}" for i in range(1, len(saved) + 1)], [one.get("image") for one in saved]
    drawn = maps("ledger-maps", "Class activation maps", names, columns, images, heats)
    caption = (
        "First seed. Grad-CAM of the targeted class in unseen images of it: what speaks for the class, where. The maps "
        "of an image are on one scale, so that one that faded looks faded. An empty map alone is no proof of "
        "forgetting: it is the accuracy that says how often the class is still recognised."
    )
    return Section("Where the model looks for the class", caption, (("", drawn),), "wide")


_WHEN = ("before", "after", "control")


def _by_row(saved: Any) -> list[tuple[str, dict[str, list[tuple[float, float]]]]]:
    """The curves of each row that has any."""
    return [(row, curves) for row, points in mapping(saved).items() if (curves := _curves(points, "share"))]


def _curves(points: Any, along: str) -> dict[str, list[tuple[float, float]]]:
    """Points by rising place; what is no place or no percentage is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points if isinstance(points, list) else []:
        x = number(mapping(point).get(along))
        for part in ("targeted", "retained"):
            y = number(mapping(point).get(part))
            if x is not None and y is not None and x >= 0 and 0 <= y <= 100:
                found.setdefault(part, []).append((x, y))
    return {part: sorted(some) for part, some in found.items()}
