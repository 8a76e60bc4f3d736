"""Maps from gates, against their closed form."""

from __future__ import annotations

import pytest
import torch
from nets import Pooled, flat, images, seeded
from torch import nn

from expunge import ExpungeError, explain


def test_of_a_network_with_an_average_it_is_the_head_times_what_is_closed():
    model, x = seeded(Pooled).eval(), images(6, 2, 5, 7)
    classes = torch.tensor([0, 1, 2, 3, 1, 0])
    closed = torch.rand((4, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a = model.conv(x)
        own = a - model.conv.bias[:, None, None]
        weights = model.head.weight[classes] * closed[classes]
        want = (weights[:, :, None, None] * own * (a > 0)).sum(1) / 35
    for inplace in (False, True):
        model.relu.inplace = inplace
        got = explain.gate_maps({"conv.weight": closed})(model, x, classes)
        torch.testing.assert_close(got, want)
        in_parts = explain.gate_maps({"conv.weight": closed})(model, x, classes, batch_size=4)
        torch.testing.assert_close(in_parts, want)
    assert not model.conv._forward_hooks


def test_layers_add_up_and_those_without_places_count_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Tanh(), nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 4)).eval()
    x, classes = images(3, 1, 4, 4), torch.tensor([1, 2, 3])
    draws = torch.Generator().manual_seed(0)
    a, b, c = (torch.rand((4, k), generator=draws) for k in (3, 2, 4))
    first = explain.gate_maps({"0.weight": a})(model, x, classes)
    second = explain.gate_maps({"2.weight": b})(model, x, classes)
    both = explain.gate_maps({"0.weight": a, "2.weight": b, "4.weight": c})(model, x, classes)
    torch.testing.assert_close(both, first + second)
    # to first order, that is what a small closing of all gates takes from the score
    step, small = 1e-4, torch.nn.Sequential(*model)
    with torch.no_grad():
        double = [m.double() for m in small]
        before = small(x.double()).gather(1, classes[:, None])[:, 0]
        z = double[2](
            double[1](
                (double[0](x.double()) - _bias(double[0])) * (1 - step * a[classes].double()[:, :, None, None])
                + _bias(double[0])
            )
        )
        z = (z - _bias(double[2])) * (1 - step * b[classes].double()[:, :, None, None]) + _bias(double[2])
        after = double[4](z.flatten(1)).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(both.sum((1, 2)).double(), (before - after) / step, rtol=1e-3, atol=1e-4)


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    return conv.bias[:, None, None]


def test_tokens_are_laid_over_the_image():
    import expunge as ex

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ex.models.build("vit_tiny", channels=1, size=8, classes=3, dim=12, depth=2, heads=3).eval()
    closed = {"blocks.0.fc1.weight": torch.rand(3, 48), "blocks.0.attention.qkv.weight": torch.rand(3, 36)}
    maps = explain.gate_maps(closed)(model, images(2, 1, 8, 8), torch.tensor([0, 2]))
    assert maps.shape == (2, 8, 8)
    assert maps.abs().amax((1, 2)).min() > 0


def test_what_cannot_be_explained_is_said():
    x, classes = images(2, 2, 6, 8), torch.tensor([0, 3])
    closed = torch.rand(4, 3)
    closed[3] = torch.nan
    with pytest.raises(ExpungeError, match="no gates for class 3"):
        explain.gate_maps({"0.weight": closed})(flat(), x, classes)
    with pytest.raises(ExpungeError, match="no gates for class 3"):
        explain.gate_maps({"0.weight": closed[:3]})(flat(), x, classes)
    with pytest.raises(ExpungeError, match="No gated layer of this model tells places"):
        explain.gate_maps({"3.weight": torch.rand(4, 4)})(flat(), x, classes)
    with pytest.raises(ExpungeError, match="Unknown gated layer 'conv'"):
        explain.gate_maps({"conv.weight": torch.rand(4, 3)})(flat(), x, classes)


class Last(nn.Module):
    """A convolution, and one of 1x1 that is written as a linear layer on maps whose channels come last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, width), nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.mix(self.conv(x).relu().permute(0, 2, 3, 1)).relu()
        return self.head(maps.mean((1, 2)))


class First(Last):
    """The same function, with the channels first."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mix = nn.Conv2d(3, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.conv(x).relu()).relu().mean((2, 3)))


class Rows1d(Last):
    """The same function once more, on the places in one row."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mix = nn.Conv1d(3, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.conv(x).relu().flatten(2)).relu().mean(2))


@pytest.mark.parametrize("width", [6, 5])  # as many units as rows of the image, which no shape tells apart, and others
@pytest.mark.parametrize("kind", [First, Rows1d])
def test_a_layer_has_its_units_where_its_kind_has_them(kind, width):
    last, other = seeded(lambda: Last(width)).eval(), kind(width).eval()
    weight = last.mix.weight
    other.load_state_dict({**last.state_dict(), "mix.weight": weight.view(other.mix.weight.shape)})
    x, classes = images(3, 2, 6, 6), torch.tensor([0, 3, 2])
    torch.testing.assert_close(last(x), other(x))
    closed = torch.rand((4, width), generator=torch.Generator().manual_seed(0))
    maps = explain.gate_maps({"mix.weight": closed})(last, x, classes)
    assert maps.std((1, 2)).min() > 1e-4
    torch.testing.assert_close(maps, explain.gate_maps({"mix.weight": closed})(other, x, classes))


def test_arguments_of_another_kind_are_told():
    x, classes, closed = images(2, 2, 6, 8), torch.tensor([0, 3]), torch.rand(4, 3)
    for wrong in (None, [closed], object()):
        with pytest.raises(ExpungeError, match=f"closed\\(classes\\) gives it; got {type(wrong).__name__}"):
            explain.gate_maps(wrong)
    with pytest.raises(ExpungeError, match=r"gates of 0.weight must be a tensor \(classes, units\); got shape \(4,\)"):
        explain.gate_maps({"0.weight": closed[:, 0]})
    with pytest.raises(ExpungeError, match="Layer '0' has 3 units, and there are 2 gates"):
        explain.gate_maps({"0.weight": closed[:, :2]})(flat(), x, classes)
    for explainer in (explain.gate_maps({"0.weight": closed}), explain.saliency):
        with pytest.raises(ExpungeError, match=r"Classes \(B,\) must be a tensor; got list"):
            explainer(flat(), x, [0, 3])
        with pytest.raises(ExpungeError, match=r"Images \(B, C, H, W\) must be a tensor; got ndarray"):
            explainer(flat(), x.numpy(), classes)


def test_an_explainer_that_raises_anything_is_a_row_that_says_why():
    def broken(*_):
        raise RuntimeError("sizes must match")

    ways = {"mine": broken, "chance": explain.chance}
    mine, chance = explain.compare(flat(), images(2, 2, 6, 8), torch.tensor([0, 3]), ways, steps=2)
    assert mine == {"explainer": "mine", "images": 2, "failed": "RuntimeError: sizes must match"}
    assert chance["insertion"] > 0
