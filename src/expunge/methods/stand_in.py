"""What a retrained model would be like, known without one: the rule by which a search judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.method import Job
from expunge.outputs import outputs


@dataclass(frozen=True)
class Judged:
    """How far a model is from what a retrained one would be like.

    Args:
        distance: in points, 0 or more; the mean over `facts`' differences.
        weak: whether the forgotten rows still stand out as known.
        facts: what was measured, as plain data, in percent.
    """

    distance: float
    weak: bool
    facts: dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """Of one model: percent right on retain, forget and unseen rows, and how forget rows stand out from unseen ones.

    Args:
        retain: percent right.
        forget: percent right.
        unseen: percent right, of kept classes; none without such rows.
        standing_out: 100 (2 AUC - 1) of telling forget from unseen rows of their classes by the loss: 0 is not at all,
            above 0 they look like training rows. None without such rows.
    """

    retain: float
    forget: float
    unseen: float | None
    standing_out: float | None


class Judge:
    """Judges models for one request, without retraining unless an oracle is given.

    Args:
        original: the model before.
        job: gives request, unseen rows and task.
        sample: at most so many rows of each part.
        oracle: a retrained model to be near to, in place of the rule.
    """

    def __init__(self, original: nn.Module, job: Job, sample: int, oracle: nn.Module | None = None) -> None:
        self.job, request = job, job.request
        draw = job.run.generator("search")
        self.retain = _some(request.keep, sample, draw)
        self.forget = _some(request.forget, sample, draw)
        self.of_class = request.scope == "class"
        self.unseen, self.alike = self._unseen(sample, draw)
        self.before = self._answers(original)
        self.oracle = self._answers(oracle) if oracle is not None else None

    def __call__(self, model: nn.Module) -> Judged:
        """The judgement on a model."""
        now, target = self._answers(model), self.oracle
        if target is not None:
            weak = now.forget > target.forget
        elif self.of_class:
            weak = now.forget > 1.0
            target = Answers(self.before.retain, 0.0, self.before.unseen, None)
        else:
            weak = (now.standing_out or 0.0) > 0
            target = Answers(self.before.retain, now.unseen or 0.0, self.before.unseen, 0.0)
        apart = {
            name: abs(here - there)
            for name in ("retain", "forget", "unseen", "standing_out")
            if (here := getattr(now, name)) is not None and (there := getattr(target, name)) is not None
        }
        facts = {name: round(value, 2) for name, value in vars(now).items() if value is not None}
        distance = sum(apart.values()) / len(apart)
        return Judged(distance, weak, {**facts, "distance": round(distance, 3)})

    def _unseen(self, sample: int, draw: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
        """Positions of unseen rows of kept classes, and of those that forget rows are compared with."""
        rows, request = self.job.unseen, self.job.request
        if rows is None:
            return None, None
        out = torch.isin(rows.y, torch.tensor([*request.classes, *request.gone_classes], dtype=torch.long))
        kept = _some((~out).nonzero().flatten(), sample, draw)
        return (kept if len(kept) else None), (None if self.of_class or not len(kept) else kept)

    def _answers(self, model: nn.Module) -> Answers:
        rows, held = self.job.request.rows, self.job.unseen
        forget, forget_loss = self._asked(model, rows, self.forget)
        retain, _ = self._asked(model, rows, self.retain)
        if held is None or self.unseen is None:
            return Answers(retain, forget, None, None)
        unseen, unseen_loss = self._asked(model, held, self.unseen)
        return Answers(retain, forget, unseen, None if self.alike is None else _standing_out(forget_loss, unseen_loss))

    def _asked(self, model: nn.Module, rows: Rows, index_N: Tensor) -> tuple[float, Tensor]:
        """Percent right, and the loss of each row."""
        z_NC = outputs(model, self.job.task, rows, index_N)
        self.job.log.examples += len(index_N)
        y_N = rows.y[index_N].cpu()
        loss_N = torch.nn.functional.cross_entropy(z_NC, y_N, reduction="none")
        return 100 * float((z_NC.argmax(1) == y_N).float().mean()), loss_N


def _standing_out(forget_N: Tensor, unseen_M: Tensor) -> float:
    """100 (2 AUC - 1) of the loss, by ranks: how often a forget row's is the lower one; ties count half."""
    ordered = unseen_M.sort().values
    below = torch.searchsorted(ordered, forget_N, right=False)
    upto = torch.searchsorted(ordered, forget_N, right=True)
    area = 1 - (below + upto).double().mean() / (2 * len(unseen_M))
    return float(100 * (2 * area - 1))


def _some(index_N: Tensor, most: int, draw: torch.Generator) -> Tensor:
    return index_N[torch.randperm(len(index_N), generator=draw)[:most]]
