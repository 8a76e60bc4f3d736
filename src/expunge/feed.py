"""Feed: from a phase's plan of positions to the batches that the loop computes on.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.data.augment import augment
from expunge.data.rows import Rows
from expunge.layout import arranged
from expunge.loss import Loss
from expunge.phase import Phase, Term
from expunge.run import Run
from expunge.surrogate.base import StandIn
from expunge.task.base import Task


@dataclass(frozen=True)
class Batch:
    """One forward pass.

    Args:
        x: inputs, (B, ...).
        y: labels or stand-ins, (B,).
        weight: what each example's loss counts, (B,); the loss of a step is the weighted sum over its batches.
        spans: (number of the term, how many rows), in the order of the rows.
        total: how many rows there are in all processes together.
        index: positions of the rows of all processes together, in the order of `weight` where there is one process.
        cap: what each example's loss counts up to, (B,); none when nothing is capped.
        loss: in place of the task's.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    spans: tuple[tuple[int, int], ...]
    total: int
    index: Tensor
    cap: Tensor | None = None
    loss: Loss | None = None

    def losses(self, task: Task, model: nn.Module) -> Tensor:
        """The loss of each row, (B,), with gradient."""
        if self.loss is not None:
            return self.loss(task, model, self.x, self.y)
        return task.loss(model, self.x, self.y)

    def shares(self, loss_B: Tensor) -> Tensor:
        """What each row adds to the objective of a step, (B,)."""
        return self.weight * (loss_B if self.cap is None else torch.minimum(loss_B, self.cap))

    def objective(self, loss_B: Tensor) -> Tensor:
        """What the losses of these rows add to the objective of a step."""
        return self.shares(loss_B).sum()


@dataclass(frozen=True)
class Feed:
    """The batches of a phase, made from positions by index selects."""

    rows: Rows
    parts: Mapping[str, Tensor]
    task: Task
    phase: Phase
    number: int
    run: Run
    device: torch.device
    channels_last: bool = False

    def epoch(self, epoch: int) -> Iterator[list[Batch]]:
        """The steps of one epoch; all randomness derives from seed, phase and epoch, so it can be begun anywhere."""
        stand_ins = [self._stand_in(k, term, epoch) for k, term in enumerate(self.phase.terms)]
        noise = self.run.generator("augment", self.number, epoch)
        for picks in self.phase.plan(self.parts, self.run.generator("plan", self.number, epoch)):
            batches = [self._batch(k, index, stand_ins[k], noise) for k, index in picks]
            yield [_merged(batches)] if self.phase.mix == "shuffled" else batches

    def _stand_in(self, k: int, term: Term, epoch: int) -> StandIn | None:
        if term.surrogate is None:
            return None
        when = 0 if term.surrogate.draw == "once" else epoch
        generator = self.run.generator("surrogate", self.number, k, when)
        return term.surrogate.stand_in(self._rows(term), self.task, generator)

    def _rows(self, term: Term) -> Rows:
        return self.rows if term.rows is None else term.rows

    def _batch(self, k: int, index_B: Tensor, stand_in: StandIn | None, noise: torch.Generator) -> Batch:
        term, everybody = self.phase.terms[k], index_B
        index_B, factor = self.run.share(index_B)
        rows = self._rows(term)
        x_B, y_B = rows.x(index_B), rows.y[index_B.to(rows.y.device)]
        if self.run.augment is not None and term.rows is None:
            x_B = augment(x_B, self.run.augment, noise)
        if stand_in is not None:
            x_B, y_B = stand_in(x_B, y_B, index_B)
        x_B = arranged(x_B.to(self.device, non_blocking=True), self.channels_last)
        y_B = y_B.to(self.device, non_blocking=True)
        n = len(y_B)
        weight_B = torch.full((n,), term.weight * factor / n, device=self.device)
        cap_B = None if term.cap is None else torch.full((n,), term.cap * self.task.guessing, device=self.device)
        return Batch(x_B, y_B, weight_B, ((k, n),), len(everybody), everybody, cap_B, term.loss)


def _merged(batches: list[Batch]) -> Batch:
    """One batch out of several: each example counts as in one mean over all of them."""
    total = sum(b.total for b in batches)
    return Batch(
        torch.cat([b.x for b in batches]),
        torch.cat([b.y for b in batches]),
        torch.cat([b.weight * b.total / total for b in batches]),
        tuple(span for b in batches for span in b.spans),
        total,
        torch.cat([b.index for b in batches]),
        torch.cat([_caps(b) for b in batches]) if any(b.cap is not None for b in batches) else None,
        batches[0].loss,
    )


def _caps(batch: Batch) -> Tensor:
    return torch.full_like(batch.weight, torch.inf) if batch.cap is None else batch.cap
