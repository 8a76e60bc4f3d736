"""conduct: the report of a run, whatever becomes of its ledger's curves."""

from __future__ import annotations

from pathlib import Path

import pytest

import expunge.conduct
from expunge.conduct import conduct
from expunge.experiment import from_dict
from shell import SMALL, read_json


def test_a_denoiser_with_a_ledger_is_judged_without_curves(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    config = {
        "model": {"name": "unet", "width": 8, "multiples": [1, 1], "attention": 0},
        "data": {"name": "digits", "limit": 60},
        "request": {"classes": [3]},
        "recipe": {"epochs": 1, "batch_size": 30, "together": "class", "ledger": {"keep": 1.0}},
        "methods": [{"name": "amnesiac", "control": False, "allow_full": True}],
        "audit": {"seeds": [0], "generation": {"samples": 2, "steps": 1, "classifier": {"model": "mlp", "epochs": 1}}},
        "out": str(tmp_path / "out"),
    }
    report = conduct(from_dict(config))
    assert "ledger" not in report.results
    assert [note for note in report.results["notes"] if "classifiers; this is a diffusion model" in note]
    assert read_json(tmp_path / "out" / "results.json") == report.results


def test_curves_that_end_in_an_error_do_not_cost_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise TypeError("a model of one's own that cannot be copied")

    monkeypatch.setattr(expunge.conduct, "Retrace", fails)
    recipe = {**SMALL["recipe"], "epochs": 1, "ledger": {"keep": 1.0}}
    with pytest.raises(TypeError, match="cannot be copied"):
        conduct(from_dict({**SMALL, "recipe": recipe, "methods": [], "out": str(tmp_path / "out")}))
    assert (tmp_path / "out" / "report.html").is_file()
