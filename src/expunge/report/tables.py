"""Seeds put together: one row for each method, one cell for each metric."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REFERENCES = ("original", "retrain", "retrain_again")


@dataclass(frozen=True)
class Cell:
    """One metric of one method over its seeds.

    Args:
        value: mean over the seeds that have a value, in the metric's unit; None where none has.
        low: several seeds: the lowest value; one seed: the lower end of its own interval.
        high: the same, upwards.
        spread: sample standard deviation over seeds (ddof 1); None for fewer than two.
        gap: mean of value − retrain over seeds; None where there is no retraining.
        each: ``(seed, value, low, high)`` of every seed that has a value.
        failures: why a measurement failed, without repeats.
        seeds: how many seeds were measured, failed ones included.
        censored: `"at least"` or `"at most"` where the number of some seed is only a bound; otherwise empty.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    gap: float | None = None
    each: tuple[tuple[Any, float, float | None, float | None], ...] = ()
    failures: tuple[str, ...] = ()
    seeds: int = 0
    censored: str = ""

    @property
    def sign(self) -> str:
        """What stands before a number that is only a bound."""
        return {"at least": "≥ ", "at most": "≤ "}.get(self.censored, "")


@dataclass(frozen=True)
class Row:
    """One method over its seeds.

    Args:
        method: its name.
        cells: metric name to cell, in the order of the metrics.
        seconds: median time over seeds; None where unknown.
        ratio: median time relative to retraining; None where unknown.
        examples: mean number of examples processed; None where unknown.
        cached: whether any seed came from the cache (the time is then that of the first making).
        verdict: the entry of ``verdicts`` for this method; None where there is none.
    """

    method: str
    cells: dict[str, Cell]
    seconds: float | None
    ratio: float | None
    examples: float | None
    cached: bool
    verdict: dict[str, Any] | None


def number(value: object) -> float | None:
    """`value` as a finite float, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def mean(values: Sequence[object]) -> float | None:
    """The mean of those `values` that are finite numbers, or None where none is."""
    finite = [v for v in map(number, values) if v is not None]
    return statistics.fmean(finite) if finite else None


def middle(values: Sequence[object]) -> float | None:
    """Their median: a first run, which loads libraries, does not count for all."""
    finite = [v for v in map(number, values) if v is not None]
    return statistics.median(finite) if finite else None


def mean_lists(lists: Sequence[Sequence[object] | None]) -> list[float | None]:
    """The mean of several lists, place by place, over the entries that are numbers."""
    present = [values for values in lists if values]
    length = max((len(values) for values in present), default=0)
    return [mean([values[i] for values in present if i < len(values)]) for i in range(length)]


def methods_of(results: dict[str, Any]) -> list[str]:
    """The names of the methods, in display order."""
    return list(dict.fromkeys(str(entry["method"]) for entry in results["models"]))


def entries_of(results: dict[str, Any], method: str) -> list[dict[str, Any]]:
    """The saved entries of `method`, one for each seed."""
    return [entry for entry in results["models"] if str(entry["method"]) == method]


def cell(entries: Sequence[dict[str, Any]], metric: str) -> Cell:
    """`metric` over the seeds in `entries`."""
    each, gaps, failures, seeds, censored = [], [], [], 0, ""
    for entry in entries:
        measured = (entry.get("measurements") or {}).get(metric)
        if not isinstance(measured, dict):
            continue
        seeds += 1
        value = number(measured.get("value"))
        if value is not None:
            each.append((entry["seed"], value, number(measured.get("low")), number(measured.get("high"))))
            gaps.append(measured.get("gap"))
            censored = str(measured.get("censored") or censored)
        elif measured.get("failed"):
            failures.append(str(measured["failed"]))
        elif measured.get("value") is not None:
            failures.append("the saved value is not a finite number")
    reasons = tuple(dict.fromkeys(failures))
    if not each:
        return Cell(failures=reasons, seeds=seeds)
    values = [value for _, value, _, _ in each]
    several = len(values) > 1
    return Cell(
        value=statistics.fmean(values),
        low=min(values) if several else each[0][2],
        high=max(values) if several else each[0][3],
        spread=statistics.stdev(values) if several else None,
        gap=mean(gaps),
        each=tuple(each),
        failures=reasons,
        seeds=seeds,
        censored=censored,
    )


def rows(results: dict[str, Any]) -> list[Row]:
    """One row for each method, in display order."""
    verdicts = {str(verdict["method"]): verdict for verdict in results["verdicts"]}
    found = []
    for method in methods_of(results):
        entries = entries_of(results, method)
        costs = [entry.get("cost") or {} for entry in entries]
        found.append(
            Row(
                method=method,
                cells={metric: cell(entries, metric) for metric in results["metrics"]},
                seconds=middle([cost.get("seconds") for cost in costs]),
                ratio=middle([cost.get("ratio") for cost in costs]),
                examples=mean([cost.get("examples") for cost in costs]),
                cached=any(cost.get("cached") for cost in costs),
                verdict=verdicts.get(method),
            )
        )
    return found
