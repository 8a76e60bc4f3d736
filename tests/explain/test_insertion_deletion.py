from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from nets import images, seeded
from scipy.ndimage import gaussian_filter
from torch import nn

import expunge as ex
from expunge import explain
from expunge.explain.insertion_deletion import ranks

SLOPE = 1.5


class Block(nn.Module):
    """Looks at a block of 2x3 pixels: the odds of class 1 are exp(SLOPE * (sum of the block - 3))."""

    def forward(self, x):
        seen = SLOPE * (x[:, 0, 1:3, 2:5].sum((1, 2)) - 3)
        return torch.stack([torch.zeros_like(seen), seen], 1)


@pytest.fixture
def block() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two white images of 5x6 pixels, their class, and maps that mark the block and everything else."""
    maps = torch.zeros(2, 5, 6)
    maps[0, 1:3, 2:5] = 1
    maps[1] = 1 - maps[0]
    return torch.ones(2, 1, 5, 6), torch.tensor([1, 1]), maps


def sigmoid(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))


def test_areas_in_closed_form(block) -> None:
    """One pixel a step: the block goes in the first six steps of one map, in the last six of the other."""
    x, y, maps = block
    falls = sigmoid(SLOPE * (3 - np.arange(7)))  # six pixels of the block left, five, ... none
    first = np.r_[falls, np.full(24, falls[-1])]
    last = np.r_[np.full(24, falls[0]), falls]
    black = torch.zeros(1, 5, 6)
    out = explain.deletion(Block(), x, y, maps, baseline=black, steps=30)
    np.testing.assert_allclose(out.curves, [first, last], atol=1e-6)
    np.testing.assert_allclose(out.shares, np.arange(31) / 30, atol=1e-7)
    area = (sum(falls) - (falls[0] + falls[-1]) / 2 + 24 * falls[-1]) / 30
    assert float(out.auc[0]) == pytest.approx(area, abs=1e-6)
    back = explain.insertion(Block(), x, y, maps, baseline=black, steps=30)
    np.testing.assert_allclose(back.curves, [last[::-1], first[::-1]], atol=1e-6)
    assert float(back.auc[0]) == pytest.approx(1 - area, abs=1e-6)  # the odds are symmetric here


def test_fewer_steps_are_points_of_the_same_curve(block) -> None:
    x, y, maps = block
    many, few = (explain.deletion(Block(), x, y, maps, baseline=torch.zeros(1, 5, 6), steps=n) for n in (30, 4))
    at = [0, 8, 15, 22, 30]  # of 30 pixels, in quarters: 7.5 and 22.5 are rounded to even
    np.testing.assert_allclose(few.shares, np.array(at) / 30, atol=1e-7)
    torch.testing.assert_close(few.curves, many.curves[:, at])
    expected = ((few.curves[:, 1:] + few.curves[:, :-1]) / 2 * few.shares.diff()).sum(1)
    torch.testing.assert_close(few.auc, expected)


def test_batches_do_not_matter(block) -> None:
    x, y, maps = block
    one, all_ = (explain.insertion(Block(), x, y, maps, steps=7, batch_size=n).curves for n in (1, 256))
    torch.testing.assert_close(one, all_)


def test_the_ends_of_the_curves_are_the_image_and_the_baseline() -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 36, 3)))
    x, y, maps = images(4, 2, 6, 6), torch.tensor([0, 1, 2, 0]), images(4, 6, 6, seed=3)
    whole = model(x).softmax(1).gather(1, y[:, None])[:, 0].detach()
    mean = model(x.mean((2, 3), keepdim=True).expand_as(x)).softmax(1).gather(1, y[:, None])[:, 0].detach()
    blurred = torch.tensor(gaussian_filter(x.numpy(), (0, 0, 0.75, 0.75), mode="nearest", truncate=4))
    soft = model(blurred).softmax(1).gather(1, y[:, None])[:, 0].detach()
    out, back = explain.deletion(model, x, y, maps), explain.insertion(model, x, y, maps)
    torch.testing.assert_close(out.curves[:, [0, -1]], torch.stack([whole, mean], 1))
    torch.testing.assert_close(back.curves[:, [0, -1]], torch.stack([soft, whole], 1))


@pytest.mark.parametrize("sigma", [0.5, 2.0, None])
def test_blur_against_scipy(sigma: float | None) -> None:
    x = images(2, 3, 9, 28)
    s = 3.5 if sigma is None else sigma
    expected = gaussian_filter(x.numpy(), (0, 0, s, s), mode="nearest", truncate=3)
    np.testing.assert_allclose(explain.blur(x, sigma), expected, atol=1e-5)


def test_equal_pixels_have_no_order_of_reading() -> None:
    maps = torch.zeros(2, 20, 20)
    maps[1, 19, 19] = 1
    found = ranks(maps)
    assert found[1, 399] == 0
    assert all(torch.equal(row.sort().values, torch.arange(400)) for row in found)
    assert abs(np.corrcoef(np.arange(400), found[0])[0, 1]) < 0.15
    assert not torch.equal(found, ranks(maps, seed=1))
    distinct = images(2, 5, 5)
    expected = (-distinct.flatten(1).numpy()).argsort(1).argsort(1)
    np.testing.assert_array_equal(ranks(distinct), expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"maps_BHW": torch.zeros(2, 6, 5)}, r"shape \(2, 5, 6\) are needed.*got \(2, 6, 5\)"),
        ({"maps_BHW": torch.full((2, 5, 6), float("nan"))}, "gives pixels no order"),
        ({"steps": 31}, "from 1 to the number of pixels, 30; got 31"),
        ({"steps": 0}, "got 0"),
        ({"baseline": "grey"}, "'blur', 'mean' or a tensor; got 'grey'"),
        ({"baseline": torch.zeros(3, 5, 6)}, "got shape"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
@pytest.mark.parametrize("measure", [explain.insertion, explain.deletion])
def test_what_does_not_fit_is_refused(block, measure, change, said: str) -> None:
    x, y, maps = block
    given = {"maps_BHW": maps, "steps": 10, **change}
    with pytest.raises(ex.ExpungeError, match=said):
        measure(Block(), x, y, **given)


@pytest.fixture(scope="module")
def lenet(digits_pair):
    """LeNet on digits enlarged to 16 pixels, and the unseen ones among the first 100 that it gets right."""
    train, test = digits_pair
    model = seeded(lambda: ex.models.build("lenet", channels=1, size=16, classes=10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(0)

    def enlarged(rows, index):
        return nn.functional.interpolate(rows.x(index), size=(16, 16), mode="bilinear")

    for _ in range(5):
        for index in torch.randperm(len(train), generator=order).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(enlarged(train, index)), train.y[index]).backward()
            optimizer.step()
    x, y = enlarged(test, torch.arange(100)), test.y[:100]
    right = model(x).argmax(1) == y
    assert right.float().mean() > 0.9
    return model, x[right], y[right]


def test_explanations_beat_chance_on_real_digits(lenet) -> None:
    model, x, y = lenet
    asked = {**explain.EXPLAINERS, "opposite": lambda *given: -explain.integrated_gradients(*given)}
    rows = {row["explainer"]: row for row in explain.compare(model, x, y, asked, steps=16)}
    assert "averages its last maps" in rows["cam"]["failed"]
    for name in ("grad_cam", "saliency", "integrated_gradients"):
        assert rows[name]["deletion"] < rows["chance"]["deletion"] - 3 * rows[name]["deletion_se"]
    assert rows["integrated_gradients"]["insertion"] > rows["chance"]["insertion"] + 0.05
    assert rows["opposite"]["deletion"] > rows["chance"]["deletion"]
    assert rows["opposite"]["insertion"] < rows["chance"]["insertion"]


def test_compare_is_the_mean_of_the_areas(block) -> None:
    x, y, maps = block
    (row,) = explain.compare(Block(), x, y, {"mine": lambda *_: maps}, steps=10)
    for measure in (explain.insertion, explain.deletion):
        auc = measure(Block(), x, y, maps, steps=10).auc.double().numpy()
        assert row[measure.__name__] == pytest.approx(auc.mean(), abs=1e-5)
        assert row[f"{measure.__name__}_se"] == pytest.approx(auc.std(ddof=1) / np.sqrt(2), abs=1e-5)
    (single,) = explain.compare(Block(), x[:1], y[:1], {"mine": partial(explain.chance, side=2)}, steps=10)
    assert single["deletion_se"] is None
