"""Which rows a model has forgotten, written on the model itself, so that no later request hands them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from expunge.errors import ExpungeError
from expunge.request import Request


def history(model: nn.Module, request: Request) -> list[Any]:
    """The ids of this request's data that earlier requests removed from this model.

    Raises:
        ExpungeError: the model has forgotten rows, but of data that is not this data, and the request names none.
    """
    gone: Mapping[str, list[Any]] = getattr(model, "_expunge_gone", {})
    if gone and request.rows.hash not in gone and not len(request.gone):
        raise ExpungeError(
            "This model has forgotten rows of other data, or of this data loaded otherwise, so they cannot be found "
            "here and would be trained back in. Give the rows that the earlier request was made on, or name what is "
            "gone: Request(..., gone=ids)."
        )
    return list(gone.get(request.rows.hash, []))


def remember(out: nn.Module, model: nn.Module, request: Request) -> None:
    """Write into `out` what the model had forgotten before, and the rows of the request."""
    gone = dict(getattr(model, "_expunge_gone", {}))
    ids = request.rows.ids[torch.cat([request.gone, request.forget]).sort().values.numpy()]
    out._expunge_gone = {**gone, request.rows.hash: ids.tolist()}  # type: ignore[assignment]
