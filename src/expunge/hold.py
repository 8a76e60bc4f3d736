"""Hold: what may not move stays bit-identical while an optimiser steps, and the model runs in training mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from expunge.optimizers import around_step


@contextmanager
def held_weights(model: nn.Module, optimizer: Optimizer, moves: Mapping[str, Tensor | bool]) -> Iterator[None]:
    """Hold the weights that may not move, inside a `with` block.

    Whole tensors get no gradient, and none that somebody has set when a step begins: no decay and no momentum either.
    In tensors that move in part, weights are put back after every step and the optimiser's state is zeroed there.

    Args:
        model: the model that it steps.
        optimizer: any.
        moves: for each parameter's name whether it moves, or a mask, as `Region.resolve` has it.

    Costs one copy of the tensors that move in part.
    """
    frozen, partly = [], []
    for name, parameter in model.named_parameters():
        mask = moves[name]
        if isinstance(mask, Tensor):
            mask = mask.to(parameter.device)
            partly.append((parameter, mask, parameter.detach().clone()))
        elif not mask:
            frozen.append((parameter, parameter.requires_grad))
            if isinstance(optimizer, LBFGS):  # steps along one direction for all weights, gradient or not
                none = torch.zeros_like(parameter, dtype=torch.bool)
                partly.append((parameter, none, parameter.detach().clone()))

    def leave_out(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for parameter, _ in frozen:
            parameter.grad = None

    def put_back(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for parameter, mask, anchor in partly:
                parameter.copy_(torch.where(mask, parameter, anchor))
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.masked_fill_(~mask, 0)

    for parameter, _ in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
    end = around_step(optimizer, leave_out, put_back)
    # gradients outside count neither to a clipped norm nor to an optimiser's averages
    hooks = [p.register_hook(_inside(mask)) for p, mask, _ in partly if p.requires_grad]
    try:
        yield
    finally:
        end()
        for hook in hooks:
            hook.remove()
        for parameter, trained in frozen:
            parameter.requires_grad_(trained)


@contextmanager
def held_buffers(model: nn.Module, moves: Mapping[str, Tensor | bool]) -> Iterator[None]:
    """Put back, at the end of a `with` block, the buffers of modules in which no weight moves.

    A running mean of InstanceNorm and the vectors of spectral normalisation follow the data in training mode.
    """
    saved = [(module, name, buffer, buffer.clone()) for module, name, buffer in _still(model, moves)]
    try:
        yield
    finally:
        for module, name, buffer, before in saved:
            same = buffer.shape == before.shape and buffer.dtype == before.dtype
            if same and not torch.equal(buffer, before):  # else a graph that has it stays valid
                buffer.copy_(before)
            module._buffers[name] = buffer if same else before


def _still(model: nn.Module, moves: Mapping[str, Tensor | bool]) -> list[tuple[nn.Module, str, Tensor]]:
    """The buffers of which the nearest module around that has weights has none that move."""
    found = []
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            around = path
            while around and not _of(moves, around):
                around = around.rpartition(".")[0]
            if buffer is not None and all(move is False for move in _of(moves, around)):
                found.append((module, name, buffer))
    return found


def _of(moves: Mapping[str, Tensor | bool], path: str) -> list[Tensor | bool]:
    """What is said of the weights of a module and of those inside it."""
    return [move for name, move in moves.items() if not path or name.startswith(f"{path}.")]


def _inside(mask: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: torch.where(mask, gradient.to_dense() if gradient.is_sparse else gradient, 0)
