"""The optimiser of a descent: one of `torch.optim` by its name, or a function that makes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from expunge.errors import ExpungeError, UnknownName

Make = Callable[[list[nn.Parameter]], Optimizer]

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
