"""Norms: BatchNorm's running statistics, estimated anew on rows that may be used, or held as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.run import Run


def has_statistics(model: nn.Module) -> bool:
    """Whether some BatchNorm of the model keeps running statistics."""
    return bool(_tracking(model))


def recalibrate(model: nn.Module, rows: Rows, index: Tensor, run: Run, batch_size: int = 256) -> None:
    """Replace running means and variances by averages over the batches of these rows; weights stay as they are.

    Args:
        model: changed in place; its modes are afterwards as they were.
        rows: the data.
        index: positions of the rows to use, all that may be.
        run: seed and device.
        batch_size: rows in a batch. Default 256; the variance within a batch is what is averaged.

    Cost: one forward pass over the rows.
    """
    norms = _tracking(model)
    if not norms:
        return
    modes, momenta = [(m, m.training) for m in model.modules()], [m.momentum for m in norms]
    order = index[torch.randperm(len(index), generator=run.generator("recalibrate"))]
    device = run.device_of(model)
    model.to(device).eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
            norm.training = True
        with run.isolated(), torch.no_grad():
            for batch in order.tensor_split(max(1, len(order) // batch_size)):
                model(rows.x(batch).to(device))
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Running statistics are used as they are, in training as well, and stay bit-identical, inside a `with` block."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes = [(m, m.training) for m in norms]
    hooks = [m.register_forward_pre_hook(_use_running_statistics) for m in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode


def _use_running_statistics(module: nn.Module, args: Any) -> None:
    module.training = False


def _tracking(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kinds = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kinds) and m.running_mean is not None]
