"""The verdicts, laid out for a page: a card for each method and the scale they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.report import wording
from expunge.report.tables import REFERENCES, Cell, Row, number

# Verdict word to the short key that styles and icons go by, in the order in which they are counted up.
KEYS = {
    "within retraining's spread": "within",
    "partly": "partly",
    "no effect": "none",
    "overdone": "over",
    "model damaged": "damaged",
    "cannot say": "unknown",
}
MARKS = {"within": "✓", "partly": "◐", "none": "○", "over": "»", "damaged": "✗", "unknown": "?"}
KEY_METRICS = ("recognised", "others", "fid", "ua", "ta", "mia")


@dataclass(frozen=True)
class Gauge:
    """Where a method stands on the way to retraining; every position is in percent of the scale's width."""

    zero: float
    dot: float
    low: float
    high: float
    band: tuple[float, float] | None
    original: float | None
    title: str
    reading: str


@dataclass(frozen=True)
class Card:
    """One method's verdict."""

    method: str
    key: str
    word: str
    sentence: str
    numbers: tuple[tuple[str, str, str], ...]
    gauge: Gauge | None
    anchor: str


def key_of(word: str | None) -> str:
    """The short key of a verdict word; a word that is not known is styled like *cannot say*."""
    return KEYS.get(str(word), "unknown")


def cards(results: dict[str, Any], rows: Sequence[Row]) -> tuple[list[Card], list[Card]]:
    """The cards of the methods, and those of the references (checks on the audit itself)."""
    by_name = {row.method: row for row in rows}
    made = []
    for index, verdict in enumerate(results["verdicts"]):
        method = str(verdict["method"])
        made.append(
            Card(
                method=method,
                key=key_of(verdict["word"]),
                word=str(verdict["word"]),
                sentence=str(verdict["sentence"]),
                numbers=tuple(_numbers(results, by_name.get(method), by_name.get("retrain"), verdict)),
                gauge=_gauge(results, verdict, by_name),
                anchor=f"verdict-{index}",
            )
        )
    return [c for c in made if c.method not in REFERENCES], [c for c in made if c.method in REFERENCES]


def tally(made: Sequence[Card]) -> list[tuple[str, str, list[Card]]]:
    """The cards put together by verdict: ``(key, word, cards)``."""
    words = list(dict.fromkeys([*KEYS, *(card.word for card in made)]))
    groups = [(key_of(word), word, [card for card in made if card.word == word]) for word in words]
    return [group for group in groups if group[2]]


def _figure(cell: Cell, unit: str) -> str:
    return f"{cell.sign}{wording.figure(cell.value, unit)}"


def _numbers(
    results: dict[str, Any], row: Row | None, retrain: Row | None, verdict: dict[str, Any]
) -> list[tuple[str, str, str]]:
    if row is None:
        return []
    found = []
    for metric in dict.fromkeys([*KEY_METRICS, verdict.get("metric")]):
        if metric not in results["metrics"] or metric not in row.cells:
            continue
        about, cell = results["metrics"][metric], row.cells[metric]
        unit = about.get("unit") or ""
        suffix = "\u00a0%" if unit == "%" else ""  # not alone on a line of its own
        value = "failed" if cell.value is None and cell.failures else _figure(cell, unit)
        ideal = retrain.cells[metric] if retrain and retrain is not row else None
        beside = "" if ideal is None or ideal.value is None else f"retrain {_figure(ideal, unit)}{suffix}"
        found.append((about.get("title") or metric, value + (suffix if cell.value is not None else ""), beside))
    if row.seconds is not None:
        found.append(("Time", wording.seconds(row.seconds), wording.ratio(row.ratio)))
    return found


def _gauge(results: dict[str, Any], verdict: dict[str, Any], by_name: dict[str, Row]) -> Gauge | None:
    metric = verdict.get("metric")
    here = number(verdict.get("difference"))
    if here is None or metric not in results["metrics"]:
        return None
    original = _from_retrain(by_name, str(metric))
    ends = [0.0, *([] if original is None else [original])]
    for other in results["verdicts"]:  # one scale for all verdicts on the same metric, so that rows compare
        if other.get("metric") == metric:
            visible = number(other.get("visible"))
            spots = [other.get("difference"), other.get("low"), other.get("high"), visible]
            ends += [v for v in map(number, spots) if v is not None]
            ends += [] if visible is None else [-visible]
    left, right = min(ends), max(ends)
    width = (right - left) or 1.0

    def place(value: float) -> float:
        return round(6 + 88 * (value - left) / width, 2)

    low, high, visible = (
        number(verdict.get("low")),
        number(verdict.get("high")),
        number(verdict.get("visible")),
    )
    about = results["metrics"][metric]
    unit = about.get("unit") or ""
    points = " points" if unit == "%" else f" {unit}" if unit else ""
    between = wording.interval(low, high, unit)
    return Gauge(
        zero=place(0),
        dot=place(here),
        low=place(here if low is None else low),
        high=place(here if high is None else high),
        band=None if visible is None else (place(-visible), place(visible)),
        original=None if original is None else place(original),
        title=str(about.get("title") or metric),
        reading=wording.figure(here, unit, signed=True) + points + (f" ({between})" if between else ""),
    )


def _from_retrain(by_name: dict[str, Row], metric: str) -> float | None:
    original, retrain = by_name.get("original"), by_name.get("retrain")
    if original is None or retrain is None:
        return None
    before, ideal = original.cells[metric].value, retrain.cells[metric].value
    return None if before is None or ideal is None else before - ideal
