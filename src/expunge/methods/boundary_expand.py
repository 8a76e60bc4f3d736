"""Boundary Expand: move the forget rows into a class of their own, and then remove that class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.layer_choice import last_layers
from expunge.method import Card, Job
from expunge.methods.gradient import GradientMethod
from expunge.phase import Term
from expunge.region import Region
from expunge.request import Request
from expunge.surrogate.assign import Assign
from expunge.task.base import Task
from expunge.task.classification import Classification
from expunge.weights import copied


@dataclass(frozen=True, kw_only=True)
class BoundaryExpand(GradientMethod):
    """Give the last layer one more output, descend on forget under that label, and take the output away again.

    Args:
        epochs: passes over forget. Default 10, as published.
        lr: default 7e-4; published 1e-5.
        batch_size: default 64, as published.
        weight_decay: default 0, as published.

    Cost: `epochs` passes over forget.
    Source: Chen et al. 2023, arXiv:2303.11570.
    """

    epochs: int = 10
    lr: float = 7e-4
    batch_size: int = 64
    weight_decay: float = 0.0

    name: ClassVar[str] = "boundary_expand"
    card: ClassVar[Card] = Card(
        title="Move the forget rows into one more class, then remove that class",
        scope=frozenset({"class"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"forget"}),
        cost="epochs × forget",
        paper="Chen et al. 2023, arXiv:2303.11570",
        dial="lr",
    )

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and a last layer that cannot be given one more output."""
        found = super().problems(model, request, task, given)
        classes, trial = request.rows.num_classes, copied(model)
        try:
            widen(head(trial, classes)[1], torch.Generator())
        except ExpungeError as error:
            return [*found, f"{self.name}: {error}"]
        told = Classification(classes=classes + 1).problems(trial, request.rows.take(request.keep[:2]))
        if told and not task.problems(model, request.rows.take(request.keep[:2])):
            found.append(f"{self.name}: one more output of the last layer does not make one more logit. {told[0]}")
        return found

    def terms(self) -> tuple[Term, ...]:
        """Forget; its label is the new one."""
        return (Term("forget"),)

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Widen, descend, narrow."""
        extra = job.request.rows.num_classes
        name, layer = head(model, extra)
        region = job.settled(model, self.region)
        widen(layer, job.run.generator("one more output"))
        terms = tuple(replace(term, surrogate=Assign(extra)) for term in self.terms())
        job.descend(model, [replace(self.phase(), terms=terms)], _widened(region, f"{name}." if name else ""))
        narrow(layer)
        return model


def head(model: nn.Module, classes: int) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The layer that makes the logits, and its name.

    Raises:
        ExpungeError: the last layer is of another kind, has another number of outputs, or shares its weights.
    """
    (last, *_) = last_layers(model, 1)
    name = next(name for name, module in model.named_modules() if module is last)
    what = f"the last layer, {name or 'the model'} ({type(last).__name__}),"
    if type(last) not in (nn.Linear, nn.Conv2d) or (isinstance(last, nn.Conv2d) and last.groups > 1):
        raise ExpungeError(f"{what} cannot be given one more output; it must be nn.Linear or nn.Conv2d of one group.")
    layer: nn.Linear | nn.Conv2d = last  # type: ignore[assignment]
    if len(layer.weight) != classes:
        raise ExpungeError(f"{what} has {len(layer.weight)} outputs, and there are {classes} classes.")
    holders = [m for m in model.modules() if any(p is layer.weight for p in m.parameters(recurse=False))]
    if len(holders) > 1:
        shared = [n for n, p in model.named_parameters(remove_duplicate=False) if p is layer.weight]
        raise ExpungeError(f"{what} shares its weights ({', '.join(shared)}), so it cannot be given one more output.")
    return name, layer


def widen(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Add an output to a layer, with weights drawn as PyTorch draws those of the layer."""
    bound = layer.weight[0].numel() ** -0.5
    for key, p in _parameters(layer).items():
        row = (torch.rand(1, *p.shape[1:], generator=generator) * 2 - 1) * bound
        _put(layer, key, torch.cat([p.detach(), row.to(p)]))


def narrow(layer: nn.Linear | nn.Conv2d) -> None:
    """Take the last output of a layer away."""
    for key, p in _parameters(layer).items():
        _put(layer, key, p.detach()[:-1].clone())


def _parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    return dict(layer.named_parameters(recurse=False))


def _put(layer: nn.Linear | nn.Conv2d, key: str, value: Tensor) -> None:
    setattr(layer, key, nn.Parameter(value, requires_grad=getattr(layer, key).requires_grad))
    if isinstance(layer, nn.Linear):
        layer.out_features = len(value)
    else:
        layer.out_channels = len(value)


def _widened(region: Region | None, prefix: str) -> Region | None:
    """The same region with the new output, which is removed afterwards, inside the masks."""
    if region is None or region.masks is None:
        return region
    masks = {
        name: torch.cat([mask, torch.ones_like(mask[:1])]) if name.startswith(prefix) else mask
        for name, mask in region.masks.items()
    }
    return replace(region, masks=masks)
