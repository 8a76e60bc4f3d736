"""CAM and Grad-CAM against what NumPy and SciPy say, and on every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nets import Pooled, flat, images, seeded
from scipy.signal import correlate2d
from torch import nn

import expunge as ex
from expunge import explain
from expunge.explain.layers import grid

SMALL = {"resnet18": {"width": 8}, "resnet9": {"width": 8}, "allcnn": {"width": 16}, "convnet": {"width": 8}}
SMALL |= {"vit_tiny": {"dim": 24, "depth": 3}}
# where each one is looked at by default, at 32 pixels
LAYERS = {
    "alexnet": "features.11",
    "allcnn": "head",
    "convnet": "features.10",
    "lenet": "features.5",
    "mobilenet_v2": "last",
    "resnet18": "stage4",
    "resnet9": "stage3",
    "vgg11_bn": "features.27",
    "vit_tiny": "blocks.2.norm1",
}


def built(name: str, size: int = 32, channels: int = 3) -> nn.Module:
    return seeded(lambda: ex.models.build(name, channels=channels, size=size, classes=4, **SMALL.get(name, {})))


def stretched(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation, one axis after the other; pixel centres at halves, edges repeated."""
    for axis, n in ((1, size[0]), (2, size[1])):
        m = maps.shape[axis]
        at = (np.arange(n) + 0.5) * m / n - 0.5
        maps = np.apply_along_axis(lambda line, at=at, m=m: np.interp(at, np.arange(m), line), axis, maps)
    return maps


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layer", ["0", "1", None])
def test_grad_cam_against_numpy(layer: str | None, inplace: bool) -> None:
    model, x, classes = flat(inplace), images(3, 2, 6, 8), torch.tensor([0, 2, 3])
    kernel, bias = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    before = np.array(
        [
            [sum(correlate2d(x[b, i], kernel[k, i], "valid") for i in range(2)) + bias[k] for k in range(3)]
            for b in range(3)
        ]
    )
    weight = model[3].weight.detach().numpy().reshape(4, 3, 4, 6)[classes]
    gradient, out = (weight * (before > 0), before) if layer == "0" else (weight, np.maximum(before, 0))
    coarse = np.maximum((gradient.mean((2, 3))[:, :, None, None] * out).sum(1), 0)
    assert (coarse > 0).any()
    found = explain.grad_cam(model, x, classes, layer=layer)
    np.testing.assert_allclose(found, stretched(coarse, (6, 8)), atol=1e-6)


@pytest.mark.parametrize("inplace", [False, True])
def test_cam_is_grad_cam_up_to_the_number_of_places(inplace: bool) -> None:
    model, x, classes = seeded(lambda: Pooled(inplace)), images(6, 2, 7, 7), torch.tensor([0, 1, 2, 3, 0, 1])
    cam = explain.cam(model, x, classes)
    assert cam.min() < 0 < cam.max()
    torch.testing.assert_close(cam.relu() / 49, explain.grad_cam(model, x, classes, layer="relu"), atol=1e-7, rtol=1e-5)
    logits = model(x).gather(1, classes[:, None])[:, 0] - model.head.bias[classes]
    torch.testing.assert_close(cam.mean((1, 2)), logits.detach(), atol=1e-6, rtol=1e-5)


