"""Chain: methods one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from expunge.artifact.ledger import Settings
from expunge.errors import ExpungeError
from expunge.method import Card, Job, Method
from expunge.request import Request
from expunge.task.base import Task


@dataclass(frozen=True, kw_only=True)
class Chain(Method):
    """Apply methods one after the other, each on what the one before returned.

    Args:
        steps: the methods, one at least. In YAML each is given like any method, `{name: finetune}`.

    Cost: the sum of its steps'.
    """

    steps: tuple[Method, ...] = field(default=())

    name: ClassVar[str] = "chain"
    card: ClassVar[Card] = Card(
        title="Several methods, one after the other",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset(),
        cost="the sum of its steps",
        paper="–",
    )

    def __post_init__(self) -> None:
        if not self.steps:
            raise ExpungeError(f"A chain needs at least one step, each a method; got {self.steps!r}.")
        flat = [inner for step in self.steps for inner in (step.steps if isinstance(step, Chain) else (step,))]
        object.__setattr__(self, "steps", tuple(flat))

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """The problems of every step."""
        return [problem for step in self.steps for problem in step.problems(model, request, task, given)]

    def ledger_problems(self, settings: Settings) -> list[str]:
        """Those of every step."""
        return [problem for step in self.steps for problem in step.ledger_problems(settings)]

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """The steps in order."""
        for step in self.steps:
            model = step.apply(model, job)
        return model

    def to_config(self) -> dict[str, Any]:
        """The steps as plain data."""
        steps: list[Mapping[str, Any]] = [step.to_config() for step in self.steps]
        return {"name": self.name, "steps": steps}

    def __str__(self) -> str:
        return " → ".join(str(step) for step in self.steps)
