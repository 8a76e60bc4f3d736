"""Random maps: what every explanation must beat.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.explain.layers import upsample
from expunge.run import Run


def chance(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, *, side: int | None = None, seed: int = 0) -> Tensor:
    """Maps (B, H, W), uniform from 0 to 1, that know nothing of the model.

    Args:
        model: not looked at; here so that all explainers are called alike.
        x_BCHW: images, of which only the shape counts.
        classes_B: not looked at.
        side: draw a grid of this many rows and columns and interpolate. Default: each pixel by itself. Scattered
            pixels hide an image better than patches do, so for maps of a coarse layer the fair control is coarse.
        seed: default 0.

    Raises:
        ExpungeError: no images, or a grid without cells.
    """
    if x_BCHW.ndim != 4 or (side is not None and side < 1):
        raise ExpungeError(
            f"Random maps need images (B, C, H, W) and side of at least 1; got {tuple(x_BCHW.shape)} and {side}."
        )
    B, size = len(x_BCHW), (x_BCHW.shape[2], x_BCHW.shape[3])
    drawn = torch.rand((B, *(size if side is None else (side, side))), generator=Run(seed=seed).generator("chance map"))
    return (drawn if side is None else upsample(drawn, size)).to(x_BCHW.device)
