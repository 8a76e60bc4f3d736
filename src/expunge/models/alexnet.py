"""AlexNet for images of 28 or 32 pixels."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from expunge.models.parts import he_initialise


class AlexNet(nn.Module):
    """Logits (B, classes): AlexNet's five convolutions with 2x2 pools and a single linear layer.

    2,472,266 parameters at 3x32x32 and 10 classes. Channels are those of Krizhevsky's one-tower version (64,
    192, 384, 256, 256). Pools round up, so that 28 pixels are enough for all three (28 -> 7 -> 4 -> 2 -> 1).
    He initialisation, since nothing is normalised; the head has torch's.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 17.
        classes: number of logits.
        dropout: share of the last features dropped in training; default 0 (the small-image version has none).

    Source: Krizhevsky et al., NIPS 2012; Krizhevsky, One weird trick, arXiv:1404.5997 (channels).
    """

    def __init__(self, *, channels: int, size: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 11, stride=4, padding=5),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        self.reset_parameters()
        self.head = nn.Linear(256 * ceil(size / 32) ** 2, classes)

    def reset_parameters(self) -> None:
        """Draw all but the head anew."""
        he_initialise(self.features)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(self.features(x_BCHW))
        return logits
