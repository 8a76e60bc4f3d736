"""Rows that were tuned on a retrained model say so in every table, and stay under their own names everywhere else."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from sample import save

from expunge import report
from expunge.report.tuned import is_tuned

SEARCH = {"name": "search", "of": {"name": "finetune"}, "select": "oracle_gap"}
CHAIN = {"name": "chain", "steps": [{"name": "gradient_ascent"}, SEARCH]}


def with_settings(results: dict[str, Any], method: str, settings: Any) -> dict[str, Any]:
    for entry in results["models"]:
        if entry["method"] == method:
            entry["settings"] = settings
    return results


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (SEARCH, True),
        (CHAIN, True),
        ({"name": "search", "of": CHAIN, "select": "validation"}, True),
        ({**SEARCH, "select": "validation"}, False),
        ({"name": "finetune", "select": "oracle_gap"}, False),  # somebody's own field
        ({"name": "chain", "steps": []}, False),
        ({}, False),
        (None, False),
    ],
)
def test_what_counts_as_tuned(settings: Any, told: bool) -> None:
    assert is_tuned(settings) == told


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_summary_says_so_beside_the_name_and_below(results: dict[str, Any], width: int) -> None:
    before = copy.deepcopy(with_settings(results, "neggrad_plus", SEARCH))
    with_settings(before, "svd_forget", CHAIN)
    results = copy.deepcopy(before)
    text = report.summary(results, width=width)
    assert results == before  # what is saved stays as it is
    one_line = " ".join(text.split())
    assert "svd_forget (tuned on retraining): " in one_line
    assert "Note: Rows that are tuned on retraining" in one_line
    _, table = text.split("\nmethod", 1)
    rows = re.findall(r"^(\S+)(?: |$)", table, re.M)
    assert {"finetune", "salun", "retrain", "original"} <= set(rows)
    place = table.index("svd_forget")
    assert "tuned on" in table[place : place + width + 40]  # in the row, on its second line where there is no room
    assert "…" not in text
    assert "finetune (tuned" not in text
    assert max(map(len, text.splitlines())) <= width


def test_so_does_every_part_of_the_page(results: dict[str, Any], tmp_path: Path) -> None:
    plain = report.draw(save(tmp_path / "plain", copy.deepcopy(results))).read_text(encoding="utf-8")
    assert "tuned on retraining" not in plain
    tuned = with_settings(results, "svd_forget", SEARCH)
    page = report.draw(save(tmp_path / "tuned", tuned)).read_text(encoding="utf-8").replace("<wbr>", "")
    bare = re.compile(r"svd_forget(?! \(tuned)")
    shown = re.sub(r"<pre.*?</pre>|<dl class=\"pairs\">.*?</dl>", "", page, flags=re.S)
    assert shown.count("svd_forget (tuned on retraining)") >= 5  # verdicts, table, figures, examples
    assert not [m.group() for m in bare.finditer(shown) if not shown[m.start() :].startswith("svd_forget (…")]
    assert "Whoever has that model needs no unlearning" in page
    assert page.count('class="card ') == plain.count('class="card ')  # no verdict lost its row


def test_names_that_say_so_already_are_left_and_no_two_rows_become_one(results: dict[str, Any]) -> None:
    for part in (results["models"], results["verdicts"]):
        for entry in part:
            names = {"finetune": "finetune (tuned on retraining)", "salun": "svd_forget (tuned on retraining)"}
            entry["method"] = names.get(entry["method"], entry["method"])
    with_settings(results, "finetune (tuned on retraining)", SEARCH)
    with_settings(results, "svd_forget", SEARCH)
    text = report.summary(results, width=200)
    assert "finetune (tuned on retraining): " in text
    assert "finetune (tuned on retraining) (" not in text
    assert "svd_forget (tuned on retraining): " in text
    assert "svd_forget (tuned on retraining)*: " in text
