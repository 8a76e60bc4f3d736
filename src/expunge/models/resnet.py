"""Residual networks for small images: ResNet-9 and ResNet-18."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.models.parts import he_initialise, normalise


def _conv(before: int, after: int, norm: str, *, pool: bool = False) -> nn.Sequential:
    cells = [nn.Conv2d(before, after, 3, padding=1, bias=norm == "none"), normalise(norm, after)]
    if pool:
        cells.append(nn.MaxPool2d(2))  # before the ReLU: the same values from a quarter of the work
    return nn.Sequential(*cells, nn.ReLU())


class Residual(nn.Module):
    """The input plus what two convolutions (each with normalisation and ReLU) make of it."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width, norm), _conv(width, width, norm))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape as the input."""
        change_BCHW: Tensor = self.body(x_BCHW)
        return x_BCHW + change_BCHW


class ResNet9(nn.Module):
    """Logits (B, classes): eight convolutions, four of them in residual blocks, a maximum, a linear layer.

    6,573,120 parameters at width 64, 3 channels and 10 classes; the head has no bias. Torch's
    initialisation; He's for the convolutions where nothing is normalised.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 8; not needed to build, the maximum is over whatever is left.
        classes: number of logits.
        width: channels after the first convolution; 8 times as many at the end. Default 64 (Page).
        norm: ``batch`` (default, Page), ``group``, ``instance``, or ``none`` (convolutions have biases then).
        scale: factor on the features before the head, which is a factor on the logits; default 0.125 (Page).

    Source: Page, How to train your ResNet, 2018 (DAWNBench entry for CIFAR-10).
    """

    def __init__(
        self,
        *,
        channels: int,
        size: int,
        classes: int,
        width: int = 64,
        norm: str = "batch",
        scale: float = 0.125,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.stem = _conv(channels, width, norm)
        self.stage1 = nn.Sequential(_conv(width, 2 * width, norm, pool=True), Residual(2 * width, norm))
        self.stage2 = _conv(2 * width, 4 * width, norm, pool=True)
        self.stage3 = nn.Sequential(_conv(4 * width, 8 * width, norm, pool=True), Residual(8 * width, norm))
        self.normalised = norm != "none"
        self.reset_parameters()
        self.head = nn.Linear(8 * width, classes, bias=False)

    def reset_parameters(self) -> None:
        """Draw all but the head anew where nothing is normalised."""
        for part in () if self.normalised else (self.stem, self.stage1, self.stage2, self.stage3):
            he_initialise(part)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x_BCHW = self.stage3(self.stage2(self.stage1(self.stem(x_BCHW))))
        features_BC = x_BCHW.amax(dim=(2, 3))
        logits: Tensor = self.head(features_BC * self.scale)
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.relu2 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Shape (B, after, H / stride, W / stride), rounded up."""
        y_BCHW: Tensor = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x_BCHW)))))
        out_BCHW: Tensor = self.relu2(y_BCHW + self.shortcut(x_BCHW))
        return out_BCHW


class ResNet18(nn.Module):
    """Logits (B, classes): ResNet-18 whose first convolution is 3x3 with stride 1 and has no pool after it.

    11,173,962 parameters at width 64, 3 channels and 10 classes. He initialisation by fan_out for the
    convolutions, as usual for residual networks; torch's for the head.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 5; not needed to build, the average is over whatever is left.
        classes: number of logits.
        width: channels of the first stage, doubled in each of the next three; default 64 (Table 1).

    Source: He et al., Deep residual learning, CVPR 2016, Table 1 (18 layers); the stem is section 4.2's.
    """

    def __init__(self, *, channels: int, size: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stage1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.stage2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.stage3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.stage4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))
        self.head = nn.Linear(8 * width, classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the convolutions anew."""
        for cell in self.modules():
            if isinstance(cell, nn.Conv2d):
                nn.init.kaiming_normal_(cell.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        x_BCHW = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x_BCHW)))))
        logits: Tensor = self.head(x_BCHW.mean(dim=(2, 3)))
        return logits
