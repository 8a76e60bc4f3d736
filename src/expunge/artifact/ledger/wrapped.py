"""Wrapped: models inside what PyTorch wraps around them for several processes, compilation or averages."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from expunge.errors import ExpungeError
from expunge.io import WRAPPED


def plain_model(model: nn.Module) -> nn.Module:
    """The user's own module inside what PyTorch wraps around it for several processes or compilation."""
    inner: object = getattr(model, "_orig_mod", model)
    if isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        inner = inner.module
    inner = getattr(inner, "_orig_mod", inner)
    return inner if isinstance(inner, nn.Module) else model


def refuse_wrapped(model: nn.Module, layers: Iterable[str]) -> None:
    """Refuse a model whose names a wrapper has put something before, with what to give in its place.

    Args:
        model: that is given for one whose layers have other names.
        layers: these names.

    Raises:
        ExpungeError: it is wrapped.
    """
    known, names = list(layers), [name for name, _ in model.named_parameters()]
    for prefix in WRAPPED:
        inside = bool(names) and all(name.startswith(prefix) for name in names)
        if inside and not any(name.startswith(prefix) for name in known):
            raise ExpungeError(
                f"This model is wrapped: all its names begin with {prefix!r}, and none in the ledger does. Give the "
                f"model inside, model.{prefix[:-1]}."
            )
