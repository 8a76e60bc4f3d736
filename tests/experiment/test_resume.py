"""conduct: what was made before an interruption is not made again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from expunge.conduct import conduct, make
from expunge.errors import ExpungeError
from expunge.experiment import Experiment, from_dict
from expunge.method import Card, Job, Method
from shell import SMALL, numbers

calls: list[int] = []
stop_at: list[int] = []


@dataclass(frozen=True, kw_only=True)
class Counting(Method):
    """Turns the weights a little, counts how often it was called, and can be interrupted."""

    by: float = 0.01

    name: ClassVar[str] = "counting"
    card: ClassVar[Card] = Card(
        title="Turns the weights a little",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset(),
        cost="none",
        paper="none",
    )

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        if job.run.seed in stop_at:
            raise KeyboardInterrupt
        calls.append(job.run.seed)
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


def test_models_alone_are_for_an_audit(tmp_path: Path) -> None:
    judged = replace(experiment(tmp_path / "a"), recipe=None)
    with pytest.raises(ExpungeError, match="expunge audit"):
        conduct(judged)
    assert not (tmp_path / "a").exists()
