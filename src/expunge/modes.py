"""Modes: training or evaluation, of every module of a model, as they were once a block is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
    """Evaluation mode inside a `with` block; afterwards every module is in the mode it was in."""
    with kept_modes(model):
        model.eval()
        yield
