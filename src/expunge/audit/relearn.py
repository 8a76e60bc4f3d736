"""Relearn time: how long a model must train on the forgotten rows until it knows them again."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.descend import descend
from expunge.errors import raise_if
from expunge.fields import Typed
from expunge.outputs import outputs
from expunge.phase import Phase, Term
from expunge.region import Region
from expunge.run import Run
from expunge.task.base import Task
from expunge.weights import scripted_problems


@dataclass(frozen=True, kw_only=True)
class Relearn(Typed):
    """How relearning is measured; the same for every model of an audit. Every number is above 0 and finite.

    Args:
        max_epochs: passes over the forget rows after which the count ends. Default 10.
        lr: a constant rate. Default 0.01.
        batch_size: rows in a batch. Default 64.
        tolerance: relearned means (1 - tolerance) × the original's accuracy on these rows. Default 0.05, the
            smaller of the published 0.05 and 0.10.
        cap: so many forget rows are used at most. Default 500.

    Raises:
        ExpungeError: a setting that there is not, one of another kind, or out of range.
    """

    name: ClassVar[str] = "relearn"

    max_epochs: float = 10.0
    lr: float = 0.01
    batch_size: int = 64
    tolerance: float = 0.05
    cap: int = 500

    def __post_init__(self) -> None:
        wrong = {n: value for n, value in vars(self).items() if not 0 < value < math.inf}
        raise_if([f"relearn: {n} must be above 0 and finite; got {value!r}." for n, value in wrong.items()])


@dataclass(frozen=True)
class RelearnTime:
    """How long relearning took.

    Args:
        epochs: passes over the forget rows; 0 when the model knew them already.
        censored: the accuracy was not reached within `max_epochs`, which `epochs` then equals.
    """

    epochs: float
    censored: bool


def relearn(
    model: nn.Module, rows: Rows, target: float, task: Task, settings: Relearn | None = None, seed: int = 0
) -> RelearnTime:
    """Train a copy of the model on the forget rows until its accuracy on them reaches `target`.

    Plain SGD without momentum or decay, running statistics frozen. Accuracy is looked at after ever longer
    stretches (each 10 % longer) and the crossing is interpolated between two looks.

    Args:
        model: not touched.
        rows: the forget rows.
        target: accuracy, as a share from 0 to 1.
        task: gives loss and scores.
        settings: see `Relearn`.
        seed: of the order of the rows.

    Raises:
        ExpungeError: a model that is compiled by torch.jit, and does not know the rows.

    Cost: at most `max_epochs` passes over `cap` rows, and as many looks.
    Source: relearn time after Chundawat et al. 2023 (AIN); a fraction of an epoch here.
    """
    settings = settings or Relearn()
    generator = torch.Generator().manual_seed(seed)
    rows = rows.take(torch.randperm(len(rows), generator=generator)[: settings.cap])
    copied = copy.deepcopy(model)
    before = _accuracy(copied, task, rows)
    if before >= target:
        return RelearnTime(0.0, False)
    raise_if(scripted_problems(copied))
    batch = min(settings.batch_size, len(rows))
    steps_in_epoch = len(rows) / batch
    last = math.ceil(settings.max_epochs * steps_in_epoch)
    phase = Phase(terms=(Term("relearn"),), epochs=1, lr=settings.lr, batch_size=batch, momentum=0.0, weight_decay=0.0)
    order = torch.cat(
        [torch.randperm(len(rows), generator=generator) for _ in range(math.ceil(settings.max_epochs) + 1)]
    )
    done = 0
    while done < last:
        to = min(last, done + max(1, done // 10))
        part = {"relearn": order[done * batch : to * batch]}
        run = Run(seed=seed, progress=False)
        descend(copied, rows, part, task, [phase], run, Region.all(batchnorm="freeze"))
        now = _accuracy(copied, task, rows)
        if now >= target:
            crossing = done + (to - done) * (target - before) / (now - before)
            return RelearnTime(min(crossing / steps_in_epoch, settings.max_epochs), False)
        done, before = to, now
    return RelearnTime(settings.max_epochs, True)


def _accuracy(model: nn.Module, task: Task, rows: Rows) -> float:
    right: Tensor = outputs(model, task, rows).argmax(1) == rows.y
    return float(right.double().mean())
