from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sample import sample

from expunge import report


def line_of(text: str, method: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(method))


def test_question_and_verdicts_come_first(results: dict[str, Any]) -> None:
    text = report.summary(results, width=400)
    assert text.splitlines()[0] == results["question"]["text"]
    for verdict in results["verdicts"]:
        assert f"{verdict['method']}: {verdict['word']}. {verdict['sentence']}" in text


def test_table_has_means_and_spreads(results: dict[str, Any]) -> None:
    text = report.summary(results)
    for method in ("retrain", "finetune", "svd_forget"):
        saved = [e for e in results["models"] if e["method"] == method]
        for metric in ("ua", "ra", "ta", "mia"):
            values = [e["measurements"][metric]["value"] for e in saved]
            assert f"{np.mean(values):.1f}±{np.std(values, ddof=1):.1f}" in line_of(text, method + " ")
        ratio = np.mean([e["cost"]["ratio"] for e in saved])
        assert f" {ratio:.2f} " in line_of(text, method + " ")
    assert "reference" in line_of(text, "retrain ")
    assert "mean over 2 seeds ± standard deviation" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_and_cuts_no_number(results: dict[str, Any], width: int) -> None:
    text = report.summary(results, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_failures_and_missing_numbers_are_told(results: dict[str, Any]) -> None:
    for one in results["models"]:
        one["measurements"]["mia"] = {"failed": "no unseen rows"}
        one["cost"]["ratio"] = None
        del one["measurements"]["tow"]
    line = line_of(report.summary(results), "finetune ")
    assert "failed" in line
    assert line.count("–") == 2


def test_without_retraining() -> None:
    text = report.summary(sample(methods=2, seeds=1, retrain=False))
    assert "cannot say" in line_of(text, "finetune ")
    assert "Note: No recipe was given" in text
    assert "±" not in text


def test_markup_in_names_is_not_interpreted(results: dict[str, Any]) -> None:
    results["verdicts"][2]["sentence"] = "See [bold]this[/bold] and [/red]."
    assert "See [bold]this[/bold] and [/red]." in report.summary(results, width=400)
