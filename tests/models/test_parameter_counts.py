"""Parameter counts against published numbers and sums worked out by hand from the papers' tables."""

import pytest
import torch

from expunge import models


def count(name, **arguments):
    with torch.device("meta"):  # shapes only: nothing is drawn
        return sum(p.numel() for p in models.build(name, **arguments).parameters())


def conv(before, after, kernel, bias=True):
    return before * after * kernel * kernel + after * bias


def linear(before, after, bias=True):
    return before * after + after * bias


@pytest.mark.parametrize(
    ("name", "arguments", "published"),
    [
        ("lenet", {"channels": 1, "size": 28}, 61_706),
        ("lenet", {"channels": 3, "size": 32}, 62_006),
        ("resnet18", {}, 11_173_962),
        ("resnet9", {}, 6_573_120),  # the original: convolutions and head without bias
        ("vgg11_bn", {}, 9_231_114),
        ("vgg16_bn", {}, 14_728_266),
        ("mobilenet_v2", {}, 2_296_922),
        ("allcnn", {}, 1_369_738),
        ("convnet", {}, 320_010),  # data-set condensation's ConvNet-3
        ("vit_tiny", {"patch": 16, "size": 224, "classes": 1000}, 5_717_416),  # DeiT-Ti
        (
            "vit_tiny",
            {"patch": 16, "size": 224, "classes": 1000, "dim": 384, "heads": 6},
            22_050_664,
        ),  # DeiT-S
    ],
)
def test_published(name, arguments, published):
    assert count(name, **arguments) == published


def test_mobilenet_is_the_papers_plus_shortcuts():
    imagenet = 3_504_872  # MobileNetV2 1.0 with 1000 classes
    heads = linear(1280, 10) - linear(1280, 1000)
    changes = [(32, 16), (16, 24), (64, 96), (160, 320)]  # blocks of stride 1 that change the channels
    shortcuts = sum(conv(a, b, 1, bias=False) + 2 * b for a, b in changes)
    first = conv(32, 32, 1, bias=False) + 2 * 32
    assert count("mobilenet_v2") == imagenet + heads + shortcuts + first


@pytest.mark.parametrize(("width", "channels", "classes"), [(64, 3, 10), (16, 3, 10), (16, 1, 7)])
def test_resnet9_by_hand(width, channels, classes):
    w = width
    steps = [(channels, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)]
    steps += [(8 * w, 8 * w), (8 * w, 8 * w)]
    by_hand = sum(conv(a, b, 3, bias=False) + 2 * b for a, b in steps) + linear(8 * w, classes, bias=False)
    assert by_hand == 9 * channels * w + 9 * 178 * w**2 + 2 * 35 * w + 8 * classes * w
    assert count("resnet9", width=width, channels=channels, classes=classes) == by_hand


def test_resnet9_without_normalisation_has_biases():
    # Scale and shift of 35 * width channels make way for one bias each.
    assert count("resnet9", width=16) - count("resnet9", width=16, norm="none") == 35 * 16


@pytest.mark.parametrize("width", [64, 16])
def test_resnet18_by_hand(width):
    total = conv(3, width, 3, bias=False) + 2 * width
    before = width
    for after in (width, 2 * width, 4 * width, 8 * width):
        total += conv(before, after, 3, bias=False) + 3 * conv(after, after, 3, bias=False) + 4 * 2 * after
        if before != after:
            total += conv(before, after, 1, bias=False) + 2 * after
        before = after
    assert count("resnet18", width=width) == total + linear(8 * width, 10)


@pytest.mark.parametrize(("channels", "batch_norm"), [(3, False), (1, False), (3, True)])
def test_allcnn_from_table_1(channels, batch_norm):
    table = [(channels, 96, 3), (96, 96, 3), (96, 96, 3), (96, 192, 3), (192, 192, 3), (192, 192, 3)]
    table += [(192, 192, 3), (192, 192, 1)]
    per_channel = 2 if batch_norm else 1  # scale and shift in place of a bias
    by_hand = sum(conv(a, b, k, bias=False) + per_channel * b for a, b, k in table) + conv(192, 10, 1)
    assert count("allcnn", channels=channels, batch_norm=batch_norm) == by_hand


@pytest.mark.parametrize(("size", "left"), [(28, 1), (32, 1), (64, 2)])
def test_alexnet_by_hand(size, left):
    features = conv(3, 64, 11) + conv(64, 192, 5) + conv(192, 384, 3) + conv(384, 256, 3) + conv(256, 256, 3)
    assert count("alexnet", size=size) == features + linear(256 * left * left, 10)


@pytest.mark.parametrize(("size", "left"), [(8, 1), (28, 3), (32, 4)])
@pytest.mark.parametrize(("norm", "per_channel"), [("instance", 2), ("batch", 2), ("group", 2), ("none", 0)])
def test_convnet_by_hand(size, left, norm, per_channel):
    features = conv(1, 32, 3) + 2 * conv(32, 32, 3) + 3 * 32 * per_channel
    assert count("convnet", channels=1, size=size, width=32, norm=norm) == features + linear(32 * left * left, 10)


def test_mlp_by_hand():
    assert count("mlp", channels=1, size=28) == linear(784, 256) + linear(256, 128) + linear(128, 10)
    assert count("mlp", channels=1, size=8, hidden=[5]) == linear(64, 5) + linear(5, 10)
    assert count("mlp", channels=3, size=8, classes=7, hidden=[]) == linear(192, 7)


def test_small_vit_by_hand():
    dim, depth, tokens = 48, 2, 16 + 1
    block = linear(dim, 3 * dim) + linear(dim, dim) + linear(dim, 2 * dim) + linear(2 * dim, dim) + 4 * dim
    by_hand = conv(1, dim, 2) + dim + tokens * dim + depth * block + 2 * dim + linear(dim, 10)
    assert count("vit_tiny", channels=1, size=8, dim=dim, depth=depth, heads=4, mlp_ratio=2) == by_hand
