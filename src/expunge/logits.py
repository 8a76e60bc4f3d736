"""Logits: read from what a classifier returns."""

from __future__ import annotations

from torch import Tensor

from expunge.errors import ExpungeError


def logits_of(out: object, when: str = "") -> Tensor:
    """The logits (B, C), float32, of a model that returned them, or an object that has them as `.logits`.

    Args:
        out: what the model returned.
        when: said of it in the error, e.g. "in training mode".

    Raises:
        ExpungeError: it is neither.
    """
    found = out if isinstance(out, Tensor) else getattr(out, "logits", None)
    if not isinstance(found, Tensor) or found.ndim != 2:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(out).__name__
        told = "The model must return logits of shape (batch, classes), or an object with .logits"
        raise ExpungeError(f"{told}; got {got}{f' {when}' if when else ''}.")
    return found.float()
