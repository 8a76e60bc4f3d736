"""Assign: labels that are known beforehand, in place of the true ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.rows import Rows
from expunge.surrogate.base import Draw, StandIn
from expunge.task.base import Task


@dataclass(frozen=True, eq=False)
class Assign:
    """Gives rows the labels it is told.

    Args:
        labels: one label for all rows, or each row's own, (rows,) int64.
        draw: nothing is drawn.
    """

    labels: int | Tensor
    draw: Draw = "once"

    def stand_in(self, rows: Rows, task: Task, generator: torch.Generator) -> StandIn:
        """Replaces the labels of a batch."""
        labels = self.labels

        def assign(x_B: Tensor, y_B: Tensor, index_B: Tensor) -> tuple[Tensor, Tensor]:
            if isinstance(labels, int):
                return x_B, torch.full_like(y_B, labels)
            return x_B, labels[index_B.to(labels.device)].to(y_B.device)

        return assign
