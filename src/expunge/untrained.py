"""An untrained model of the same shape: what a network answers that has learnt nothing."""

from __future__ import annotations

import copy

from torch import nn

from expunge.errors import ExpungeError
from expunge.run import Run


def untrained(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of the model with every parameter and buffer drawn anew, module by module, however deep.

    Raises:
        ExpungeError: a module holds parameters of its own and has no `reset_parameters`.
    """
    for stuck in unresettable(model):
        raise ExpungeError(f"{stuck} cannot be reset: no reset_parameters")
    fresh = copy.deepcopy(model)
    with Run(seed=seed).isolated():
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return fresh.eval()


def unresettable(model: nn.Module) -> list[str]:
    """The modules that hold parameters of their own and have no `reset_parameters`, by name and class."""
    return [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
        and not callable(getattr(module, "reset_parameters", None))
    ]
