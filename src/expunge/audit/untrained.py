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
    fresh = copy.deepcopy(model)
    with Run(seed=seed).isolated():
        for name, module in fresh.named_modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(isinstance(p, nn.Parameter) for p in own):
                raise ExpungeError(
                    f"{name or 'the model'} ({type(module).__name__}) cannot be reset: no reset_parameters"
                )
    return fresh.eval()
