"""Layout: convolutions are faster with channels last in memory; values and shapes stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.structure import HOOKS

KNOWN = ("torch.nn.modules.", "expunge.models.")


def likes_channels_last(model: nn.Module) -> bool:
    """Whether the model convolves images, bears this layout, and does not normalise within each image (slower in it).

    Code that is not ours or PyTorch's may count on the usual order: `x.view(len(x), -1)` of maps that lie channels last
    is refused, and an operation that goes by strides computes something else.
    """
    modules = list(model.modules())
    known = all(type(m).__module__.startswith(KNOWN) and not any(getattr(m, hooks) for hooks in HOOKS) for m in modules)
    convolves = any(isinstance(m, nn.Conv2d) for m in modules)
    return known and convolves and not any(isinstance(m, (nn.InstanceNorm2d, nn.GroupNorm)) for m in modules)


@contextmanager
def channels_last(model: nn.Module) -> Iterator[bool]:
    """Hold the weights of convolutions channels last inside the block, where that is faster; says whether it is so."""
    last = likes_channels_last(model)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)] if last else []
    weights = [w for w in weights if w.is_contiguous()]  # others are as somebody wants them
    for weight in weights:
        weight.data = weight.data.to(memory_format=torch.channels_last)
    try:
        yield last
    finally:
        for weight in weights:
            weight.data = weight.data.to(memory_format=torch.contiguous_format)


def arranged(x_B: Tensor, last: bool) -> Tensor:
    """The inputs with channels last in memory, if they are images and it is asked for."""
    return x_B.contiguous(memory_format=torch.channels_last) if last and x_B.ndim == 4 else x_B
