"""What methods have in common that change the weights once, by gradients of single rows: checks, and a sample."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact import per_sample
from expunge.errors import UnknownName, collected, raise_if
from expunge.method import Job, Method
from expunge.region import Region
from expunge.request import Request
from expunge.task.base import Task


@dataclass(frozen=True, kw_only=True)
class OneStep(Method):
    """A method that measures gradients of rows and changes every trained weight once.

    Args:
        region: which weights may change; a `Region`, or plain data as for methods that descend. Default: all.
        share: with `region="saliency"`, the share of weights that may change. Default 0.5.
    """

    region: Region | None = None
    share: InitVar[float | None] = None

    above_zero: ClassVar[tuple[str, ...]]  # fields that are numbers above 0
    counts: ClassVar[tuple[str, ...]]  # fields that are whole numbers, 1 or more
    choices: ClassVar[Mapping[str, tuple[str, ...]]]  # fields that are one of some words

    def __post_init__(self, share: float | None) -> None:
        object.__setattr__(self, "region", Region.from_config(self.region, share))
        found = []
        for name in self.above_zero:
            if not 0 < getattr(self, name) < math.inf:
                found.append(f"{name} must be a number above 0; got {getattr(self, name)!r}.")
        for name in self.counts:
            if getattr(self, name) < 1:
                found.append(f"{name} must be a whole number, 1 or more; got {getattr(self, name)!r}.")
        for name, known in self.choices.items():
            if getattr(self, name) not in known:
                found.append(str(UnknownName(name, getattr(self, name), known)))
        raise_if([f"{self.name}: {problem}" for problem in found + self.field_problems()])

    def field_problems(self) -> list[str]:
        """What is wrong with the method's own fields beside that, a sentence each."""
        return []

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and a model whose rows have no gradient of their own."""
        found = super().problems(model, request, task, given)
        with collected(found, f"{self.name}: "):
            (self.region or Region.all()).resolve(model)
        if self.region is not None and self.region.updates is not None:
            found.append(f"{self.name} takes one step, of which the region takes a part; leave `partial` out of it.")
        return found + [f"{self.name}: {problem}" for problem in per_sample.problems(model)]

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Change the weights; put back what lies outside the region."""
        region = job.settled(model, self.region)
        before_d = per_sample.weights_of(model)
        self.change(model, job)
        if region is not None:
            moves, trained = region.resolve(model), per_sample.trainable(model)
            inside_d = torch.cat([_inside(p, moves.get(name, False)) for name, p in trained.items()])
            per_sample.put(model, torch.where(inside_d, per_sample.weights_of(model), before_d))
        return model

    @abstractmethod
    def change(self, model: nn.Module, job: Job) -> None:
        """Measure, and change all trained weights, in place."""


def _inside(p: nn.Parameter, where: bool | Tensor) -> Tensor:
    """Which entries may change, flat."""
    return (where if isinstance(where, Tensor) else torch.full_like(p, where, dtype=torch.bool)).flatten().to(p.device)


def sample_of(job: Job, count: int) -> Tensor:
    """Positions of some retain rows, drawn at random, in their order; all where there are fewer."""
    keep = job.request.keep
    order = torch.randperm(len(keep), generator=job.run.generator("sample"))
    return keep[order[:count]].sort().values
