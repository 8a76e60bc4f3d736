"""Rewind: of the models after each epoch, the one that is as wrong on forget as on rows that were never learnt."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.data.rows import Rows
from expunge.method import Job
from expunge.outputs import outputs
from expunge.request import Request


def rewind_problems(request: Request, unseen: Rows) -> list[str]:
    """Why these rows cannot stand beside the forget rows, a sentence each."""
    y = request.rows.y
    missing = set(y[request.forget].tolist()) - set(unseen.y.tolist())
    if not missing:
        return []
    names = ", ".join(request.rows.classes[c] for c in sorted(missing))
    return [f"unseen holds no row of {names}, of which rows are to be forgotten; rewinding compares class by class."]


@dataclass
class Rewind:
    """A checkpoint that keeps the model of every epoch, and then chooses one.

    Args:
        job: gives the forget rows, the unseen ones and the task.
        kept: the weights after each epoch.
        errors: the share of forget rows that each of them gets wrong.
    """

    job: Job
    kept: list[dict[str, Tensor]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def resume(self, model: nn.Module, optimizer: Optimizer, phase: int) -> int:
        """Nothing is resumed."""
        return 0

    def save(self, model: nn.Module, optimizer: Optimizer, phase: int, epochs: int) -> None:
        """Keep the model of this epoch, and look how wrong it is on forget."""
        self.kept.append(copy.deepcopy({name: value.cpu() for name, value in model.state_dict().items()}))
        self.errors.append(float(self._wrong(model, self.job.request.rows, self.job.request.forget).mean()))

    def choose(self, model: nn.Module) -> None:
        """Put the weights of that epoch back whose error on forget is nearest to the last one's on unseen rows.

        The error on unseen rows is weighted by class as forget is. Of epochs that are equally near, the last.
        """
        rows, unseen = self.job.request.rows, self.job.unseen
        if unseen is None or not self.kept:
            return
        wrong_V = self._wrong(model, unseen, torch.arange(len(unseen)))
        y_F, y_V = rows.y[self.job.request.forget], unseen.y
        reference = sum(float((y_F == c).float().mean() * wrong_V[y_V == c].mean()) for c in y_F.unique())
        far = [abs(error - reference) for error in self.errors]
        chosen = max(i for i, distance in enumerate(far) if distance == min(far))
        model.load_state_dict(self.kept[chosen])
        self.job.log.facts["rewind"] = {
            "error_on_forget": [round(error, 4) for error in self.errors],
            "error_on_unseen": round(reference, 4),
            "epoch": chosen + 1,
        }

    def _wrong(self, model: nn.Module, rows: Rows, index_N: Tensor) -> Tensor:
        """Whether each row's highest score is not that of its label, (N,) float, in eval mode."""
        return (outputs(model, self.job.task, rows, index_N).argmax(1) != rows.y[index_N].cpu()).float()
