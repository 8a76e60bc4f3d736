"""Partial updates: how much of each layer one step may change.

A region says where weights may move at all; this says how many of them move in one step. The mask lies on the *update*,
after the optimiser has made it: masking the gradient would not do, as momentum, Adam and weight decay move entries
whose gradient is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.errors import UnknownName, collected, raise_if
from expunge.largest import check_keep, count, largest
from expunge.optimizers import around_step
from expunge.weights import anchored

Rule = Literal["topk_step", "random_step", "sequential", "fixed_topk", "layer_subset"]
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True)
class PartialUpdate:
    """At most k entries of each tensor change in one step; the others stay bit-identical.

    Args:
        keep: the share of each tensor's entries that may change, above 0 and up to 1: k = max(1, round(keep * n)) of
            the n that a region lets move. 1 is the optimiser's own step, to the bit.
        rule: which ones.
            `"topk_step"` (default): those of the largest update, anew in each step; entries whose update is zero are
            not among them, and of equal ones the first are.
            `"random_step"`: drawn anew in each step.
            `"sequential"`: contiguous blocks, one after the other, from the end on to the beginning.
            `"fixed_topk"`: those of the largest gradient in the first step, for all steps.
            `"layer_subset"`: all entries of `max(1, round(keep * layers))` layers and none of the others, for all
            steps; a layer is a module with its weight and bias, those with the largest mean |gradient| in the first
            step are taken.

    Raises:
        ExpungeError: a share outside (0, 1], an unknown rule.

    The optimiser's state is its own and is left alone: momentum and Adam go on averaging every gradient, also those of
    entries that are held back, so such an entry carries its past when its turn comes.

    Source: layer-wise partial updates, Gogineni and Nadimi 2024, arXiv:2403.07611. The paper's mask rule could not be
    read; largest updates mirror its layer-wise pruning, random and sequential ones are those of adaptive filters.
    """

    keep: float
    rule: Rule = "topk_step"

    def __post_init__(self) -> None:
        raise_if(partial_problems(self.keep, self.rule))

    @contextmanager
    def enforce(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        moves: Mapping[str, Tensor | bool] | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[None]:
        """Hold back the rest of every update of `optimizer`, inside a `with` block.

        Args:
            model: the model that it steps.
            optimizer: any; what counts is the weights before and after its `step()`.
            moves: for each parameter's name whether it moves, or a mask, as `Region.resolve` has it. Default: all do.
            generator: all randomness. Default: one with seed 0.

        Costs a copy of the weights, and a selection in each step.
        """
        if self.keep == 1:
            yield
            return
        cells = _cells(model, moves)
        choose = self._chooser(cells, generator or torch.Generator().manual_seed(0))

        def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            for cell in cells:
                cell.before.copy_(cell.parameter.detach())

        def hold_back(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            for cell in cells:
                cell.hold_back(choose(cell))

        end = around_step(optimizer, note, hold_back)
        try:
            yield
        finally:
            end()

    def _chooser(self, cells: list[_Cell], generator: torch.Generator) -> Callable[[_Cell], Tensor]:
        """A function from a tensor, just stepped, to the numbers of those of its entries that may keep the step."""
        if self.rule == "topk_step":
            return lambda cell: largest(cell.update(), self.keep)
        if self.rule == "random_step":
            return lambda cell: torch.randperm(cell.size, generator=generator)[: count(cell.size, self.keep)]
        if self.rule == "sequential":
            return lambda cell: cell.next_block(count(cell.size, self.keep))
        fixed: dict[int, Tensor] = {}

        def once(cell: _Cell) -> Tensor:
            if not fixed:
                first = self._largest_gradients if self.rule == "fixed_topk" else self._steepest_layers
                fixed.update(zip(map(id, cells), first(cells)))
            return fixed[id(cell)]

        return once

    def _largest_gradients(self, cells: list[_Cell]) -> list[Tensor]:
        return [largest(cell.gradient(), self.keep) for cell in cells]

    def _steepest_layers(self, cells: list[_Cell]) -> list[Tensor]:
        sums: dict[str, float] = {}
        sizes: dict[str, int] = {}
        for cell in cells:
            sums[cell.layer] = sums.get(cell.layer, 0.0) + float(cell.gradient().double().abs().sum())
            sizes[cell.layer] = sizes.get(cell.layer, 0) + cell.size
        many = count(len(sums), self.keep)
        chosen = sorted(sums, key=lambda layer: -sums[layer] / sizes[layer])[:many]
        return [torch.arange(cell.size if cell.layer in chosen else 0) for cell in cells]


@dataclass
class _Cell:
    """A tensor under partial updates: n of its entries may move, those at `inside` of the flat tensor, or all."""

    layer: str
    parameter: nn.Parameter
    inside: Tensor | None
    before: Tensor = field(repr=False)
    start: int = 0

    @property
    def size(self) -> int:
        return self.before.numel() if self.inside is None else len(self.inside)

    def update(self) -> Tensor:
        """What the step did to the entries that may move, (n,)."""
        return self._inside(self.parameter.detach() - self.before)

    def gradient(self) -> Tensor:
        """The gradient of the entries that may move, (n,); zero where there is none."""
        grad = self.parameter.grad
        return self._inside(torch.zeros_like(self.before) if grad is None else grad.detach())

    def next_block(self, many: int) -> Tensor:
        block = torch.arange(self.start, self.start + many) % self.size
        self.start = (self.start + many) % self.size
        return block

    def hold_back(self, chosen: Tensor) -> None:
        """Undo the step but for the chosen numbers out of n."""
        chosen = chosen.to(self.before.device)
        kept = torch.zeros(self.before.numel(), dtype=torch.bool, device=self.before.device)
        kept[chosen if self.inside is None else self.inside[chosen]] = True
        stepped = self.parameter.detach()
        stepped.copy_(torch.where(kept.view(self.before.shape), stepped, self.before))

    def _inside(self, x: Tensor) -> Tensor:
        return x.flatten() if self.inside is None else x.flatten()[self.inside]


def _cells(model: nn.Module, moves: Mapping[str, Tensor | bool] | None) -> list[_Cell]:
    cells = []
    for name, parameter, mask, before in anchored(model, moves):
        inside = None if mask is None else mask.flatten().nonzero().squeeze(1)
        cells.append(_Cell(name.rpartition(".")[0], parameter, inside, before))
    return cells


def partial_problems(keep: Any, rule: Any) -> list[str]:
    """What is wrong with the settings of a partial update, a sentence each."""
    found: list[str] = []
    with collected(found):
        check_keep(keep)
    if rule not in RULES:
        found.append(str(UnknownName("rule", rule, RULES)))
    return found
