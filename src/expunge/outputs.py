"""What a model answers on rows, without touching it.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.layout import arranged, likes_channels_last
from expunge.memory import kept_memory
from expunge.modes import eval_mode
from expunge.run import Run
from expunge.task.base import Task

BATCH = 1000  # rows in one forward pass


def outputs(model: nn.Module, task: Task, rows: Rows, index_N: Tensor | None = None) -> Tensor:
    """The scores of a model on rows, (N, C) float32 on the CPU, in eval mode and without gradient.

    Args:
        model: as it is; its modes are as before afterwards.
        task: says what its scores are.
        rows: to ask about.
        index_N: positions in them. Default: all.

    Cost: one forward pass.
    """
    device = Run().device_of(model)
    index_N = torch.arange(len(rows)) if index_N is None else index_N
    last = likes_channels_last(model)
    with eval_mode(model), torch.inference_mode(), kept_memory():
        batches = (arranged(rows.x(i_B).to(device), last) for i_B in index_N.split(BATCH))
        return torch.cat([task.scores(model, x).float().cpu() for x in batches])


def finite_problems(model: nn.Module, task: Task, rows: Rows, index_N: Tensor) -> list[str]:
    """That the model itself answers some of these rows with NaN or infinity; arguments as for `outputs`."""
    bad_N = ~torch.isfinite(outputs(model, task, rows, index_N)).all(1)
    if not bad_N.any():
        return []
    ids = rows.ids[index_N[bad_N][:3].numpy()].tolist()
    return [
        f"The model itself returns NaN or infinity for rows of {rows.name}, e.g. {ids}, so nothing can be learned on "
        "them. Repair the model, or leave these rows out."
    ]


def percent_right(model: nn.Module, task: Task, rows: Rows, index_N: Tensor | None = None) -> float:
    """The percentage of rows whose largest score is that of their label; 0 of no rows. Arguments as for `outputs`."""
    y_N = rows.y if index_N is None else rows.y[index_N]
    if not len(y_N):
        return 0.0
    return 100 * float((outputs(model, task, rows, index_N).argmax(1) == y_N.cpu()).float().mean())
