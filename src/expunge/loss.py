"""Losses beside the task's own, for terms that are descended on something else.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.task.base import Task
from expunge.weights import copied

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


def per_row(loss_B: Tensor, rows: int) -> Tensor:
    """The losses of so many rows, as they are.

    Raises:
        ExpungeError: they are not one number for each row.
    """
    if not isinstance(found := cast(object, loss_B), Tensor) or found.shape != (rows,):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ExpungeError(
            f"A loss must be one number for each row, a tensor of shape ({rows},) for {rows} rows; got {got}. Take no "
            "mean over the rows: reduction='none'."
        )
    return loss_B


def with_gradient(loss: Tensor) -> Tensor:
    """A loss, as it is.

    Raises:
        ExpungeError: it depends on no weight that may move.
    """
    if not loss.requires_grad:
        raise ExpungeError(
            "The loss depends on no weight that may move, so there is nothing to learn: take another region, one that "
            "the forward pass uses, and no torch.no_grad() or .detach() in the forward pass or the loss."
        )
    return loss


def divergence(target_BC: Tensor, scores_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(target ‖ model) of each row, (B,), in nats, between the softmax of two tables of scores over `temperature`.

    Summed over the classes of a row; PyTorch's `kl_div` divides by their number unless told otherwise.
    """
    logp_BC, logq_BC = F.log_softmax(target_BC / temperature, 1), F.log_softmax(scores_BC / temperature, 1)
    return (logp_BC.exp() * (logp_BC - logq_BC)).sum(1)


def frozen(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the model in eval mode on a device, with no weight that wants a gradient: a teacher."""
    teacher = copied(model).requires_grad_(False).to(device)
    teacher.eval()
    return teacher


@dataclass(frozen=True, eq=False)
class Distillation:
    """What a model loses against a teacher: `share` · T² · KL(teacher ‖ model) + `labels` · CE, of each row.

    Args:
        teacher: a model that stands still, see `frozen`.
        temperature: T, above 0.
        share: what the divergence counts.
        labels: what the cross-entropy under the row's label counts. Default 0.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """

    teacher: nn.Module
    temperature: float = 1.0
    share: float = 1.0
    labels: float = 0.0

    def __call__(self, task: Task, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """One number for each row, (B,), with gradient."""
        with torch.no_grad():
            target_BC = task.scores(self.teacher, x_B)
        scores_BC = task.scores(model, x_B)
        loss_B = self.share * self.temperature**2 * divergence(target_BC, scores_BC, self.temperature)
        return loss_B + self.labels * F.cross_entropy(scores_BC, y_B, reduction="none") if self.labels else loss_B
