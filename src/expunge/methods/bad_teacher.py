"""Bad Teacher: on forget answer as an untrained network does, on retain as the original does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.loss import divergence, frozen
from expunge.method import Card, Job
from expunge.methods.gradient import GradientMethod
from expunge.optimizers import Make
from expunge.phase import Term
from expunge.request import Request
from expunge.run import derive
from expunge.surrogate.assign import Assign
from expunge.task.base import Task
from expunge.untrained import unresettable, untrained

ORIGINAL, UNTRAINED = 0, 1


@dataclass(frozen=True, eq=False)
class TwoTeachers:
    """KL(teacher ‖ model) of each row, by the teacher whose number is the row's label."""

    teachers: tuple[nn.Module, ...]
    temperature: float

    def __call__(self, task: Task, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """One number for each row, (B,), with gradient."""
        scores_BC = task.scores(model, x_B)
        target_BC = torch.empty_like(scores_BC)
        with torch.no_grad():
            for number, teacher in enumerate(self.teachers):
                if (own_B := y_B == number).any():
                    target_BC[own_B] = task.scores(teacher, x_B[own_B])
        return divergence(target_BC, scores_BC, self.temperature)


@dataclass(frozen=True, kw_only=True)
class BadTeacher(GradientMethod):
    """Descend on KL(teacher ‖ model): the teacher of forget is an untrained network, that of retain the original.

    Args:
        epochs: passes over forget and the retain sample, one pool. Default 1, as published.
        lr: default 1e-3; published 1e-4.
        retain_share: the share of the retain rows that is used, drawn by the seed, above 0 and up to 1. Default 0.3, as
            published.
        temperature: of both softmaxes, above 0. Default 1, as published.
        batch_size: default 64; published 256, which on small data leaves too few steps.
        optimizer: default `"adam"`, as published.
        weight_decay: default 0, as published.

    Cost: `epochs` passes over forget and the sample, each with a forward pass of a teacher.
    Source: Chundawat et al. 2023, arXiv:2205.08096.
    """

    epochs: int = 1
    lr: float = 1e-3
    retain_share: float = 0.3
    temperature: float = 1.0
    batch_size: int = 64
    optimizer: str | Make = "adam"
    weight_decay: float = 0.0

    name: ClassVar[str] = "bad_teacher"
    card: ClassVar[Card] = Card(
        title="Teach forget rows by an untrained network and a sample of the retain rows by the original",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="epochs × (forget + a share of retain), and as many forward passes of a teacher",
        paper="Chundawat et al. 2023, arXiv:2205.08096",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """A share, and a temperature."""
        found = []
        if not 0 < self.retain_share <= 1:
            found.append(f"retain_share must be above 0 and at most 1; got {self.retain_share!r}.")
        if not 0 < self.temperature < float("inf"):
            found.append(f"temperature must be above 0; got {self.temperature!r}.")
        return found

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and modules of which no untrained copy can be made."""
        found = super().problems(model, request, task, given)
        if stuck := unresettable(model):
            found.append(
                f"{self.name} needs an untrained copy of the model, and {', '.join(stuck)} cannot be drawn anew; "
                "give the class a method reset_parameters()."
            )
        return found

    def terms(self) -> tuple[Term, ...]:
        """Forget and retain, each under the number of its teacher in place of a label."""
        return (Term("forget", surrogate=Assign(UNTRAINED)), Term("retain", surrogate=Assign(ORIGINAL)))

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Make the teachers, draw the sample, descend on one pool."""
        device = job.run.device_of(model)
        bad = untrained(model, derive(job.run.seed, "untrained teacher"))
        loss = TwoTeachers((frozen(model, device), frozen(bad, device)), self.temperature)
        terms = tuple(replace(term, loss=loss) for term in self.terms())
        keep = job.request.keep
        drawn = torch.randperm(len(keep), generator=job.run.generator("sample"))
        sample = keep[drawn[: max(1, round(self.retain_share * len(keep)))].sort().values]
        phase = replace(self.phase(), terms=terms, mix="shuffled")
        job.descend(model, [phase], self.region, {"retain": sample})
        return model
