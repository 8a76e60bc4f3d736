"""Random crops and flips of a batch, as plain tensor operations.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.errors import ExpungeError, UnknownName

NAMES = ("crop", "flip", "crop_flip")


def check_augment(name: str) -> None:
    """Raise UnknownName unless `name` is "crop", "flip" or "crop_flip"."""
    if name not in NAMES:
        raise UnknownName("augmentation", name, NAMES)


def augment(x_BCHW: Tensor, names: str, generator: torch.Generator) -> Tensor:
    """New images of the same shape and dtype, each moved and mirrored by its own draw.

    A crop pads with zeros on all sides (see `padding`) and cuts the original size out at a random place. The
    zeros are zeros of the values given: on scaled images the pad has the colour of the channel means.

    Args:
        x_BCHW: images, on any device.
        names: "crop", "flip" (left-right, every second image on average) or "crop_flip".
        generator: where all randomness comes from.

    Raises:
        UnknownName: another name.
        ExpungeError: inputs that are not images.

    Source: pad by 4, crop, mirror: Lee et al., "Deeply-Supervised Nets" (2015); He et al. (2016), 4.2.
    """
    check_augment(names)
    if x_BCHW.ndim != 4:
        raise ExpungeError(f"Only images (B, C, H, W) can be augmented; got shape {tuple(x_BCHW.shape)}.")
    pad = padding(x_BCHW) if "crop" in names else 0
    down_B, right_B, mirrored_B = draw(len(x_BCHW), pad, "flip" in names, generator)
    return moved(x_BCHW, pad, down_B, right_B, mirrored_B)


def padding(x_BCHW: Tensor) -> int:
    """How far a crop can move an image: 4 pixels, an eighth of an image smaller than 32, but at least 1."""
    return min(4, max(1, min(x_BCHW.shape[2:]) // 8))


def draw(count: int, pad: int, flip: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Where each crop starts in the padded image, down and right, 0..2*pad, and whether it is mirrored."""
    device = generator.device
    down_B, right_B = torch.randint(0, 2 * pad + 1, (2, count), generator=generator, device=device)
    if not flip:
        return down_B, right_B, torch.zeros(count, dtype=torch.bool, device=device)
    return down_B, right_B, torch.rand(count, generator=generator, device=device) < 0.5


def moved(x_BCHW: Tensor, pad: int, down_B: Tensor, right_B: Tensor, mirrored_B: Tensor) -> Tensor:
    """Each image cut out of its padded self at (down, right), then mirrored where asked."""
    B, C, H, W = x_BCHW.shape
    device = x_BCHW.device
    down_B, right_B, mirrored_B = (t.to(device) for t in (down_B, right_B, mirrored_B))
    columns_W = torch.arange(W, device=device)
    rows_BH = torch.arange(H, device=device) + down_B[:, None]
    columns_BW = torch.where(mirrored_B[:, None], columns_W.flip(0), columns_W) + right_B[:, None]
    # One gather on flattened pixels: measured at a sixth of the time of indexing with four tensors, and at
    # less than half the time of windows by unfold (256 images of 3x32x32, one CPU thread).
    pixel_B1P = (rows_BH[:, :, None] * (W + 2 * pad) + columns_BW[:, None, :]).view(B, 1, H * W)
    padded_BCP = F.pad(x_BCHW, (pad,) * 4).flatten(2)
    return padded_BCP.gather(2, pixel_B1P.expand(B, C, H * W)).view(B, C, H, W)
