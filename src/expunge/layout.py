"""Layout: convolutions are faster with channels last in memory; values and shapes stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def likes_channels_last(model: nn.Module) -> bool:
    """Whether the model convolves images, and does not normalise within each image (slower in this layout)."""
    modules = list(model.modules())
    convolves = any(isinstance(m, nn.Conv2d) for m in modules)
    return convolves and not any(isinstance(m, (nn.InstanceNorm2d, nn.GroupNorm)) for m in modules)


@contextmanager
def channels_last(model: nn.Module) -> Iterator[bool]:
    """Hold the weights channels last inside the block, where that is faster; says whether it is so."""
    fits = likes_channels_last(model)
    if fits:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield fits
    finally:
        if fits:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def arranged(x_B: Tensor, last: bool) -> Tensor:
    """The inputs with channels last in memory, if they are images and it is asked for."""
    return x_B.contiguous(memory_format=torch.channels_last) if last and x_B.ndim == 4 else x_B
