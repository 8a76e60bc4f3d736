"""Pieces that several architectures share."""

from __future__ import annotations

from math import gcd

from torch import nn


def normalise(kind: str, width: int) -> nn.Module:
    """A normalisation of `width` channels with scale and shift.

    Args:
        kind: ``batch``; ``group`` (32 groups, or as many as divide `width`; Wu & He 2018); ``instance`` (each
            channel of each image by itself); ``none``. Only ``batch`` keeps statistics of the training data.
        width: number of channels.
    """
    if kind == "batch":
        return nn.BatchNorm2d(width)
    if kind == "none":
        return nn.Identity()
    return nn.GroupNorm(width if kind == "instance" else gcd(32, width), width)


def he_initialise(model: nn.Module) -> None:
    """Draw weights with variance 2 / fan_in and zero the biases, so that ReLU layers keep the signal's scale.

    Torch's default has a sixth of that variance, too little for several layers without normalisation.

    Source: He et al. 2015, equation 10.
    """
    for cell in model.modules():
        if isinstance(cell, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(cell.weight, nonlinearity="relu")
            if cell.bias is not None:
                nn.init.zeros_(cell.bias)
