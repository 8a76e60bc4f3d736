"""What methods have in common that change the weights once, by gradients of single rows: checks, and a sample."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact import per_sample
from expunge.errors import UnknownName, raise_if
from expunge.method import Job, Method
from expunge.request import Request
from expunge.task.base import Task


@dataclass(frozen=True, kw_only=True)
class OneStep(Method):
    """A method that measures gradients of rows and changes every trained weight once."""

    above_zero: ClassVar[tuple[str, ...]]  # fields that are numbers above 0
    counts: ClassVar[tuple[str, ...]]  # fields that are whole numbers, 1 or more
    choices: ClassVar[Mapping[str, tuple[str, ...]]]  # fields that are one of some words

    def __post_init__(self) -> None:
        found = []
        for name in self.above_zero:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                found.append(f"{name} must be a number above 0; got {value!r}.")
        for name in self.counts:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                found.append(f"{name} must be a whole number, 1 or more; got {value!r}.")
        for name, known in self.choices.items():
            if getattr(self, name) not in known:
                found.append(str(UnknownName(name, getattr(self, name), known)))
        raise_if([f"{self.name}: {problem}" for problem in found + self.field_problems()])

    def field_problems(self) -> list[str]:
        """What is wrong with the method's own fields beside that, a sentence each."""
        return []

    def problems(self, model: nn.Module, request: Request, task: Task, given: Collection[str]) -> list[str]:
        """As for every method, and a model whose rows have no gradient of their own."""
        found = super().problems(model, request, task, given)
        return found + [f"{self.name}: {problem}" for problem in per_sample.problems(model)]


def sample_of(job: Job, count: int) -> Tensor:
    """Positions of some retain rows, drawn at random, in their order; all where there are fewer."""
    keep = job.request.keep
    order = torch.randperm(len(keep), generator=job.run.generator("sample"))
    return keep[order[:count]].sort().values
