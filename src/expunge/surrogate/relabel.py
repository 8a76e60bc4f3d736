"""Relabel: another admissible label in place of the true one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.rows import Rows
from expunge.surrogate.base import Draw, StandIn
from expunge.task.base import Task


@dataclass(frozen=True)
class Relabel:
    """Gives every row a label drawn evenly from the other admissible ones; never its own.

    Args:
        draw: `"once"` before training (label flipping after Graves et al. 2021), or anew every `"epoch"`
            (default; random labelling as in the SalUn protocol).
    """

    draw: Draw = "epoch"

    def stand_in(self, rows: Rows, task: Task, generator: torch.Generator) -> StandIn:
        """Replaces the labels of a batch; every row has one label for the whole draw, in whichever batch it is."""
        table_N = task.another_label(rows.y, generator)

        def relabel(x_B: Tensor, y_B: Tensor, index_B: Tensor) -> tuple[Tensor, Tensor]:
            return x_B, table_N[index_B.to(table_N.device)].to(y_B.device)

        return relabel
