"""How far the weights moved, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from expunge.errors import raise_if

Weights = nn.Module | Mapping[str, Tensor]

BATCH_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Distance:
    """Relative change of weights.

    Args:
        layers: for each parameter ‖a - b‖ / ‖b‖ (L2), 0 or more. None where the quotient does not exist: the
            reference is all zeros and the other is not, or a weight is NaN or infinite.
        total: the same over all parameters as one vector; NaN where it does not exist.
    """

    layers: dict[str, float | None]
    total: float


def distance(a: Weights, b: Weights) -> Distance:
    """How far the parameters of `a` lie from those of `b`, relative to the size of `b`; buffers do not count.

    Args:
        a: the changed module, or its state dict.
        b: the reference (usually the original), likewise. Where both are state dicts, what is not floating
            point and batch-norm statistics are taken for the buffers.

    Raises:
        ExpungeError: parameters that only one of them has, or of different shape (all are named).

    Cost: no pass over data; one pass over the weights in float64.
    """
    here, there = _parameters(a, b), _parameters(b, a)
    lonely = sorted(set(here) ^ set(there))
    problems = [f"Parameter {name!r} is in only one of the two models." for name in lonely]
    problems += [
        f"Parameter {name!r} has shape {tuple(w.shape)} here, {tuple(there[name].shape)} there."
        for name, w in here.items()
        if name in there and w.shape != there[name].shape
    ]
    raise_if(problems)
    layers: dict[str, float | None] = {}
    moved_total = size_total = 0.0
    for name, reference in there.items():
        size = _square(reference)
        moved = _square(here[name].detach().double().cpu() - reference.detach().double().cpu())
        relative = _quotient(moved, size)
        layers[name] = relative if math.isfinite(relative) else None
        moved_total, size_total = moved_total + moved, size_total + size
    return Distance(layers, _quotient(moved_total, size_total))


def _quotient(moved: float, size: float) -> float:
    if size == 0:
        return 0.0 if moved == 0 else math.nan
    return math.sqrt(moved / size) if math.isfinite(moved / size) else math.nan


def _square(weights: Tensor) -> float:
    return float(weights.detach().double().square().sum())


def _parameters(of: Weights, other: Weights) -> dict[str, Tensor]:
    if isinstance(of, nn.Module):
        return dict(of.named_parameters())
    if isinstance(other, nn.Module):
        counted = set(dict(other.named_parameters()))  # tied weights count once, under their first name
        tied = set(dict(other.named_parameters(remove_duplicate=False))) - counted
        left_out = tied | set(dict(other.named_buffers(remove_duplicate=False)))
        return {name: w for name, w in of.items() if name not in left_out}
    weights = {name: w for name, w in of.items() if w.is_floating_point()}
    return {name: w for name, w in weights.items() if not name.endswith(BATCH_STATISTICS)}
