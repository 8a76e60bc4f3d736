"""What all methods that descend have in common: an optimiser, a rate, a region."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any

from torch import nn

from expunge.errors import collected, raise_if
from expunge.method import Job, Method
from expunge.optimizers import Make
from expunge.phase import Phase, Schedule, Term, descent_problems
from expunge.region import Region
from expunge.request import Request
from expunge.task.base import Task
from expunge.weights import step_problems


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """A method that descends on terms, inside a region, for one phase.

    Args:
        epochs: passes, see the method.
        lr: the peak rate, above 0.
        batch_size: rows in a batch at most. Default 256, as in the SalUn protocol.
        optimizer: `"sgd"` (default), `"adam"`, `"adamw"` or another name of `torch.optim`, such as `"rmsprop"`; or a
            function of the weights that returns one.
        momentum: of SGD, and of others that have it. Default 0.9, as in the SalUn protocol.
        weight_decay: default 5e-4, as in the SalUn protocol.
        clip_norm: gradients, of the weights that may move, are scaled down to this norm. Default: not, unless the
            method says so.
        schedule: `"constant"`, `"cosine"` or `"one_cycle"`.
        region: which weights may move; a `Region`, or plain data such as `{"layers": "fc*"}`. Default: all. With
            `"saliency"`, those that matter most to the forget rows, see `expunge.salient.Salient`.
        share: with `region="saliency"`, the share of weights that may move; it becomes part of the region. Default 0.5.
    """

    epochs: int
    lr: float
    batch_size: int = 256
    optimizer: str | Make = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    schedule: Schedule = "constant"
    region: Region | None = None
    share: InitVar[float | None] = None

    def __post_init__(self, share: float | None = None) -> None:  # noqa: RUF033 (a subclass may have such a field)
        object.__setattr__(self, "region", Region.from_config(self.region, share))
        raise_if([f"{self.name}: {problem}" for problem in descent_problems(vars(self)) + self.field_problems()])

    def field_problems(self) -> list[str]:
        """What is wrong with the method's own fields, a sentence each."""
        return []

    @abstractmethod
    def terms(self) -> tuple[Term, ...]:
        """What the method descends on."""

    def phase(self) -> Phase:
        """The one phase of this method, with those of its fields that a phase has."""
        return Phase.of(self, terms=self.terms())

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and a region that the model does not have, or that cannot be measured on it."""
        found = super().problems(model, request, task, given)
        with collected(found, f"{self.name}: "):
            (self.where() or Region.all()).resolve(model)
        return found + step_problems(model)

    def where(self) -> Region | None:
        """Which weights may move; none for all."""
        return self.region

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Descend once."""
        job.descend(model, [self.phase()], self.where())
        return model