def test_cam_whichever_way_the_average_is_written() -> None:
    one = seeded(Pooled).eval()
    head = nn.Conv2d(5, 4, 1)
    head.weight.data, head.bias.data = one.head.weight.data[:, :, None, None], one.head.bias.data
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    x, classes = images(4, 2, 7, 7), torch.arange(4)
    expected = explain.cam(one, x, classes)
    for end in ([*pool, nn.Dropout(0.5), one.head], [head, *pool]):
        other = nn.Sequential(one.conv, one.relu, *end)
        torch.testing.assert_close(explain.cam(other, x, classes), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_every_architecture(name: str) -> None:
    model, x, classes = built(name), images(2, 3, 32, 32), torch.tensor([1, 3])
    assert explain.default_layer(model, x) == LAYERS[name]
    maps = explain.grad_cam(model, x, classes)
    assert maps.shape == (2, 32, 32)
    assert maps.min() >= 0 < maps.max()
    torch.testing.assert_close(maps, explain.grad_cam(model, x, classes, layer=LAYERS[name]))
    assert not torch.equal(maps[:1], explain.grad_cam(model, x[:1], torch.tensor([2])))


FEATURES = {
    "resnet18": lambda m, x: m.stage4(m.stage3(m.stage2(m.stage1(m.stem(x))))),
    "mobilenet_v2": lambda m, x: m.last(m.blocks(m.stem(x))),
    "allcnn": lambda m, x: m.features(x),
    "vgg11_bn": lambda m, x: m.features(x),
}


@pytest.mark.parametrize("name", FEATURES)
def test_cam_of_architectures_that_average(name: str) -> None:
    model, x, classes = built(name).eval(), images(2, 3, 48, 48), torch.tensor([3, 0])
    with torch.no_grad():
        features = FEATURES[name](model, x)
    weight = model.head.weight.detach().flatten(1)[classes]
    coarse = np.einsum("bc,bchw->bhw", weight, features)
    torch.testing.assert_close(
        torch.tensor(coarse).mean((1, 2)) + model.head.bias.detach()[classes],
        model(x).gather(1, classes[:, None])[:, 0].detach(),
        atol=1e-4,
        rtol=1e-4,
    )
    found = explain.cam(model, x, classes)
    np.testing.assert_allclose(found, stretched(coarse, (48, 48)), atol=1e-5 * np.abs(coarse).max())


@pytest.mark.parametrize("name", ["lenet", "convnet", "resnet9", "vit_tiny", "mlp"])
def test_cam_refuses_other_forms_and_says_what_to_use(name: str) -> None:
    with pytest.raises(ex.ExpungeError, match=r"averages its last maps.*grad_cam"):
        explain.cam(built(name), images(2, 3, 32, 32), torch.tensor([0, 1]))


def test_a_transformer_against_its_own_pieces() -> None:
    """The last block by hand: the gradient at the patches that the class token attends to."""
    model, x, classes = built("vit_tiny").eval(), images(2, 3, 32, 32), torch.tensor([3, 0])
    block = model.blocks[-1]
    with torch.no_grad():
        patches = model.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([model.token.expand(2, -1, -1), patches], 1) + model.positions
        tokens = model.blocks[:-1](tokens)
    normed = block.norm1(tokens).detach().requires_grad_()
    after = tokens + block.attention(normed)
    after = after + block.fc2(block.gelu(block.fc1(block.norm2(after))))
    model.head(model.norm(after)[:, 0]).gather(1, classes[:, None]).sum().backward()
    weights = normed.grad[:, 1:].mean(1, keepdim=True)
    coarse = (weights * normed[:, 1:]).sum(2).relu().detach().view(2, 8, 8)
    assert coarse.max() > 0
    found = explain.grad_cam(model, x, classes)
    np.testing.assert_allclose(found, stretched(coarse.numpy(), (32, 32)), atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((1, 8, 3, 5), (30, 50), (3, 5)),
        ((1, 65, 24), (32, 32), (8, 8)),
        ((1, 64, 24), (32, 32), (8, 8)),
        ((1, 198, 24), (224, 224), (14, 14)),  # class and distillation tokens
        ((1, 33, 24), (16, 32), (4, 8)),
        ((1, 9), (32, 32), (0, 0)),
        ((1, 6, 24), (64, 64), (2, 2)),
        ((1, 30, 24), (32, 32), (5, 5)),
        ((1, 22, 24), (16, 32), (3, 6)),
    ],
)
def test_grid_of_tokens(shape, size, expected) -> None:
    assert grid(shape, size) == expected


