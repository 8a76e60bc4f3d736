"""How arrays of the wild become the three kinds of input that Rows has: uint8 images, floats, tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.errors import ExpungeError

CHANNELS = (1, 3, 4)  # gray, RGB, RGB with alpha: the axis of this size is the channel axis
EXPECTED = "uint8 images (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1, 3 or 4; floats (N, ...); tokens (N, L)"


def inputs(x: Any, name: str = "data") -> Tensor:
    """The same values as Rows has them: uint8 images (N, C, H, W), float32 (N, ...), int64 tokens (N, L).

    An image array whose last axis could be channels has them there, as in NumPy and Pillow.

    Args:
        x: tensor or array of N examples.
        name: what errors call the data.

    Raises:
        ExpungeError: a dtype or shape that is none of the three kinds.
    """
    try:
        x_N = x.detach() if isinstance(x, Tensor) else _tensor(np.ascontiguousarray(x))
    except TypeError:
        raise ExpungeError(
            f"{name}: inputs of dtype {np.asarray(x).dtype} cannot be read; expected {EXPECTED}."
        ) from None
    if x_N.dtype == torch.uint8:
        return channels_first(x_N, name)
    if x_N.is_floating_point() and x_N.ndim >= 2:
        return x_N.float()
    if x_N.dtype in (torch.int8, torch.int16, torch.int32, torch.int64) and x_N.ndim == 2:
        return x_N.long()
    raise ExpungeError(f"{name}: inputs of {x_N.dtype} and shape {tuple(x_N.shape)}; expected {EXPECTED}.")


def _tensor(x: np.ndarray) -> Tensor:
    # torch takes neither foreign byte orders nor, without a warning, arrays that cannot be written.
    return torch.from_numpy(x.astype(x.dtype.newbyteorder("="), copy=not x.flags.writeable))


def channels_first(x_N: Tensor, name: str = "data") -> Tensor:
    """uint8 images as (N, C, H, W), from (N, H, W), (N, H, W, C) or (N, C, H, W).

    Raises:
        ExpungeError: no axis can be the channels.
    """
    if x_N.ndim == 3:
        return x_N.unsqueeze(1)
    if x_N.ndim == 4 and x_N.shape[-1] in CHANNELS:
        return x_N.permute(0, 3, 1, 2).contiguous()
    if x_N.ndim == 4 and x_N.shape[1] in CHANNELS:
        return x_N
    raise ExpungeError(
        f"{name}: uint8 inputs of shape {tuple(x_N.shape)} are not images; expected {EXPECTED}. "
        "Features that are not pixels must be floats; images with other channels go to Rows as (N, C, H, W)."
    )
