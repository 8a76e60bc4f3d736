"""Boundary Shrink: teach each forget row the class beyond its nearest decision boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.loss import frozen
from expunge.method import Card, Job
from expunge.methods.gradient import GradientMethod
from expunge.phase import Term
from expunge.request import Request
from expunge.surrogate.assign import Assign
from expunge.surrogate.neighbour import neighbours
from expunge.task.base import Task


@dataclass(frozen=True, kw_only=True)
class BoundaryShrink(GradientMethod):
    """Descend on forget under the labels that the original gives one gradient-sign step away from each row.

    Args:
        epochs: passes over forget. Default 10, as published.
        lr: default 2e-4; published 1e-5.
        step: ε, how far each pixel moves to find the neighbouring class, above 0; of pixels from 0 to 1 where the data
            are images that are scaled, otherwise in units of the inputs. Default 0.1, as published.
        batch_size: default 64, as published.
        weight_decay: default 0, as published.

    Cost: a forward and a backward pass over forget for the labels, then `epochs` passes over forget.
    Source: Chen et al. 2023, arXiv:2303.11570.
    """

    epochs: int = 10
    lr: float = 2e-4
    step: float = 0.1
    batch_size: int = 64
    weight_decay: float = 0.0

    name: ClassVar[str] = "boundary_shrink"
    card: ClassVar[Card] = Card(
        title="Teach each forget row the class beyond its nearest decision boundary",
        scope=frozenset({"class"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"forget"}),
        cost="(1 + epochs) × forget",
        paper="Chen et al. 2023, arXiv:2303.11570",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """The step is above 0."""
        return [] if 0 < self.step < float("inf") else [f"step must be above 0; got {self.step!r}."]

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and inputs that have no gradient."""
        found = super().problems(model, request, task, given)
        x_1 = request.rows.x(request.keep[:1])
        if not x_1.is_floating_point():
            found.append(
                f"{self.name} looks for the nearest boundary among the inputs, and those of {request.rows.name} are "
                f"tokens ({x_1.dtype}), which have no gradient."
            )
        return found

    def terms(self) -> tuple[Term, ...]:
        """Forget; its labels are found when the model is there."""
        return (Term("forget"),)

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Find the labels, then teach them."""
        terms = tuple(replace(term, surrogate=Assign(self._labels(model, job))) for term in self.terms())
        job.descend(model, [replace(self.phase(), terms=terms)], self.region)
        return model

    def _labels(self, model: nn.Module, job: Job) -> Tensor:
        """The rows' labels, (rows,); those of forget are the neighbouring classes, of those that stay."""
        rows, forget = job.request.rows, job.request.forget
        still = frozen(model, job.run.device_of(model))
        allowed_K = torch.bincount(rows.y[job.request.keep], minlength=rows.num_classes) > 0
        y_N = rows.y.clone()
        y_N[forget] = neighbours(still, job.task, rows, forget, self.step, allowed_K, self.batch_size)
        shares = torch.bincount(y_N[forget], minlength=rows.num_classes) / len(forget)
        names = {rows.classes[c]: round(float(s), 4) for c, s in enumerate(shares) if s > 0}
        job.log.facts["boundary_shrink"] = {"taught": names}
        return y_N
