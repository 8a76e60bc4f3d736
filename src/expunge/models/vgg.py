"""VGG with batch normalisation, for small images."""

from __future__ import annotations

from torch import Tensor, nn

from expunge.models.parts import he_initialise

# Channels of the convolutions between two pools: configurations A and D of the paper's Table 1.
A = ((64,), (128,), (256, 256), (512, 512), (512, 512))
D = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Logits (B, classes): 3x3 convolutions in five stages, each halving the image, then one linear layer.

    Pools round up, so that 28 pixels are enough for all five; at 32 this makes no difference. He
    initialisation, without which the logits of an untrained model hardly depend on the image; torch's for the
    head.

    Args:
        channels: C of the images.
        size: H and W of the images, at least 17; not needed to build, what is left of the image is averaged.
        classes: number of logits.
        stages: channels of the convolutions of each stage.

    Source: Simonyan & Zisserman, ICLR 2015, Table 1; one linear layer in place of three, as usual for CIFAR.
    """

    def __init__(self, *, channels: int, size: int, classes: int, stages: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        features: list[nn.Module] = []
        before = channels
        for stage in stages:
            for after in stage:
                features += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
            features.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*features)
        self.reset_parameters()
        self.head = nn.Linear(before, classes)

    def reset_parameters(self) -> None:
        """Draw all but the head anew."""
        he_initialise(self.features)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(self.features(x_BCHW).mean(dim=(2, 3)))
        return logits


def vgg11_bn(*, channels: int, size: int, classes: int) -> VGG:
    """Configuration A with batch normalisation: 9,231,114 parameters at 3 channels and 10 classes."""
    return VGG(channels=channels, size=size, classes=classes, stages=A)


def vgg16_bn(*, channels: int, size: int, classes: int) -> VGG:
    """Configuration D with batch normalisation: 14,728,266 parameters at 3 channels and 10 classes."""
    return VGG(channels=channels, size=size, classes=classes, stages=D)
