"""Which figures a page shows, each with the sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report.gallery import attacks, classes, frontier, gates, layers, ledger, outcome, samples
from expunge.report.gallery.section import Section
from expunge.report.tables import Row

__all__ = ["Section", "sections"]

MAKERS = (
    outcome.scatter,
    samples.sheets,
    ledger.along,
    ledger.affected,
    ledger.control,
    ledger.attention,
    frontier.pairs,
    gates.closed,
    gates.most,
    gates.places,
    gates.scores,
    classes.accuracy,
    classes.predictions,
    layers.layers,
    attacks.roc,
    attacks.histograms,
    outcome.cost,
)


def sections(results: dict[str, Any], rows: Sequence[Row]) -> list[Section]:
    """Every figure for which there are measurements, in the order of the page.

    Args:
        results: what ``results.json`` holds.
        rows: one for each method.
    """
    return [section for make in MAKERS if (section := make(results, rows))]
