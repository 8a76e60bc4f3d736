"""Untrained models: built for the rows as a recipe says, or a model's own shape with weights drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from expunge import models
from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.run import Run
from expunge.source import call_problem
from expunge.weights import copied

Build = Callable[[Rows], nn.Module]


def model_problems(given: object) -> list[str]:
    """Why no model can be built from this, a sentence each; see `blank`."""
    wrong = ""
    if isinstance(given, nn.Module):
        wrong = f"got a module, {type(given).__name__}, and every training needs one of its own"
    elif not isinstance(given, (str, Mapping)):
        wrong = call_problem(given, "rows")
    return [f"model must be a name, {{name: ...}}, or a function of the rows that makes one; {wrong}."] if wrong else []


def blank(given: str | Mapping[str, Any] | Build, rows: Rows) -> nn.Module:
    """An untrained model that fits the rows; draws from the global random state.

    Args:
        given: a name of `expunge.models`, a mapping `{"name": ..., field: value}`, or a function of the rows.
        rows: give channels, size and classes.

    Raises:
        ExpungeError: an unknown name or field, rows that are no square images, a function that returns something else.
    """
    if callable(given):
        made: object = given(rows)
        if not isinstance(made, nn.Module):
            raise ExpungeError(f"The model's function must return a torch.nn.Module; got {type(made).__name__}.")
        return made
    fields = {"name": given} if isinstance(given, str) else dict(given)
    name = fields.pop("name", None)
    if name is None:
        raise ExpungeError("A model is given by name, e.g. {name: lenet}, or {build: 'module:function'}.")
    if len(rows.shape) != 3:
        raise ExpungeError(f"{name} takes images (channels, height, width); {rows.name} has shape {rows.shape}.")
    channels, height, width = rows.shape
    if height != width:
        raise ExpungeError(f"{name} takes square images; those of {rows.name} are {height} x {width}.")
    return models.build(name, channels=channels, size=height, classes=rows.num_classes, **fields)


def untrained(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of the model with every parameter drawn anew, module by module, however deep.

    Modules that hold others come after them, as in their constructors: what they draw for those inside counts. So do
    the statistics of norms begin again; buffers of modules that have no `reset_parameters` stay as they are.

    Raises:
        ExpungeError: a module holds parameters of its own and has no `reset_parameters`.
    """
    for stuck in unresettable(model):
        raise ExpungeError(f"{stuck} cannot be reset: no reset_parameters")
    fresh = copied(model)
    modules = list(fresh.modules())
    around = [module for module in modules if any(True for _ in module.children())]
    with Run(seed=seed).isolated():
        for module in [*(m for m in modules if m not in around), *reversed(around)]:
            if reset := resetting(module):
                reset()
    fresh.eval()
    return fresh


def unresettable(model: nn.Module) -> list[str]:
    """The modules that hold parameters of their own and have no `reset_parameters`, by name and class."""
    return [
        f"{name or 'the model'} ({type(module).__name__})"
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and resetting(module) is None
    ]


def resetting(module: nn.Module) -> Callable[[], object] | None:
    """What draws a module's own weights anew, if there is such a method; PyTorch's attention has it under a dash."""
    private = module.__module__.startswith("torch.") and getattr(module, "_reset_parameters", None)
    found = getattr(module, "reset_parameters", None) or private
    return found if callable(found) else None
