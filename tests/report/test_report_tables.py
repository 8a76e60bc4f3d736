from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sample import sample

from expunge.report import tables, wording


def entry(seed: int, **measurements: Any) -> dict[str, Any]:
    return {"method": "m", "seed": seed, "measurements": measurements}


def test_seeds_are_put_together_as_numpy_does() -> None:
    results = sample(methods=3, seeds=4)
    for row in tables.rows(results):
        for metric, cell in row.cells.items():
            saved = [e["measurements"].get(metric, {}) for e in results["models"] if e["method"] == row.method]
            values = [s["value"] for s in saved if "value" in s]
            if not values:
                assert cell.value is None
                continue
            assert cell.value == pytest.approx(np.mean(values))
            assert (cell.low, cell.high) == (np.min(values), np.max(values))
            assert cell.spread == pytest.approx(np.std(values, ddof=1))
            gaps = [s["gap"] for s in saved if s.get("gap") is not None]
            assert cell.gap == (pytest.approx(np.mean(gaps)) if gaps else None)
        costs = [e["cost"] for e in results["models"] if e["method"] == row.method]
        assert row.seconds == pytest.approx(np.median([cost["seconds"] for cost in costs]))
        assert row.ratio == pytest.approx(np.median([cost["ratio"] for cost in costs]))


def test_one_seed_keeps_its_own_interval() -> None:
    cell = tables.cell([entry(0, ua={"value": 5.0, "low": 3.0, "high": 8.0, "gap": None})], "ua")
    assert (cell.value, cell.low, cell.high, cell.spread, cell.gap) == (5.0, 3.0, 8.0, None, None)


def test_a_bound_of_one_seed_makes_the_mean_a_bound() -> None:
    known = entry(0, relearn={"value": 2.0, "low": None, "high": None, "gap": 0.0})
    bound = entry(1, relearn={"value": 4.0, "low": None, "high": None, "gap": None, "censored": "at least"})
    assert not tables.cell([known], "relearn").censored
    cell = tables.cell([known, bound], "relearn")
    assert (cell.value, cell.censored) == (3.0, "at least")


def test_a_failed_seed_is_counted_and_not_averaged() -> None:
    entries = [entry(0, ua={"value": 4.0}), entry(1, ua={"failed": "why"}), entry(2, ua={"value": 6.0})]
    cell = tables.cell(entries, "ua")
    assert (cell.value, cell.seeds, len(cell.each), cell.failures) == (5.0, 3, 2, ("why",))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "12", True])
def test_what_is_no_number_is_a_failure_and_not_a_zero(value: object) -> None:
    cell = tables.cell([entry(0, ua={"value": value})], "ua")
    assert cell.value is None
    assert cell.failures == ("the saved value is not a finite number",)


def test_lists_are_averaged_place_by_place_without_gaps() -> None:
    lists = [[1.0, None, 3.0], None, [3.0, None], [np.nan, 4.0, 5.0]]
    padded = np.array([[1, np.nan, 3], [3, np.nan, np.nan], [np.nan, 4, 5]])
    assert tables.mean_lists(lists) == pytest.approx(np.nanmean(padded, axis=0).tolist())  # type: ignore[arg-type]
    assert tables.mean_lists([[None], [None]]) == [None]


def test_methods_keep_their_order() -> None:
    assert tables.methods_of(sample(methods=2, seeds=2))[:4] == [
        "original",
        "retrain",
        "retrain_again",
        "finetune",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.34, "%", "12.3"),
        (-80.06, "%", "−80.1"),
        (-0.04, "%", "0.0"),
        (0.5, "", "0.500"),
        (7.0, "epochs", "7"),
        (0.00004, "", "4.0e-05"),
        (12345.6, "", "12,346"),
        (None, "%", "–"),
    ],
)
def test_numbers_as_people_read_them(value: float | None, unit: str, text: str) -> None:
    assert wording.figure(value, unit) == text


def test_a_sign_where_one_is_wanted() -> None:
    assert wording.figure(2.0, "%", signed=True) == "+2.0"
    assert wording.figure(0.0, "%", signed=True) == "0.0"


def test_times_and_ratios() -> None:
    assert [wording.seconds(s) for s in (0.0123, 5.67, 300.0, 9000.0)] == [
        "12 ms",
        "5.7 s",
        "5.0 min",
        "2.5 h",
    ]
    assert [wording.ratio(r) for r in (0.21, 0.004, 2.0, None)] == [
        "21 % of retraining",
        "0.4 % of retraining",
        "2.0 × retraining",
        "",
    ]


def test_labels_are_one_short_line() -> None:
    assert wording.label("a\n\tb\x00c") == "a b c"
    assert wording.label("x" * 40, 10) == "x" * 9 + "…"
    assert wording.label("") == "(no name)"
