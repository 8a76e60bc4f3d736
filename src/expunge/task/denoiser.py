"""Denoiser: what keeps a model from predicting noise on these rows, found by looking at a few of them.

Shapes: B batch.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows, Scale
from expunge.modes import eval_mode
from expunge.run import Run

LOOKED_AT = 16  # rows, where they are held in memory; of a dataset that is read row by row, the first two
BEYOND = 1.05  # how far inputs may lie from 0 and still count as scaled to [-1, 1]


class Denoises(Protocol):
    """What is asked here of a diffusion task."""

    @property
    def classes(self) -> int:
        """The number of classes."""

    @property
    def scale(self) -> Scale | None:
        """How the rows' inputs were scaled."""

    def unscaled(self, x_B: Tensor) -> Tensor:
        """The rows' inputs brought into [-1, 1]."""

    def noised(self, model: nn.Module, x_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs at random times, the times, and what is to be predicted."""

    def predict(self, model: nn.Module, noised_B: Tensor, t_B: Tensor, condition_B: Tensor) -> Tensor:
        """What the model predicts of noised inputs under conditions."""


def range_problems(task: Denoises, rows: Rows) -> list[str]:
    """That inputs do not lie in [-1, 1], where denoisers are trained and drawn images are clipped."""
    low, high = _range(task, rows)
    if max(-low, high) <= BEYOND:
        return []
    if task.scale is None and rows.scale is not None:
        advice = f"The task was not told how {rows.name} is scaled: give it scale=rows.scale."
    elif task.scale is not None:
        advice = f"The task's scale is not that of {rows.name}: give it scale=rows.scale."
    else:
        advice = "Give uint8 images, or bring floats there: x / 127.5 - 1 where they are 0..255."
    return [f"A denoiser is shown inputs in [-1, 1]; those of {rows.name} lie from {low:.3g} to {high:.3g}. {advice}"]


def range_notes(task: Denoises, rows: Rows) -> list[str]:
    """That inputs all lie in [0, 1] and are taken as they are."""
    if task.scale is not None or rows.scale is not None:
        return []
    low, high = _range(task, rows)
    if low < 0 or high > 1:
        return []
    return [
        f"The inputs of {rows.name} lie in [0, 1] and are taken as they are. Denoisers are mostly trained on [-1, 1]: "
        "if this one is, give uint8 images or 2 x - 1."
    ]


def _range(task: Denoises, rows: Rows) -> tuple[float, float]:
    """The smallest and largest value of a few rows, brought to where the model has them."""
    spread = torch.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows)), dtype=torch.float64).long()
    index = spread if isinstance(rows.source, Tensor) else torch.arange(min(2, len(rows)))
    low, high = task.unscaled(rows.x(index)).aminmax()
    return float(low), float(high)


def trial_problems(task: Denoises, model: nn.Module, rows: Rows) -> list[str]:
    """What goes wrong when two rows are shown to the model, which is left as it was; none is shown out of range."""
    device = Run().device_of(model)
    try:
        with eval_mode(model), Run().isolated(), torch.no_grad():
            if told := range_problems(task, rows):
                return told
            noised_B, t_B, _ = task.noised(model, rows.x(torch.arange(min(2, len(rows)))).to(device))
            predicted_B = task.predict(model, noised_B, t_B, torch.zeros_like(t_B))
            each = torch.arange(min(task.classes + 1, 16), device=device)
            alike = [part[:1].expand(len(each), *part.shape[1:]) for part in (noised_B, t_B)]
            under_each = task.predict(model, alike[0], alike[1], each)
    except Exception as error:  # a user's module may raise anything; whatever it says belongs in our message
        return [f"The denoiser does not accept inputs of shape {rows.shape} ({rows.name}): {error}"]
    if predicted_B.shape != noised_B.shape:
        return [
            f"The denoiser must predict one value for each input value, {tuple(noised_B.shape[1:])}; got "
            f"{tuple(predicted_B.shape[1:])}. A model that predicts a variance as well is not supported."
        ]
    if not torch.isfinite(predicted_B).all():
        return ["The denoiser returns NaN or infinity on the first rows; its weights are damaged."]
    if under_each.any() and (under_each - under_each[:1]).abs().max() <= 1e-5 * under_each.abs().max():
        return [
            "The denoiser predicts the same under every condition, so no class can be told from another. A norm "
            "with as many groups as channels takes conditions away: UNet2DModel(norm_num_groups=fewer)."
        ]
    return []
