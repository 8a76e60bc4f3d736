"""`expunge demo`, shrunken: the same file of settings, a smaller model and fewer of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge.cli import demo
from expunge.experiment import from_dict
from shell import SMALL, Shell, read_csv, read_json


@pytest.fixture
def shrunken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CONFIG", {**SMALL, "methods": demo.CONFIG["methods"]})


def test_the_real_demo_is_an_experiment_that_can_be_run() -> None:
    experiment = from_dict(demo.CONFIG)
    assert len(experiment.request.forget) == 146
    assert len(experiment.methods) == 7  # "in seven ways"
    assert len(experiment.terms.seeds) == 3
    assert len(experiment.train) == 1438


@pytest.mark.usefixtures("shrunken")
def test_the_demo_leaves_a_dossier(expunge: Shell, tmp_path: Path) -> None:
    outcome = expunge("demo", "--no-open")
    assert outcome.code == 0, outcome.err
    out = tmp_path / "dossier"
    assert str(out / "report.html") in outcome.out
    assert {row["method"] for row in read_csv(out)} >= {
        "original",
        "retrain",
        *(m.get("row", m["name"]) for m in demo.CONFIG["methods"]),
    }
    assert read_json(out / "manifest.json")["command"] == "expunge demo --no-open"


@pytest.mark.usefixtures("shrunken")
def test_the_demo_does_not_write_over_anything(expunge: Shell, tmp_path: Path) -> None:
    (tmp_path / "dossier").mkdir()
    (tmp_path / "dossier" / "mine.txt").write_text("mine")
    outcome = expunge("demo", "--no-open")
    assert outcome.code == 2
    assert "is not empty" in outcome.err
    assert [p.name for p in (tmp_path / "dossier").iterdir()] == ["mine.txt"]
