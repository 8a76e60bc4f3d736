"""Multi-layer perceptron."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Logits (B, classes) of flattened images, through fully connected ReLU layers. Torch's initialisation.

    Args:
        channels: C of the images.
        size: H and W of the images.
        classes: number of logits.
        hidden: width of each hidden layer; none makes it logistic regression. Default 256, 128 (ours).
    """

    def __init__(self, *, channels: int, size: int, classes: int, hidden: tuple[int, ...] = (256, 128)) -> None:
        super().__init__()
        widths = (channels * size * size, *hidden)
        body: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            body += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(self.body(x_BCHW))
        return logits
