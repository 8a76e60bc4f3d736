"""How gates are learned: what they descend on, and the one descent.

Shapes: B batch, T rows of gates drawn for an example, R rows of gates, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.artifact.gates import Gated
from expunge.data.rows import Rows
from expunge.descend import Log, descend
from expunge.errors import ExpungeError, raise_if
from expunge.layout import channels_last
from expunge.loss import Loss
from expunge.outputs import finite_problems
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.task.base import Task

LEFT = 0.01  # share of a row's examples that may be recognised before its factor rises
MOST = 50.0  # the factor at most


@dataclass(frozen=True)
class Round:
    """The settings of a round of learning, by the names of `WeightFilter`."""

    epochs: int
    lr: float
    batch_size: int
    per_class: int | None
    draws: int
    floor: float
    retain: float
    reject: float
    insist: float
    closed: float


class _Under(nn.Module):
    """A gated model with a row chosen for each example, so that a task can call it like any other."""

    def __init__(self, net: nn.Module, rows_B: Tensor) -> None:
        super().__init__()
        self._net, self.rows_B = (net,), rows_B

    def forward(self, x_B: Tensor) -> object:
        return self._net[0](x_B, self.rows_B)


@dataclass
class Insisting:
    """The factor on the forget term of each row of gates, which rises while its classes are recognised.

    Dual ascent on the constraint that at most `LEFT` of its examples are: after each step past the first `wait`, the
    logarithm moves by `rate` times what the share recognised in the batch exceeds it by, between 0 and log `MOST`.
    Until then gates have had no time to close, and every class would count as recognised.
    """

    rate: float
    wait: int
    log_R: Tensor
    steps: int = 0

    def factors(self, row_B: Tensor, recognised_B: Tensor) -> Tensor:
        """For each example, (B,); then learn from which were recognised."""
        factors_B = self.log_R.exp().to(row_B.device)[row_B]
        self.steps += 1
        if self.rate and self.steps > self.wait:
            row_B, recognised_B = row_B.cpu(), recognised_B.cpu().float()
            count_R = torch.bincount(row_B, minlength=len(self.log_R))
            share_R = torch.bincount(row_B, recognised_B, len(self.log_R)) / count_R.clamp(min=1)
            self.log_R += self.rate * (share_R - LEFT) * (count_R > 0)
            self.log_R.clamp_(0, math.log(MOST))
        return factors_B


def rejecting(sets: tuple[tuple[int, ...], ...], classes: int, floor: float, insisting: Insisting) -> Loss:
    """1 / (CE + floor) of each example under the row that forgets its class: small once the label is rejected."""
    row_of_C = torch.full((classes,), -1)
    for row, members in enumerate(sets):
        row_of_C[list(members)] = row

    def loss(task: Task, net: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        row_B = row_of_C.to(y_B.device)[y_B]
        scores_BC = task.scores(_Under(net, row_B), x_B)
        losses_B = 1 / (F.cross_entropy(scores_BC, y_B, reduction="none") + floor)
        return losses_B * insisting.factors(row_B, scores_BC.detach().argmax(1) == y_B)

    return loss


def keeping(sets: tuple[tuple[int, ...], ...], classes: int, draws: int) -> Loss:
    """Mean CE of each example under rows that forget other classes than its own, so many, all different."""
    others_CR = others(sets, classes)

    def loss(task: Task, net: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        rows_BT = torch.multinomial(others_CR.to(y_B.device)[y_B], draws)
        x_TB = x_B.repeat(draws, *[1] * (x_B.ndim - 1))
        scores_BC = task.scores(_Under(net, rows_BT.T.flatten()), x_TB)
        return F.cross_entropy(scores_BC, y_B.repeat(draws), reduction="none").view(draws, -1).mean(0)

    return loss


def others(sets: tuple[tuple[int, ...], ...], classes: int) -> Tensor:
    """1 where a row of gates forgets other classes than this one, (C, R)."""
    found_CR = torch.ones(classes, len(sets))
    for row, members in enumerate(sets):
        found_CR[list(members), row] = 0
    return found_CR


def learn(gated: Gated, rows: Rows, index: Tensor, task: Task, how: Round, run: Run) -> Log:
    """Move the gates, and nothing else, so that each row forgets its classes and keeps the others.

    Afterwards `gated.left` says what share of the rows shown each row of gates still recognises.

    Args:
        gated: changed in place.
        rows: the data.
        index: positions of the rows that may be shown.
        task: gives the scores.
        how: rates, weights and counts.
        run: seed, device, precision.

    Raises:
        ExpungeError: a loss that is not finite; where the model itself is at fault, that is said.
    """
    classes = rows.num_classes
    rejected = torch.tensor([c for members in gated.sets for c in members])
    forget = torch.isin(rows.y[index], rejected)
    kept = ~forget if len(gated.sets) == 1 else torch.ones_like(forget)
    parts = {"forget": _shown(index[forget], rows, how, run), "retain": _shown(index[kept], rows, how, run)}
    draws = min(how.draws, int(others(gated.sets, classes)[rows.y[parts["retain"]].unique()].sum(1).min()))
    retain = Term("retain", weight=how.retain, loss=keeping(gated.sets, classes, draws))
    insisting = Insisting(how.insist, 0, torch.zeros(len(gated.sets)))
    reject = Term("forget", weight=how.reject, loss=rejecting(gated.sets, classes, how.floor, insisting))
    phase = Phase(
        terms=(retain, reject),
        epochs=how.epochs,
        lr=how.lr,
        batch_size=how.batch_size,
        optimizer="adam",
        weight_decay=0.0,
        penalty=lambda _, __: how.closed * (1 - gated.gates()).mean(),
    )
    insisting.wait = how.epochs * phase.steps_per_epoch(parts) // 2
    try:
        with channels_last(gated.frozen):
            log = descend(gated, rows, parts, task, [phase], run)
    except ExpungeError:
        raise_if(finite_problems(gated.frozen, task, rows, torch.cat(list(parts.values())).unique()))
        raise
    gated.left = _left(gated, rows, parts["forget"].unique(), task, run)
    log.examples += (draws - 1) * how.epochs * len(parts["retain"])  # each is shown so often
    return log


def _shown(index: Tensor, rows: Rows, how: Round, run: Run) -> Tensor:
    """Positions that one epoch shows: `per_class` of each class, some of them more than once where there are fewer."""
    if how.per_class is None:
        return index
    chosen = []
    for label in rows.y[index].unique().tolist():
        mine = index[rows.y[index] == label]
        order = mine[torch.randperm(len(mine), generator=run.generator("gates", label))]
        chosen.append(order[torch.arange(how.per_class) % len(order)])
    return torch.cat(chosen)


def _left(gated: Gated, rows: Rows, index: Tensor, task: Task, run: Run) -> tuple[float, ...]:
    """For each set of classes, the share of these rows of them that is answered right under its own gates."""
    device, found = run.device_of(gated), []
    with run.isolated(), torch.no_grad():
        for row, members in enumerate(gated.sets):
            mine = index[torch.isin(rows.y[index], torch.tensor(members))]
            right = 0
            for part in mine.split(256):
                under = _Under(gated, torch.full_like(part, row).to(device))
                right += int((task.scores(under, rows.x(part).to(device)).argmax(1).cpu() == rows.y[part]).sum())
            found.append(right / max(1, len(mine)))
    return tuple(found)
