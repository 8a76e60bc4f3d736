"""All-CNN-C."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.models.parts import he_initialise


class AllCNN(nn.Module):
    """Logits (B, classes): nine convolutions, strides in place of pools, an average over what is left.

    1,369,738 parameters at 3 channels and 10 classes. No ReLU after the last, so that logits can be negative.
    He initialisation.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 9; not needed to build, the average is over whatever is left.
        classes: number of logits.
        width: channels of the first three convolutions, half those of the next five; default 96 (Table 1).
        batch_norm: whether each convolution but the last is normalised; default no (the paper), though the
            unlearning literature often does, and without it training is slow to start. No biases then.
        dropout: share of values dropped in training after strided convolutions; default 0.5 (section 3.1).
        input_dropout: share of the input dropped in training; default 0.2 (section 3.1).

    Source: Springenberg et al., Striving for simplicity, arXiv:1412.6806, Tables 1 and 2, model All-CNN-C.
    """

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        classes: int,
        width: int = 96,
        batch_norm: bool = False,
        dropout: float = 0.5,
        input_dropout: float = 0.2,
    ) -> None:
        super().__init__()

        def conv(before: int, after: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
            cell = nn.Conv2d(before, after, kernel, stride, padding, bias=not batch_norm)
            return [cell, nn.BatchNorm2d(after), nn.ReLU()] if batch_norm else [cell, nn.ReLU()]

        wide = 2 * width
        self.features = nn.Sequential(
            nn.Dropout(input_dropout),
            *conv(channels, width),
            *conv(width, width),
            *conv(width, width, stride=2),
            nn.Dropout(dropout),
            *conv(width, wide),
            *conv(wide, wide),
            *conv(wide, wide, stride=2),
            nn.Dropout(dropout),
            *conv(wide, wide, padding=0),  # the paper averages 6x6 values at the end: 8 - 2
            *conv(wide, wide, kernel=1, padding=0),
        )
        self.head = nn.Conv2d(wide, classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        he_initialise(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        scores_BKHW: Tensor = self.head(self.features(x_BCHW))
        return scores_BKHW.mean(dim=(2, 3))
