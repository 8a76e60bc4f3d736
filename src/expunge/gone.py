"""Which rows a model has forgotten, written on the model itself, so that no later request hands them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from expunge.errors import ExpungeError, raise_if
from expunge.request import Request

Record = Mapping[str, list[Any]]  # ids by the digest of their data


def record(model: nn.Module) -> Record:
    """What is written on a model."""
    gone: Record = getattr(model, "_expunge_gone", {})
    return gone


def history(gone: Record, request: Request) -> list[Any]:
    """The ids of this request's data that earlier requests removed from the model with this record.

    Raises:
        ExpungeError: the model has forgotten rows, but of data that is not this data, and the request names none.
    """
    if gone and request.rows.hash not in gone and not len(request.gone):
        raise ExpungeError(
            "This model has forgotten rows of other data, or of this data loaded otherwise, so they cannot be found "
            "here and would be trained back in. Give the rows that the earlier request was made on, or name what is "
            "gone: Request(..., gone=ids)."
        )
    return list(gone.get(request.rows.hash, []))


def remember(out: nn.Module, model: nn.Module, request: Request) -> None:
    """Write into `out` what the model had forgotten before, and the rows of the request."""
    ids = _ids(request, torch.cat([request.gone, request.forget]).sort().values)
    out._expunge_gone = {**record(model), request.rows.hash: ids}  # type: ignore[assignment]


def judged_after(request: Request, originals: Iterable[Record], others: Mapping[str, Iterable[Record]]) -> Request:
    """The request with all that earlier ones removed from the models to be judged, so that retraining lacks it too.

    Args:
        request: what had to go.
        originals: records of models before the request.
        others: of models after it, by the name of their row. Those that know of no request are taken as they are.

    Raises:
        ExpungeError: a model that forgot other rows than these, so that another retraining is its reference.
    """
    for gone_before in originals:
        request = request.after(history(gone_before, request))
    asked = set(_ids(request, request.forget))
    forgotten = [(name, set(history(one, request))) for name, records in others.items() for one in records]
    forgotten = [(name, ids) for name, ids in forgotten if ids]
    if not len(request.gone):
        for earlier in [ids - asked for _, ids in forgotten if asked <= ids][:1]:
            request = request.after(sorted(earlier, key=str))
    gone = set(_ids(request, request.gone))
    raise_if(
        [
            f"{name} has forgotten {len(ids):,} rows, by the record in its weights: {len(ids & asked):,} of the "
            f"{len(asked):,} asked for, {len(ids & gone):,} of the {len(gone):,} that are gone, and "
            f"{len(ids - asked - gone):,} others. Retraining would leave out other rows than this model forgot. "
            "Judge it with the request that it was made for, and Request(..., gone=...) for the earlier ones."
            for name, ids in forgotten
            if ids not in (gone, gone | asked)
        ]
    )
    return request


def _ids(request: Request, positions: torch.Tensor) -> list[Any]:
    found: list[Any] = request.rows.ids[positions.numpy()].tolist()
    return found
