"""The class beyond the nearest decision boundary, found by one step along the sign of the loss's gradient.

Shapes: B batch, K classes, n rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.task.base import Task


def neighbour(model: nn.Module, task: Task, x_B: Tensor, y_B: Tensor, step: Tensor, allowed_K: Tensor) -> Tensor:
    """For each row the allowed class that the model prefers one step off, (B,) int64.

    Args:
        model: stands still, in eval mode.
        task: gives its loss and scores.
        x_B: inputs, floating point.
        y_B: their labels.
        step: how far every value moves, in units of the inputs; broadcasts against one input.
        allowed_K: the classes that may be named, boolean.

    Source: the fast gradient sign method, Goodfellow et al. 2015, arXiv:1412.6572.
    """
    x_B = x_B.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        (slope_B,) = torch.autograd.grad(task.loss(model, x_B, y_B).sum(), x_B)
    with torch.no_grad():
        scores_BK = task.scores(model, x_B + step.to(x_B.dtype) * slope_B.sign())
    return scores_BK.masked_fill(~allowed_K.to(scores_BK.device), -float("inf")).argmax(1)


def neighbours(
    model: nn.Module, task: Task, rows: Rows, index_n: Tensor, step: float, allowed_K: Tensor, batch_size: int
) -> Tensor:
    """As `neighbour`, for the rows at these positions, (n,) int64 on the CPU.

    Args:
        step: of pixels from 0 to 1 where the rows are images that are scaled, otherwise in units of the inputs.
        batch_size: rows looked at together.
    """
    device = next(p.device for p in model.parameters())
    size = torch.tensor(step) if rows.scale is None else step / torch.tensor(rows.scale.std).view(-1, 1, 1)
    found = [
        neighbour(model, task, rows.x(i_B).to(device), rows.y[i_B].to(device), size.to(device), allowed_K).cpu()
        for i_B in index_n.split(batch_size)
    ]
    return torch.cat(found)
