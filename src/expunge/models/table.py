"""What architectures there are, where they are written, and what they accept. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from expunge.models.field import Field, choice, count, count_or_auto, count_or_zero, counts, positive, share, switch


def patch_for(size: int) -> int:
    """Side of a vision transformer's patches for images of side `size`: 2, 4, 8 or 16.

    4 pixels for 28 and 32 and 16 for 224 are the usual choices; 2 keeps sixteen patches of an 8x8 image.
    """
    return 2 if size <= 16 else 4 if size <= 64 else 8 if size <= 128 else 16


def _vit_problems(size: int, fields: Mapping[str, Any]) -> list[str]:
    problems = []
    patch = fields["patch"] or patch_for(size)
    if size % patch:
        fitting = ", ".join(str(p) for p in range(1, size + 1) if size % p == 0)
        problems.append(
            f"vit_tiny cuts images into patches of {patch}x{patch}, and {size} is not a multiple of {patch}: "
            f"give patch one of {fitting}, or resize the images."
        )
    if fields["dim"] % fields["heads"]:
        problems.append(
            f"vit_tiny: dim ({fields['dim']}) must be a multiple of heads ({fields['heads']}), "
            "since each head gets an equal part of it."
        )
    return problems


def _unet_problems(size: int, fields: Mapping[str, Any]) -> list[str]:
    problems, levels = [], len(fields["multiples"])
    if not levels:
        return ["unet: multiples must name one level at least, such as [1, 2, 2]."]
    if size % 2 ** (levels - 1):
        problems.append(
            f"unet halves the images {levels - 1} times, and {size} is not a multiple of {2 ** (levels - 1)}: "
            "give fewer multiples, or resize the images."
        )
    if fields["width"] % 8:
        problems.append(f"unet: width must be a multiple of 8, the channels of one head; got {fields['width']}.")
    if fields["attention"] > levels:
        problems.append(f"unet has {levels} levels; attention={fields['attention']} asks for more.")
    return problems


def _none(size: int, fields: Mapping[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Args:
        made_by: ``module:callable`` that takes ``channels, size, classes`` and the fields as keywords.
        source: the paper, in a few words.
        smallest: the smallest image side at which every stage still has something to reduce, from the fields.
        fields: the settings, by name.
        problems: what is wrong with a size and fields that are each acceptable, one sentence each.
        family: what it is for, as `Task.family`.
    """

    made_by: str
    source: str
    smallest: Callable[[Mapping[str, Any]], int]
    fields: Mapping[str, Field] = field(default_factory=dict)
    problems: Callable[[int, Mapping[str, Any]], list[str]] = _none
    family: str = "classifier"

    def defaults(self) -> dict[str, Any]:
        """The default of each field."""
        return {name: setting.default for name, setting in self.fields.items()}


TABLE: Mapping[str, Architecture] = MappingProxyType(
    {
        "mlp": Architecture(
            "expunge.models.mlp:MLP",
            "fully connected, ReLU",
            lambda f: 1,
            {"hidden": counts((256, 128))},
        ),
        "lenet": Architecture("expunge.models.lenet:LeNet", "LeCun et al. 1998, LeNet-5", lambda f: 12),
        "convnet": Architecture(
            "expunge.models.convnet:ConvNet",
            "Gidaris & Komodakis 2018; Zhao et al. 2021",
            lambda f: 2 ** f["depth"],
            {"width": count(128), "depth": count(3), "norm": choice("instance", "batch", "group", "none")},
        ),
        "alexnet": Architecture(
            "expunge.models.alexnet:AlexNet",
            "Krizhevsky et al. 2012, for small images",
            lambda f: 17,
            {"dropout": share(0.0)},
        ),
        "allcnn": Architecture(
            "expunge.models.allcnn:AllCNN",
            "Springenberg et al. 2015, All-CNN-C",
            lambda f: 9,
            {
                "width": count(96),
                "batch_norm": switch(False),
                "dropout": share(0.5),
                "input_dropout": share(0.2),
            },
        ),
        "resnet9": Architecture(
            "expunge.models.resnet:ResNet9",
            "Page 2018, DAWNBench",
            lambda f: 8,
            {
                "width": count(64),
                "norm": choice("batch", "group", "instance", "none"),
                "scale": positive(0.125),
            },
        ),
        "resnet18": Architecture(
            "expunge.models.resnet:ResNet18",
            "He et al. 2016, for small images",
            lambda f: 5,
            {"width": count(64)},
        ),
        "vgg11_bn": Architecture(
            "expunge.models.vgg:vgg11_bn", "Simonyan & Zisserman 2015, configuration A", lambda f: 17
        ),
        "vgg16_bn": Architecture(
            "expunge.models.vgg:vgg16_bn", "Simonyan & Zisserman 2015, configuration D", lambda f: 17
        ),
        "mobilenet_v2": Architecture(
            "expunge.models.mobilenet:MobileNetV2", "Sandler et al. 2018, for small images", lambda f: 5
        ),
        "vit_tiny": Architecture(
            "expunge.models.vit:ViT",
            "Dosovitskiy et al. 2021; Touvron et al. 2021, DeiT-Ti",
            lambda f: f["patch"] or 2,
            {
                "patch": count_or_auto(),
                "dim": count(192),
                "depth": count(12),
                "heads": count(3),
                "mlp_ratio": count(4),
            },
            _vit_problems,
        ),
        "unet": Architecture(
            "expunge.models.unet:unet",
            "Ho et al. 2020, as diffusers' UNet2DModel",
            lambda f: 2 ** len(f["multiples"]),
            {
                "width": count(32),
                "multiples": counts((1, 2, 2)),
                "layers": count(1),
                "attention": count_or_zero(1),
                "dropout": share(0.0),
            },
            _unet_problems,
            family="diffusion",
        ),
    }
)
