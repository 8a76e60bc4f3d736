"""Small networks whose explanations can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def seeded(make, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


class Pooled(nn.Module):
    """Convolution, ReLU, average, linear head: the form that class activation maps are made for."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(5, 4)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(x_BCHW)).mean((2, 3)))


def flat(inplace: bool = False) -> nn.Module:
    """Convolution, ReLU, and a head that has a weight for each place: 2x6x8 pixels, 3x4x6 activations, 4 classes."""
    return seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(3 * 4 * 6, 4)).eval()
    )


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