def test_normalise() -> None:
    maps = torch.tensor([[[0.0, 2.0], [4.0, 1.0]], [[-1.0, 1.0], [0.0, 0.0]], [[-3.0, -1.0], [-3.0, 0.0]]])
    expected = torch.tensor([[[0.0, 0.5], [1.0, 0.25]], [[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(explain.normalise(maps), expected)


def test_a_score_that_hangs_on_nothing_has_an_empty_map() -> None:
    model = seeded(Pooled)
    model.head.weight.data.zero_()
    assert not explain.grad_cam(model, images(2, 2, 7, 7), torch.tensor([0, 1])).any()


def test_captum_agrees() -> None:
    attr = pytest.importorskip("captum.attr")
    model, x, classes = flat(), images(3, 2, 6, 8), torch.tensor([0, 2, 3])
    ours = explain.grad_cam(model, x, classes, layer="0")
    theirs = attr.LayerGradCam(model, model[0]).attribute(x, classes, relu_attributions=True)
    theirs = torch.nn.functional.interpolate(theirs, (6, 8), mode="bilinear")[:, 0]
    torch.testing.assert_close(ours, theirs.detach())
    theirs = attr.IntegratedGradients(model).attribute(x, target=classes, n_steps=32).sum(1).float()
    torch.testing.assert_close(explain.integrated_gradients(model, x, classes), theirs, atol=1e-5, rtol=1e-4)
    theirs = attr.Saliency(model).attribute(x, classes).amax(1)
    torch.testing.assert_close(explain.saliency(model, x, classes), theirs)


def test_the_default_is_behind_the_activation() -> None:
    """Pool before or after ReLU, one ReLU for all, ReLU as a function: as near to the scores as places are kept."""
    x, relu, pool = images(1, 3, 8, 8), nn.ReLU(), nn.MaxPool2d(2)

    def chosen(*cells: nn.Module) -> str:
        model = nn.Sequential(*cells, nn.Flatten(), nn.LazyLinear(4))
        seeded(lambda: model(x))
        return explain.default_layer(model, x)

    def conv(before: int = 3) -> nn.Module:
        return nn.Conv2d(before, 4, 3, padding=1)

    assert chosen(conv(), nn.ReLU(), pool) == "1"
    assert chosen(conv(), pool, nn.ReLU()) == "2"
    assert chosen(conv(), nn.AdaptiveMaxPool2d(1), nn.ReLU()) == "0"
    assert chosen(conv(), relu, conv(4), nn.BatchNorm2d(4), relu) == "3"
    assert chosen(conv(), nn.BatchNorm2d(4), pool) == "1"
    assert chosen(conv(), nn.ReLU(), pool, nn.AvgPool2d(4), conv(4), nn.ReLU()) == "1"


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.relu(self.conv(self.relu(self.conv(x)))).amax((2, 3)))


def test_a_layer_that_is_called_twice_is_refused() -> None:
    for layer in ("conv", None):
        with pytest.raises(ex.ExpungeError, match="called 2 times"):
            explain.grad_cam(seeded(Twice), images(2, 3, 8, 8), torch.tensor([0, 1]), layer=layer)


class Tokens(nn.Module):
    """Patches as tokens, normalised, averaged: with one norm for both uses, or with two."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 4)
        self.first = nn.LayerNorm(6)
        self.last = self.first if shared else nn.LayerNorm(6)

    def forward(self, x):
        return self.head(self.last(self.first(self.patches(x).flatten(2).mT).tanh()).square().mean(1))


def test_tokens_that_are_averaged() -> None:
    x, y = images(2, 3, 16, 32), torch.tensor([0, 1])
    assert explain.default_layer(seeded(lambda: Tokens(False)), x) == "last"
    with pytest.raises(ex.ExpungeError, match="'first' is called 2 times"):
        explain.grad_cam(seeded(lambda: Tokens(True)), x, y)


def test_layers_that_cannot_be_looked_at() -> None:
    model, x, classes = built("lenet"), images(2, 3, 32, 32), torch.tensor([0, 1])
    with pytest.raises(ex.ExpungeError, match=r"Unknown layer 'features.33'. Did you mean 'features.3'"):
        explain.grad_cam(model, x, classes, layer="features.33")
    with pytest.raises(ex.ExpungeError, match=r"'head' yields \(B, 4\), which tells no places"):
        explain.grad_cam(model, x, classes, layer="head")
    with pytest.raises(ex.ExpungeError, match=r"no convolutional layer.*saliency"):
        explain.grad_cam(built("mlp"), x, classes)
