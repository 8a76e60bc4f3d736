"""The method: statistics by class, then the pair of scales that does best on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact import Store
from expunge.artifact.activations import Layer, by_class, find_layers
from expunge.errors import few, raise_if
from expunge.method import Card, Job, Method
from expunge.methods.svd_forget.edit import Edits
from expunge.request import GONE, Request
from expunge.task.base import Task

FEW = 10  # rows of a class, below which its space is told to be poor


@dataclass(frozen=True, kw_only=True)
class SVDForget(Method):
    """Multiply every weight with a matrix that removes the inputs' directions of the forgotten classes, once.

    Args:
        scale_retain: α_r to try, each above 0, rising; larger ones protect more of what the retained classes use.
            Default 10 to 1000, the published grid.
        scale_forget: α_f to try, each above 0, rising; larger ones remove more, up to a point. Default 0.3 to 100: the
            published grid, and 0.3, which did best for three of ten classes of Fashion-MNIST (`lenet`). With one pair
            of scales nothing is tried, no row held out, and no model evaluated.
        samples: rows of each class whose activations are looked at, 1 or more. Default 100, as published for CIFAR-10
            (there 900 for the forgotten class).
        validation: rows of either side, retained and forgotten, that pairs are compared on; training rows whose
            activations are not looked at. Default 500.
        keep_statistics: keep the sums of each class in the store, so that another request on the same model needs no
            forward pass for them. Default yes.

    Raises:
        ExpungeError: no layer that can be edited, a class of one row where pairs are compared, activations that are not
            finite.

    Cost: one forward pass over `samples` rows of each class, and one over the held-out rows for each pair tried.
    Source: Kodge, Saha & Roy 2024, arXiv:2312.00761.
    """

    scale_retain: tuple[float, ...] = (10.0, 30.0, 100.0, 300.0, 1000.0)
    scale_forget: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    samples: int = 100
    validation: int = 500
    keep_statistics: bool = True

    name: ClassVar[str] = "svd_forget"
    card: ClassVar[Card] = Card(
        title="Remove the forgotten classes' directions of activation from every weight, without training",
        scope=frozenset({"class"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="forward over samples × classes, and over held-out rows for each pair of scales",
        paper="Kodge et al. 2024, arXiv:2312.00761",
    )

    def __post_init__(self) -> None:
        problems = []
        for field in ("scale_retain", "scale_forget"):
            scales = getattr(self, field)
            good = scales and all(0 < s < math.inf for s in scales)
            if not good or list(scales) != sorted(set(scales)):
                problems.append(f"{field} must be one or more finite numbers above 0, rising; got {scales!r}.")
        for field in ("samples", "validation"):
            if getattr(self, field) < 1:
                problems.append(f"{field} must be 1 or more; got {getattr(self, field)!r}.")
        raise_if([f"{self.name}: {p}" for p in problems])

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and no layer to edit, or classes of which too few rows are there."""
        found = super().problems(model, request, task, given)
        layers, others = find_layers(model)
        if not layers:
            has = f" It has {', '.join(others[:5])}." if others else ""
            found.append(f"{self.name} edits linear, convolutional and attention layers; the model has none.{has}")
        counts = torch.bincount(request.rows.y[request.state != GONE], minlength=request.rows.num_classes)
        alone = [request.rows.classes[c] for c in (counts == 1).nonzero().flatten().tolist()]
        if alone and len(self._pairs()) > 1:
            found.append(
                f"{self.name} needs two rows of each class, one to look at and one to hold out; there is one of "
                f"{', '.join(alone)}. Add rows, merge it with another class, or give one pair of scales, for which no "
                "row is held out."
            )
        return found

    def _pairs(self) -> list[tuple[float, float]]:
        return list(product(self.scale_retain, self.scale_forget))

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Look at the activations, and edit; the frontier of all pairs tried is noted."""
        device = job.run.device_of(model)
        model.to(device).eval()
        layers, others = find_layers(model)
        shown, held = self._rows(job)
        retain, forget = self._statistics(model, layers, shown, job)
        edits = Edits.of(layers, retain, forget)
        self._tell(layers, others, shown, edits, job)
        if held:
            chosen = self._search(model, edits, held, job)
        else:
            chosen = self._pairs()[0]
            job.log.facts["frontier"] = []
        if chosen is None:
            edits.put_back()
            job.log.notes.append(
                "No pair of scales did better on the held-out rows than the model as it is, which stays so. Try other "
                "scales."
            )
            return model
        job.log.facts["chosen"] = {"scale_retain": chosen[0], "scale_forget": chosen[1]}
        edits.put(edits.spared(chosen[0]), chosen[1])
        return model

    def _rows(self, job: Job) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """For each class, the rows to look at and those held out; they do not depend on which classes must go.

        Of the rows, a quarter at least is held out, and none where there is one pair of scales and nothing to compare.
        """
        request, compared = job.request, len(self._pairs()) > 1
        shown, held = {}, {}
        for label in request.rows.y[request.state != GONE].unique().tolist():
            mine = (request.rows.y == label).nonzero().flatten()
            order = mine[torch.randperm(len(mine), generator=job.run.generator("activations", label))]
            order = order[request.state[order] != GONE]
            n = min(self.samples, len(order) - (max(1, len(order) // 4) if compared else 0))
            shown[label] = order[:n].sort().values
            if compared:
                held[label] = order[n:]
        return shown, held

    def _statistics(
        self, model: nn.Module, layers: list[Layer], shown: dict[int, Tensor], job: Job
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The sums over the classes that stay, and over those that go, in float64."""
        retain: dict[str, Tensor] = {}
        forget: dict[str, Tensor] = {}
        store, measured = Store() if self.keep_statistics else None, 0
        for label, found, kept in by_class(model, layers, job.request.rows, shown, job.run, store, job.log.notes):
            side = forget if label in job.request.classes else retain
            for name, packed in found.items():
                if name in side:
                    side[name] += packed
                else:
                    side[name] = packed.double()
            measured += 0 if kept else len(shown[label])
        job.log.examples += measured
        job.log.facts["statistics"] = {"rows": sum(map(len, shown.values())), "measured": measured}
        return retain, forget

    def _search(self, model: nn.Module, edits: Edits, held: dict[int, Tensor], job: Job) -> tuple[float, float] | None:
        """The pair of the best score, retained × (1 - forgotten) accuracy; none when the model as it is scores better.

        Stronger forgetting is not tried where retained accuracy alone is below the best score, nor where nothing is
        left to forget.
        """
        go = set(job.request.classes)
        parts = [
            _Held.of([rows for c, rows in held.items() if (c in go) == side], self.validation, job)
            for side in (True, False)
        ]

        def measure() -> tuple[float, float]:
            forget, retain = (part.right(model, job) for part in parts)
            return forget, retain

        forget, retain = measure()
        best, chosen = retain * (1 - forget), None
        job.log.facts["before"] = {"forget": 100 * forget, "retain": 100 * retain}
        frontier: list[dict[str, Any]] = []
        for scale_retain in self.scale_retain:
            spared = edits.spared(scale_retain)
            for scale_forget in self.scale_forget:
                edits.put(spared, scale_forget)
                forget, retain = measure()
                frontier.append(
                    {
                        "scale_retain": scale_retain,
                        "scale_forget": scale_forget,
                        "forget": 100 * forget,
                        "retain": 100 * retain,
                    }
                )
                if retain * (1 - forget) > best:
                    best, chosen = retain * (1 - forget), (scale_retain, scale_forget)
                if retain < best or forget == 0:
                    break
        job.log.facts["frontier"] = frontier
        return chosen

    def _tell(self, layers: list[Layer], others: list[str], shown: dict[int, Tensor], edits: Edits, job: Job) -> None:
        if others:
            job.log.notes.append(f"Left as they are, not being linear, convolutional or attention: {few(others)}.")
        unused = [layer.name for layer in layers if layer not in edits.layers]
        if unused:
            job.log.notes.append(f"Left as they are, as rows of these classes do not reach them: {few(unused)}.")
        poor = [job.request.rows.classes[c] for c, rows in shown.items() if len(rows) < min(FEW, self.samples)]
        if poor:
            job.log.notes.append(f"Fewer than {FEW} rows to look at, so that the spaces are poor: class {few(poor)}.")


@dataclass(frozen=True)
class _Held:
    """Held-out rows, read once."""

    x: list[Tensor]
    y: list[Tensor]

    @classmethod
    def of(cls, classes: list[Tensor], count: int, job: Job) -> _Held:
        """About `count` rows, as many of each class as the others."""
        each = math.ceil(count / len(classes))
        index = torch.cat([rows[:each] for rows in classes]).split(250)
        return cls([job.request.rows.x(part) for part in index], [job.request.rows.y[part] for part in index])

    def right(self, model: nn.Module, job: Job) -> float:
        """The share of the rows that a model answers right."""
        device, hits = job.run.device_of(model), 0
        with job.run.isolated(), torch.no_grad():
            for x_B, y_B in zip(self.x, self.y):
                hits += int((job.task.scores(model, x_B.to(device)).argmax(1).cpu() == y_B.cpu()).sum())
                job.log.examples += len(y_B)
        return hits / sum(map(len, self.y))
