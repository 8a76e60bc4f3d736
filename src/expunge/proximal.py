"""Proximal: after every step each weight is drawn back towards where it began, less and less.

So the weights that need not move return, to the bit, and training itself chooses those that may: a soft mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.optimizers import around_step
from expunge.weights import anchored

Schedule = Literal["rank", "beta"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)


@dataclass(frozen=True)
class Proximal:
    """A soft threshold τ on θ - θ_o after each step s = 1..T: θ ← θ_o + sign(d) max(|d| - τ, 0) with d = θ - θ_o.

    The anchor θ_o is the model as it is when the block begins. A deviation of at most τ is gone afterwards, bit by bit.

    Args:
        schedule: `"rank"`: τ is the k-th smallest |d| of all n weights that may move, k = int(strength (1 - s/T) n), so
            that the k smallest are gone; below 1, none. `"beta"`: τ = strength · rate · (1 - s/T), the proximal step of
            the penalty strength · (1 - s/T) · ‖θ - θ_o‖₁ at the optimiser's current rate.
        strength: ρ, the share that is put back at first, from 0 to 1; or β, 0 or more.
        steps: T, 1 or more. From step T on the threshold is 0.
    """

    schedule: Schedule
    strength: float
    steps: int

    @contextmanager
    def enforce(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        moves: Mapping[str, Tensor | bool] | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[None]:
        """Draw back after every step of `optimizer`, inside a `with` block; arguments as `PartialUpdate.enforce` has.

        Costs a copy of the weights, and a pass over them in each step; with `"rank"` a selection among all of them.
        """
        held = [_Held(parameter, mask, anchor) for _, parameter, mask, anchor in anchored(model, moves)]
        done = 0

        def draw_back(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            nonlocal done
            done += 1
            left = max(0.0, 1 - done / self.steps)
            if self.schedule == "beta":
                rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
                for one in held:
                    one.shrink(self.strength * left * float(rates.get(id(one.parameter), 0.0)))
            elif (threshold := _smallest(held, self.strength * left)) is not None:
                for one in held:
                    one.shrink(threshold)

        end = around_step(optimizer, after=draw_back)
        try:
            yield
        finally:
            end()


@dataclass(frozen=True)
class _Held:
    """A tensor and where it began; of its entries those where `mask` is true may move, or all."""

    parameter: nn.Parameter
    mask: Tensor | None
    anchor: Tensor

    def deviation(self) -> Tensor:
        """|d| of the entries that may move, (n,)."""
        away = (self.parameter.detach() - self.anchor).abs()
        return away.flatten() if self.mask is None else away[self.mask]

    def shrink(self, threshold: float | Tensor) -> None:
        """The soft threshold, in place; 0 changes no bit."""
        if isinstance(threshold, float) and threshold <= 0:
            return
        stepped = self.parameter.detach()
        d = stepped - self.anchor
        nearer = stepped - d.sgn() * threshold
        stepped.copy_(torch.where(d.abs() > threshold, nearer, self.anchor))


def _smallest(held: list[_Held], share: float) -> Tensor | None:
    """The largest of the `int(share * n)` smallest deviations; none where that is less than one."""
    k = int(share * sum(one.anchor.numel() if one.mask is None else int(one.mask.sum()) for one in held))
    if k < 1:
        return None
    return torch.cat([one.deviation().float() for one in held]).kthvalue(k).values


def proximal_problems(schedule: Any, rho: Any, beta: Any) -> list[str]:
    """What is wrong with the settings of both schedules, a sentence each."""
    found = []
    if schedule not in SCHEDULES:
        found.append(f"shrink must be {' or '.join(SCHEDULES)}; got {schedule!r}.")
    if not 0 <= rho <= 1:
        found.append(f"rho must be from 0 to 1, the share of weights that is put back at first; got {rho!r}.")
    if not 0 <= beta < float("inf"):
        found.append(f"beta must be 0 or more; got {beta!r}.")
    return found
