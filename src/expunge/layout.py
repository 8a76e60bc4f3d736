"""Layout: convolutions are faster with channels last in memory; values and shapes stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.hold import held_buffers


def likes_channels_last(model: nn.Module) -> bool:
    """Whether the model convolves images, and does not normalise within each image (slower in this layout)."""
    modules = list(model.modules())
    convolves = any(isinstance(m, nn.Conv2d) for m in modules)
    return convolves and not any(isinstance(m, (nn.InstanceNorm2d, nn.GroupNorm)) for m in modules)


def takes_views(error: Exception) -> bool:
    """Whether a forward pass failed on a view, such as `x.view(len(x), -1)`, of maps that lie channels last."""
    return isinstance(error, RuntimeError) and "view size is not compatible" in str(error)


@contextmanager
def channels_last(model: nn.Module, forward: Callable[[], object]) -> Iterator[bool]:
    """Hold the weights channels last inside the block, where that is faster and works; says whether it is so.

    Args:
        model: its weights are in the usual order afterwards.
        forward: passes a few rows, channels last, through the model; called once, without gradient. Buffers that it
            moves are put back.
    """
    last = likes_channels_last(model)
    try:
        if last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            last = _works(model, forward)
        if not last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        yield last
    finally:
        if last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _works(model: nn.Module, forward: Callable[[], object]) -> bool:
    with held_buffers(model, {}), torch.no_grad():
        try:
            forward()
        except Exception as error:  # anything else is as wrong in the other order, and told where it matters
            return not takes_views(error)
    return True


def arranged(x_B: Tensor, last: bool) -> Tensor:
    """The inputs with channels last in memory, if they are images and it is asked for."""
    return x_B.contiguous(memory_format=torch.channels_last) if last and x_B.ndim == 4 else x_B
