"""The class-conditional denoiser of diffusers at the sizes of this package."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import TYPE_CHECKING, Any

from expunge.errors import MissingExtra

if TYPE_CHECKING:
    from torch import nn


def unet(
    *,
    channels: int,
    size: int,
    classes: int,
    width: int = 32,
    multiples: Sequence[int] = (1, 2, 2),
    layers: int = 1,
    attention: int = 1,
    dropout: float = 0.0,
) -> nn.Module:
    """diffusers' `UNet2DModel` with one condition for each class and, last, one for none.

    No classifier: it returns the noise in images (B, C, H, W) at a time under a condition; `expunge.Diffusion` is its
    task.

    Args:
        channels: C of the images.
        size: H and W of the images, a multiple of 2 to the number of levels less one.
        classes: number of classes; the model has one condition more.
        width: channels of the first level, a multiple of 8; default 32.
        multiples: channels of each level in units of `width`; default 1, 2, 2. The reference of SalUn for CIFAR-10 is
            width 128 with 1, 2, 2, 2 and two layers.
        layers: residual blocks in each level; default 1.
        attention: how many of the last levels attend over all places, 0 or more; default 1.
        dropout: share of values dropped in each block in training; default 0.

    Raises:
        MissingExtra: diffusers is not installed.

    Source: Ho et al. 2020, arXiv:2006.11239 (the architecture), as `diffusers.UNet2DModel`.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise MissingExtra("diffusers", "diffusion", "The model unet") from None
    attends = [level >= len(multiples) - attention for level in range(len(multiples))]
    build: Any = UNet2DModel  # which says nothing of its types
    made: nn.Module = build(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(width * m for m in multiples),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        layers_per_block=layers,
        # a norm of single channels would take away what time and condition add to each channel
        norm_num_groups=gcd(32, width // 4),
        dropout=dropout,
        num_class_embeds=classes + 1,
    )
    return made
