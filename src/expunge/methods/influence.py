"""Influence unlearning: one Newton step from the original towards what training without the rows would have found.

Shapes: d weights that are trained, all of them in one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact import per_sample
from expunge.artifact.importance import Labels
from expunge.artifact.inverse_fisher import LARGEST, inverse_product
from expunge.errors import Diverged
from expunge.method import Card, Job
from expunge.methods.one_step import OneStep, sample_of
from expunge.request import Request
from expunge.task.base import Task

BATCH = 256  # rows in a pass of ordinary gradients


@dataclass(frozen=True, kw_only=True)
class Influence(OneStep):
    """θ ← θ + alpha × k, k = (F + damping × I)⁻¹ v, with v the gradient of the mean loss over all rows less that over
    retain rows, and F the Fisher information of some retain rows, whose damped inverse is exact.

    Args:
        alpha: how far to go, above 0; 1 is the Newton step. Default 2; published 1 to 20.
        damping: λ, above 0; less goes further along directions that the retain rows do not mind. Default 0.01, inside
            the published range 0.001 to 0.1. For a convex model trained under weight decay, that decay.
        reach: k is shortened to this share of the norm of the trained weights, above 0, where it is longer: beyond, a
            quadratic says nothing of a network. None does not shorten, as published. Default 0.05.
        samples: retain rows that F is made of, 1 or more; all where there are fewer. Default 100; published 1000 with
            own labels.
        labels: `"model"` (default): F is an expectation over the labels that the model gives, the Gauss-Newton matrix,
            at the cost of as many gradients for each row as there are classes. `"own"`: the empirical Fisher
            information, as published.

    Raises:
        ExpungeError: gradients that are NaN or infinite, or a damping below their rounding.
        Diverged: weights that are no longer finite.

    Cost: a gradient over all rows, m single-row gradients of d weights, m² d multiplications and m³ / 3 for a factor;
        m is `samples`, times classes with `"model"`. Memory: 512 MiB of gradients at most, made in several passes where
        they are more, and 8 m² bytes.
    Source: Koh & Liang 2017, arXiv:1703.04730; with Fisher information as in Jia et al. 2023, arXiv:2304.04934, whose
        public recursion does not compute the inverse.
    """

    alpha: float = 2.0
    damping: float = 0.01
    reach: float | None = 0.05
    samples: int = 100
    labels: Labels = "model"

    name: ClassVar[str] = "influence"
    card: ClassVar[Card] = Card(
        title="One Newton step against the influence of the forget rows, by the inverse of the Fisher information",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="one pass over all rows, and gradients of `samples` single retain rows",
        paper="Koh & Liang 2017, arXiv:1703.04730",
        dial="alpha",
    )

    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "damping")
    counts: ClassVar[tuple[str, ...]] = ("samples",)
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"labels": ("model", "own")}

    def field_problems(self) -> list[str]:
        """The reach is above 0, or none."""
        good = self.reach is None or 0 < self.reach < math.inf
        return [] if good else [f"reach must be a number above 0, or none; got {self.reach!r}."]

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every such method, and more gradients than can be served."""
        found = super().problems(model, request, task, given)
        each = request.rows.num_classes if self.labels == "model" else 1
        if min(self.samples, len(request.keep)) * each > LARGEST:
            found.append(
                f"{self.name} can serve {LARGEST:,} gradients, and samples={self.samples:,} with labels: {self.labels} "
                f"makes {self.samples * each:,}; set samples to {LARGEST // each:,} at most."
            )
        return found

    def change(self, model: nn.Module, job: Job) -> None:
        """Two gradients, one inverse, one step."""
        sample, rows = sample_of(job, self.samples), job.request.rows
        v_d = self._difference(model, job)
        newton_d = inverse_product(model, job.task, rows, sample, job.run, v_d, self.damping, self.labels)
        job.log.examples += len(sample)
        weight_d = per_sample.weights_of(model)
        step_d = self.alpha * self._shortened(newton_d, weight_d, job)
        job.log.facts["influence"] = {
            "samples": len(sample),
            "gradient": float(v_d.norm()),
            "newton": float(newton_d.norm()),
            "step": float(step_d.norm()),
            "weights": float(weight_d.double().norm()),
        }
        moved_d = (weight_d.double() + step_d).to(weight_d)
        if not torch.isfinite(moved_d).all():
            raise Diverged(f"The step leaves the range of numbers; lower alpha (now {self.alpha:g}) or raise damping.")
        per_sample.put(model, moved_d)

    def _shortened(self, newton_d: Tensor, weight_d: Tensor, job: Job) -> Tensor:
        """The Newton step, within reach."""
        if self.reach is None:
            return newton_d
        longest, length = self.reach * float(weight_d.double().norm()), float(newton_d.norm())
        if length <= longest:
            return newton_d
        job.log.notes.append(
            f"The Newton step was {length:.3g} long and was shortened to {longest:.3g}, {self.reach:g} of the weights' "
            "norm (reach): the model is not near a minimum, or damping is too small for it."
        )
        return newton_d * (longest / length)

    def _difference(self, model: nn.Module, job: Job) -> Tensor:
        """The gradient of the mean loss over all rows, less that over the retain rows."""
        forget, keep = job.request.forget, job.request.keep
        n = len(forget) + len(keep)
        forget_d, keep_d = self._summed(model, job, forget), self._summed(model, job, keep)
        return (forget_d - len(forget) / len(keep) * keep_d) / n

    def _summed(self, model: nn.Module, job: Job, index: Tensor) -> Tensor:
        """The sum of the rows' gradients, (d,) float64."""
        job.log.examples += len(index)
        with per_sample.in_use(model, job.run) as device:
            sum_d = per_sample.weights_of(model).double().zero_()
            for part in index.split(BATCH):
                x_B, y_B = job.request.rows.x(part).to(device), job.request.rows.y[part].to(device)
                sum_d += per_sample.total(model, job.task.loss, x_B, y_B, torch.ones(len(part)))
        per_sample.check_finite(model, sum_d, f"The gradients of {len(index):,} rows")
        return sum_d
