"""A training loop as a user would write it, on real digits, with a ledger beside it and notes of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import expunge as ex

OPTIMIZERS: dict[str, Callable] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=5e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3, weight_decay=0.1),
}


@dataclass
class Story:
    """What happened, written down apart from the ledger: the weights before the first and after each step."""

    weights: list[dict[str, Tensor]] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)

    def update(self, step: int, name: str) -> Tensor:
        """After minus before, in double."""
        return self.weights[step][name].double() - self.weights[step - 1][name].double()

    def touched(self, ids: Iterable[int]) -> list[int]:
        """The steps that used any of these rows, by a plain scan."""
        wanted = set(ids)
        return [s for s, batch in enumerate(self.batches, start=1) if wanted & set(batch)]


def net(seed: int = 0, norm: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    middle = [nn.BatchNorm2d(4)] if norm else []
    return nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def batches(rows: ex.Rows, epochs: int, size: int = 32, seed: int = 0, most: int = 200) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [b for _ in range(epochs) for b in torch.randperm(min(most, len(rows)), generator=generator).split(size)]


def fit(
    model: nn.Module,
    rows: ex.Rows,
    plan: list[Tensor],
    optimizer: torch.optim.Optimizer,
    ledger: ex.Ledger | None = None,
) -> Story:
    """Train on the batches of a plan; the ledger's rows are their ids."""
    story = Story([weights(model)])
    if ledger is not None:
        ledger.watch(model, optimizer)
    model.train()
    for index in plan:
        losses = F.cross_entropy(model(rows.x(index)), rows.y[index], reduction="none") / len(index)
        ids = rows.ids[index.numpy()]
        optimizer.zero_grad()
        if ledger is not None:
            ledger.uses(ids, losses if ledger.settings.record == "sample" else None)
        losses.sum().backward()
        optimizer.step()
        story.weights.append(weights(model))
        story.batches.append(ids.tolist())
    if ledger is not None:
        ledger.close()
    return story


def trained(folder, rows: ex.Rows, optimizer: str = "momentum", epochs: int = 2, norm: bool = False, **settings):
    """A trained model, its ledger, and what happened."""
    model = net(norm=norm)
    ledger = ex.Ledger(folder, **settings)
    story = fit(model, rows, batches(rows, epochs), OPTIMIZERS[optimizer](model.parameters()), ledger)
    return model, ledger, story


def subtracted(model: nn.Module, ledger: ex.Ledger, ids: Iterable[int], rows: ex.Rows, **fields) -> nn.Module:
    name = "partial_amnesiac" if "keep" in fields else "amnesiac"
    request = ex.Request(rows, ids=list(ids))
    return ex.unlearn(copy.deepcopy(model), request, name, ledger=ledger, control=False, **fields).model
