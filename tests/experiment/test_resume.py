"""conduct: what was made before an interruption is not made again."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from expunge import io
from expunge.conduct import conduct, judge_given, make
from expunge.errors import Diverged, ExpungeError
from expunge.experiment import Experiment, from_dict
from expunge.experiment.folder import claim
from expunge.method import Card, Job, Method
from shell import SMALL, numbers

SLOPED = """
from torch import nn


class Sloped(nn.Sequential):
    def forward(self, x):
        return nn.functional.leaky_relu(super().forward(x), {slope})


def build():
    return Sloped(nn.Flatten(), nn.Linear(64, 10))
"""

calls: list[int] = []
stop_at: list[int] = []


@dataclass(frozen=True, kw_only=True)
class Counting(Method):
    """Turns the weights a little, counts how often it was called, can be interrupted, and diverges if it turns far."""

    by: float = 0.01

    name: ClassVar[str] = "counting"
    card: ClassVar[Card] = Card(
        title="Turns the weights a little",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain"}),
        cost="none",
        paper="none",
    )

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        if job.run.seed in stop_at:
            raise KeyboardInterrupt
        calls.append(job.run.seed)
        if self.by > 1:
            raise Diverged("It turned too far.")
        with torch.no_grad():
            for p in model.parameters():
                p.add_(self.by * torch.randn(p.shape, generator=job.run.generator("turn")))
        return model


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    stop_at.clear()


def experiment(out: Path, by: float = 0.01, version: int = 1) -> Experiment:
    plain = from_dict({**SMALL, "methods": [], "out": str(out)})
    method = Counting(by=by)
    if version != 1:
        changed = type("Counting", (Counting,), {"card": replace(Counting.card, version=version)})
        method = changed(by=by)
    return replace(plain, methods={"counting": method})


def test_an_interrupted_run_goes_on_to_the_numbers_of_one_that_was_not(tmp_path: Path) -> None:
    stop_at.append(1)
    with pytest.raises(KeyboardInterrupt):
        conduct(experiment(tmp_path / "a"))
    assert calls == [0]
    assert not (tmp_path / "a" / "results.json").exists()
    stop_at.clear()
    conduct(experiment(tmp_path / "a"))
    assert calls == [0, 1]  # seed 0 was not made again
    conduct(experiment(tmp_path / "b"))
    assert calls == [0, 1, 0, 1]
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    conduct(experiment(tmp_path / "a"), force=True)
    assert calls == [0, 1, 0, 1, 0, 1]  # begun again


def test_what_was_made_under_other_settings_or_by_another_version_is_made_again(tmp_path: Path) -> None:
    make(experiment(tmp_path / "a"), 0)
    make(experiment(tmp_path / "a", by=0.02), 0)
    assert calls == [0, 0]
    make(experiment(tmp_path / "a", by=0.02, version=2), 0)
    assert calls == [0, 0, 0]
    kept = make(experiment(tmp_path / "a", by=0.02, version=2), 0)["counting"]
    assert calls == [0, 0, 0]
    assert kept.cost.cached


def test_what_was_made_of_a_model_whose_code_has_changed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def experiment_of(slope: str) -> Experiment:
        (tmp_path / "bent.py").write_text(SLOPED.format(slope=slope))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "bent", raising=False)
        config = {**SMALL, "model": {"build": "bent:build", "weights": str(weights)}, "recipe": None, "methods": []}
        plain = from_dict({**config, "out": str(tmp_path / "a")})
        return replace(plain, methods={"counting": Counting()})

    weights = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    io.save_weights(weights, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    for times, slope in ((1, "0.1"), (1, "0.1"), (2, "0.25")):
        make(experiment_of(slope), 0)
        assert len(calls) == times


def test_a_failure_is_kept_as_a_model_is(tmp_path: Path) -> None:
    out = tmp_path / "a"
    conduct(experiment(out, by=2.0))
    assert calls == [0, 1]
    before = numbers(out)
    assert make(experiment(out, by=2.0), 1)["counting"].failed == "It turned too far."
    report = judge_given(experiment(out, by=2.0))
    assert calls == [0, 1]
    assert numbers(out) == before
    assert report.verdicts["counting"]["sentence"] == "There is no model to judge: It turned too far."
    failed = [entry for entry in report.results["models"] if entry["method"] == "counting"]
    assert [(entry["settings"]["by"], entry["hash"]) for entry in failed] == [(2.0, None)] * 2
    assert not make(experiment(out, by=0.01), 0)["counting"].failed  # under other settings it is made
    assert {p.name for p in (out / "models").glob("counting*")} == {
        "counting-seed0.safetensors",
        "counting-seed1.json",
    }


def test_a_failure_is_forgotten_by_force_and_looked_into_again_where_its_record_is_damaged(tmp_path: Path) -> None:
    make(experiment(tmp_path / "a", by=2.0), 0)
    record = tmp_path / "a" / "models" / "counting-seed0.json"
    record.write_text("{")
    assert make(experiment(tmp_path / "a", by=2.0), 0)["counting"].failed == "It turned too far."
    assert calls == [0, 0]
    with pytest.raises(ExpungeError, match=r"holds counting-seed0\.json, original-seed0\.safetensors, and"):
        claim(experiment(tmp_path / "a"), force=True)  # nothing says yet that they are of this run
    (tmp_path / "a" / "run.json").write_text("{}")
    claim(experiment(tmp_path / "a"), force=True)
    assert not record.exists()


def test_models_alone_are_for_an_audit(tmp_path: Path) -> None:
    judged = replace(experiment(tmp_path / "a"), recipe=None)
    with pytest.raises(ExpungeError, match="expunge audit"):
        conduct(judged)
    assert not (tmp_path / "a").exists()
