"""What denoisers draw, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures.sheets import drawn
from expunge.report.gallery.section import Section, forgotten
from expunge.report.tables import Row, entries_of, methods_of


def sheets(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Images of each class by each model, first seed; None where none were drawn."""
    panels = []
    for method in methods_of(results):
        found = next((e["samples"] for e in entries_of(results, method) if isinstance(e.get("samples"), dict)), None)
        asked = found.get("classes") if found else None
        if found is None or not isinstance(asked, list):
            continue
        names = [wording.class_name(results, c) for c in asked]
        marked = {i for i, c in enumerate(asked) if c in forgotten(results)}
        if svg := drawn(f"Images drawn by {method}, a row for each class", names, found.get("image"), marked):
            panels.append((method, svg))
    if not panels:
        return None
    caption = (
        "First seed. Each row was asked for one class, the forgotten one in bold; every model began with the same "
        "noise, so images in one place can be compared."
    )
    return Section("Images drawn", caption, tuple(panels), "panels")
