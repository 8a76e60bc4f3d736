"""Modes: training or evaluation, of every module of a model, as they were once a block is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
