"""Norms: BatchNorm's running statistics, estimated anew on rows that may be used, or held as they are.

And what BatchNorm does in training where a batch is one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.modes import kept_modes
from expunge.run import Run

LONE = (
    "Some batches were one row, of which BatchNorm saw one value in each channel; that has no variance, so there it "
    "used its running statistics, as in use. A larger batch_size avoids it where there are more rows."
)


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
    momenta = [m.momentum for m in norms]
    order = index[torch.randperm(len(index), generator=run.generator("recalibrate"))]
    device = run.device_of(model)
    try:
        with kept_modes(model), run.isolated(), torch.no_grad():
            model.to(device).eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a plain average over all batches
                norm.training = True
            for batch in order.tensor_split(max(1, len(order) // batch_size)):
                model(rows.x(batch).to(device))
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Running statistics are used as they are, in training as well, and stay bit-identical, inside a `with` block."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    hooks = [m.register_forward_pre_hook(_use_running_statistics) for m in norms]
    try:
        with kept_modes(*norms):
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def lone_rows(model: nn.Module, rows: int, notes: list[str]) -> Iterator[None]:
    """A BatchNorm in training that is shown one value of each channel uses its running statistics, inside a `with`.

    PyTorch refuses such a batch, since one value has no variance: one row where maps are 1x1, or after a linear layer.
    A BatchNorm that sees more values, in the same batch, goes by these as ever.

    Args:
        model: its modes are afterwards as they were.
        rows: how many there are in the smallest batch; of two or more nothing is done.
        notes: told once that it happened.

    Raises:
        ExpungeError: such a BatchNorm keeps no running statistics.
    """
    if rows != 1:
        yield
        return
    turned: list[nn.Module] = []

    def turn(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next(iter((*args, *kwargs.values())))
        if not (x.ndim > 1 and x.numel() == x.shape[1]):
            return
        if module.running_mean is None:
            raise ExpungeError(
                f"A BatchNorm of {x.shape[1]} channels keeps no running statistics, so it cannot be shown one value of "
                "each, as in a batch of one row; name more rows, or take a larger batch_size."
            )
        if module.training:
            module.training = False
            turned.append(module)
            if LONE not in notes:
                notes.append(LONE)

    def turn_back(module: nn.Module, args: Any, out: Any) -> None:
        if module in turned:
            turned.remove(module)
            module.training = True

    # SyncBatchNorm has the values of all processes, which must all do the same
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm)]
    hooks = [m.register_forward_pre_hook(turn, with_kwargs=True) for m in norms]
    hooks += [m.register_forward_hook(turn_back) for m in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in turned:  # where the forward pass failed
            module.training = True


def _use_running_statistics(module: nn.Module, args: Any) -> None:
    module.training = False


def _tracking(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
