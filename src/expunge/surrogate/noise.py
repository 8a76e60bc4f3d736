"""Noise: inputs that are learned against a model which stands still.

Shapes: N images of noise, B batch; `...` is the shape of one input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.weights import copied


class Noise(nn.Module):
    """Noise as a module: its one parameter is the noise, its output what the frozen model says of it.

    So the one loop learns noise as it trains a model: on the rows of `places()`, with the module in the model's place.

    Args:
        model: is copied; neither its weights nor its statistics, gradients and modes are touched.
        x_N: where the noise begins, (N, ...), floating point.
        y_N: the label of each image of noise, (N,).
        batch_statistics: the copy runs as in training, BatchNorm by the statistics of the noise, which then become the
            running ones of the copy. Default no: it runs as in use.
    """

    def __init__(self, model: nn.Module, x_N: Tensor, y_N: Tensor, batch_statistics: bool = False) -> None:
        super().__init__()
        self.x = nn.Parameter(x_N.clone())
        self.y = y_N
        frozen = copied(model).requires_grad_(False).to(x_N.device)
        frozen.train(batch_statistics)
        self._frozen = (frozen,)  # in a tuple, so that `train()` does not reach it

    @property
    def frozen(self) -> nn.Module:
        """The copy of the model."""
        return self._frozen[0]

    def forward(self, index_B: Tensor) -> Any:
        """What the frozen model says of the noise at these places."""
        return self.frozen(self.x[index_B])

    def energy(self) -> Tensor:
        """The mean over images of the squared L2 norm."""
        return self.x.square().flatten(1).sum(1).mean()

    def places(self) -> Rows:
        """What the loop descends on: the places 0..N-1, each with its label."""
        return Rows(torch.arange(len(self.y)), self.y, name="places in the noise")

    def rows(self, classes: Sequence[str]) -> Rows:
        """The noise as it is now, as rows of classes of these names."""
        return Rows(self.x.detach().clone().cpu(), self.y, classes=classes, name="noise")


def gaussian_like(noise: Rows, generator: torch.Generator) -> Rows:
    """Gaussian noise with the labels of other noise, each image scaled to the norm of the one it replaces."""
    x_N = noise.x(torch.arange(len(noise)))
    drawn_N = torch.randn(x_N.shape, generator=generator)
    ratio_N = x_N.flatten(1).norm(dim=1) / drawn_N.flatten(1).norm(dim=1)
    scaled_N = drawn_N * ratio_N.view(-1, *[1] * (x_N.ndim - 1))
    return Rows(scaled_N, noise.y, classes=noise.classes, name="gaussian noise")
