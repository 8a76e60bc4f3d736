"""Subject: one model under audit, and what it answers on the rows that matter.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from expunge.audit.attacks.scores import membership_score
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.outputs import outputs
from expunge.request import Request
from expunge.task.base import Task


@dataclass(frozen=True)
class Cost:
    """What it took to make a model.

    Args:
        seconds: wall-clock time; none when unknown.
        examples: rows shown, counted each time; none when unknown.
        cached: whether the time was measured by an earlier process.
    """

    seconds: float | None = None
    examples: int | None = None
    cached: bool = False


@dataclass(frozen=True)
class Ground:
    """The rows that an audit asks about.

    Args:
        forget: rows that had to go.
        retain: training rows that may stay.
        unseen: rows never trained on, without the forgotten and the gone classes.
        alike: rows never trained on that are like the forgotten ones: of the forgotten classes, or all unseen
            rows when single samples go. The attacks compare forget with these.
        forgotten: unseen rows of the forgotten classes; none when single samples go.
    """

    forget: Rows
    retain: Rows
    unseen: Rows
    alike: Rows
    forgotten: Rows | None

    @classmethod
    def of(cls, request: Request, unseen: Rows) -> Ground:
        """The ground of a request, given rows that were never trained on.

        Raises:
            ExpungeError: unseen rows of another shape or other classes, or none of the kept classes.
        """
        rows = request.rows
        if unseen.shape != rows.shape or unseen.num_classes != rows.num_classes:
            raise ExpungeError(
                f"Unseen rows must be like the training rows, of shape {rows.shape} with {rows.num_classes} classes; "
                f"got {unseen.shape} with {unseen.num_classes}."
            )
        out = torch.isin(unseen.y, torch.tensor([*request.classes, *request.gone_classes], dtype=torch.long))
        of_class = torch.isin(unseen.y, torch.tensor(request.classes, dtype=torch.long))
        if out.all():
            raise ExpungeError(
                "No unseen row is of a kept class, so nothing can be said about what the model can still do."
            )
        rest = unseen.take((~out).nonzero().flatten())
        forgotten = unseen.take(of_class.nonzero().flatten()) if of_class.any() else None
        alike = forgotten if forgotten is not None else rest
        return cls(rows.take(request.forget), rows.take(request.keep), rest, alike, forgotten)


@dataclass
class Subject:
    """One model under audit.

    Args:
        method: the name of its row.
        seed: which of the paired runs it belongs to.
        model: any module that the task can score.
        task: what it computes.
        ground: the rows to ask about.
        cost: what it took to make.
        source: `"trained"`, `"unlearned"` or `"given"`.
        settings: hyper-parameters, for the record.
        facts: what was measured while it was made, as plain data.
        failed: why there is no such model, and so no answers; empty where there is one.
        scores: what the model answered, by part; the same model under another name shares them.
        memo: what was computed from the scores already.
    """

    method: str
    seed: int
    model: nn.Module = field(repr=False)
    task: Task = field(repr=False)
    ground: Ground = field(repr=False)
    cost: Cost = field(default_factory=Cost)
    source: str = "given"
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""
    scores: dict[str, Tensor] = field(default_factory=dict, repr=False)
    memo: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)

    @property
    def forget(self) -> Tensor:
        """Scores on the forget rows, (N, C)."""
        return self._scores("forget", self.ground.forget)

    @property
    def retain(self) -> Tensor:
        """Scores on the retain rows, (N, C)."""
        return self._scores("retain", self.ground.retain)

    @property
    def unseen(self) -> Tensor:
        """Scores on unseen rows of kept classes, (N, C)."""
        return self._scores("unseen", self.ground.unseen)

    @property
    def alike(self) -> Tensor:
        """Scores on unseen rows like the forgotten ones, (N, C)."""
        return self.unseen if self.ground.alike is self.ground.unseen else self._scores("alike", self.ground.alike)

    def _scores(self, part: str, rows: Rows) -> Tensor:
        if self.failed:
            raise ExpungeError(self.failed)
        if part not in self.scores:
            scores = outputs(self.model, self.task, rows)
            if not torch.isfinite(scores).all():
                raise ExpungeError(
                    f"{self.method} (seed {self.seed}) answers NaN or infinity; its weights are damaged."
                )
            self.scores[part] = scores
        return self.scores[part]

    def right(self, part: str) -> NDArray[np.float64]:
        """For each row of `forget`, `retain`, `unseen` or `alike`: 1 where the answer is right, otherwise 0; (N,)."""
        rows: Rows = getattr(self.ground, part)
        scores: Tensor = getattr(self, part)
        return (scores.argmax(1) == rows.y).double().numpy()

    def membership(self, feature: str, part: str) -> NDArray[np.float64]:
        """How much each row of a part looks like training data, by one feature, (N,)."""
        rows: Rows = getattr(self.ground, part)
        return membership_score(feature, getattr(self, part), rows.y)
