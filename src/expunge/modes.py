"""Modes: training or evaluation, of every module of a model, as they were once a block is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from expunge.hold import held_buffers


@contextmanager
def kept_modes(*models: nn.Module) -> Iterator[None]:
    """Put every module of these models back into the mode it was in, at the end of a `with` block."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside a `with` block; afterwards every module is in the mode it was in, with its buffers.

    Some forward passes count or observe in buffers, in evaluation as well.
    """
    with kept_modes(model), held_buffers(model, {}):
        model.eval()
        yield


@contextmanager
def plain_attention() -> Iterator[None]:
    """PyTorch's transformer layers call their parts, inside a `with` block, as they do in training.

    In evaluation they have a path of their own past these parts, on nested tensors where a mask is given.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
