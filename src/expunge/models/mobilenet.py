"""MobileNetV2 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.models.parts import he_initialise

# Expansion, channels, blocks, stride of the first block: the paper's Table 2, with the strides of the second
# stage (and of the stem) set to 1, so that 32 pixels end as 4.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    cell = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [cell, nn.BatchNorm2d(after)]


class InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; plus a shortcut where the image keeps its size."""

    def __init__(self, before: int, after: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * before
        self.body = nn.Sequential(
            *_conv(before, wide, 1),
            nn.ReLU6(),
            *_conv(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            *_conv(wide, after, 1),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if before == after else nn.Sequential(*_conv(before, after, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Shape (B, after, H / stride, W / stride), rounded up."""
        y_BCHW: Tensor = self.body(x_BCHW)
        return y_BCHW if self.shortcut is None else y_BCHW + self.shortcut(x_BCHW)


class MobileNetV2(nn.Module):
    """Logits (B, classes): 17 inverted residual blocks between two convolutions, an average, a linear layer.

    2,296,922 parameters at 3 channels and 10 classes: the version that is common for CIFAR. Beside the
    strides it differs from the paper's in that blocks of stride 1 that change the number of channels have a
    1x1 shortcut, and in that the first block has a first 1x1 convolution too, which widens nothing. ReLU is
    capped at 6, as in the paper. He initialisation, without which the logits of an untrained model hardly
    depend on the image; torch's for the head.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 5; not needed to build, the average is over whatever is left.
        classes: number of logits.

    Source: Sandler et al., MobileNetV2, CVPR 2018, Table 2.
    """

    def __init__(self, *, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(channels, 32, 3), nn.ReLU6())
        blocks: list[nn.Module] = []
        before = 32
        for expansion, after, repeats, stride in STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(before, after, expansion, stride if i == 0 else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_conv(before, 1280, 1), nn.ReLU6())
        self.reset_parameters()
        self.head = nn.Linear(1280, classes)

    def reset_parameters(self) -> None:
        """Draw all but the head anew."""
        for part in (self.stem, self.blocks, self.last):
            he_initialise(part)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x_BCHW = self.last(self.blocks(self.stem(x_BCHW)))
        logits: Tensor = self.head(x_BCHW.mean(dim=(2, 3)))
        return logits
