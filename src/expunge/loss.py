"""Losses beside the task's own, for terms that are descended on something else.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from expunge.task.base import Task

# (task, model, x_B, y_B) to one number for each row, (B,), with gradient
Loss = Callable[[Task, nn.Module, Tensor, Tensor], Tensor]


def unlikelihood(task: Task, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
    """−log(1 − p_y) of each row, (B,): how sure the model is of the row's label, from 0 up.

    Descending on it is ascending the cross-entropy, but with a gradient that fades with p_y, so that what is forgotten
    is left alone. Its gradient is exact where p_y rounds to 1 as well: the other classes are summed, not subtracted.

    Source: Welleck et al. 2020, arXiv:1908.04319 (there for the tokens of a text).
    """
    scores_BC = task.scores(model, x_B)
    own_BC = F.one_hot(y_B, scores_BC.shape[1]).bool()
    others_B = scores_BC.masked_fill(own_BC, -float("inf")).logsumexp(1)
    return scores_BC.logsumexp(1) - others_B
