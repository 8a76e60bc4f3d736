"""Retrace: a ledger told as curves and maps: along the training, along the subtraction, over the touched share.

The figures of the amnesiac papers, as plain data that a report draws: accuracy on targeted and retained rows along
training and unlearning, efficacy against the share of affected batches, class activation maps before and after.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge import explain, io
from expunge.artifact.ledger import Ledger
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.norms import has_statistics, recalibrate
from expunge.outputs import percent_right
from expunge.request import Request
from expunge.run import Run, derive
from expunge.task.base import Task

POINTS = 16
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
MOST_ROWS = 2000  # of each part that is looked at along the way
MAPS = 4


class Retrace:
    """One original with its ledger, looked at from the outside.

    Args:
        model: the original that the ledger ends at.
        ledger: of its training.
        request: what must go.
        unseen: rows never trained on.
        task: what the model computes.
        run: seed and device.
    """

    def __init__(self, model: nn.Module, ledger: Ledger, request: Request, unseen: Rows, task: Task, run: Run) -> None:
        self.model, self.ledger, self.request, self.task, self.run = model, ledger, request, task, run
        self.reader = ledger.reader()
        targeted = torch.isin(unseen.y, torch.tensor(request.classes))
        if request.classes:
            self.targeted, self.retained = _some(unseen, targeted), _some(unseen, ~targeted)
        else:
            self.targeted, self.retained = request.rows.take(request.forget[:MOST_ROWS]), _some(unseen, ~targeted)
        self.averaging = request.keep[torch.randperm(len(request.keep), generator=run.generator("retrace"))[:MOST_ROWS]]

    def tell(self, methods: Mapping[str, float | None], models: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Everything at once.

        Args:
            methods: for each row that subtracts, the share of each layer it takes back; none for all.
            models: those to draw activation maps of, by the name of their row.
        """
        touched = self.ledger.touched(self.request)
        about = {
            "keep": self.ledger.settings.keep,
            "record": self.ledger.settings.record,
            "steps": touched.total,
            "touched": len(touched.steps),
            "bytes": self.ledger.size,
            "rows": "unseen rows of the targeted classes" if self.request.classes else "the targeted rows themselves",
        }
        by_update = self.ledger.settings.record == "update"
        there = np.intersect1d(touched.steps, self.ledger.stored)
        curves = {row: self.unlearning(there, keep) for row, keep in methods.items()} if by_update else {}
        shares = {row: self.affected(keep) for row, keep in methods.items()} if by_update else {}
        told = {"training": self.training(), "unlearning": curves, "affected": shares, "maps": self.maps(models)}
        return {**about, **told}

    def training(self) -> list[dict[str, float]]:
        """Accuracy along the training, which a ledger of whole updates replays; empty for any other."""
        start = self.ledger.path / "start.safetensors"
        if not self.ledger.whole or not start.is_file():
            return []
        weights = {n: t.double() for n, t in io.read_tensors(start)[0].items()}
        found = [{"step": 0, **self._look(weights)}]
        for steps in _pieces(np.arange(1, self.ledger.steps + 1), POINTS):
            for name, moved in self.reader.total(steps).items():
                if name in weights:
                    weights[name] += moved
            found.append({"step": int(steps[-1]), **self._look(weights)})
        return found

    def unlearning(self, steps: np.ndarray, keep: float | None) -> list[dict[str, float]]:
        """Accuracy along the subtraction of the touched steps, from the first to the last."""
        found = [{"share": 0.0, **self._look({})}]
        for done, weights in self._subtracted(_pieces(steps, POINTS), keep):
            found.append({"share": done / max(len(steps), 1), **self._look(weights)})
        return found

    def affected(self, keep: float | None) -> list[dict[str, float]]:
        """Accuracy on all unseen rows after subtracting a random share of all steps, whoever took part in them."""
        total, stored = self.ledger.steps, self.ledger.stored
        order = np.random.default_rng(derive(self.run.seed, "affected")).permutation(stored)
        ends = [max(1, round(share * total)) for share in SHARES if share * total <= len(stored)]
        pieces = [order[a:b] for a, b in zip([0, *ends], ends)]
        found = [{"share": 0.0, **self._look({})}]
        for done, weights in self._subtracted(pieces, keep):
            found.append({"share": done / total, **self._look(weights)})
        return found

    def maps(self, models: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
        """Grad-CAM maps of the targeted class in some unseen images, under each model; empty where there are none."""
        if not self.request.classes or not len(self.targeted) or len(self.targeted.shape) != 3:
            return []
        x_BCHW, y_B = self.targeted.x(torch.arange(min(MAPS, len(self.targeted)))), self.targeted.y[:MAPS]
        found = {}
        for row, model in models.items():
            try:
                found[row] = explain.grad_cam(copy.deepcopy(model).cpu(), x_BCHW, y_B)
            except ExpungeError:  # a model without a place to look at
                return []
        return explain.pictures(x_BCHW, found, together=True)

    def _subtracted(self, pieces: Iterable[np.ndarray], keep: float | None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        weights = {n: p.detach().cpu().double().clone() for n, p in self.model.named_parameters()}
        done = 0
        for steps in pieces:
            for name, moved in self.reader.total(steps, keep).items():
                if name in weights:
                    weights[name] -= moved
            done += len(steps)
            yield done, weights

    def _look(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """The accuracy in percent of the original with these weights, on targeted and on retained rows if any."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in weights:
                    p.copy_(weights[name].to(p))
        if weights and has_statistics(model):
            recalibrate(model, self.request.rows, self.averaging, self.run)
        parts = {"targeted": self.targeted, "retained": self.retained}
        return {part: round(percent_right(model, self.task, rows), 2) for part, rows in parts.items() if len(rows)}


def _some(rows: Rows, where: Tensor) -> Rows:
    index = where.nonzero().flatten()
    return rows.take(index[torch.linspace(0, len(index) - 1, min(MOST_ROWS, len(index))).long()])


def _pieces(steps: Sequence[int] | np.ndarray, count: int) -> list[np.ndarray]:
    return [piece for piece in np.array_split(np.asarray(steps), count) if len(piece)]
