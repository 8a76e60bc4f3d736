"""Selective synaptic dampening: shrink the weights that matter more to the forgotten rows than to all of them.

Shapes: d weights that are trained, all of them in one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact import per_sample
from expunge.artifact.importance import LABELS, Labels, importance
from expunge.method import Card, Job
from expunge.methods.one_step import OneStep


@dataclass(frozen=True, kw_only=True)
class SSD(OneStep):
    """Multiply each weight with min(dampening × I_D / I_S, 1) where I_S > alpha × I_D; nothing is trained.

    I_S and I_D are the weight's importances for the forget rows and for all rows, forget and retain.

    Args:
        alpha: how many times as important a weight must be to be dampened, above 0; less forgets more. By rows, nothing
            can be more than N / N_forget times as important. Default 3; published 10 for ResNets, 5 to 25 for vision
            transformers, on data of more classes.
        dampening: the paper's λ, above 0; less forgets more. Default 1, as published.
        labels: `"none"` (default): importance is the magnitude of the gradient of the squared norm of the scores, which
            needs no label, as in LFSSD; it was far better on every set measured. `"own"`: the square of the loss's
            gradient, as in SSD. `"model"`: the squares' expectation over the labels that the model gives.
        gradients: `"row"` (default): of each row, as the papers define importance. `"batch"`: of the mean loss of
            batches, as the public code computes it, here of one size on both sides.
        batch_size: rows in a batch of `"batch"`, at most. Default 128.

    Raises:
        ExpungeError: gradients that are NaN or infinite.

    Cost: one pass of single-row gradients over all rows, or of ordinary ones over all and the forget rows.
    Source: Foster, Schoepf & Brintrup 2024, arXiv:2308.07707; without labels: arXiv:2402.19308.
    """

    alpha: float = 3.0
    dampening: float = 1.0
    labels: Labels = "none"
    gradients: str = "row"
    batch_size: int = 128

    name: ClassVar[str] = "ssd"
    card: ClassVar[Card] = Card(
        title="Shrink the weights that matter more to the forget rows than to all rows, without training",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="one pass of gradients over all rows",
        paper="Foster et al. 2024, arXiv:2308.07707",
        dial="alpha",
        dial_rises=False,
    )

    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "dampening")
    counts: ClassVar[tuple[str, ...]] = ("batch_size",)
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"labels": LABELS, "gradients": ("row", "batch")}

    def field_problems(self) -> list[str]:
        """An expectation over labels is one for each row."""
        wrong = self.gradients == "batch" and self.labels == "model"
        return ["labels: model is an expectation for each row; take gradients: row."] if wrong else []

    def change(self, model: nn.Module, job: Job) -> None:
        """Measure both importances, and dampen."""
        forget_d, all_d = self._importances(model, job)
        chosen_d = forget_d > self.alpha * all_d
        factor_d = factors(forget_d, all_d, self.alpha, self.dampening)
        weight_d = per_sample.weights_of(model)
        per_sample.put(model, weight_d * factor_d.to(weight_d))
        count = int(chosen_d.sum())
        moved = int((factor_d < 1).sum())
        job.log.facts["ssd"] = {"weights": len(chosen_d), "selected": count, "dampened": moved}
        if count:
            job.log.facts["ssd"]["mean_factor"] = float(factor_d[chosen_d].mean())
        if not count:
            most = float((forget_d / all_d.clamp(min=torch.finfo(torch.float64).tiny)).max())
            job.log.notes.append(
                f"No weight was dampened, so the model is the original: none is {self.alpha:g} times as important to "
                f"the forget rows as to all rows; the most is {most:.3g} times, and by rows it cannot be more than "
                f"{(len(job.request.forget) + len(job.request.keep)) / len(job.request.forget):.3g}. Lower alpha. Rows "
                "that are like the others, such as random ones, have about the same importances."
            )
        elif not moved:
            job.log.notes.append(
                f"No weight was dampened, so the model is the original: {count:,} were selected, and a dampening of "
                f"{self.dampening:g} leaves them as they are. Lower it."
            )

    def _importances(self, model: nn.Module, job: Job) -> tuple[Tensor, Tensor]:
        """Of the forget rows, and of all."""
        forget, keep = job.request.forget, job.request.keep

        def measured(index: Tensor, batch: int | None) -> Tensor:
            job.log.examples += len(index)
            return importance(model, job.task, job.request.rows, index, job.run, self.labels, batch)

        if self.gradients == "row":
            forget_d, keep_d = measured(forget, None), measured(keep, None)
            share = len(forget) / (len(forget) + len(keep))
            return forget_d, share * forget_d + (1 - share) * keep_d
        both = torch.cat([forget, keep])
        # importances shrink with the batch: one size for both, that of batches which use nearly all forget rows
        size = len(forget) // math.ceil(len(forget) / self.batch_size)
        draws = job.run.generator("batches")
        sides = [part[torch.randperm(len(part), generator=draws)] for part in (forget, both)]
        return measured(sides[0], size), measured(sides[1], size)


def factors(forget_d: Tensor, all_d: Tensor, alpha: float, dampening: float) -> Tensor:
    """What each weight is multiplied with, (d,), from 0 to 1: 1 where it is not selected.

    Args:
        forget_d: importance for the forget rows, 0 or more.
        all_d: importance for all rows, 0 or more.
        alpha: selected are those with forget > alpha × all.
        dampening: the factor of those is dampening × all / forget, and 1 at most.
    """
    chosen_d = forget_d > alpha * all_d  # never where the forget rows' importance is 0
    ratio_d = dampening * all_d / torch.where(chosen_d, forget_d, 1.0)
    return torch.where(chosen_d, ratio_d.clamp(max=1.0), 1.0)
