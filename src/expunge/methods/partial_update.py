"""What the two methods of layer-wise partial updates have in common: how much of a step, and when to end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.method import Job
from expunge.methods.gradient import GradientMethod
from expunge.modes import eval_mode
from expunge.partial import Rule, partial_problems
from expunge.region import Region
from expunge.task.base import Task

CHECKED = 256  # rows looked at after each step; 1 % of them are 2.56, so a goal of 1 % is 2 rows


@dataclass(frozen=True, kw_only=True)
class PartialUpdateMethod(GradientMethod):
    """A gradient method of which each step changes a share of each layer only, until the rows are forgotten.

    Args:
        keep: the share of each layer's entries that one step may change, above 0 and up to 1; 1 is the dense form.
        rule: which entries, see `expunge.partial.PartialUpdate`.
        goal: end once the model gets no more than this share of the forget rows right (of 256 of them at most, after
            each step), or none: all epochs.
        floor: end once the model gets less than this share of the retain rows right (of 256 of them), or none.
    """

    keep: float
    rule: Rule = "topk_step"
    goal: float | None = 0.01
    floor: float | None = None

    def field_problems(self) -> list[str]:
        """The share and its rule; goal and floor are shares; one region has one partial update."""
        found = partial_problems(self.keep, self.rule)
        for name, value in (("goal", self.goal), ("floor", self.floor)):
            if value is not None and not 0 <= value <= 1:
                found.append(f"{name} must be a share of rows, from 0 to 1, or none; got {value!r}.")
        if self.region is not None and self.region.updates is not None:
            found.append("keep and rule say what a step may change; leave partial out of the region.")
        return found

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Descend in partial updates until the goal is reached."""
        until = Forgotten.of(self, job)
        phase = dataclasses.replace(self.phase(), until=until)
        job.descend(model, [phase], Region.partial(self.keep, self.rule, within=self.region))
        if self.goal is not None and not until.goal_reached:
            job.log.notes.append(
                f"The goal was not reached: the model still gets {100 * until.share(model, until.forget):.1f} % of the "
                f"forget rows right, and {100 * self.goal:g} % was asked for. More epochs or a higher lr may reach it."
            )
        return model


@dataclass
class Forgotten:
    """Asked after each step: is it enough, or too much?"""

    task: Task
    rows: Rows
    forget: Tensor
    retain: Tensor
    goal: float | None
    floor: float | None
    goal_reached: bool = False

    @classmethod
    def of(cls, method: PartialUpdateMethod, job: Job) -> Forgotten:
        """A look at rows that are drawn once."""
        draws = job.run.generator("checked")
        forget, retain = (
            part[torch.randperm(len(part), generator=draws)[:CHECKED]]
            for part in (job.request.forget, job.request.keep)
        )
        return cls(job.task, job.request.rows, forget, retain, method.goal, method.floor)

    def __call__(self, model: nn.Module) -> str:
        """Why the descent must end; empty while it goes on."""
        if self.goal is not None and (share := self.share(model, self.forget)) <= self.goal:
            self.goal_reached = True
            return f"{100 * share:.1f} % of the forget rows are right, and the goal was {100 * self.goal:g} %"
        if self.floor is not None and (share := self.share(model, self.retain)) < self.floor:
            return f"{100 * share:.1f} % of the retain rows are right, under the floor of {100 * self.floor:g} %"
        return ""

    @torch.no_grad()
    def share(self, model: nn.Module, index_B: Tensor) -> float:
        """The share of rows whose highest score is that of their label, in eval mode."""
        device = next(model.parameters()).device
        with eval_mode(model):
            scores_BC = self.task.scores(model, self.rows.x(index_B).to(device))
        return float((scores_BC.argmax(1).cpu() == self.rows.y[index_B].cpu()).float().mean())
