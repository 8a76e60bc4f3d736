"""What a retrained model would be like, known without one: the rule by which a search judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.method import Job
from expunge.outputs import outputs
from expunge.request import Request
from expunge.task.base import Task

TOLERATED = 1.0  # percent of a forgotten class


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
    """What one model says, in percent.

    Args:
        retain: of the rows are right.
        forget: of the rows are right.
        unseen: of the rows of kept classes are right; none without such rows.
        called: of the forget rows a threshold on the confidence calls non-members, the one that tells retain from
            unseen rows best; none without unseen rows, and for classes.
        alike: of the unseen rows it calls non-members.
    """

    retain: float
    forget: float
    unseen: float | None = None
    called: float | None = None
    alike: float | None = None


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
        self.unseen = self._unseen(sample, draw)
        self.before = self._answers(original)
        self.oracle = self._answers(oracle) if oracle is not None else None

    def __call__(self, model: nn.Module) -> Judged:
        """The judgement on a model."""
        now, target = self._answers(model), self.oracle
        if target is not None:
            excess = now.forget - target.forget + (target.called or 0.0) - (now.called or 0.0)
        elif self.of_class:
            excess = now.forget - TOLERATED
            target = Answers(self.before.retain, 0.0, self.before.unseen)
        else:
            excess = now.forget - (now.unseen or 0.0) + (now.alike or 0.0) - (now.called or 0.0)
            target = Answers(self.before.retain, now.unseen or 0.0, self.before.unseen, now.alike)
        apart = {
            name: abs(here - there)
            for name in ("retain", "forget", "unseen", "called")
            if (here := getattr(now, name)) is not None and (there := getattr(target, name)) is not None
        }
        facts = {name: round(value, 2) for name, value in vars(now).items() if value is not None}
        distance = sum(apart.values()) / len(apart)
        return Judged(distance, excess > 0, {**facts, "distance": round(distance, 3)})

    def _unseen(self, sample: int, draw: torch.Generator) -> Tensor | None:
        """Positions of unseen rows of kept classes."""
        if self.job.unseen is None:
            return None
        kept = _some(_kept(self.job.request, self.job.unseen), sample, draw)
        return kept if len(kept) else None

    def _answers(self, model: nn.Module) -> Answers:
        rows, held = self.job.request.rows, self.job.unseen
        forget, forget_N = self._asked(model, rows, self.forget)
        retain, retain_N = self._asked(model, rows, self.retain)
        if held is None or self.unseen is None:
            return Answers(retain, forget)
        unseen, unseen_N = self._asked(model, held, self.unseen)
        if self.of_class:
            return Answers(retain, forget, unseen)
        least = threshold(retain_N, unseen_N)
        called, alike = (100 * float((p_N < least).float().mean()) for p_N in (forget_N, unseen_N))
        return Answers(retain, forget, unseen, called, alike)

    def _asked(self, model: nn.Module, rows: Rows, index_N: Tensor) -> tuple[float, Tensor]:
        """Percent right, and the confidence in the true label of each row."""
        z_NC = outputs(model, self.job.task, rows, index_N)
        self.job.log.examples += len(index_N)
        y_N = rows.y[index_N].cpu()
        confidence_N = z_NC.softmax(1).gather(1, y_N[:, None]).squeeze(1)
        return 100 * float((z_NC.argmax(1) == y_N).float().mean()), confidence_N


def unseen_problems(model: nn.Module, request: Request, task: Task, rows: Rows) -> list[str]:
    """Why these unseen rows are nothing to judge by, a sentence each."""
    if request.scope == "samples" and not len(_kept(request, rows)):
        return [
            f"unseen ({rows.name}) holds no row of a class that stays; what forgotten rows are to be like is asked "
            "of such rows."
        ]
    if len(rows) and rows.shape != request.rows.shape:
        return task.problems(model, rows.take(torch.arange(min(2, len(rows)))))
    return []


def _kept(request: Request, rows: Rows) -> Tensor:
    """Positions of the rows whose class stays."""
    out = torch.isin(rows.y, torch.tensor([*request.classes, *request.gone_classes], dtype=torch.long))
    return (~out).nonzero().flatten()


def threshold(members_N: Tensor, others_M: Tensor) -> float:
    """The confidence from which on to call a row a member: most members and fewest others reach it."""
    values = torch.cat([members_N, others_M]).unique()
    reached, false = (1 - torch.searchsorted(p.sort().values, values) / len(p) for p in (members_N, others_M))
    return float(values[(reached - false).argmax()])


def _some(index_N: Tensor, most: int, draw: torch.Generator) -> Tensor:
    return index_N[torch.randperm(len(index_N), generator=draw)[:most]]
