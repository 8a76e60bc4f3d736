"""Gradients of a small network by NumPy, in float64, row by row: the independent side of what per-sample tests compare.

Shapes: N rows, i inputs, h hidden, C classes, d weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from expunge.data import Rows
from expunge.task import Classification


class Wide(nn.Module):
    """A tanh network in float64 that takes rows of float32."""

    def __init__(self, inputs: int = 5, hidden: int = 4, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.Linear(inputs, hidden, dtype=torch.float64)
        self.b = nn.Linear(hidden, classes, dtype=torch.float64)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))

    def forward(self, x_B: Tensor) -> Tensor:
        return self.b(self.a(x_B.double()).tanh())


@dataclass(frozen=True)
class Exact(Classification):
    """Classification that leaves float64 as it is."""

    def logits(self, model: nn.Module, x_B: Tensor) -> Tensor:
        return model(x_B)


def some_rows(n: int = 40, inputs: int = 5, classes: int = 3, seed: int = 1) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(n, inputs, generator=generator) + torch.nn.functional.one_hot(y, inputs)
    return Rows(x, y, classes=[str(c) for c in range(classes)])


def probabilities(net: Wide, x_Ni: np.ndarray) -> np.ndarray:
    (a, a0), (b, b0) = ((m.weight.detach().numpy(), m.bias.detach().numpy()) for m in (net.a, net.b))
    z = np.tanh(x_Ni @ a.T + a0) @ b.T + b0
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def through(net: Wide, x_Ni: np.ndarray, slope_NC: np.ndarray) -> np.ndarray:
    """The gradients (N, d) of numbers whose slope in the scores is given, written out layer by layer."""
    b = net.b.weight.detach().numpy()
    h = np.tanh(x_Ni @ net.a.weight.detach().numpy().T + net.a.bias.detach().numpy())
    below = (slope_NC @ b) * (1 - h**2)
    parts = [np.einsum("nh,ni->nhi", below, x_Ni), below, np.einsum("nc,nh->nch", slope_NC, h), slope_NC]
    return np.concatenate([p.reshape(len(x_Ni), -1) for p in parts], 1)


def of_loss(net: Wide, x_Ni: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """Of cross-entropy: the slope is p − one-hot."""
    p = probabilities(net, x_Ni)
    return through(net, x_Ni, p - np.eye(p.shape[1])[y_N])


def of_norm(net: Wide, x_Ni: np.ndarray) -> np.ndarray:
    """Of the squared norm of the scores: the slope is twice the scores."""
    h = np.tanh(x_Ni @ net.a.weight.detach().numpy().T + net.a.bias.detach().numpy())
    return through(net, x_Ni, 2 * (h @ net.b.weight.detach().numpy().T + net.b.bias.detach().numpy()))


def arrays(rows: Rows, index: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return rows.x(index).double().numpy(), rows.y[index].numpy()
