"""LeNet-5."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """Logits (B, classes): two 5x5 convolutions and three linear layers; 61,706 parameters at 1x28x28 and 10.

    ReLU and max-pooling, as the field uses it today, in place of the paper's squashing functions, trained
    subsampling and radial basis outputs. The paper's input is 32x32; smaller images are padded by 2, so that
    28x28 and 32x32 both leave 16x5x5 = 400 values. Torch's initialisation.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 12.
        classes: number of logits.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B.
    """

    def __init__(self, *, channels: int, size: int, classes: int) -> None:
        super().__init__()
        padding = 2 if size < 32 else 0
        side = ((size + 2 * padding - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=padding),
            nn.MaxPool2d(2),  # before the ReLU: the same values from a quarter of the work
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
        )
        self.head = nn.Linear(84, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(self.features(x_BCHW))
        return logits
