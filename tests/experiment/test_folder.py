"""claim: whose models may lie in the folder of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import expunge as ex
from expunge.errors import ExpungeError
from expunge.experiment import Experiment, from_dict
from expunge.experiment.folder import claim
from shell import SMALL


def experiment(out: Path, **changes: object) -> Experiment:
    return from_dict({**SMALL, "methods": [], "out": str(out), **changes})


def model_at(path: Path) -> Path:
    """Weights that fit and are all zero, as nobody's training leaves them."""
    model = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32])
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    ex.io.save_weights(path, model)
    return path


def test_models_of_nobody_under_the_names_of_a_run_are_refused_even_by_force(tmp_path: Path) -> None:
    strange = [model_at(tmp_path / "out" / "models" / f"original-seed{s}.safetensors") for s in (0, 12)]
    other = model_at(tmp_path / "out" / "models" / "mine.safetensors")
    before = {p: p.read_bytes() for p in (*strange, other)}
    with pytest.raises(
        ExpungeError, match=r"holds original-seed0\.safetensors, original-seed12\.safetensors, and .*Move"
    ):
        claim(experiment(tmp_path / "out"), force=True)
    assert before == {p: p.read_bytes() for p in before}
    assert not (tmp_path / "out" / "run.json").exists()
    for path in strange:
        path.unlink()
    claim(experiment(tmp_path / "out"), force=True)
    assert other.read_bytes() == before[other]


def test_models_of_another_run_are_removed_by_force_but_for_those_that_are_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(experiment(out))
    first, second = (model_at(out / "models" / f"original-seed{s}.safetensors") for s in (0, 1))
    with_weights = experiment(out, model={**SMALL["model"], "weights": str(first)})
    claim(with_weights, force=True)
    assert first.is_file()
    assert not second.exists()


def test_an_audit_of_given_models_removes_none_of_a_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(experiment(out))
    of_run, mine = model_at(out / "models" / "original-seed0.safetensors"), model_at(tmp_path / "mine.safetensors")
    given = experiment(out, models={"mine": str(mine)})
    with pytest.raises(ExpungeError, match="or --force to write there all the same"):
        claim(given)
    claim(given, force=True)
    assert of_run.is_file()


def test_an_audit_keeps_the_models_that_it_is_given(tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = [model_at(out / "models" / f"original-seed{s}.safetensors") for s in (0, 1)]
    given = {"models": {"original": [str(p) for p in paths]}}
    for _ in range(2):  # without a record in the folder, and with one
        claim(experiment(out, **given), force=True)
        assert all(p.is_file() for p in paths)
