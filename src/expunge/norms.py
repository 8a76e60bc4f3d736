"""Norms: BatchNorm's running statistics, estimated anew on rows that may be used."""

from __future__ import annotations

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


def _tracking(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kinds = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kinds) and m.running_mean is not None]
