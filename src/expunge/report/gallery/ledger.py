"""What a ledger tells: accuracy along training and subtraction, over touched shares, controls, and where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.report.figures.lines import lines
from expunge.report.figures.maps import maps
from expunge.report.gallery.section import Legend, Section, matrix
from expunge.report.tables import Row, entries_of, methods_of, number

LEGEND: Legend = (("forget", "targeted"), ("dashes", "retained"))


def along(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Accuracy along the training and along each subtraction; None without a ledger of whole updates."""
    told = _told(results)
    panels = []
    if told.get("training"):
        curves = _curves(told["training"], "step")
        panels.append(("Training", lines("ledger-training", "Accuracy along the training", "step", curves)))
    for i, (row, points) in enumerate((told.get("unlearning") or {}).items()):
        about = f"Accuracy while {row} takes back the touched steps"
        drawn = lines(f"ledger-undo-{i}", about, "% of the touched steps", _curves(points, "share"), percent=True)
        panels.append((row, drawn))
    if not panels:
        return None
    caption = (
        f"First seed; accuracy on {told.get('rows', 'the targeted rows')} and on retained unseen rows: while the model "
        "learns, replayed from the ledger, and while each method takes the touched steps back, first to last."
    )
    return Section("Along training and unlearning", caption, tuple(panels), "panels", LEGEND)


def affected(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Accuracy after a random share of all steps is taken back; None where that was not saved."""
    told = _told(results)
    shares = told.get("affected") or {}
    panels = tuple(
        (row, lines(f"ledger-share-{i}", f"{row} over the share", "% of all steps", _curves(points, "share"), True))
        for i, (row, points) in enumerate(shares.items())
    )
    if not panels:
        return None
    steps, touched = number(told.get("steps")) or 0, number(told.get("touched")) or 0
    caption = (
        "What is left when random steps are taken back, whoever took part in them. "
        f"This request touches {touched:,.0f} of {steps:,.0f} steps ({100 * touched / max(steps, 1):.1f} %)."
    )
    return Section("How many steps a model can lose", caption, panels, "panels", LEGEND)


def control(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Each subtraction beside its control: as many other steps; None where there was no control."""
    parts = ("forget", "retain")
    columns = [f"{part}, {when}" for part in ("forgotten", "retained") for when in ("before", "after", "control")]
    names, grid = [], []
    for method in methods_of(results):
        found = [c for e in entries_of(results, method) if (c := (e.get("facts") or {}).get("control"))]
        if found:
            names.append(method)
            values = [[number((c.get(w) or {}).get(p)) for c in found] for p in parts for w in _WHEN]
            grid.append([_mean(v) for v in values])
    if not names:
        return None
    caption = (
        "Percent of training rows answered right, mean over seeds. The control takes back as many other steps: where "
        "it loses as much of the forgotten rows as the method does, that is damage and not forgetting."
    )
    return matrix("Is it the right steps?", "ledger-control", caption, names, columns, grid)


def attention(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Class activation maps of the targeted class before and after; None where there are none."""
    saved = [one for one in _told(results).get("maps") or [] if isinstance(one, dict)]
    columns = list(dict.fromkeys(name for one in saved for name in one.get("maps") or {}))
    if not columns:
        return None
    heats = [[(one.get("maps") or {}).get(name) for name in columns] for one in saved]
    images = [one.get("image") for one in saved]
    drawn = maps("ledger-maps", "Class activation maps", [""] * len(saved), columns, images, heats)
    caption = (
        "Grad-CAM of the targeted class in unseen images of it, the maps of an image on one scale: where the model "
        "still finds the class, if it does; a map that faded found less."
    )
    return Section("Where the model looks for the class", caption, (("", drawn),), "wide")


_WHEN = ("before", "after", "control")


def _told(results: dict[str, Any]) -> dict[str, Any]:
    told = results.get("ledger")
    return told if isinstance(told, dict) else {}


def _curves(points: Any, along: str) -> dict[str, list[tuple[float, float]]]:
    """Points by rising place; what is no number is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points if isinstance(points, list) else []:
        x = number(point.get(along)) if isinstance(point, Mapping) else None
        for part in ("targeted", "retained"):
            y = number(point.get(part)) if x is not None else None
            if x is not None and y is not None:
                found.setdefault(part, []).append((x, y))
    return {part: sorted(some) for part, some in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
