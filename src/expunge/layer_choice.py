"""Which parameters a pattern, or a number of last layers, means."""

from __future__ import annotations

import fnmatch

from torch import nn

from expunge.errors import ExpungeError


def matches(name: str, pattern: str) -> bool:
    """Whether a glob matches a parameter's name, or that of its module."""
    module = name.rpartition(".")[0]
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(module, pattern)


def last_layers(model: nn.Module, k: int) -> list[nn.Module]:
    """The modules of the last k layers, in order; a layer is a linear, convolutional or embedding module.

    Modules with parameters of their own that come after such a layer (norms, scales) belong to it.

    Raises:
        ExpungeError: a model with fewer than k layers.
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding, nn.EmbeddingBag)
    own = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    starts = [i for i, m in enumerate(own) if isinstance(m, kinds)]
    if len(starts) < k:
        raise ExpungeError(f"The model has {len(starts)} layers, so its last {k} cannot be chosen.")
    return own[starts[-k] :]


def names_in_last(model: nn.Module, k: int) -> set[str]:
    """The names of the parameters in the last k layers; not of those that they share with others."""
    layers = last_layers(model, k)
    inside = _ids(layers) - shared_with_others(model, layers)
    return {name for name, p in model.named_parameters() if id(p) in inside}


def shared_with_others(model: nn.Module, layers: list[nn.Module]) -> set[int]:
    """The ids of parameters of these modules that another module of the model has too (tied weights)."""
    return _ids(layers) & _ids([m for m in model.modules() if all(m is not layer for layer in layers)])


def _ids(modules: list[nn.Module]) -> set[int]:
    return {id(p) for m in modules for p in m.parameters(recurse=False)}
