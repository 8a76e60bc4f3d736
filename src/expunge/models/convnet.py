"""The plain ConvNet of few-shot learning and data-set condensation."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.models.parts import normalise


class ConvNet(nn.Module):
    """Logits (B, classes): blocks of 3x3 convolution, normalisation, ReLU and 2x2 average; a linear layer.

    320,010 parameters at 3x32x32 and 10 classes. Torch's initialisation.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 2**depth.
        classes: number of logits.
        width: channels of each block; default 128 (Zhao et al.).
        depth: number of blocks; default 3 (Zhao et al.).
        norm: ``instance`` (default; Zhao et al.; no running statistics), ``batch``, ``group`` or ``none``.

    Source: Zhao et al., Dataset condensation with gradient matching, ICLR 2021, after Gidaris & Komodakis.
    """

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        classes: int,
        width: int = 128,
        depth: int = 3,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        features: list[nn.Module] = []
        for before in (channels, *[width] * (depth - 1)):
            features += [
                nn.Conv2d(before, width, 3, padding=1),
                normalise(norm, width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*features, nn.Flatten())
        self.head = nn.Linear(width * (size // 2**depth) ** 2, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(self.features(x_BCHW))
        return logits
