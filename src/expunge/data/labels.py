"""Labels as people give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.errors import ExpungeError


def labels(y: Any) -> Tensor:
    """The labels as (N,) int64.

    Args:
        y: (N,), an array, a tensor or a list of whole numbers from 0, whatever their dtype.

    Raises:
        ExpungeError: another shape, or values that are no whole numbers from 0.
    """
    values = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if values.ndim != 1:
        raise ExpungeError(f"Labels must have shape (N,), one integer for each row; got shape {values.shape}.")
    whole = values.dtype.kind in "iu" or (
        values.dtype.kind == "f" and bool((np.isfinite(values) & (values == np.round(values))).all())
    )
    if not whole:
        example = values[0] if len(values) else "none"
        raise ExpungeError(f"Labels must be integers from 0; got {values.dtype} values such as {example!r}.")
    y_N = torch.as_tensor(values.astype(np.int64))
    if len(y_N) and int(y_N.min()) < 0:
        raise ExpungeError(f"Labels must be integers from 0; the smallest is {int(y_N.min())}.")
    return y_N
