"""The optimiser of a descent: one of `torch.optim` by its name, or a function that makes one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from expunge.errors import ExpungeError, UnknownName

Make = Callable[[list[nn.Parameter]], Optimizer]
Hook = Callable[[Optimizer, Any, Any], None]

FUSED = ("sgd", "adam", "adamw")  # one kernel for all weights, on CPUs and on GPUs
UNFIT = {
    "lbfgs": "it computes its loss several times in a step (a closure), and the loop gives it one",
    "sparseadam": "it takes sparse gradients only",
    "muon": "it takes matrices only, and models have other weights too",
}


def names() -> list[str]:
    """The optimisers of PyTorch that the loop can step with, as they are named in settings."""
    return sorted(set(_known()) - set(UNFIT))


def optimizer_problems(given: object) -> list[str]:
    """Why this is no optimiser, a sentence; nothing where it is a name, in any case, or a function."""
    if callable(given) or (isinstance(given, str) and given.lower() in names()):
        return []
    if isinstance(given, str) and given.lower() in UNFIT:
        return [f"optimizer {given} does not serve: {UNFIT[given.lower()]}. There are: {', '.join(names())}."]
    return [str(UnknownName("optimizer", given, names(), "Or give a function of the weights that returns one."))]


def make_optimizer(
    given: str | Make, parameters: list[nn.Parameter], *, lr: float, weight_decay: float, momentum: float
) -> Optimizer:
    """A fresh optimiser over these parameters, fused where PyTorch can.

    Args:
        given: a name, see `names`; it gets those of the settings that it has. Or a function of the parameters, which
            knows its own settings.
        parameters: those that are trained.
        lr: the rate, at its peak.
        weight_decay: as the optimiser means it.
        momentum: likewise.

    Raises:
        ExpungeError: a function that fails, or returns something else or an optimiser that needs a closure.
    """
    if not isinstance(given, str):
        return _own(given, parameters)
    kind = _known()[given.lower()]
    settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
    if given.lower() in FUSED:
        settings["fused"] = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    takes = inspect.signature(kind).parameters
    return kind(parameters, **{name: value for name, value in settings.items() if name in takes})


def around_step(optimizer: Optimizer, before: Hook | None = None, after: Hook | None = None) -> Callable[[], None]:
    """Have hooks called around each step, once; returns a function that takes them off.

    PyTorch's own run for every class whose `step` is called: twice a step where the optimiser is of a class of
    somebody's own that calls `super().step()`.

    Args:
        optimizer: any.
        before: called with the optimiser and the arguments of its `step`, as PyTorch's are. What it raises, the caller
            of `step` gets, and no step is taken.
        after: likewise.
    """
    outermost: list[FrameType] = []  # the call of the step in progress
    depth = 0

    def begin(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        nonlocal depth
        if depth and not _running(outermost[0]):  # that step failed, and never came to its end
            depth = 0
        if not depth:
            if before is not None:
                before(optimizer, args, kwargs)
            outermost[:] = [sys._getframe(1)]
        depth += 1

    def end(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        nonlocal depth
        depth -= 1
        if not depth:
            outermost.clear()
            if after is not None:
                after(optimizer, args, kwargs)

    hooks = [optimizer.register_step_pre_hook(begin), optimizer.register_step_post_hook(end)]

    def remove() -> None:
        for hook in hooks:
            hook.remove()

    return remove


def _running(frame: FrameType) -> bool:
    """Whether a call is still going on."""
    there: FrameType | None = sys._getframe(1)
    while there is not None and there is not frame:
        there = there.f_back
    return there is not None


def _known() -> dict[str, Callable[..., Optimizer]]:
    kinds = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    return {name: kind for name, kind in kinds.items() if issubclass(kind, Optimizer) and kind is not Optimizer}


def _own(make: Make, parameters: list[nn.Parameter]) -> Optimizer:
    try:
        made: object = make(parameters)
    except Exception as error:  # a user's function may raise anything
        raise ExpungeError(f"The function given as optimizer failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Optimizer):
        raise ExpungeError(
            "The function given as optimizer must return a torch.optim.Optimizer over the weights that it is given; it "
            f"returned {type(made).__name__}."
        )
    if isinstance(made, torch.optim.LBFGS):
        raise ExpungeError(f"The optimizer LBFGS does not serve: {UNFIT['lbfgs']}.")
    return made
