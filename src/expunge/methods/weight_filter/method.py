"""The method: gates from the store or one round of learning, then one row of them in the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from expunge.artifact import Store
from expunge.artifact.activations import find_layers
from expunge.artifact.gates import Gated, choose
from expunge.data.rows import Rows
from expunge.descend import Log
from expunge.errors import collected, raise_if
from expunge.io import index_digest, model_digest
from expunge.method import Card, Job, Method
from expunge.methods.weight_filter.learning import Round, learn
from expunge.modes import eval_mode, plain_attention
from expunge.phase import descent_problems
from expunge.request import GONE, Request
from expunge.run import Run
from expunge.structure import structure_digest
from expunge.task.base import Task
from expunge.task.classification import Classification

DOUBT = 0.05  # share of a class's rows shown that may still be recognised without a word
TOLD = 10  # units of each class that are named


@dataclass(frozen=True, kw_only=True)
class WeightFilter(Method):
    """Learn, for every class at once, which filters, neurons and parts of attention must be closed to forget it.

    Args:
        epochs: passes of the round over `per_class` rows of each class, for either term. Default 8. This and the other
            defaults are ours: the abstract and summaries that we have of the paper give the loss, but no settings.
        lr: of Adam on the gates' logits, above 0. Default 0.2.
        batch_size: rows of each term in a step at most. Default 128.
        per_class: rows of each class that an epoch shows; none for all. Default 300.
        draws: T, the rows of gates, of other classes, that each retained row is shown under. Default 2.
        floor: δ, added to the cross-entropy before its reciprocal is taken, above 0. Default 0.1; with the published 0,
            rows that the model is sure of have gradients that drown all others.
        retain: λ0, weight of the retain term. Default 3.
        reject: λ1, weight of the forget term. Default 1.
        insist: how fast, in the second half of the round, λ1 of a class rises with the share of its rows that are still
            recognised; 0 for one λ1, as published. Default 1.
        closed: λ2, weight of the mean of 1 - α, 0 or more: larger closes fewer gates. Default 0.1.
        start: logit of every gate at the beginning. Default 3, α = 0.95.
        gates: `"classes"` (default): a row for each class, so that any class can be forgotten later; several at once
            take the least of their gates. `"request"`: one row for the request's classes together, which forgets
            several better, and nothing else.
        layers: globs on names of weights or modules that get gates. Default: all linear, convolutional and attention
            layers but the head, and but a first convolution that cuts the image into patches.
        hard: gates in the result are 0 (α below 0.5) or 1. Default no.
        keep_gates: keep the gates in the store, so that another request on the same model needs no round. Default yes.

    Raises:
        ExpungeError: no layer that can be gated, or activations that are not finite.

    Cost: `epochs` × (1 + `draws`) passes over `per_class` rows of each class, without gradients of weights.
    Source: Poppi et al. 2024, arXiv:2304.02049.
    """

    epochs: int = 8
    lr: float = 0.2
    batch_size: int = 128
    per_class: int | None = 300
    draws: int = 2
    floor: float = 0.1
    retain: float = 3.0
    reject: float = 1.0
    insist: float = 1.0
    closed: float = 0.1
    start: float = 3.0
    gates: Literal["classes", "request"] = "classes"
    layers: tuple[str, ...] | None = None
    hard: bool = False
    keep_gates: bool = True

    name: ClassVar[str] = "weight_filter"
    card: ClassVar[Card] = Card(
        title="Learn gates on filters, neurons and attention for all classes at once; fold some into the weights",
        scope=frozenset({"class"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="epochs × (1 + draws) × a sample of all classes; nothing for later requests",
        paper="Poppi et al. 2024, arXiv:2304.02049",
        dial="reject",
    )

    def __post_init__(self) -> None:
        problems = descent_problems(vars(self))
        for name in ("per_class", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"{name} must be 1 or more; got {value!r}.")
        for name in ("retain", "reject", "insist", "closed"):
            if not 0 <= getattr(self, name) < math.inf:
                problems.append(f"{name} must be 0 or more; got {getattr(self, name)!r}.")
        if not 0 < self.floor < math.inf:
            problems.append(f"floor must be above 0; got {self.floor!r}. For the published loss, set 1e-8.")
        if not math.isfinite(self.start):
            problems.append(f"start must be a finite number; got {self.start!r}.")
        if self.layers is not None and not self.layers:
            problems.append("layers must name one layer at least; for all but the head, leave it out.")
        raise_if([f"{self.name}: {p}" for p in problems])

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, layers that cannot be gated, and retain rows of a class that must go."""
        found = super().problems(model, request, task, given)
        layers, others = find_layers(model)
        if not layers:
            has = f" It has {', '.join(others[:5])}." if others else ""
            found.append(f"{self.name} gates linear, convolutional and attention layers; the model has none.{has}")
        inside = torch.isin(request.rows.y[request.keep], torch.tensor(request.classes, dtype=torch.long))
        if inside.any():
            found.append(
                f"{int(inside.sum()):,} of the {len(inside):,} retain rows are of a class that must go. Name the "
                "classes in the request: Request(rows, classes=[...])."
            )
        there = _there(request)
        if not found and not task.problems(model, request.rows.take(there[:2])):
            with collected(found, f"{self.name}: "):
                self._on(copy.deepcopy(model), request.rows, there, [_going(request)], Run())
        return found

    def prepare(self, model: nn.Module, rows: Rows, *, task: Task | None = None, run: Run | None = None) -> Gated:
        """The gates of every class of these rows, on a copy of the model; for several requests, and to look at.

        Args:
            model: is not changed.
            rows: of all classes.
            task: what the model computes. Default: classification over the classes of the rows.
            run: seed, device, precision.
        """
        task, run = task or Classification(classes=rows.num_classes), run or Run()
        raise_if(task.problems(model, rows))
        sets = [(c,) for c in rows.y.unique().tolist()]
        return self._gated(copy.deepcopy(model), rows, torch.arange(len(rows)), sets, task, run, Log())

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Take the gates from the store, or learn them; fold those of the request."""
        request = job.request
        index = _there(request)
        there = request.rows.y[index].unique().tolist()
        sets = [(c,) for c in there] if self.gates == "classes" else [_going(request)]
        gated = self._gated(model, request.rows, index, sets, job.task, job.run, job.log)
        job.made["gates"] = gated
        job.log.facts["gates"] = self._told(gated, request.rows)
        job.log.notes += self._doubts(gated, request)
        return gated.forgetting(_going(request))

    def forgetting(self, made: Mapping[str, Any], request: Request) -> nn.Module:
        """The original model without other classes; nothing is learned."""
        gated: Gated = made["gates"]
        return gated.forgetting(_going(request))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _gated(
        self,
        model: nn.Module,
        rows: Rows,
        index: Tensor,
        sets: Sequence[tuple[int, ...]],
        task: Task,
        run: Run,
        log: Log,
    ) -> Gated:
        """The gates for these sets of classes; the model becomes part of what is returned."""
        gated, notes = self._on(model, rows, index, sets, run)
        log.notes += notes
        key = self._key(gated, rows, index, task, run)
        store = Store() if self.keep_gates and key["task"] is not None else None
        kept = store.get(key) if store is not None else None
        if kept is not None:
            with torch.no_grad():
                gated.free.copy_(kept[0]["free"])
            gated.left = tuple(kept[1]["left"])
            return gated
        learned = learn(gated, rows, index, task, self._round(), run)
        log.add(learned)
        if store is not None:
            about = {"seconds": learned.seconds, "examples": learned.examples, "left": list(gated.left)}
            log.notes += store.keep("The gates are", key, {"free": gated.free}, about)
        return gated

    def _on(
        self, model: nn.Module, rows: Rows, index: Tensor, sets: Sequence[tuple[int, ...]], run: Run
    ) -> tuple[Gated, list[str]]:
        """Open gates on the layers that can have some, and what was left out; refused where there is none."""
        device = run.device_of(model)
        model.to(device)
        x_2 = rows.x(_two(rows, index)).to(device)
        with run.isolated(), plain_attention():
            with eval_mode(model):
                layers, notes = choose(model, x_2, rows.num_classes, self.layers)
            gated = Gated(model, layers, sets, self.start, self.hard).to(device)
            gated.check(x_2, run.generator("check"))
        return gated, notes

    def _round(self) -> Round:
        return Round(**{f.name: getattr(self, f.name) for f in fields(Round)})

    def _key(self, gated: Gated, rows: Rows, index: Tensor, task: Task, run: Run) -> dict[str, Any]:
        """Everything that the learned gates depend on, which is nothing of the request in hand."""
        model = gated.frozen
        whole = replace(task, without=()) if isinstance(task, Classification) else task  # only its scores count
        return {
            "kind": "gates",
            "version": self.card.version,
            "model": model_digest(model),
            "structure": structure_digest(model),
            "layers": [layer.name for layer in gated.layers],
            "sets": gated.sets,
            "rows": rows.hash,
            "part": index_digest(index),
            "task": whole.key,
            "learning": {"start": self.start, **asdict(self._round())},
            "seed": run.seed,
            "device": run.device_of(model).type,
            "precision": run.precision,
            "augment": run.augment,
        }

    def _doubts(self, gated: Gated, request: Request) -> list[str]:
        """What the round says against its own result, for the classes of this request."""
        found = []
        for members, share in zip(gated.sets, gated.left):
            if share > DOUBT and set(members) & set(request.classes):
                names = " and ".join(request.rows.classes[c] for c in members)
                found.append(
                    f"The gates that should forget class {names} leave {100 * share:.0f} % of its rows recognised. The "
                    "model may be too sure of them for the loss to begin (lower floor or closed, or set start to 0), "
                    "or have too few units (lower retain, or take another method)."
                )
        return found

    def _told(self, gated: Gated, rows: Rows) -> dict[str, Any]:
        """The map from classes to components as plain data: how far each layer is closed, and what is closed most."""
        names = [" and ".join(rows.classes[c] for c in members) for members in gated.sets]
        shut_RU = 1 - gated.gates().detach().cpu()
        by_layer = gated.split(shut_RU)
        unit_names = [f"{layer.name}:{k}" for layer, part in by_layer.items() for k in range(part.shape[1])]
        most = shut_RU.topk(min(TOLD, shut_RU.shape[1]), 1)
        return {
            "classes": names,
            "left": [round(100 * share, 2) for share in gated.left],
            "layers": [{"name": layer.name, "units": part.shape[1]} for layer, part in by_layer.items()],
            "closed": [[round(float(part[r].mean()), 4) for part in by_layer.values()] for r in range(len(names))],
            "most": [
                [[unit_names[u], round(float(v), 3)] for v, u in zip(most.values[r], most.indices[r].tolist())]
                for r in range(len(names))
            ],
        }


def _there(request: Request) -> Tensor:
    """The positions of the rows that had not gone before."""
    return (request.state != GONE).nonzero().flatten()


def _going(request: Request) -> tuple[int, ...]:
    """The classes of a request of which there still are rows."""
    return tuple(request.rows.y[request.forget].unique().tolist())


def _two(rows: Rows, index: Tensor) -> Tensor:
    """The positions of two rows, of two classes where there are so many."""
    y = rows.y[index]
    other = (y != y[0]).nonzero().flatten()
    return torch.stack([index[0], index[other[0] if len(other) else -1]])
