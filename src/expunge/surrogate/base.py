"""What a surrogate is: something that draws stand-ins for rows, once or anew for every epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from expunge.data.rows import Rows
from expunge.task.base import Task

Draw = Literal["once", "epoch"]

# (x, y, index), each of length B, to the (x, y) shown in their place
StandIn = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Surrogate(Protocol):
    """Draws stand-ins for rows.

    `draw` says how often: `"once"` before training, or anew for every `"epoch"`. What is drawn depends on the
    generator alone, so that an interrupted run can be resumed.
    """

    @property
    def draw(self) -> Draw:
        """How often stand-ins are drawn."""
        ...

    def stand_in(self, rows: Rows, task: Task, generator: torch.Generator) -> StandIn:
        """A function that replaces the inputs or labels of a batch."""
        ...
