"""Importance: how much each weight matters to some rows, by the gradients of the rows.

Shapes: B rows, C classes, d weights that are trained, all of them in one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from expunge.artifact.per_sample import Objective, at_once, check_finite, in_use, per_sample, total, trainable
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.run import Run
from expunge.task.base import Task

Labels = Literal["own", "model", "none"]
LABELS = get_args(Labels)


def importance(
    model: nn.Module,
    task: Task,
    rows: Rows,
    index: Tensor,
    run: Run,
    labels: Labels = "own",
    batch: int | None = None,
) -> Tensor:
    """The importance of each trained weight for these rows, (d,) float64: a mean over the rows.

    Args:
        model: in any mode; it computes in eval mode, and its mode is afterwards as it was.
        task: gives the loss.
        rows: the data.
        index: positions of the rows, one or more.
        run: device.
        labels: `"own"` (default): the square of the gradient of the loss, the diagonal of the empirical Fisher
            information. `"model"`: its expectation over the labels that the model itself gives, the diagonal of the
            Fisher information. `"none"`: the magnitude of the gradient of the squared norm of the scores.
        batch: take the gradient of the mean over this many rows in place of that of a row; rows left over are not
            used. It is smaller, the more so the larger the batch, so that only equal batches can be compared. Default:
            rows by themselves.

    Raises:
        ExpungeError: no rows, or fewer than a batch; gradients that are NaN or infinite, with the layers' names.

    Cost: one backward pass over the rows, C with `"model"`; B × d entries of gradients at once, 64 MiB or one row.
    """
    d = sum(p.numel() for p in trainable(model).values())
    objective = norm(task) if labels == "none" else task.loss
    size = batch or at_once(d)
    used = (len(index) // size * size) if batch else len(index)
    if not used:
        raise ExpungeError(f"Importance needs rows, and a whole batch of them; got {len(index)} for a batch of {size}.")
    with in_use(model, run) as device:
        sum_d = torch.zeros(d, dtype=torch.float64, device=device)
        for part in index[:used].split(size):
            x_B, y_B = rows.x(part).to(device), rows.y[part].to(device)
            if batch:
                mean_B = torch.full((len(part),), 1 / len(part), dtype=torch.float64)
                found: Iterator[Tensor] = iter([total(model, objective, x_B, y_B, mean_B)[None]])
            else:
                found = _weighted(model, task, objective, x_B, y_B, labels, size)
            for g_Bd in found:
                sum_d += (g_Bd.abs() if labels == "none" else g_Bd.square()).sum(0)
    check_finite(model, sum_d, f"The gradients of {len(index):,} rows")
    return sum_d / (used // batch if batch else used)


def _weighted(
    model: nn.Module, task: Task, objective: Objective, x_B: Tensor, y_B: Tensor, labels: Labels, size: int
) -> Iterator[Tensor]:
    for x, y, root in shown(model, task, x_B, y_B, labels, size):
        g_Bd = per_sample(model, objective, x, y)
        yield g_Bd if root is None else g_Bd.mul_(root[:, None])


def shown(
    model: nn.Module, task: Task, x_B: Tensor, y_B: Tensor, labels: Labels, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Rows with the labels that the Fisher information asks for, and the root of the weight of each; at most `size`.

    With `"model"` every row comes once under each label, weighted by the probability that the model gives it; row by
    row. Otherwise rows come as they are, all with a weight of 1, which is not said.
    """
    if labels != "model":
        yield x_B, y_B, None
        return
    with torch.no_grad():
        root_BC = task.scores(model, x_B).softmax(1).sqrt()
    count, classes = root_BC.shape
    pairs = torch.arange(count * classes, device=x_B.device)
    for pair in pairs.split(size):
        yield x_B[pair // classes], pair % classes, root_BC.flatten()[pair]


def norm(task: Task) -> Objective:
    """The squared Euclidean norm of a row's scores, which needs no label."""

    def squared(model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        return task.scores(model, x_B).square().sum(1)

    return squared


__all__ = ["LABELS", "Labels", "importance", "norm", "shown"]
