"""Fisher forgetting: noise on every weight, the more of it the less the retain rows mind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact import per_sample
from expunge.artifact.importance import Labels, importance
from expunge.method import Card, Job
from expunge.methods.one_step import OneStep, sample_of
from expunge.request import Request
from expunge.task.base import Task

FLOOR = 1e-8  # added to the Fisher information, as in the public code


@dataclass(frozen=True, kw_only=True)
class Fisher(OneStep):
    """θ ← θ + √(alpha × min(1 / F, limit)) × N(0, 1), with F the diagonal of the retain rows' Fisher information.

    Args:
        alpha: the strength of the noise, above 0; its variance is proportional to it. Default 1e-6, as in public code.
        limit: 1 / F counts up to this, above 0. Default 1000, as in the public code.
        samples: retain rows that F is made of, 1 or more; all where there are fewer. Default 200; published: all.
        labels: `"model"` (default): expectation over the labels that the model gives, as published. `"own"`: the
            empirical Fisher information, cheaper by the number of classes.
        zero_head: set the weights of the last layer that give the forgotten classes' scores to 0, as the public code
            does for class requests, beside the noise. Default no: the paper has no such step, and it alone hides a
            class.

    Raises:
        ExpungeError: gradients that are NaN or infinite, or no last layer with an output for each class.

    Cost: single-row gradients of `samples` rows, for each class with `"model"`.
    Source: Golatkar, Achille & Soatto 2020, arXiv:1911.04933, and its public code.
    """

    alpha: float = 1e-6
    limit: float = 1e3
    samples: int = 200
    labels: Labels = "model"
    zero_head: bool = False

    name: ClassVar[str] = "fisher"
    card: ClassVar[Card] = Card(
        title="Add noise to every weight, scaled by how little the retain rows mind",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain"}),
        cost="gradients of `samples` single retain rows, for each class",
        paper="Golatkar et al. 2020, arXiv:1911.04933",
        dial="alpha",
    )

    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "limit")
    counts: ClassVar[tuple[str, ...]] = ("samples",)
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"labels": ("model", "own")}

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every such method, and no head to zero."""
        found = super().problems(model, request, task, given)
        if self.zero_head and not request.classes:
            found.append(f"{self.name}: zero_head is for requests of whole classes; this one names samples.")
        if self.zero_head and not _heads(model, request.rows.num_classes):
            found.append(f"{self.name}: zero_head needs a linear layer of {request.rows.num_classes} outputs.")
        return found

    def change(self, model: nn.Module, job: Job) -> None:
        """Measure, and shake."""
        sample = sample_of(job, self.samples)
        fisher_d = importance(model, job.task, job.request.rows, sample, job.run, self.labels)
        job.log.examples += len(sample)
        spread_d = self.spread(fisher_d)
        weight_d = per_sample.weights_of(model)
        noise_d = torch.randn(len(spread_d), generator=job.run.generator("noise")).to(spread_d)
        per_sample.put(model, (weight_d.double() + spread_d * noise_d).to(weight_d))
        if self.zero_head:
            with torch.no_grad():
                for p in _heads(model, job.request.rows.num_classes):
                    p[list(job.request.classes)] = 0
        at_limit = float((1 / (fisher_d + FLOOR) >= self.limit).double().mean())
        job.log.facts["fisher"] = {"samples": len(sample), "at_limit": at_limit, "noise": float(spread_d.norm())}

    def spread(self, fisher_d: Tensor) -> Tensor:
        """The standard deviation of each weight's noise, (d,)."""
        return (self.alpha * (1 / (fisher_d + FLOOR)).clamp(max=self.limit)).sqrt()


def _heads(model: nn.Module, classes: int) -> list[nn.Parameter]:
    """Weight and bias of the last linear layer with an output for each class; none where there is no such layer."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    return list(linear[-1].parameters()) if linear else []
