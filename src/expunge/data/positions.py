"""Positions of rows as people give them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expunge.errors import ExpungeError


def positions(given: Any, n: int) -> Tensor:
    """Positions as (number of positions,) int64.

    Args:
        given: positions from -n to n - 1 (from the end, where negative), a single one, or a mask of n values.
        n: how many rows there are.

    Raises:
        ExpungeError: anything else, or a position outside.
    """
    expected = f"Expected positions of rows, 0..{n - 1}, or a mask of {n} values (rows.positions(ids) finds ids)"
    try:
        index = torch.as_tensor(given).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExpungeError(f"{expected}; got a {type(given).__name__}: {error}") from error
    if index.dtype == torch.bool and len(index) == n:
        return index.nonzero().flatten()
    if len(index) and (index.is_floating_point() or index.dtype == torch.bool):
        raise ExpungeError(f"{expected}; got {len(index)} values of {index.dtype}.")
    index = index.long()
    outside = index[(index < -n) | (index >= n)]
    if len(outside):
        raise ExpungeError(f"{expected}; got {int(outside[0])}.")
    return index
